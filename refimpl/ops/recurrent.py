"""Recurrent layers: LSTM, GRU and the plain RNN, in all directions, each as ONNX defines them.

The cells are written with nothing but ``+``, ``*``, ``@``, indexing and activations, so that whatever has
these can pass through them: arrays, or arrays with their errors (`conformance.bounds.recurrent`).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import scipy  # scipy.special is loaded at its first use

from refimpl.errors import UnsupportedOperationError
from refimpl.ops.operation import Array, Trait, operation

State = Any
"""An array (batch, hidden), or what is computed with in its stead."""
Cell = Callable[..., tuple[State, ...]]
"""Of a step's input and the states, the new states, the hidden one first."""


# --- activations ----------------------------------------------------------------------------------

_ALPHA = {"leakyrelu": 0.01, "hardsigmoid": 0.2, "elu": 1.0, "thresholdedrelu": 1.0, "affine": 1.0}
_ALPHA["scaledtanh"] = 1.0
_BETA = {"hardsigmoid": 0.5, "affine": 0.0, "scaledtanh": 1.0}
_FUNCTIONS: dict[str, Callable[[Array, float, float], Array]] = {
    "sigmoid": lambda x, alpha, beta: np.asarray(scipy.special.expit(x)).astype(x.dtype, copy=False),
    "tanh": lambda x, alpha, beta: np.tanh(x),
    "relu": lambda x, alpha, beta: np.maximum(x, 0),
    "affine": lambda x, alpha, beta: alpha * x + beta,
    "leakyrelu": lambda x, alpha, beta: np.where(x < 0, alpha * x, x),
    "thresholdedrelu": lambda x, alpha, beta: np.where(x > alpha, x, 0),
    "scaledtanh": lambda x, alpha, beta: alpha * np.tanh(beta * x),
    "hardsigmoid": lambda x, alpha, beta: np.clip(alpha * x + beta, 0, 1),
    "elu": lambda x, alpha, beta: np.where(x < 0, alpha * np.expm1(np.minimum(x, 0)), x),
    "softsign": lambda x, alpha, beta: x / (1 + np.abs(x)),
    "softplus": lambda x, alpha, beta: np.maximum(x, 0) + np.log1p(np.exp(-np.abs(x))),
}


@dataclass(frozen=True)
class Activation:
    """A function of one tensor, and the size beyond which its operand is cut off.

    Attributes
    ----------
    name
        In lower case.
    alpha, beta
    clip
        None: nothing is cut off.
    """

    name: str
    alpha: float
    beta: float
    clip: float | None

    def of_array(self, x: Array) -> Array:
        """Return the function of an array."""
        x = x if self.clip is None else np.clip(x, -self.clip, self.clip)
        return np.asarray(_FUNCTIONS[self.name](x, self.alpha, self.beta)).astype(x.dtype, copy=False)

    def __call__(self, x: State) -> State:
        """Return the function of an array, or of what is computed with in its stead."""
        return self.of_array(x) if isinstance(x, np.ndarray) else x.activated(self)


def _activations(
    names: Sequence[str], alphas: Sequence[float] | None, betas: Sequence[float] | None, clip: float | None
) -> list[Activation]:
    """Return one activation per name; ONNX lists α and β of those that have one, in their order."""
    alpha, beta = iter(alphas or ()), iter(betas or ())
    found = []
    for name in (each.lower() for each in names):
        if name not in _FUNCTIONS:
            raise UnsupportedOperationError(f"activation {name!r}; expected one of {', '.join(_FUNCTIONS)}")
        first = next(alpha, _ALPHA[name]) if name in _ALPHA else 0.0
        second = next(beta, _BETA[name]) if name in _BETA else 0.0
        found.append(Activation(name, float(first), float(second), clip))
    return found


# --- cells ----------------------------------------------------------------------------------------


def _part(gates: State, place: int, hidden: int) -> State:
    return gates[..., place * hidden : (place + 1) * hidden]


def _lstm_cell(
    x: State,
    h: State,
    c: State,
    *,
    recurrence: Array,
    peepholes: Array | None,
    functions: Sequence[Activation],
    input_forget: int,
) -> tuple[State, State]:
    """Gates in the order input, output, forget, cell; ``x`` has the weights and biases in it."""
    outer, inner, last = functions
    hidden = len(recurrence)
    gates = x + h @ recurrence
    entering, leaving, keeping, new = (_part(gates, place, hidden) for place in range(4))
    if peepholes is not None:
        entering = entering + c * _part(peepholes, 0, hidden)
        keeping = keeping + c * _part(peepholes, 2, hidden)
    entering = outer(entering)
    keeping = 1 - entering if input_forget else outer(keeping)
    c = keeping * c + entering * inner(new)
    if peepholes is not None:
        leaving = leaving + c * _part(peepholes, 1, hidden)
    return outer(leaving) * last(c), c


def _gru_cell(
    x: State, h: State, *, recurrence: Array, shift: Array, functions: Sequence[Activation], linear: int
) -> tuple[State]:
    """Gates in the order update, reset, hidden; ``shift`` is the recurrent bias of the hidden gate."""
    outer, inner = functions
    hidden = len(recurrence)
    to_gates, to_hidden = recurrence[:, : 2 * hidden], recurrence[:, 2 * hidden :]
    gates = x[..., : 2 * hidden] + h @ to_gates
    update, reset = (outer(_part(gates, place, hidden)) for place in range(2))
    entering = _part(x, 2, hidden)
    recurrent = reset * (h @ to_hidden + shift) if linear else (reset * h) @ to_hidden + shift
    new = inner(entering + recurrent)
    return ((1 - update) * new + update * h,)


def _rnn_cell(x: State, h: State, *, recurrence: Array, functions: Sequence[Activation]) -> tuple[State]:
    return (functions[0](x + h @ recurrence),)


# --- layers ---------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Layer:
    """One direction of a recurrent layer: arrays time-major.

    Attributes
    ----------
    inputs : array (time, batch, input)
    weights : array (input, gates · hidden)
    biases : arrays (gates · hidden,)
        Of the inputs and of the hidden state.
    cell
    states : arrays (batch, hidden)
        To begin with.
    lengths : integers (batch,)
    backward
        Whether it runs from each sequence's end.
    """

    inputs: State
    weights: Array
    biases: tuple[Array, ...]
    cell: Cell
    states: tuple[Array, ...]
    lengths: Array
    backward: bool

    def run(
        self, lift: Callable[[Array], State] = lambda x: x, given: Array | None = None
    ) -> tuple[State, ...]:
        """Return every step's hidden state, (time, batch, hidden), and the last states.

        Parameters
        ----------
        lift
            What makes of an array what is computed with.
        given : array (time, batch, hidden)
            Every step's hidden state as somebody else computed it: each step goes on from the one before
            of these.
        """
        x, given = self._in_order(self.inputs), None if given is None else self._in_order(given)
        states: tuple[State, ...] = tuple(lift(state) for state in self.states)
        made = []
        for time in range(len(x)):
            active = time < self.lengths
            if given is not None and time:
                states = (_where(active, lift(given[time - 1]), states[0]), *states[1:])
            new = self.cell(self._affine(lift(x[time])), *states)
            states = tuple(_where(active, *pair) for pair in zip(new, states, strict=True))
            made.append(new[0] if active.all() else new[0] * active[:, None].astype(np.int8))
        return (self._in_order(_stacked(made)), *states)

    def _affine(self, x: State) -> State:
        """Return a step's part of the gates; a runtime may go on adding the hidden state's to it."""
        if isinstance(x, np.ndarray):
            return np.asarray(sum(self.biases, x @ self.weights))
        return x.affine(self.weights, self.biases, further=self.states[0].shape[1])

    def _in_order(self, x: State) -> State:
        """Return the steps in the order they are taken, or back: each sequence as far as it goes."""
        if not self.backward:
            return x
        time = np.arange(len(self.inputs))[:, None]
        return x[np.where(time < self.lengths, self.lengths - 1 - time, time), np.arange(len(self.lengths))]


def _where(active: Array, new: State, old: State) -> State:
    """Return the new state of the sequences that are not at their end."""
    if active.all():
        return new
    going = active[:, None].astype(np.int8)
    return new * going + old * (1 - going)


def _stacked(items: list[State]) -> State:
    return np.stack(items) if isinstance(items[0], np.ndarray) else items[0].stacked(items)


# --- operators ------------------------------------------------------------------------------------


def _lstm_parts(
    recurrence: Array, biases: Array, functions: Sequence[Activation], peepholes: Array | None, options: Any
) -> tuple[tuple[Array, ...], Cell]:
    forget = options.get("input_forget", 0)
    cell = partial(
        _lstm_cell, recurrence=recurrence, peepholes=peepholes, functions=functions, input_forget=forget
    )
    return tuple(np.split(biases, 2)), cell


def _gru_parts(
    recurrence: Array, biases: Array, functions: Sequence[Activation], peepholes: Array | None, options: Any
) -> tuple[tuple[Array, ...], Cell]:
    own, other = np.split(biases, 2)
    gates = 2 * len(recurrence)
    linear = options.get("linear_before_reset", 0)
    cell = partial(_gru_cell, recurrence=recurrence, shift=other[gates:], functions=functions, linear=linear)
    return (own, np.concatenate([other[:gates], np.zeros_like(other[gates:])])), cell


def _rnn_parts(
    recurrence: Array, biases: Array, functions: Sequence[Activation], peepholes: Array | None, options: Any
) -> tuple[tuple[Array, ...], Cell]:
    return tuple(np.split(biases, 2)), partial(_rnn_cell, recurrence=recurrence, functions=functions)


_KINDS: dict[str, tuple[Callable[..., tuple[tuple[Array, ...], Cell]], int, tuple[str, ...]]] = {
    "LSTM": (_lstm_parts, 4, ("Sigmoid", "Tanh", "Tanh")),
    "GRU": (_gru_parts, 3, ("Sigmoid", "Tanh")),
    "RNN": (_rnn_parts, 1, ("Tanh",)),
}
"""Operator → what makes its cell, its gates, and the activations of one direction."""


def layers(op_type: str, operands: Sequence[Array | None], attributes: dict[str, Any]) -> list[Layer]:
    """Return the directions of a recurrent operator, given its operands in ONNX's order and its attributes.

    Raises
    ------
    UnsupportedOperationError
        A direction or an activation that ONNX does not have.
    """
    parts, gates, names = _KINDS[op_type]
    optional: list[Array | None] = [*operands[3:], *(None,) * (8 - len(operands))]
    bias, lengths, hidden_state, cell_state, peepholes = optional
    states = (hidden_state, cell_state) if op_type == "LSTM" else (hidden_state,)
    x, weights, recurrence = (np.asarray(each) for each in operands[:3])
    major = attributes.get("layout", 0)
    x = x.swapaxes(0, 1) if major else x
    count, hidden = len(weights), recurrence.shape[-1]
    functions = _activations_of(names, count, attributes)
    found = []
    for place, backward in enumerate(_directions(attributes.get("direction", "forward"), count)):
        both = np.zeros(2 * gates * hidden, x.dtype) if bias is None else bias[place]
        own = None if peepholes is None else peepholes[place]
        biases, cell = parts(recurrence[place].T, both, functions[place], own, attributes)
        none = np.zeros((x.shape[1], hidden), x.dtype)
        first = tuple(none if s is None else s[:, place] if major else s[place] for s in states)
        ends = np.full(x.shape[1], len(x)) if lengths is None else lengths
        found.append(Layer(x, weights[place].T, biases, cell, first, ends, backward))
    return found


def _directions(direction: str, count: int) -> tuple[bool, ...]:
    """Return whether each direction runs backward."""
    known = {"forward": (False,), "reverse": (True,), "bidirectional": (False, True)}
    if len(known.get(direction, ())) != count:
        raise UnsupportedOperationError(
            f"direction {direction!r} with the weights of {count}; expected one of {', '.join(known)}"
        )
    return known[direction]


def _activations_of(names: tuple[str, ...], count: int, attributes: dict[str, Any]) -> list[list[Activation]]:
    listed = attributes.get("activations") or names * count
    alpha, beta = attributes.get("activation_alpha"), attributes.get("activation_beta")
    functions = _activations(listed, alpha, beta, attributes.get("clip"))
    return [functions[place * len(names) : (place + 1) * len(names)] for place in range(count)]


def assembled(results: Sequence[tuple[State, ...]], layout: int) -> tuple[Array, ...]:
    """Return ONNX's outputs of the directions' results: all hidden states, and the last states."""
    every = np.stack([np.asarray(first) for first, *_ in results], axis=1)
    last = [np.stack([np.asarray(state) for state in states]) for states in zip(*results, strict=True)][1:]
    if layout:
        return (every.transpose(2, 0, 1, 3), *(state.swapaxes(0, 1) for state in last))
    return (every, *last)


def _computed(op_type: str, operands: Sequence[Array | None], attributes: dict[str, Any]) -> Any:
    results = [layer.run() for layer in layers(op_type, operands, attributes)]
    return assembled(results, attributes["layout"])


@operation("LSTM", Trait.ROUNDS)
def lstm(
    x: Array,
    w: Array,
    r: Array,
    b: Array | None = None,
    sequence_lens: Array | None = None,
    initial_h: Array | None = None,
    initial_c: Array | None = None,
    p: Array | None = None,
    *,
    activation_alpha: Sequence[float] | None = None,
    activation_beta: Sequence[float] | None = None,
    activations: Sequence[str] | None = None,
    clip: float | None = None,
    direction: str = "forward",
    hidden_size: int | None = None,
    input_forget: int = 0,
    layout: int = 0,
) -> tuple[Array, Array, Array]:
    """Return every hidden state, the last one and the last cell state. ONNX LSTM.

    Parameters
    ----------
    x : array (time, batch, input), or with ``layout`` (batch, time, input)
    w, r : arrays (directions, 4 · hidden, input), (directions, 4 · hidden, hidden)
        Gates in the order input, output, forget, cell.
    b : array (directions, 8 · hidden), optional
        Those of the inputs, then those of the hidden state.
    sequence_lens : integers (batch,), optional
    initial_h, initial_c : arrays (directions, batch, hidden), optional
    p : array (directions, 3 · hidden), optional
        Peepholes of input, output, forget gate.

    Returns
    -------
    arrays (time, directions, batch, hidden), (directions, batch, hidden), (directions, batch, hidden)
        With ``layout``, the batch comes first.

    Source: Hochreiter & Schmidhuber 1997; Gers, Schraudolph & Schmidhuber 2002; ONNX LSTM.
    """
    operands = (x, w, r, b, sequence_lens, initial_h, initial_c, p)
    attributes = {
        **_shared(activation_alpha, activation_beta, activations, clip, direction, layout),
        "input_forget": input_forget,
    }
    every, hidden, cell = _computed("LSTM", operands, attributes)
    return every, hidden, cell


@operation("GRU", Trait.ROUNDS)
def gru(
    x: Array,
    w: Array,
    r: Array,
    b: Array | None = None,
    sequence_lens: Array | None = None,
    initial_h: Array | None = None,
    *,
    activation_alpha: Sequence[float] | None = None,
    activation_beta: Sequence[float] | None = None,
    activations: Sequence[str] | None = None,
    clip: float | None = None,
    direction: str = "forward",
    hidden_size: int | None = None,
    layout: int = 0,
    linear_before_reset: int = 0,
) -> tuple[Array, Array]:
    """Return every hidden state and the last one. ONNX GRU.

    Parameters as of `lstm`, of three gates in the order update, reset, hidden. ``linear_before_reset`` lets
    the reset gate act on the product with the hidden state, as cuDNN and PyTorch do.

    Source: Cho et al. 2014; ONNX GRU.
    """
    attributes = {
        **_shared(activation_alpha, activation_beta, activations, clip, direction, layout),
        "linear_before_reset": linear_before_reset,
    }
    every, hidden = _computed("GRU", (x, w, r, b, sequence_lens, initial_h), attributes)
    return every, hidden


@operation("RNN", Trait.ROUNDS)
def rnn(
    x: Array,
    w: Array,
    r: Array,
    b: Array | None = None,
    sequence_lens: Array | None = None,
    initial_h: Array | None = None,
    *,
    activation_alpha: Sequence[float] | None = None,
    activation_beta: Sequence[float] | None = None,
    activations: Sequence[str] = ("Tanh", "Tanh"),
    clip: float | None = None,
    direction: str = "forward",
    hidden_size: int | None = None,
    layout: int = 0,
) -> tuple[Array, Array]:
    """Return every hidden state and the last one. ONNX RNN; parameters as of `lstm`, of one gate.

    Source: Elman 1990; ONNX RNN.
    """
    attributes = _shared(activation_alpha, activation_beta, activations, clip, direction, layout)
    every, hidden = _computed("RNN", (x, w, r, b, sequence_lens, initial_h), attributes)
    return every, hidden


def _shared(
    alpha: Any, beta: Any, activations: Any, clip: Any, direction: str, layout: int
) -> dict[str, Any]:
    return {
        "activation_alpha": alpha,
        "activation_beta": beta,
        "activations": activations,
        "clip": clip,
        "direction": direction,
        "layout": layout,
    }

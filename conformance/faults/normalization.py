"""Faults of batch and layer normalisation, and of folding the former."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from conformance.faults.catalogue import Rewriting, Site, Variant, fault
from refimpl.ops.operation import Array

_FOLDING = (
    "Jacob et al., Quantization and Training of Neural Networks (2018), §3.2: folding batch norm, "
    "https://arxiv.org/abs/1712.05877"
)


def _parameters(site: Site) -> tuple[Array, Array, Array, Array] | None:
    values = [site.constant(index) for index in range(1, 5)]
    if any(value is None for value in values):
        return None
    scale, bias, mean, variance = (np.asarray(value, np.float64) for value in values)
    return scale, bias, mean, variance


@fault(
    "normalization/batch norm epsilon",
    "BatchNormalization",
    source="nn-transfer: epsilon is 1e-3 in Keras, 1e-5 in PyTorch, "
    "https://github.com/gzuidhof/nn-transfer/pull/3",
)
def batch_epsilon(site: Site) -> Iterator[Variant]:
    """Another framework's epsilon."""
    for epsilon in (1e-3, 1e-4, 1e-6, 0.0):
        if abs(site.attribute("epsilon", 1e-5) - epsilon) > 1e-7:
            yield site.changed(f"epsilon = {epsilon:g}", epsilon=epsilon)


@fault("normalization/variance instead of deviation", "BatchNormalization", source=_FOLDING)
def variance_for_deviation(site: Site) -> Iterator[Variant]:
    """Divided by the variance, not by its root."""
    if parameters := _parameters(site):
        variance = parameters[3]
        yield site.fed("variance", {4: np.square(variance + site.attribute("epsilon", 1e-5))}, epsilon=0.0)


@fault(
    "normalization/statistics of the batch",
    "BatchNormalization",
    source="PyTorch: a batch norm exported in training mode, https://github.com/pytorch/pytorch/issues/75252",
)
def training_mode(site: Site) -> Iterator[Variant]:
    """Mean and variance of the input itself, as in training, instead of the running ones."""
    rank = len(site.shape(0))
    axes = np.asarray([0, *range(2, rank)], np.int64)
    column = (1, -1, *(1,) * (rank - 2))
    rewriting = Rewriting(site)
    x = site.call.inputs[0]
    centred = rewriting.apply("Sub", x, rewriting.apply("ReduceMean", x, axes, keepdims=1))
    variance = rewriting.apply("ReduceMean", rewriting.apply("Mul", centred, centred), axes, keepdims=1)
    epsilon = np.asarray(site.attribute("epsilon", 1e-5), np.float32)
    deviation = rewriting.apply("Sqrt", rewriting.apply("Add", variance, epsilon))
    scale, bias = (
        rewriting.apply("Reshape", name, np.asarray(column, np.int64)) for name in site.call.inputs[1:3]
    )
    scaled = rewriting.apply("Mul", rewriting.apply("Div", centred, deviation), scale)
    yield rewriting.result("training mode", "Add", scaled, bias)


@fault(
    "normalization/batch norm without scale",
    "BatchNormalization",
    source="Keras, BatchNormalization: scale=False, "
    "https://keras.io/api/layers/normalization_layers/batch_normalization/",
)
def no_scale(site: Site) -> Iterator[Variant]:
    """γ is taken as 1."""
    if parameters := _parameters(site):
        yield site.fed("γ = 1", {1: np.ones_like(parameters[0])})


@fault(
    "normalization/batch norm without shift",
    "BatchNormalization",
    source="Keras, BatchNormalization: center=False, "
    "https://keras.io/api/layers/normalization_layers/batch_normalization/",
)
def no_shift(site: Site) -> Iterator[Variant]:
    """β is taken as 0."""
    if parameters := _parameters(site):
        yield site.fed("β = 0", {2: np.zeros_like(parameters[1])})


@fault(
    "normalization/statistics not loaded",
    "BatchNormalization",
    source="DPC: a checkpoint without running means and variances, "
    "https://github.com/TengdaHan/DPC/issues/10",
)
def initial_statistics(site: Site) -> Iterator[Variant]:
    """Mean 0 and variance 1, as a norm is made."""
    if parameters := _parameters(site):
        zeros, ones = np.zeros_like(parameters[2]), np.ones_like(parameters[3])
        yield site.fed("μ = 0, σ² = 1", {3: zeros, 4: ones})


@fault(
    "normalization/scale and shift exchanged",
    "BatchNormalization",
    "LayerNormalization",
    source="PSPNet-Keras: Caffe's scale, offset, mean and variance read in another order, "
    "https://github.com/Vladkryvoruchko/PSPNet-Keras-tensorflow/issues/31",
)
def exchanged(site: Site) -> Iterator[Variant]:
    """γ stands for β and β for γ."""
    if site.constant(1) is not None and site.constant(2) is not None:
        yield site.fed("γ and β", {1: site.call.inputs[2], 2: site.call.inputs[1]})


@fault("normalization/mean not subtracted", "BatchNormalization", source=_FOLDING)
def no_mean(site: Site) -> Iterator[Variant]:
    """The fold forgets −μγ/σ in the bias."""
    if parameters := _parameters(site):
        yield site.fed("μ = 0", {3: np.zeros_like(parameters[2])})


@fault(
    "normalization/batch norm applied twice",
    "BatchNormalization",
    source="Jacob et al., Quantization and Training of Neural Networks (2018), §3.2: folded norms leave "
    "the graph, "
    "https://arxiv.org/abs/1712.05877",
)
def applied_twice(site: Site) -> Iterator[Variant]:
    """Folded into the convolution and applied again."""
    yield site.after("twice", "BatchNormalization", *site.call.inputs[1:], **site.call.attributes)


@fault(
    "normalization/batch norm missing",
    "BatchNormalization",
    source="openvino2tensorflow: of a convolution and its norm, the convolution is left, "
    "https://github.com/PINTO0309/openvino2tensorflow/issues/68",
)
def batch_norm_missing(site: Site) -> Iterator[Variant]:
    """The norm is left out."""
    yield site.instead("identity", "Identity", site.call.inputs[0])


@fault(
    "normalization/channels permuted",
    "BatchNormalization",
    source="FluxPrune: channels taken from a convolution, and not from its norm, "
    "https://github.com/darsnack/FluxPrune.jl/pull/6",
)
def channels_permuted(site: Site) -> Iterator[Variant]:
    """The norm's parameters belong to other channels: shifted by one, or reversed."""
    if parameters := _parameters(site):
        for detail, move in (
            ("shifted by one", lambda x: np.roll(x, 1)),
            ("reversed", lambda x: x[::-1].copy()),
        ):
            yield site.fed(detail, {index + 1: move(x) for index, x in enumerate(parameters)})


@fault(
    "normalization/activation before the norm",
    "BatchNormalization",
    source="He et al., Identity Mappings (2016): the order of norm and activation, "
    "https://arxiv.org/abs/1603.05027",
)
def activation_first(site: Site) -> Iterator[Variant]:
    """ReLU before the norm instead of after."""
    if site.feeds("Relu"):
        yield site.before("ReLU first", "Relu")


@fault(
    "normalization/layer norm epsilon",
    "LayerNormalization",
    source="GPT4All, BERT: epsilon 1e-5 where the checkpoint has 1e-12, "
    "https://github.com/nomic-ai/gpt4all/pull/1946",
)
def layer_epsilon(site: Site) -> Iterator[Variant]:
    """Another framework's epsilon."""
    for epsilon in (1e-3, 1e-6, 1e-12):
        if abs(site.attribute("epsilon", 1e-5) / epsilon - 1) > 1e-3:
            yield site.changed(f"epsilon = {epsilon:g}", epsilon=epsilon)


@fault(
    "normalization/unbiased variance",
    "LayerNormalization",
    source="LBANN: a layer norm by the unbiased variance, https://github.com/LBANN/lbann/pull/2024",
)
def unbiased(site: Site) -> Iterator[Variant]:
    """Variance divided by n − 1."""
    scale = site.constant(1)
    if scale is not None and scale.size > 1:
        share = (scale.size - 1) / scale.size
        epsilon = site.attribute("epsilon", 1e-5) * share
        yield site.fed("n − 1", {1: scale * np.sqrt(share)}, epsilon=epsilon)


@fault(
    "normalization/layer norm without scale and shift",
    "LayerNormalization",
    source="PyTorch, LayerNorm: elementwise_affine=False, "
    "https://docs.pytorch.org/docs/stable/generated/torch.nn.LayerNorm.html",
)
def no_affine(site: Site) -> Iterator[Variant]:
    """γ = 1 and β = 0."""
    scale = site.constant(1)
    if scale is not None:
        operands: dict[int, str | Array] = {1: np.ones_like(scale)}
        if site.has(2):
            operands[2] = np.zeros_like(scale)
        yield site.fed("γ = 1, β = 0", operands)


@fault(
    "normalization/RMS norm",
    "LayerNormalization",
    source="Zhang & Sennrich, Root Mean Square Layer Normalization (2019), https://arxiv.org/abs/1910.07467",
)
def root_mean_square(site: Site) -> Iterator[Variant]:
    """The mean is not subtracted: divided by the root of the mean square."""
    given = {"axis": site.attribute("axis", -1), "epsilon": site.attribute("epsilon", 1e-5)}
    rewriting = Rewriting(site)
    x, scale, *shift = site.call.inputs
    axes = np.asarray([given["axis"]], np.int64)
    square = rewriting.apply("ReduceMean", rewriting.apply("Mul", x, x), axes, keepdims=1)
    size = rewriting.apply("Sqrt", rewriting.apply("Add", square, np.asarray(given["epsilon"], np.float32)))
    normed = rewriting.apply("Div", x, size)
    if shift:
        yield rewriting.result("with β", "Add", rewriting.apply("Mul", normed, scale), shift[0])
    else:
        yield rewriting.result("without β", "Mul", normed, scale)


@fault(
    "normalization/layer norm missing",
    "LayerNormalization",
    source="Xiong et al., On Layer Normalization in the Transformer Architecture (2020), "
    "https://arxiv.org/abs/2002.04745",
)
def layer_norm_missing(site: Site) -> Iterator[Variant]:
    """The norm is left out."""
    yield site.instead("identity", "Identity", site.call.inputs[0])


@fault(
    "normalization/norm before the residual",
    "LayerNormalization",
    source="Liu et al., Swin Transformer V2 (2022), §3.2: res-post-norm, https://arxiv.org/abs/2111.09883",
)
def norm_before_residual(site: Site) -> Iterator[Variant]:
    """x + norm(f) instead of norm(x + f)."""
    total = site.producer(0)
    if (
        total is not None
        and total.op_type == "Add"
        and all(name not in site.graph.constants for name in total.inputs)
    ):
        for kept, normed in (total.inputs, total.inputs[::-1]):
            rewriting = Rewriting(site)
            made = rewriting.apply(
                "LayerNormalization", normed, *site.call.inputs[1:], **site.call.attributes
            )
            yield rewriting.result(f"of {normed}", "Add", kept, made)


@fault(
    "normalization/layer norm over tokens",
    "LayerNormalization",
    source="GATr's baseline: normalized_shape of all axes but the first, "
    "https://github.com/Qualcomm-AI-research/geometric-algebra-transformer/pull/8",
)
def other_axis(site: Site) -> Iterator[Variant]:
    """Normalised over the tokens instead of the channels."""
    if (
        site.attribute("axis", -1) not in (-1, len(site.shape(0)) - 1)
        or len(site.shape(0)) != 3
        or not site.has(2)
    ):
        return
    rewriting = Rewriting(site)
    axes, x = np.asarray([1], np.int64), site.call.inputs[0]
    centred = rewriting.apply("Sub", x, rewriting.apply("ReduceMean", x, axes, keepdims=1))
    variance = rewriting.apply("ReduceMean", rewriting.apply("Mul", centred, centred), axes, keepdims=1)
    epsilon = np.asarray(site.attribute("epsilon", 1e-5), np.float32)
    normed = rewriting.apply(
        "Div", centred, rewriting.apply("Sqrt", rewriting.apply("Add", variance, epsilon))
    )
    yield rewriting.result(
        "axis 1", "Add", rewriting.apply("Mul", normed, site.call.inputs[1]), site.call.inputs[2]
    )

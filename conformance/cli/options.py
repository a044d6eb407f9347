"""Options that several commands share, and what they stand for."""

from __future__ import annotations

import ast
import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import typer

from conformance.cli.command_help import NETWORK, RESULTS
from conformance.cli.job import Unless
from conformance.cli.output_files import JSON, Reads, Writes
from conformance.cli.terminal import Progress, console, progress_console, working
from conformance.files import check_writable, write_text
from conformance.json_files import finite
from conformance.judge.weights_cache import cache_folder, seeded_weights
from conformance.named_values import given_once
from refimpl import MobileInstConfig, Weights
from refimpl.errors import ConfigurationError, WeightsError
from refimpl.inference import STRIDE
from refimpl.trained import DEFAULT, is_trained, trained_config
from refimpl.weights import read_arrays
from refimpl.weights.hint import recognised_configuration

__all__ = ["Progress", "console", "progress_console", "working"]

DEFAULT_MODEL = "topformer-base"
DEFAULT_SIZE = (320, 640)
TRAINED_SIZE = (192, 320)
"""What the trained networks have seen most of."""


def writable(path: Path | None) -> Path | None:
    """Refuse an output path that cannot be written before any work; ``-`` is standard output."""
    if path is not None and str(path) != "-":
        check_writable(path)
    return path


# Options.

MOST_SEED = 2**32 - 1
"""What every generator takes, also with a few added."""
MOST_WORKERS = 1024
"""Processes or threads: more than that no machine has processors for, and some die of."""

Model = Annotated[
    str | None,
    typer.Option(
        "--model",
        metavar="PRESET",
        help=f"Named configuration. Default: {DEFAULT_MODEL}.",
        show_default=False,
        rich_help_panel=NETWORK,
    ),
]
Set = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        metavar="FIELD=VALUE",
        help="Override a configuration field; repeatable.",
        rich_help_panel=NETWORK,
    ),
]
WeightsFile = Annotated[
    Path | None,
    typer.Option(
        "--weights",
        help="Weights of the whole network: .safetensors, .npz or .pth, or a trained set's name, such as "
        "scenes-tiny. Default: made from --seed; where no network is named, verify, run and track take a "
        "trained set.",
        rich_help_panel=NETWORK,
    ),
    Reads(),
]
BackboneFile = Annotated[
    Path | None,
    typer.Option(
        "--backbone-weights",
        help="A public backbone checkpoint; the rest comes from --weights or --seed.",
        rich_help_panel=NETWORK,
    ),
    Reads(),
]
Seed = Annotated[
    int | None,
    typer.Option(
        "--seed",
        min=0,
        max=MOST_SEED,
        help="Of what is random: weights and inputs for which no file is given. Default: 0.",
        rich_help_panel=NETWORK,
    ),
]
Size = Annotated[
    str | None,
    typer.Option(
        "--size",
        metavar="HxW",
        help="Network input size pictures are resized to: multiples of 32. Export, verify, explain and cost "
        "take any.",
        rich_help_panel=NETWORK,
    ),
]
JsonPath = Path | None
Json = Annotated[
    JsonPath,
    typer.Option(
        "--json",
        callback=writable,
        help="Write the result as JSON to this file; -: standard output.",
        rich_help_panel=RESULTS,
    ),
    Writes(JSON),
]
Force = Annotated[
    bool,
    typer.Option(
        "--force",
        help="Replace files that are there, of whatever kind, by what is written.",
        rich_help_panel=RESULTS,
    ),
]
Rivals = Annotated[
    bool, typer.Option("--rivals", help="Instead: the trackers of the paper's Table 2, beside one another.")
]
AllSteps = Annotated[
    bool,
    typer.Option(
        "--all-steps",
        "--table",
        help="List every step, not only the stages or the worst.",
        rich_help_panel=RESULTS,
    ),
]


# Groups of them.


@dataclass(frozen=True, kw_only=True)
class JsonFile:
    """Where the result is written as JSON."""

    json_file: Json = None
    force: Force = False

    @property
    def prints(self) -> bool:
        """Whether tables are printed too: not when standard output is JSON."""
        return str(self.json_file) != "-"

    def write(self, content: Any) -> bool:
        """Write the result; tell whether tables are to be printed too."""
        write_json(self.json_file, content)
        return self.prints

    def check_printed(self, flag: str, wanted: bool) -> None:
        """Refuse an option about what is printed if nothing is printed.

        Raises
        ------
        ConfigurationError
            Standard output is JSON.
        """
        if wanted and not self.prints:
            raise ConfigurationError(f"{flag} has no effect beside --json -, which holds everything")


@dataclass(frozen=True, kw_only=True)
class NetworkOptions:
    """Which network, with which weights."""

    model: Annotated[Model, Unless("onnx")] = None
    overrides: Annotated[Set, Unless("onnx")] = None
    weights: Annotated[WeightsFile, Unless("onnx")] = None
    backbone_weights: Annotated[BackboneFile, Unless("onnx")] = None
    seed: Annotated[Seed, Unless("onnx", "weights")] = None

    @property
    def is_given(self) -> bool:
        """Whether anything is said of the network."""
        return any(value is not None and value != [] for value in vars(self).values())

    def or_trained(self, name: str = DEFAULT) -> NetworkOptions:
        """Return the options; if nothing is said of the network, those of a trained set that is there."""
        return self if self.is_given or not is_trained(name) else NetworkOptions(weights=Path(name))

    @property
    def is_trained(self) -> bool:
        """Whether the weights are a trained set."""
        return names_trained(self.weights)

    def load(self) -> tuple[MobileInstConfig, Weights]:
        """Return the configuration and the weights; see `load_network`."""
        return load_network(self.model, self.overrides, self.weights, self.backbone_weights, self.seed or 0)

    @property
    def described(self) -> str:
        """Which weights these are; seeded ones are called untrained."""
        rest = str(self.weights) if self.weights else f"untrained, seed {self.seed or 0}"
        return f"backbone {self.backbone_weights}, the rest {rest}" if self.backbone_weights else rest


@dataclass(frozen=True, kw_only=True)
class SeededNetwork:
    """Which network, with weights made from a seed."""

    model: Model = None
    overrides: Set = None
    seed: Seed = None

    @property
    def name(self) -> str:
        """The configuration's name."""
        return self.model or DEFAULT_MODEL

    @property
    def config(self) -> MobileInstConfig:
        """The configuration (errors: those of `configuration`)."""
        return configuration(self.model, self.overrides)

    def load(self) -> Weights:
        """Return the weights."""
        return seeded_weights(self.config, self.seed or 0, cache_folder())


# What they stand for.


def configuration(
    model: str | None, overrides: Sequence[str] | None, weights: Path | None = None
) -> MobileInstConfig:
    """Return the preset with its overrides, each ``field=value``; a trained set brings its own.

    Raises
    ------
    ConfigurationError
        There is no such network, it is not that of the trained set, or a field is given twice.
    """
    wanted = _overrides(overrides)
    if not names_trained(weights):
        return MobileInstConfig.preset(model or DEFAULT_MODEL, **wanted)
    config = trained_config(str(weights))
    differing = [name for name, value in wanted.items() if getattr(config, name, None) != value]
    if model not in (None, config.backbone) or differing:
        raise ConfigurationError(
            f"{weights} is a {config.backbone} with dim {config.dim}, {config.num_queries} queries and "
            f"{config.num_classes} classes; leave out --model and --set {' '.join(differing)}".strip()
        )
    return config


def names_trained(weights: Path | None) -> bool:
    """Whether ``--weights`` is the name of a trained set, and no file."""
    return weights is not None and not weights.exists() and is_trained(weights)


def _overrides(texts: Sequence[str] | None) -> dict[str, Any]:
    return given_once(map(_override, texts or ()), "--set")


def _override(text: str) -> tuple[str, Any]:
    name, sign, value = text.partition("=")
    if not (name and sign and value):
        raise ConfigurationError(f"--set {text!r} is not of the form field=value, such as --set dim=64")
    try:
        return name.strip(), ast.literal_eval(value)
    except (ValueError, SyntaxError):
        return name.strip(), value


def load_weights(config: MobileInstConfig, path: Path | None, backbone: Path | None, seed: int) -> Weights:
    """Return the weights the options name: from files, or seeded."""
    if path is not None and names_trained(path):
        weights = Weights.trained(str(path))
    else:
        weights = Weights.load(path, config) if path else seeded_weights(config, seed, cache_folder())
    return Weights.load_backbone(backbone, config, rest=weights) if backbone else weights


def load_network(
    model: str | None,
    overrides: Sequence[str] | None,
    path: Path | None,
    backbone: Path | None = None,
    seed: int = 0,
) -> tuple[MobileInstConfig, Weights]:
    """Return the configuration and the weights that options name.

    Weights from a file that fit another configuration than the default bring theirs, if no ``--model`` is
    named and no ``--set`` contradicts it; that is said on standard error.

    Raises
    ------
    ConfigurationError
        There is no such network, or it is not that of the trained set.
    WeightsError, FileError
        The weights cannot be read, or fit no configuration that was asked for.
    """
    config = configuration(model, overrides, path)
    try:
        return config, load_weights(config, path, backbone, seed)
    except WeightsError:
        likely = recognised_configuration(read_arrays(path)) if path and model is None else None
        wanted = _overrides(overrides)
        if likely is None or any(getattr(likely.config, name) != value for name, value in wanted.items()):
            raise
        progress_console.print(f"{path} is that of {likely.words}: adopted", highlight=False)
        return likely.config, load_weights(likely.config, path, backbone, seed)


def parse_size(text: str | None, step: int = STRIDE) -> tuple[int, int] | None:
    """Return (height, width) of ``320x640``, both multiples of a step: nothing is padded then."""
    if text is None:
        return None
    try:
        height, width = (int(part) for part in text.lower().replace("×", "x").split("x"))
    except ValueError:
        raise ConfigurationError(
            f"--size {text!r} is not of the form HEIGHTxWIDTH, such as 320x640"
        ) from None
    if height < STRIDE or width < STRIDE:
        raise ConfigurationError(f"--size {text} must be at least {STRIDE}x{STRIDE}, such as 320x640")
    if height % step or width % step:
        raise ConfigurationError(f"--size {text} must be multiples of {step} here, such as 320x640")
    return height, width


def write_json(path: Path | None, content: Any) -> None:
    """Write JSON to a file, whole or not at all; ``-`` is standard output; None writes nothing."""
    if path is None:
        return
    text = json.dumps(finite(content), indent=2, allow_nan=False) + "\n"
    if str(path) == "-":
        sys.stdout.write(text)
        return
    write_text(path, text)

"""Options that several commands share, and what they stand for."""

from __future__ import annotations

import ast
import json
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

from conformance.files import atomic_write, check_writable
from refimpl import MobileInstConfig, Weights
from refimpl.errors import ConfigurationError
from refimpl.trained import DEFAULT, is_trained, trained_config
from refimpl.weights import check_save_name


def writable(path: Path | None) -> Path | None:
    """Refuse an output path that cannot be written before any work; ``-`` is standard output."""
    if path is not None and str(path) != "-":
        check_writable(path)
    return path


def writable_weights(path: Path | None) -> Path | None:
    """Refuse a path that weights cannot be saved to."""
    if path is not None:
        check_save_name(path)
    return writable(path)


Model = Annotated[str, typer.Option("--model", metavar="PRESET", help="Named configuration.")]
Set = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="FIELD=VALUE", help="Override a configuration field; repeatable."),
]
WeightsFile = Annotated[
    Path | None,
    typer.Option(
        "--weights",
        help="Weights of the whole network: .safetensors, .npz or .pth, or a trained set's name, such as "
        "scenes-tiny. Default: made from --seed; where no network is named, verify, run and track take a "
        "trained set.",
    ),
]
BackboneFile = Annotated[
    Path | None,
    typer.Option(
        "--backbone-weights", help="A public backbone checkpoint; the rest comes from --weights or --seed."
    ),
]
Seed = Annotated[int, typer.Option("--seed", min=0, help="Seed of the weights when no file is given.")]
JsonPath = Path | None
Json = Annotated[
    JsonPath,
    typer.Option(
        "--json", callback=writable, help="Write the result as JSON to this file; -: standard output."
    ),
]
Size = Annotated[
    str | None,
    typer.Option(
        "--size", metavar="HxW", help="Network input size pictures are resized to, multiples of 32."
    ),
]
DEFAULT_MODEL = "topformer-base"
DEFAULT_SIZE = (320, 640)
TRAINED_SIZE = "192x320"
"""What the trained networks have seen most of."""

Progress = Callable[[str], None]

# A pipe has no width: tables are for reading, also in a log.
console = Console(width=None if sys.stdout.isatty() else 150)
progress_console = Console(stderr=True)


def configuration(
    model: str, overrides: Sequence[str] | None, weights: Path | None = None
) -> MobileInstConfig:
    """Return the preset with its overrides, each ``field=value``; a trained set brings its own.

    Raises
    ------
    ConfigurationError
        There is no such network, or it is not that of the trained set.
    """
    if not names_trained(weights):
        return MobileInstConfig.preset(model, **dict(_override(text) for text in overrides or ()))
    config = trained_config(str(weights))
    wanted = dict(_override(text) for text in overrides or ())
    differing = [name for name, value in wanted.items() if getattr(config, name, None) != value]
    if model not in (DEFAULT_MODEL, config.backbone) or differing:
        raise ConfigurationError(
            f"{weights} is a {config.backbone} with dim {config.dim}, {config.num_queries} queries and "
            f"{config.num_classes} classes; leave out --model and --set {' '.join(differing)}".strip()
        )
    return config


def trained_by_default(context: typer.Context, name: str = DEFAULT) -> Path | None:
    """Return a trained set's name if the command line says nothing of the network, and the set is there."""
    chosen = ("model", "overrides", "weights", "backbone_weights", "seed", "onnx")
    sources = [context.get_parameter_source(option) for option in chosen]
    given = any(source is not None and source.name == "COMMANDLINE" for source in sources)
    return Path(name) if not given and is_trained(name) else None


def names_trained(weights: Path | None) -> bool:
    """Whether ``--weights`` is the name of a trained set, and no file."""
    return weights is not None and not weights.exists() and is_trained(weights)


def _override(text: str) -> tuple[str, Any]:
    name, sign, value = text.partition("=")
    if not (name and sign and value):
        raise ConfigurationError(f"--set {text!r} is not of the form field=value, such as --set dim=64")
    try:
        return name.strip(), ast.literal_eval(value)
    except (ValueError, SyntaxError):
        return name.strip(), value


def described_weights(path: Path | None, backbone: Path | None, seed: int) -> str:
    """Say which weights the options name; seeded ones are called untrained."""
    rest = str(path) if path else f"untrained, seed {seed}"
    return f"backbone {backbone}, the rest {rest}" if backbone else rest


def load_weights(config: MobileInstConfig, path: Path | None, backbone: Path | None, seed: int) -> Weights:
    """Return the weights the options name: from files, or seeded."""
    if path is not None and names_trained(path):
        weights = Weights.trained(str(path))
    else:
        weights = Weights.load(path, config) if path else Weights.seeded(config, seed)
    return Weights.load_backbone(backbone, config, rest=weights) if backbone else weights


def parse_size(text: str | None) -> tuple[int, int] | None:
    """Return (height, width) of ``320x640``."""
    if text is None:
        return None
    try:
        height, width = (int(part) for part in text.lower().replace("×", "x").split("x"))
    except ValueError:
        raise ConfigurationError(
            f"--size {text!r} is not of the form HEIGHTxWIDTH, such as 320x640"
        ) from None
    if height < 32 or width < 32 or height % 32 or width % 32:
        raise ConfigurationError(f"--size {text} must be positive multiples of 32, such as 320x640")
    return height, width


def write_json(path: Path | None, content: Any) -> None:
    """Write JSON to a file, whole or not at all; ``-`` is standard output; None writes nothing."""
    if path is None:
        return
    text = json.dumps(content, indent=2, allow_nan=False) + "\n"
    if str(path) == "-":
        sys.stdout.write(text)
        return
    with atomic_write(path) as temporary:
        temporary.write_text(text, encoding="utf-8")

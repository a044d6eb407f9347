"""A candidate of the catalogue as a folder, for ``mobileinst verify``."""

from __future__ import annotations

import shlex
from dataclasses import asdict
from pathlib import Path

import numpy as np
import onnx

from conformance.candidates.dumps import DumpCandidate
from conformance.candidates.onnx_candidate import OnnxRuntimeCandidate
from conformance.candidates.plain import PythonCandidate
from conformance.evidence.catalogue_networks import TRIALS, Trial, images
from conformance.evidence.false_alarms import network
from conformance.folders import new_folder
from refimpl import MobileInstConfig
from refimpl.errors import ConfigurationError

SCRIPT = """# Of the catalogue: {name}
from conformance.evidence.catalogue_networks import TRIALS

run = TRIALS[{name!r}]().candidate.run
"""


def write_candidate(name: str, folder: Path) -> str:
    """Write a candidate, its weights and its input to a new folder; return what judges it, ``judge.sh``.

    Raises
    ------
    ConfigurationError
        The catalogue has no network of that name, or it cannot be told by files.
    FileError
        The folder is not empty or cannot be written.
    """
    if name not in TRIALS:
        raise ConfigurationError(f"the catalogue has no network {name!r}; docs/catalogue.md lists them")
    trial = TRIALS[name]()
    with new_folder(folder) as temporary:
        given = _write(name, trial, temporary, folder)
        network(trial.preset)[1].save(temporary / "weights.safetensors")
        np.save(temporary / "input.npy", images(trial.batch))
        words = ["mobileinst", "verify", *given, *_options(trial.preset), *_files(folder)]
        command = shlex.join(words)
        (temporary / "judge.sh").write_text(command + "\n", encoding="utf-8")
    return command


def _files(folder: Path) -> list[str]:
    return ["--weights", str(folder / "weights.safetensors"), "--input", str(folder / "input.npy")]


def _options(network_name: str) -> list[str]:
    preset = network_name.partition(",")[0]
    config, default = network(network_name)[0], MobileInstConfig.preset(preset)
    changed = {name: value for name, value in asdict(config).items() if value != asdict(default)[name]}
    sets = [word for name, value in changed.items() for word in ("--set", f"{name}={value}")]
    return ["--model", preset, *sets]


def _write(name: str, trial: Trial, temporary: Path, folder: Path) -> list[str]:
    """Write the candidate; return what names it on the command line."""
    candidate = trial.candidate
    if isinstance(candidate, OnnxRuntimeCandidate):
        onnx.save(candidate.graph.model, temporary / "candidate.onnx")
        level = candidate.model.options.level
        return [str(folder / "candidate.onnx"), "--candidate", f"onnxruntime:level={level}"]
    if isinstance(candidate, DumpCandidate):
        (temporary / "dumps").mkdir()
        for tensor, array in candidate.tensors.items():
            np.save(temporary / "dumps" / f"{tensor}.npy", array)
        return ["--candidate", f"dumps:{folder / 'dumps'}"]
    if isinstance(candidate, PythonCandidate) and candidate.more is None:
        (temporary / "candidate.py").write_text(SCRIPT.format(name=name), encoding="utf-8")
        return ["--candidate", f"python:{folder / 'candidate.py'}:run"]
    raise ConfigurationError(f"{name!r} shows tensors that no file can; the catalogue judges it in memory")

"""Models with one fault each, written to files: something to try the judge on."""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx

from conformance.candidates.onnx_candidate import OnnxRuntimeCandidate
from conformance.evidence.fault_score import KNOWN, Case, case, is_harmless
from conformance.faults import CATALOGUE, Fault, Injection, injected, injections
from conformance.folders import new_folder
from conformance.graph.onnx_graph import OnnxGraph
from refimpl.errors import MobileInstError

MOST_PLACES = 12
"""Places of a network at which a fault is tried before the next network is."""


@dataclass(frozen=True)
class FaultyModel:
    """A model with one fault.

    Attributes
    ----------
    fault, happens, detail
        Its name in the catalogue, what is computed instead, and its parameters.
    network
        The network it is in.
    call
        The operation it is at.
    file
        The model's file name.
    command
        What shows the judge's verdict, run where the folder was named.
    """

    fault: str
    happens: str
    detail: str
    network: str
    call: str
    file: str
    command: str


def write_faulty_models(
    folder: Path,
    names: Sequence[str],
    networks: Sequence[str],
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> list[FaultyModel]:
    """Write a model for each fault, with the weights and the input to judge it by.

    Parameters
    ----------
    folder
        A new folder: models, ``NETWORK.safetensors``, ``NETWORK.npy`` and a README with the commands.
    names
        Faults of the catalogue.
    networks
        Of `conformance.evidence.fault_score.KNOWN`: a fault goes into the first where it changes an output
        by more than rounding, and is left out if there is none.
    progress
        Called with how many faults are done, and of how many.

    Raises
    ------
    FileError
        The folder is not empty or cannot be written.
    """
    written: list[FaultyModel] = []
    with new_folder(folder) as temporary:
        for done, name in enumerate(names):
            progress(done, len(names))
            written += _write(temporary, folder, CATALOGUE[name], networks)
        for network in {item.network for item in written}:
            chosen = case(network)
            chosen.weights.save(temporary / f"{network}.safetensors")
            np.save(temporary / f"{network}.npy", chosen.images)
        (temporary / "README.md").write_text(_readme(written), encoding="utf-8")
    return written


def _write(temporary: Path, folder: Path, fault: Fault, networks: Sequence[str]) -> list[FaultyModel]:
    """Write the model of one fault; return it, or nothing if the fault does no harm anywhere."""
    found = next((harm for network in networks for harm in _harmful(case(network), fault)), None)
    if found is None:
        return []
    chosen, injection, model = found
    file = re.sub("[^a-z0-9]+", "-", fault.name.lower()).strip("-") + ".onnx"
    onnx.save(model, temporary / file)
    page = folder / Path(file).with_suffix(".html")
    command = shlex.join([*verifying(folder, chosen.name, file), "--html", str(page)])
    variant, call = injection.variant, injection.call
    return [FaultyModel(fault.name, fault.happens, variant.detail, chosen.name, call.name, file, command)]


def _harmful(chosen: Case, fault: Fault) -> Iterator[tuple[Case, Injection, onnx.ModelProto]]:
    """Yield the fault at places, from all over the network, where it runs and does harm."""
    every = injections(fault, chosen.graph)
    for injection in every[:: len(every) // MOST_PLACES + 1]:
        model = injected(chosen.model, injection)
        try:
            outputs = OnnxRuntimeCandidate(OnnxGraph.load(model), threads=1).run(chosen.images)
        except MobileInstError:
            continue
        if not is_harmless(chosen, outputs):
            yield chosen, injection, model


def verifying(folder: Path, network: str, file: str) -> list[str]:
    """Return the words of the command that judges a model by the weights and the input in its folder."""
    fields = [word for name, value in KNOWN[network].items() for word in ("--set", f"{name}={value}")]
    words = ["mobileinst", "verify", folder / file, "--model", network, *fields]
    words += ["--weights", folder / f"{network}.safetensors", "--input", folder / f"{network}.npy"]
    return list(map(str, words))


def _readme(written: Sequence[FaultyModel]) -> str:
    parts = [
        f"## {item.file}\n\n{item.fault} ({item.detail}) at `{item.call}`: {item.happens}\n\n"
        f"    {item.command}\n"
        for item in written
    ]
    heading = "# Models with one fault each\n\nEach command prints a verdict and writes a page.\n"
    return "\n".join([heading, *parts])

"""The peak memory of processes; run as a module, of one that runs a forward and has nothing else loaded."""

from __future__ import annotations

import json
import resource
import subprocess
import sys
import tempfile
from dataclasses import asdict
from pathlib import Path

import numpy as np

from conformance.candidates.child_process import python_command, safe_environment
from refimpl import MobileInstConfig, Network, Weights


def peak_memory(config: MobileInstConfig, weights: Weights, size: tuple[int, int]) -> float:
    """Return the peak resident megabytes of a fresh process that runs one float32 forward."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "weights.safetensors"
        weights.save(path)
        command = python_command(
            "conformance.evidence.memory", str(path), *map(str, size), json.dumps(asdict(config))
        )
        finished = subprocess.run(command, check=True, capture_output=True, text=True, env=safe_environment())
    return float(finished.stdout)


def _run_once(path: str, height: str, width: str, config: str) -> None:
    """Run one forward and print the peak memory of this process."""
    chosen = MobileInstConfig(**json.loads(config))
    network = Network(chosen, Weights.load(path, chosen))
    network(np.zeros((1, 3, int(height), int(width)), np.float32))
    print(peak_megabytes())


def peak_megabytes() -> float:
    """Return the peak resident memory of this process."""
    # On Linux, ru_maxrss of a child starts at its parent's peak; the kernel's own high-water mark does not.
    status = Path("/proc/self/status")
    if status.exists():
        line = next(line for line in status.read_text().splitlines() if line.startswith("VmHWM"))
        return int(line.split()[1]) / 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (2**20 if sys.platform == "darwin" else 1024)


if __name__ == "__main__":
    _run_once(*sys.argv[1:])

"""Freed memory is kept: the kernel's own count of the pages that it had to give."""

from __future__ import annotations

import subprocess
import sys

PROGRAM = """
import resource
import numpy as np
from conformance.allocation import keep_freed_memory
{call}
def use():
    arrays = [np.ones(3 << 20, np.uint8) for _ in range(8)]
use()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(10):
    use()
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def faults(call: str) -> int:
    run = subprocess.run(
        [sys.executable, "-P", "-c", PROGRAM.format(call=call)], capture_output=True, text=True, check=True
    )
    return int(run.stdout)


def test_what_is_freed_is_given_again_without_new_pages() -> None:
    kept, usual = faults("keep_freed_memory()"), faults("")
    assert kept <= usual
    if sys.platform.startswith("linux"):
        assert 10 * kept < usual

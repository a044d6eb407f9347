"""Golden tensors: ground truth as files, and the commands that write, check, judge and convert them.

The set stands in ``golden/data`` and is described, down to the bytes, in ``golden/README.md``. Building it
needs PyTorch and mpmath, which confirm it; checking it and judging with it need neither.
"""

from pathlib import Path

FORMAT = "mobileinst-golden"
FORMAT_VERSION = 1
LICENCE = "Apache-2.0"
DATA = Path(__file__).parent / "data"
SCHEMA = Path(__file__).parent / "manifest.schema.json"

__all__ = ["DATA", "FORMAT", "FORMAT_VERSION", "LICENCE", "SCHEMA"]

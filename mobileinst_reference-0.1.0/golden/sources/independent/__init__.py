"""MobileInst and SparseInst as a person porting the paper to PyTorch would write them.

An outside source for the reference: ordinary `torch.nn` modules, sharing no code with `refimpl`. The names in
`state_dict()` are the reference's weight names (the public checkpoints'), so that one set loads into both.
Importing it needs the extra ``torch``; nothing imports it before it is used.
"""

from conformance.graph.pytorch_replay import import_torch

import_torch()  # says which extra is missing, before a module below fails

from .mobileinst import MobileInst, Outputs  # noqa: E402
from .sparseinst import SparseInst, SparseInstOutputs  # noqa: E402

__all__ = ["MobileInst", "Outputs", "SparseInst", "SparseInstOutputs"]

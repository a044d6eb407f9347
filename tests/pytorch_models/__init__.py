"""MobileInst and SparseInst as a person porting the paper to PyTorch would write them.

An outside source for the reference: ordinary `torch.nn` modules, sharing no code with `refimpl`. The names in
`state_dict()` are the reference's weight names (the public checkpoints'), so that one set loads into both.
"""

from .mobileinst import MobileInst, Outputs
from .sparseinst import SparseInst, SparseInstOutputs

__all__ = ["MobileInst", "Outputs", "SparseInst", "SparseInstOutputs"]

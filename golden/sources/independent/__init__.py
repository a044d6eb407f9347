"""MobileInst and its rivals as a person porting the papers to PyTorch would write them.

An outside source for the reference: ordinary `torch.nn` modules, sharing no code with `refimpl`. The names in
`state_dict()` are the reference's weight names (the public checkpoints'), so that one set loads into both.
Importing it needs the extra ``torch``; nothing imports it before it is used.
"""

import inspect
from typing import Any

from conformance.graph.pytorch_replay import import_torch

import_torch()  # says which extra is missing, before a module below fails

from .condinst import CondInst, CondInstOutputs  # noqa: E402
from .maskrcnn import MaskRCNN, ProposalOutputs, RegionHeads, RegionOutputs  # noqa: E402
from .mobileinst import MobileInst, Outputs  # noqa: E402
from .solov2 import SoloOutputs, SOLOv2  # noqa: E402
from .sparseinst import SparseInst, SparseInstOutputs  # noqa: E402
from .yolact import YOLACT, YolactOutputs  # noqa: E402

KINDS = {
    "mobileinst": MobileInst,
    "sparseinst": SparseInst,
    "solov2": SOLOv2,
    "condinst": CondInst,
    "yolact": YOLACT,
    "maskrcnn": MaskRCNN,
}
"""Architecture → its module."""


def module_for(config: Any) -> Any:
    """Return the module of a configuration: its backbone, then each of its fields that the module takes."""
    kind = KINDS[config.architecture]
    _, *names = inspect.signature(kind).parameters
    return kind(config.backbone, **{name: getattr(config, name) for name in names})


__all__ = [
    "KINDS",
    "YOLACT",
    "CondInst",
    "CondInstOutputs",
    "MaskRCNN",
    "MobileInst",
    "Outputs",
    "ProposalOutputs",
    "RegionHeads",
    "RegionOutputs",
    "SOLOv2",
    "SoloOutputs",
    "SparseInst",
    "SparseInstOutputs",
    "YolactOutputs",
    "module_for",
]

"""The FLOPs of the paper's Tables 3 to 6, and what others print of rivals, beside the recorded networks."""

from __future__ import annotations

import functools
import itertools
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

import numpy as np

from refimpl.blank import BLANK
from refimpl.config import MobileInstConfig
from refimpl.costs import StageCost, peak_activation_memory, record_shapes, stage_costs, step_costs
from refimpl.forward import parameter_shapes
from refimpl.maskrcnn import BOX_CELLS, classified
from refimpl.ops.operation import Array
from refimpl.recording import record_call
from refimpl.scope import Scope

PAPER_SIZE = (320, 640)
ROW_LIMIT = 0.01
"""Largest relative difference of a MobileInst row: the paper adds normalisation and resizing, 0.07 G."""
BASELINE_LIMIT = 0.05
"""Largest relative difference of a row of Table 5 whose decoder is not the paper's own."""
DIFFERENCE_LIMIT = 0.01
"""Largest error in G of the difference between two MobileInst rows of a table."""

PAPER_GFLOPS = {
    "table3/global": 8.69,
    "table3/global-x2": 8.75,
    "table3/local-x2": 8.74,
    "table3/dual": 8.75,
    "table4/none": 9.32,
    "table4/max4": 8.77,
    "table4/max8": 8.75,
    "table4/avg8": 8.75,
    "table5/sparseinst-4conv": 12.38,
    "table5/sparseinst-1conv": 6.72,
    "table5/fpn-1conv": 6.69,
    "table5/ours": 8.75,
    "table5/ours-se": 8.79,
    "table6/200": 8.97,
    "table6/100": 8.75,
    "table6/50": 8.65,
    "table6/20": 8.59,
}
"""Preset → 10⁹ multiply–accumulates; the paper's text has no figure for Table 3's local decoder alone."""


@dataclass(frozen=True)
class Printed:
    """What somebody prints of a rival, in 10⁹ multiply–accumulates.

    Attributes
    ----------
    preset, fields
        The network: a preset, and what is not as in it.
    size
        Height and width of the input.
    counts
        What they count.
    regions
        On how many regions Mask R-CNN's classes and boxes are counted; its masks nobody counts.
    macs
    source
        Where.
    """

    preset: str
    fields: Mapping[str, str]
    size: tuple[int, int]
    counts: str
    regions: int
    macs: float
    source: str


PRINTED = (
    Printed(
        "maskrcnn-r50",
        {},
        (800, 800),
        "first stage, classes of 1000 regions",
        1000,
        134.38,
        "https://github.com/pytorch/vision/blob/main/torchvision/models/detection/mask_rcnn.py",
    ),
    Printed(
        "maskrcnn-r50",
        {"backbone": "resnet50-caffe"},
        (800, 800),
        "first stage's convolutions, rounded down",
        0,
        117,
        "https://github.com/facebookresearch/detectron2/blob/02b5c4e2/tests/test_model_analysis.py",
    ),
    Printed(
        "yolact-r50",
        {},
        (550, 550),
        "the network, two operations each",
        0,
        118.575 / 2,
        "https://docs.openvino.ai/2021.2/omz_models_public_yolact_resnet50_fpn_pytorch_yolact_resnet50_fpn_pytorch"
        ".html",
    ),
)
"""By the public codes and a model zoo: Table 1 has no such column, and nor have the rivals' papers."""


@dataclass(frozen=True)
class NetworkCost:
    """What a configuration costs at one size, for one picture in float32.

    Attributes
    ----------
    stages
        The parts of the network in order.
    peak_bytes, peak_step
        Peak activation memory, and the step that needs it.
    """

    stages: tuple[StageCost, ...]
    peak_bytes: int
    peak_step: str

    @property
    def macs(self) -> int:
        """Multiply–accumulates of the whole."""
        return sum(stage.macs for stage in self.stages)

    @property
    def parameters(self) -> int:
        """Parameters of the whole."""
        return sum(stage.parameters for stage in self.stages)


@dataclass(frozen=True)
class PaperRow:
    """A row of the paper's tables beside the network it describes; ``paper`` and ``counted`` in 10⁹."""

    preset: str
    paper: float
    cost: NetworkCost
    baseline: bool

    @property
    def table(self) -> str:
        """``table3`` to ``table6``."""
        return self.preset.partition("/")[0]

    @property
    def counted(self) -> float:
        """Multiply–accumulates of the recording."""
        return self.cost.macs / 1e9

    @property
    def difference(self) -> float:
        """Counted minus the paper's."""
        return self.counted - self.paper

    @property
    def limit(self) -> float:
        """Largest relative difference allowed."""
        return BASELINE_LIMIT if self.baseline else ROW_LIMIT


@dataclass(frozen=True)
class PrintedRow:
    """What is printed of a rival, beside the recorded network; ``counted`` in 10⁹."""

    printed: Printed
    counted: float

    @property
    def difference(self) -> float:
        """Counted minus printed, as a share of what is printed."""
        return self.counted / self.printed.macs - 1


@functools.cache
def network_cost(config: MobileInstConfig, height: int, width: int) -> NetworkCost:
    """Record a configuration on a blank picture and add up its costs."""
    recording = record_shapes(config, height, width)
    peak = peak_activation_memory(recording)
    return NetworkCost(tuple(stage_costs(step_costs(recording))), peak.bytes, peak.step)


def paper_rows(progress: Callable[[str], None] = lambda preset: None) -> list[PaperRow]:
    """Return the rows of Tables 3 to 6, each with the cost of its preset at 320×640.

    Parameters
    ----------
    progress
        Called with the name of each preset when it is done.
    """
    rows = []
    for preset, paper in PAPER_GFLOPS.items():
        config = MobileInstConfig.preset(preset)
        cost = network_cost(config, *PAPER_SIZE)
        rows.append(PaperRow(preset, paper, cost, config.mask_decoder in ("fpn", "sparseinst")))
        progress(preset)
    return rows


def printed_rows() -> list[PrintedRow]:
    """Return what is printed of the rivals, each with the recorded network's own."""
    rows = []
    for printed in PRINTED:
        config = MobileInstConfig.preset(printed.preset, **printed.fields)
        macs = network_cost(config, *printed.size).macs + _region_macs(config, printed.regions)
        rows.append(PrintedRow(printed, macs / 1e9))
    return rows


@functools.cache
def _region_macs(config: MobileInstConfig, regions: int) -> int:
    """Return the multiply–accumulates of Mask R-CNN's classes and boxes of so many regions."""
    if not regions:
        return 0
    weights = {name: np.zeros(shape, np.float32) for name, shape in parameter_shapes(config).items()}
    features = np.zeros((regions, config.dim, BOX_CELLS, BOX_CELLS), np.float32)

    def heads(inputs: dict[str, Array]) -> dict[str, Array]:
        logits, boxes = classified(inputs["features"], Scope(weights), config)
        return {"class_logits": logits, "boxes": boxes}

    recording = record_call(heads, {"features": features}, weights, BLANK)
    return sum(step.macs for step in step_costs(recording))


def printed_disagreements(rows: list[PrintedRow]) -> Iterator[str]:
    """Yield a sentence for each rival that differs by more than 1 % from what is printed of it."""
    for row in rows:
        if abs(row.difference) > ROW_LIMIT:
            name, printed = row.printed.preset, row.printed.macs
            yield f"{name}: {row.counted:.3f} G, {printed:.2f} G printed differs by more than {ROW_LIMIT:.0%}"


def disagreements(rows: list[PaperRow]) -> Iterator[str]:
    """Yield a sentence for each row, and each difference between two of a table, that leaves its limit."""
    for row in rows:
        if abs(row.difference) > row.limit * row.paper:
            off = f"differs by more than {row.limit:.0%}"
            yield f"{row.preset}: {row.counted:.3f} G, the paper's {row.paper} G {off}"
    for first, second in itertools.combinations([row for row in rows if not row.baseline], 2):
        disagreement = abs(first.difference - second.difference)
        if first.table == second.table and disagreement > DIFFERENCE_LIMIT:
            yield (
                f"{first.preset} − {second.preset}: {first.counted - second.counted:.3f} G, "
                f"the paper's {first.paper - second.paper:.2f} G differs by more than {DIFFERENCE_LIMIT} G"
            )

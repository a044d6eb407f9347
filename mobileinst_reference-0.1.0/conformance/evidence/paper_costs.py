"""The FLOPs columns of the paper's Tables 3 to 6, and how near the recorded networks come to them."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from refimpl.config import MobileInstConfig
from refimpl.costs import StageCost, peak_activation_memory, record_shapes, stage_costs, step_costs

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
    known: dict[MobileInstConfig, NetworkCost] = {}
    rows = []
    for preset, paper in PAPER_GFLOPS.items():
        config = MobileInstConfig.preset(preset)
        if config not in known:
            known[config] = network_cost(config, *PAPER_SIZE)
        rows.append(PaperRow(preset, paper, known[config], config.mask_decoder in ("fpn", "sparseinst")))
        progress(preset)
    return rows


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

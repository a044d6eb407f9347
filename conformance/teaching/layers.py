"""A network's layers by stage: what each costs, how its windows slide, what the stage is for."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from conformance.reports.architecture_figure import stages_of
from conformance.teaching.graph_layers import Part
from conformance.teaching.pages import page_template
from conformance.teaching.purposes import purpose
from refimpl import __version__
from refimpl.costs import StepCost
from refimpl.recording import Step


@dataclass(frozen=True)
class Stage(Part):
    """A part of the network, such as ``mask_decoder.output.0``.

    Attributes
    ----------
    name, costs
        Its path, and its steps.
    purpose
        What it is for.
    """

    purpose: str

    @property
    def shape(self) -> tuple[int, ...]:
        """Of what it makes last."""
        return self.costs[-1].output_shape


def stages(costs: Sequence[StepCost]) -> list[Stage]:
    """Group the steps of a network by stage, in order of their beginning."""
    rows = [{"name": cost.step.name, "cost": cost} for cost in costs]
    return [
        Stage(name, tuple(row["cost"] for row in group), purpose(name))
        for name, group in stages_of(rows).items()
    ]


def window(step: Step) -> tuple[str, str, str]:
    """Return kernel, stride and groups of a convolution or pooling, as ``3×3``, ``2``, ``16``."""
    kernel = step.attributes.get("kernel_shape")
    if not kernel:
        return "", "", ""
    strides = step.attributes.get("strides") or (1,) * len(kernel)
    stride = str(strides[0]) if len(set(strides)) == 1 else "×".join(map(str, strides))
    groups = str(step.attributes.get("group", 1)) if step.op_type == "Conv" else ""
    return "×".join(map(str, kernel)), stride, groups


def layers_page(title: str, costs: Sequence[StepCost]) -> str:
    """Return a page with every step of a network by stage, that opens offline."""
    return page_template("layers_template.html").render(
        title=title,
        stages=stages(costs),
        macs=sum(cost.macs for cost in costs),
        parameters=sum(cost.parameters for cost in costs),
        window=window,
        style=(Path(__file__).parent / "walk.css").read_text(encoding="utf-8"),
        version=__version__,
    )

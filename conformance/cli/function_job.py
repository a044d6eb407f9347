"""A mode of a command that is written as a function of its options."""

from __future__ import annotations

import dataclasses
import inspect
from collections.abc import Callable, Collection, Mapping
from typing import Annotated, Any, get_type_hints

import typer

from conformance.cli.job import Job
from conformance.cli.options import Force

NO_MARKS: Mapping[str, Any] = {}


def job_of(
    function: Callable[..., None],
    doing: str,
    chosen_by: str,
    without: Collection[str] = (),
    marks: Mapping[str, Any] = NO_MARKS,
) -> type[Job]:
    """Return a mode that calls a function, which leaves by `typer.Exit`.

    Parameters
    ----------
    function
        Its parameters are annotated as typer has them, and have defaults.
    doing, chosen_by
        As of `Job`; one option chooses the mode.
    without
        The parameters that have no effect in the mode, and keep their defaults.
    marks
        Parameter → what else is to be known of it: `Reads`, `Writes`, `Beside` or `Unless`.
    """
    hints = get_type_hints(function, include_extras=True)
    names = [name for name in inspect.signature(function).parameters if name not in without]
    defaults = {name: inspect.signature(function).parameters[name].default for name in names}
    marked = {name: Annotated[hints[name], marks[name]] if name in marks else hints[name] for name in names}

    def run(self: Any) -> int:
        try:
            function(**{name: getattr(self, name) for name in names})
        except typer.Exit as ended:
            return ended.exit_code
        return 0

    fields = [(name, marked[name], dataclasses.field(default=defaults[name])) for name in names]
    return dataclasses.make_dataclass(
        f"{function.__name__}_{chosen_by}",
        [*fields, ("force", Force, dataclasses.field(default=False))],
        bases=(Job,),
        namespace={"run": run, "doing": doing, "chosen_by": (chosen_by,), "__module__": function.__module__},
        frozen=True,
        kw_only=True,
    )

"""Commands as jobs: a mode of a command is a frozen dataclass whose fields are the options it takes.

The command line is read into the job of one mode, and the job is run; its number is the exit code. A command
has the options of all its modes, and refuses those that the mode at hand does not have: so no option is ever
left out in silence. A field that is a dataclass itself is a group of options that several modes share.

>>> from typing import Annotated
>>> @dataclass(frozen=True, kw_only=True)
... class Greet(Job):
...     '''Greet somebody.'''
...     doing = "a greeting"
...     name: Annotated[str, typer.Option("--name")] = "you"
...     def run(self) -> int:
...         return 0
>>> list(options_of(Greet))
['name']
"""

from __future__ import annotations

import dataclasses
import functools
import inspect
import os
import shlex
import sys
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, ClassVar, get_type_hints

import typer

from conformance.cli.command_help import described
from conformance.cli.output_files import Output, Reads, Writes, check_outputs
from refimpl.errors import ConfigurationError, MobileInstError

BROKEN_PIPE = 141
"""What a shell says of a program that a closed pipe ended: 128 + SIGPIPE."""


class Beside:
    """Marks an option that has an effect only where one of some others is given."""

    def __init__(self, *names: str) -> None:
        self.names = names


class Unless:
    """Marks an option that has no effect where one of some others is given."""

    def __init__(self, *names: str) -> None:
        self.names = names


@dataclass(frozen=True, kw_only=True)
class Job(ABC):
    """What one command line asks for.

    Attributes
    ----------
    doing
        What the mode does, for messages: ``a verdict on any graph (--graph-only)``.
    chosen_by
        The options that choose the mode; a mode without any is what the command does otherwise.
    command_line
        What was typed, quoted for a shell.
    """

    doing: ClassVar[str]
    chosen_by: ClassVar[tuple[str, ...]] = ()
    command_line: str = ""

    @classmethod
    def is_chosen(cls, given: Mapping[str, Any]) -> bool:
        """Tell whether the options given, by name, choose this mode."""
        return not cls.chosen_by or any(given.get(name) for name in cls.chosen_by)

    def check(self) -> None:  # noqa: B027 (a mode may have nothing to refuse)
        """Refuse what does not go together, before any work.

        Raises
        ------
        ConfigurationError
            An option has no effect beside another.
        """

    def outputs(self) -> Iterable[Output]:
        """Return the files it writes that no option names."""
        return ()

    @abstractmethod
    def run(self) -> int:
        """Do it, print and write the result, and return the exit code."""


@dataclass(frozen=True)
class Option:
    """An option or argument as a mode declares it."""

    name: str
    annotation: Any
    default: Any

    def marked(self, kind: type) -> list[Any]:
        """Return its marks of a kind: `Beside`, `Unless`, `Reads` or `Writes`."""
        return [mark for mark in self.annotation.__metadata__ if isinstance(mark, kind)]

    @property
    def parameter(self) -> inspect.Parameter:
        """The option as a parameter of a function, for typer."""
        default = inspect.Parameter.empty if self.default is dataclasses.MISSING else self.default
        return inspect.Parameter(
            self.name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=self.annotation
        )


@functools.cache
def _hints(form: type) -> Mapping[str, Any]:
    """Return the types of a form's fields, which are written as text: each is compiled to be read."""
    return MappingProxyType(get_type_hints(form, include_extras=True))


@functools.cache
def options_of(form: type) -> Mapping[str, Option]:
    """Return the options of a mode or group by name, those of its groups included, in order."""
    hints = _hints(form)
    found: dict[str, Option] = {}
    for field in dataclasses.fields(form):
        hint = hints[field.name]
        if dataclasses.is_dataclass(hint):
            found |= options_of(hint)  # type: ignore[arg-type]
        elif hasattr(hint, "__metadata__"):
            found[field.name] = Option(field.name, hint, field.default)
    return MappingProxyType(found)


def options_of_all(modes: Iterable[type[Job]]) -> dict[str, Option]:
    """Return the options of several modes, each new one after the one that it follows in its own mode."""
    order: list[str] = []
    found: dict[str, Option] = {}
    for mode in modes:
        place = 0
        for name, option in options_of(mode).items():
            if name not in found:
                found[name] = option
                order.insert(place, name)
            place = order.index(name) + 1
    return {name: found[name] for name in order}


def add_command(app: typer.Typer, name: str, form: Any, *modes: type[Job]) -> None:
    """Add a command to an app.

    Parameters
    ----------
    app
    name
        What it is called on the command line.
    form
        The class whose docstring is the command's help; the mode itself, if there is only one.
    modes
        The first that the options choose is run; the last is for all other cases.
    """
    kinds = modes or (form,)

    def command(context: typer.Context, **values: Any) -> None:
        raise typer.Exit(_exit_code(parse(context, kinds, values)))

    parameters = [option.parameter for option in options_of_all(reversed(kinds)).values()]
    context = inspect.Parameter("context", inspect.Parameter.POSITIONAL_OR_KEYWORD, annotation=typer.Context)
    command.__signature__ = inspect.Signature([context, *parameters])  # type: ignore[attr-defined]
    command.__annotations__ = {each.name: each.annotation for each in (context, *parameters)}
    command.__name__ = name
    command.modes = kinds  # type: ignore[attr-defined]
    app.command(name, **described(form.__doc__))(command)


def _exit_code(job: Job) -> int:
    """Run a job; a reader that is gone, such as head, is no verdict."""
    try:
        code = job.run()
        sys.stdout.flush()
        return code
    except BrokenPipeError:
        with open(os.devnull, "wb") as nowhere:  # or the interpreter would complain when it ends
            os.dup2(nowhere.fileno(), sys.stdout.fileno())
        return BROKEN_PIPE
    except MobileInstError as error:
        if error.items:
            _write_items(job, error)
        raise


def _write_items(job: Job, error: MobileInstError) -> None:
    """Write what is wrong, of which the message lists the first, where the result would have gone."""
    files = getattr(job, "files", None)
    if files is not None:
        files.write({"error": str(error).partition(":\n")[0], "items": list(error.items)})


def parse(context: typer.Context, modes: Iterable[type[Job]], values: Mapping[str, Any]) -> Job:
    """Return the job that a command line asks for.

    Raises
    ------
    ConfigurationError
        An option has no effect in the mode, or beside another option.
    FileError
        A file that is to be written cannot be, is read too, is written twice, or is somebody else's.
    """
    given = {name: value for name, value in values.items() if _is_given(context, name)}
    flags = _flags(context)
    mode = next((each for each in modes if each.is_chosen(given)), list(modes)[-1])
    _refuse_idle(mode, modes, given, flags)
    _refuse_empty(given, flags)
    job: Job = _filled(mode, {**values, "command_line": _command_line(context)})
    job.check()
    outputs = [*_named(mode, given, flags, Writes), *job.outputs()]
    inputs = _named(mode, given, flags, Reads)
    if "force" in given and not outputs:
        raise ConfigurationError("--force has no effect: nothing is to be written")
    check_outputs(outputs, inputs, force=bool(values.get("force")))
    return job


def _refuse_idle(
    mode: type[Job], modes: Iterable[type[Job]], given: Mapping[str, Any], flags: Mapping[str, str]
) -> None:
    options = options_of(mode)
    for name in given:
        if name not in options:
            others = "; ".join(each.doing for each in modes if name in options_of(each))
            raise ConfigurationError(f"{flags[name]} has no effect on {mode.doing}; it is for {others}")
        for mark in options[name].marked(Beside):
            if not any(given.get(other) for other in mark.names):
                raise ConfigurationError(
                    f"{flags[name]} has no effect without {' or '.join(flags[other] for other in mark.names)}"
                )
        for other in (other for mark in options[name].marked(Unless) for other in mark.names):
            if other in given:
                raise ConfigurationError(
                    f"{flags[name]} has no effect beside {flags[other]}; leave one of them out"
                )


def _refuse_empty(given: Mapping[str, Any], flags: Mapping[str, str]) -> None:
    """Refuse an option without text, which would be taken for one that is not given."""
    for name, value in given.items():
        if isinstance(value, str) and not value.strip():
            raise ConfigurationError(f"{flags[name]} is empty; give it a value, or leave it out")


def _filled(form: type, values: Mapping[str, Any]) -> Any:
    hints = _hints(form)
    return form(
        **{
            field.name: _filled(hints[field.name], values)
            if dataclasses.is_dataclass(hints[field.name])
            else values[field.name]
            for field in dataclasses.fields(form)
        }
    )


def _named(mode: type[Job], given: Mapping[str, Any], flags: Mapping[str, str], kind: type) -> list[Any]:
    """Return the files that options name, of those that are read or of those that are written."""
    return [
        file
        for name, option in options_of(mode).items()
        if name in given
        for mark in option.marked(kind)
        for value in _each(given[name])
        for file in mark.files(flags[name], value)
    ]


def _each(value: Any) -> list[Any]:
    return list(value) if isinstance(value, list | tuple) else [] if value is None else [value]


def _is_given(context: typer.Context, name: str) -> bool:
    source = context.get_parameter_source(name)
    return source is not None and source.name == "COMMANDLINE"


def _flags(context: typer.Context) -> dict[str, str]:
    """Return how each option is written; an argument as the usage line has it."""
    return {
        parameter.name or "": parameter.opts[0]
        if parameter.param_type_name == "option"
        else (parameter.metavar or parameter.name or "").strip("[].").upper()
        for parameter in context.command.params
    }


def _command_line(context: typer.Context) -> str:
    return shlex.join(["mobileinst", *context.command_path.split()[1:], *_words(context)])


def _words(context: typer.Context) -> Iterator[str]:
    for parameter in context.command.params:
        if _is_given(context, parameter.name or ""):
            values = _each(context.params[parameter.name or ""])
            if isinstance(context.params[parameter.name or ""], tuple):
                yield from [parameter.opts[0], *map(str, values)]
            else:
                yield from (word for value in values for word in _option(parameter, value))


def _option(parameter: Any, value: Any) -> list[str]:
    if parameter.param_type_name == "argument":
        return [str(value)]
    if isinstance(value, bool):
        return [parameter.opts[0] if value else parameter.secondary_opts[0]]
    return [parameter.opts[0], str(value)]

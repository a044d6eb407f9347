"""What --help shows: options in groups, and examples that stand on one line and work."""

from __future__ import annotations

import shlex
from typing import Any

import pytest
from command_examples import COMMANDS, MODES
from typer.testing import CliRunner

import conformance.cli

EXAMPLES = [(name, line) for name, command in COMMANDS.items() for line in command.examples]


def shown(words: list[str], columns: int) -> str:
    result = CliRunner().invoke(
        conformance.cli.app, [*words, "--help"], env={"COLUMNS": str(columns), "TERMINAL_WIDTH": str(columns)}
    )
    assert result.exit_code == 0
    return result.output


@pytest.mark.parametrize("columns", [40, 80, 200])
@pytest.mark.parametrize(("name", "line"), EXAMPLES)
def test_an_example_is_never_broken(name: str, line: str, columns: int) -> None:
    assert f"  {line}" in shown(name.split(), columns).splitlines()


@pytest.mark.parametrize("name", sorted(set(COMMANDS) - {"golden build", "golden check", "golden coverage"}))
def test_a_command_has_examples_of_itself(name: str) -> None:
    assert COMMANDS[name].examples
    assert all(line.startswith(f"mobileinst {name}") for line in COMMANDS[name].examples)


@pytest.mark.parametrize(("name", "line"), [pair for pair in EXAMPLES if pair[0] in MODES.values()])
def test_an_example_is_what_the_command_takes(
    name: str, line: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Any
) -> None:
    """Every option in it belongs to the mode that it chooses; no file of its need be there."""
    monkeypatch.chdir(tmp_path)
    begun = []
    for mode in MODES:
        monkeypatch.setattr(mode, "run", lambda self: begun.append(self) or 0)
    result = CliRunner().invoke(conformance.cli.app, shlex.split(line)[1:])
    assert result.exit_code == 0, (result.output, result.exception)
    assert MODES[type(begun[0])] == name


def test_options_stand_in_groups() -> None:
    page = shown(["verify"], 100)
    for group in ("Network", "Input", "Candidate", "Results", "TNN"):
        assert f"─ {group} ─" in page

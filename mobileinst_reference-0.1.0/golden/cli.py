"""`mobileinst golden`: build, check, judge and export golden tensors."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.table import Table

from conformance.cli import options
from conformance.cli.job import Job, add_command
from conformance.cli.options import JsonFile
from conformance.cli.output_files import Reads, Writes
from golden import DATA
from golden.learning.cli import curve, train

if TYPE_CHECKING:
    from golden.coverage import Row as Covered
    from golden.judge import Judgement

Set = typer.Option("--data", help="The set. Default: the one that came with the package.")
Data = Annotated[Path, Set, Reads()]
Only = Annotated[
    list[str] | None, typer.Option("--only", metavar="PATTERN", help="Only goldens so named; repeatable.")
]


@dataclass(frozen=True, kw_only=True)
class Build(Job):
    """Compute the set, have it confirmed by independent implementations, and put it in place of the old one.

    Needs the extras [bold]torch[/bold] and [bold]golden[/bold].
    """

    doing = "building the set"

    data: Annotated[Path, Set, Writes(None)] = DATA

    def run(self) -> int:
        """Build it, and say how large it is."""
        from golden.build import build
        from golden.catalogue import goldens

        with options.working("building") as progress:
            count = build(goldens(), self.data, lambda name: progress(f"building {name}"))
        size = sum(path.stat().st_size for path in self.data.rglob("*") if path.is_file()) / 1e6
        said = f"{count} goldens, each confirmed, {size:.1f} MB in {self.data}"
        options.console.print(said, highlight=False)
        return 0


@dataclass(frozen=True, kw_only=True)
class Check(Job):
    """Check the integrity of the set, and that this machine's code reproduces every file.

    Exit code 0: both hold. 1: a file is not reproduced. 2: a file is damaged.
    """

    doing = "checking the set"

    data: Data = DATA
    files: JsonFile

    def run(self) -> int:
        """Check every golden; 1 if one is not reproduced."""
        from golden.check import check

        with options.working("checking") as progress:
            results = check(self.data, lambda name: progress(f"checking {name}"))
        wrong = [result for result in results if result.problem]
        for result in wrong:
            options.console.print(f"{result.name}: {result.problem}", highlight=False)
        content = [
            {"name": r.name, "largest_disagreement": r.disagreement, "problem": r.problem} for r in results
        ]
        if self.files.write(content):
            largest = max((r.disagreement for r in results if not r.problem), default=0.0)
            options.console.print(
                f"{len(results)} goldens intact, {len(results) - len(wrong)} reproduced; "
                f"largest difference {largest:.1e}",
                highlight=False,
            )
        return 1 if wrong else 0


@dataclass(frozen=True, kw_only=True)
class Judge(Job):
    """Judge a candidate's outputs: error over bound, and what is wrong in one line.

    Exit code 0: all pass. 1: some fail. 2: outputs are missing, unknown, misshapen or unreadable.

    [bold]Examples[/bold]

      mobileinst golden judge my-port/

      mobileinst golden judge my-port/ --only 'operations/conv.*' --only 'probes/resize.*'
    """

    doing = "judging a candidate"

    folder: Annotated[
        Path, typer.Argument(help="The candidate's outputs, named as golden/README.md says."), Reads()
    ]
    only: Only = None
    data: Data = DATA
    files: JsonFile
    everything: Annotated[bool, typer.Option("--all", help="Show the rows that pass, too.")] = False

    def check(self) -> None:
        """Refuse options about a table that is not printed."""
        self.files.check_printed("--all", self.everything)

    def run(self) -> int:
        """Judge every golden, and print the rows and what is wrong with the folder."""
        from golden.judge import judge

        with options.working("judging") as progress:
            judgement = judge(
                self.folder, self.data, self.only or (), lambda name: progress(f"judging {name}")
            )
        if self.files.write(judgement.to_json()):
            _print(judgement, self.everything)
        for problem in judgement.problems:
            typer.echo(f"error: {problem}", err=True)
        return judgement.exit_code


def _print(judgement: Judgement, everything: bool) -> None:
    table = Table("golden", "output", "format", "error / bound", "verdict", "reading", box=None)
    for row in judgement.rows:
        if everything or row.verdict == "fail":
            figure = "" if row.utilisation is None else f"{row.utilisation:.3g}"
            table.add_row(row.golden, row.output, row.format or "exact", figure, row.verdict, row.reading)
    if table.row_count:
        options.console.print(table)
    failed = sum(row.verdict == "fail" for row in judgement.rows)
    options.console.print(
        f"{len(judgement.rows)} outputs judged, {failed} fail, {len(judgement.problems)} problems",
        highlight=False,
    )


@dataclass(frozen=True, kw_only=True)
class Export(Job):
    """Write the goldens for other toolchains: raw little-endian numbers, NumPy arrays, TNN's text, C headers.

    [bold]Examples[/bold]

      mobileinst golden export goldens/ --format c-header --only 'probes/*'
    """

    doing = "exporting the set"

    folder: Annotated[Path, typer.Argument(help="Where to write; a new or empty folder."), Writes(None)]
    form: Annotated[str, typer.Option("--format", help="raw, npy, tnn-text or c-header.")] = "raw"
    only: Only = None
    data: Data = DATA

    def run(self) -> int:
        """Write the files, and count them."""
        from golden.export import export

        count = export(self.folder, self.form, self.data, self.only or ())
        options.console.print(f"{count} goldens as {self.form} in {self.folder}", highlight=False)
        return 0


@dataclass(frozen=True, kw_only=True)
class Coverage(Job):
    """Show which public function of the reference has a golden, and who confirmed it.

    What gives no numbers to compare has the test that holds it to its word. Exit code 1 if one has neither.
    """

    doing = "the coverage"

    data: Data = DATA
    files: JsonFile

    def run(self) -> int:
        """Print the functions; 1 if one has neither a golden nor a test."""
        from golden.coverage import coverage

        rows = coverage(self.data)
        missing = sum(not row.goldens and not row.test for row in rows)
        if self.files.write([asdict(row) for row in rows]):
            options.console.print(_coverage_table(rows))
            covered = sum(bool(row.goldens) for row in rows)
            options.console.print(
                f"{len(rows)} functions: {covered} have goldens, {len(rows) - covered - missing} a test "
                f"instead, {missing} neither",
                highlight=False,
            )
        return 1 if missing else 0


def _coverage_table(rows: list[Covered]) -> Table:
    table = Table("function", "goldens", box=None)
    table.add_column("confirmed by", overflow="fold")
    for row in rows:
        more = f" and {len(row.goldens) - 1} more" if len(row.goldens) > 1 else ""
        first = row.goldens[0] + more if row.goldens else row.reason or "MISSING"
        table.add_row(row.function, first, ", ".join(row.sources) or row.test or "MISSING")
    return table


app = typer.Typer(
    help="Golden tensors: build, check and export them; judge a candidate by them.",
    no_args_is_help=True,
    rich_markup_mode="rich",
)
app.command()(train)
app.command()(curve)
add_command(app, "build", Build)
add_command(app, "check", Check)
add_command(app, "judge", Judge)
add_command(app, "export", Export)
add_command(app, "coverage", Coverage)

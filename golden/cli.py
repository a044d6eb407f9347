"""`mobileinst golden`: build, check, judge and export golden tensors."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table

from conformance.cli import options
from golden import DATA
from golden.learning.cli import curve, train

app = typer.Typer(
    help="Golden tensors: build, check and export them; judge a candidate by them.",
    no_args_is_help=True,
    rich_markup_mode="rich",
)

app.command()(train)
app.command()(curve)

Data = Annotated[Path, typer.Option("--data", help="The set. Default: the one that came with the package.")]
Only = Annotated[
    list[str] | None, typer.Option("--only", metavar="PATTERN", help="Only goldens so named; repeatable.")
]


@app.command()
def build(data: Data = DATA) -> None:
    """Compute the set, have it confirmed by independent implementations, and put it in place of the old one.

    Needs the extras [bold]torch[/bold] and [bold]golden[/bold].
    """
    from golden.build import build as build_set
    from golden.catalogue import goldens

    with options.progress_console.status("building") as status:
        count = build_set(goldens(), data, lambda name: status.update(f"building {name}"))
    size = sum(path.stat().st_size for path in data.rglob("*") if path.is_file()) / 1e6
    options.console.print(f"{count} goldens, each confirmed, {size:.1f} MB in {data}", highlight=False)


@app.command()
def check(data: Data = DATA, json: options.Json = None) -> None:
    """Check the integrity of the set, and that this machine's code reproduces every file.

    Exit code 0: both hold. 1: a file is not reproduced. 2: a file is damaged.
    """
    from golden.check import check as check_set

    with options.progress_console.status("checking") as status:
        results = check_set(data, lambda name: status.update(f"checking {name}"))
    wrong = [result for result in results if result.problem]
    for result in wrong:
        options.console.print(f"{result.name}: {result.problem}", highlight=False)
    content = [
        {"name": r.name, "largest_disagreement": r.disagreement, "problem": r.problem} for r in results
    ]
    options.write_json(json, content)
    if str(json) != "-":
        largest = max((r.disagreement for r in results if not r.problem), default=0.0)
        options.console.print(
            f"{len(results)} goldens intact, {len(results) - len(wrong)} reproduced; "
            f"largest difference {largest:.1e}",
            highlight=False,
        )
    raise typer.Exit(1 if wrong else 0)


@app.command()
def judge(
    folder: Annotated[Path, typer.Argument(help="The candidate's outputs, named as golden/README.md says.")],
    only: Only = None,
    data: Data = DATA,
    json: options.Json = None,
    everything: Annotated[bool, typer.Option("--all", help="Show the rows that pass, too.")] = False,
) -> None:
    """Judge a candidate's outputs: error over bound, and what is wrong in one line.

    Exit code 0: all pass. 1: some fail. 2: outputs are missing, unknown, misshapen or unreadable.

    [bold]Examples[/bold]

      mobileinst golden judge my-port/

      mobileinst golden judge my-port/ --only 'operations/conv.*' --only 'probes/resize.*'
    """
    from golden.judge import judge as judge_folder

    with options.progress_console.status("judging") as status:
        judgement = judge_folder(folder, data, only or (), lambda name: status.update(f"judging {name}"))
    options.write_json(json, judgement.to_json())
    if str(json) != "-":
        _print(judgement, everything)
    for problem in judgement.problems:
        typer.echo(f"error: {problem}", err=True)
    raise typer.Exit(judgement.exit_code)


def _print(judgement: object, everything: bool) -> None:
    from golden.judge import Judgement

    assert isinstance(judgement, Judgement)
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


@app.command()
def export(
    folder: Annotated[Path, typer.Argument(help="Where to write; a new or empty folder.")],
    form: Annotated[str, typer.Option("--format", help="raw, npy, tnn-text or c-header.")] = "raw",
    only: Only = None,
    data: Data = DATA,
) -> None:
    """Write the goldens for other toolchains: raw little-endian numbers, NumPy arrays, TNN's text, C headers.

    [bold]Examples[/bold]

      mobileinst golden export goldens/ --format c-header --only 'probes/*'
    """
    from golden.export import export as export_set

    count = export_set(folder, form, data, only or ())
    options.console.print(f"{count} goldens as {form} in {folder}", highlight=False)


@app.command()
def coverage(data: Data = DATA, json: options.Json = None) -> None:
    """Show which public function of the reference has a golden, and who confirmed it.

    What gives no numbers to compare has the test that holds it to its word. Exit code 1 if one has neither.
    """
    from dataclasses import asdict

    from golden.coverage import coverage as cover

    rows = cover(data)
    options.write_json(json, [asdict(row) for row in rows])
    missing = [row for row in rows if not row.goldens and not row.test]
    if str(json) != "-":
        table = Table("function", "goldens", box=None)
        table.add_column("confirmed by", overflow="fold")
        for row in rows:
            more = f" and {len(row.goldens) - 1} more" if len(row.goldens) > 1 else ""
            first = row.goldens[0] + more if row.goldens else row.reason or "MISSING"
            table.add_row(row.function, first, ", ".join(row.sources) or row.test or "MISSING")
        options.console.print(table)
        covered = sum(bool(row.goldens) for row in rows)
        options.console.print(
            f"{len(rows)} functions: {covered} have goldens, {len(rows) - covered - len(missing)} a test "
            f"instead, {len(missing)} neither",
            highlight=False,
        )
    raise typer.Exit(1 if missing else 0)

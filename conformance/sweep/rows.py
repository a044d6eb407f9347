"""The rows of a sweep and their files: Parquet, or JSON lines where pyarrow is not installed."""

from __future__ import annotations

import importlib.util
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from conformance.files import atomic_write
from refimpl.errors import FileError, MissingDependencyError

Row = dict[str, Any]
Rows = dict[str, list[Row]]
"""Table → its rows."""

TABLES: dict[str, dict[str, str]] = {
    "steps": {
        "picture": "string",
        "step": "string",
        "operation": "string",
        "part": "string",
        "judged": "string",
        "error": "double",
        "introduced": "double",
        "bound": "double",
        "utilisation": "double",
        "element": "string",
        "verdict": "string",
    },
    "decisions": {
        "picture": "string",
        "decision": "string",
        "count": "int64",
        "flips": "int64",
        "ties": "int64",
        "near": "int64",
        "smallest_margin": "double",
        "largest_flipped_margin": "double",
        "smallest_iou": "double",
        "allowed": "double",
        "unit": "string",
        "agreed": "list<int64>",
        "tied": "list<int64>",
        "flipped": "list<int64>",
        "not_judged": "string",
        "verdict": "string",
    },
    "detections": {
        "picture": "string",
        "side": "string",
        "image_id": "int64",
        "category_id": "int64",
        "score": "double",
        "height": "int64",
        "width": "int64",
        "counts": "string",
    },
    "pictures": {
        "picture": "string",
        "sha256": "string",
        "judged": "string",
        "why": "string",
        "verdict": "string",
        "says": "string",
        "seconds": "double",
        "processor": "double",
        "reference_cached": "bool",
        "bytes": "int64",
        "ended": "double",
        "worker": "string",
        "resident": "int64",
    },
}
"""Table → column → type. A part is finished when its ``pictures``, the last, are there."""
_LAST = re.compile(r"(\d{6,})\.pictures(\.parquet|\.jsonl)")
EXTRA = "pip install 'mobileinst-reference[sweep]'"


def parquet() -> Any:
    """Return pyarrow's Parquet module.

    Raises
    ------
    MissingDependencyError
        It is not installed.
    """
    try:
        import pyarrow.parquet
    except ImportError as error:
        raise MissingDependencyError(f"Parquet files need the extra 'sweep': {EXTRA}") from error
    return pyarrow.parquet


def suffix() -> str:
    """Return the suffix of the files that are written here."""
    return ".parquet" if importlib.util.find_spec("pyarrow") else ".jsonl"


def write_part(folder: Path, place: int, rows: Rows) -> int:
    """Write the rows of a chunk, one file for each table; return their size in bytes.

    Raises
    ------
    FileError
        There is no space left, or the folder cannot be written.
    """
    size = 0
    for table in TABLES:
        path = folder / f"{place:06d}.{table}{suffix()}"
        with atomic_write(path) as temporary:
            _write(temporary, table, rows.get(table, []))
        size += path.stat().st_size
    return size


def _write(path: Path, table: str, rows: Sequence[Row]) -> None:
    columns = TABLES[table]
    if path.suffix == ".jsonl":
        told = [{name: row.get(name) for name in columns} for row in rows]
        lines = [json.dumps(each) + "\n" for each in (*told, _end(rows))]
        path.write_text("".join(lines), encoding="utf-8")
        return
    written = parquet()
    import pyarrow

    kinds = {
        name: pyarrow.list_(pyarrow.int64()) if kind == "list<int64>" else pyarrow.type_for_alias(kind)
        for name, kind in columns.items()
    }
    schema = pyarrow.schema(list(kinds.items()))
    written.write_table(pyarrow.Table.from_pylist(list(rows), schema), path, compression="zstd")


def finished(folder: Path) -> frozenset[int]:
    """Return the parts of which all rows are there."""
    return frozenset(_finished(folder))


def _finished(folder: Path) -> dict[int, str]:
    """Return the finished parts, in order, and the suffix of their files."""
    found = filter(None, (_LAST.fullmatch(path.name) for path in folder.glob("*.pictures.*")))
    return dict(sorted((int(name[1]), name[2]) for name in found))


def read_rows(folder: Path, table: str) -> Iterator[list[Row]]:
    """Yield the rows of a table, part by part in order, of the parts that are finished.

    Raises
    ------
    FileError
        A file of a part is damaged.
    """
    for place, ending in _finished(folder).items():
        path = folder / f"{place:06d}.{table}{ending}"
        try:
            rows = _read(path)
        except (OSError, ValueError) as error:  # pyarrow's errors are of these kinds
            raise FileError(
                f"{path} is damaged ({' '.join(str(error).split())}); delete the files {place:06d}.*, "
                "and give --resume"
            ) from error
        yield rows


def _read(path: Path) -> list[Row]:
    if path.suffix == ".jsonl":
        return _whole([json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()])
    rows: list[Row] = parquet().read_table(path).to_pylist()
    return rows


def _whole(rows: Sequence[Row]) -> list[Row]:
    if rows[-1:] != [_end(rows[:-1])]:
        raise ValueError("its last line does not say how many rows there are")
    return list(rows[:-1])


def _end(rows: Sequence[Row]) -> Row:
    """Return the last line of a file of JSON: without it a file that was cut off would be a whole one."""
    return {"rows": len(rows)}


def only(row: Mapping[str, Any], table: str) -> Row:
    """Return what a table has columns for."""
    return {name: row[name] for name in TABLES[table] if name in row}

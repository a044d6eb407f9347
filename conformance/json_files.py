"""JSON: written of numbers that are finite; read back whole, of such numbers, and as its schema says."""

from __future__ import annotations

import json
import math
import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from conformance.foreign_names import shown
from conformance.limits import check_size
from refimpl.errors import FileError

Schema = Mapping[str, Any]
LARGEST = int(sys.float_info.max)


def finite(value: Any) -> Any:
    """Return plain data in which numbers that are not finite are words: JSON has none."""
    if isinstance(value, dict):
        return {key: finite(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [finite(each) for each in value]
    return str(value) if isinstance(value, float) and not math.isfinite(value) else value


def read_json(path: str | os.PathLike[str], schema: Schema | None = None) -> Any:
    """Parse a JSON file.

    Parameters
    ----------
    path
    schema
        A JSON Schema (draft 2020-12) that the content must satisfy.

    Raises
    ------
    FileError
        Missing, empty, larger than `conformance.limits.MOST_BYTES`, truncated or not JSON (the message gives
        line and column), NaN or infinity in it, nested too deeply, or not as the schema says.
    """
    try:
        check_size(os.path.getsize(path), f"{path}")
        content = Path(path).read_bytes()
    except FileError:
        raise
    except (OSError, ValueError) as error:
        raise FileError(f"{path}: cannot be read: {getattr(error, 'strerror', None) or error}") from None
    return parse_json(content, str(path), schema)


def parse_json(content: bytes | str, source: str, schema: Schema | None = None) -> Any:
    """Parse JSON; as `read_json`, whose file `source` names in errors."""
    try:
        parsed = json.loads(content, parse_constant=_refused, parse_float=_finite, parse_int=_whole)
    except json.JSONDecodeError as error:
        raise FileError(
            f"{source}: not JSON: {error.msg} at line {error.lineno}, column {error.colno}; "
            "the file may be cut off, write it again"
        ) from None
    except RecursionError:
        raise FileError(f"{source}: not JSON of ours: it is nested too deeply; write it again") from None
    except ValueError as error:
        raise FileError(f"{source}: not JSON: {error}") from None
    if schema is not None:
        check_schema(parsed, source, schema)
    return parsed


def _refused(constant: str) -> float:
    raise ValueError(f"{constant} is no number of JSON; the file is damaged, write it again")


def _finite(text: str) -> float:
    number = float(text)
    if math.isinf(number):
        raise ValueError(f"{text[:40]} is larger than any float64; the file is damaged, write it again")
    return number


def _whole(text: str) -> int:
    number = int(text)
    if abs(number) > LARGEST:
        raise ValueError(f"{text[:40]}… is larger than any float64; the file is damaged, write it again")
    return number


def check_schema(parsed: Any, source: str, schema: Schema) -> None:
    """Raise `FileError` unless parsed JSON, from the file that ``source`` names, is as the schema says."""
    # Most commands read no JSON.
    from jsonschema import Draft202012Validator
    from jsonschema.exceptions import best_match

    wrong = best_match(Draft202012Validator(schema).iter_errors(parsed))
    if wrong is not None:
        raise FileError(
            f"{source}: {_reason(wrong)} at {wrong.json_path}; the file is damaged or of another version, "
            "write or copy it again"
        )


def _reason(wrong: Any) -> str:
    """Return what is wrong in a line; the library's own message repeats the whole content."""
    expected = f"{wrong.validator} {shown(wrong.validator_value)}"
    return f"{shown(wrong.instance)} does not satisfy {expected}"

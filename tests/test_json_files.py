"""What is written as JSON is JSON, whatever the numbers."""

from __future__ import annotations

import json
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from conformance.cli.options import write_json
from conformance.json_files import read_json

CONTENT = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.floats() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=20,
)
WORDS = {"NaN": "nan", "Infinity": "inf", "-Infinity": "-inf"}


@given(content=st.dictionaries(st.text(), CONTENT))
def test_numbers_that_are_not_finite_are_words(tmp_path_factory, content: dict[str, object]) -> None:
    path: Path = tmp_path_factory.mktemp("json") / "x.json"
    write_json(path, content)
    assert read_json(path) == json.loads(json.dumps(content), parse_constant=WORDS.__getitem__)

"""Most of these tests read the manifest of the shipped set, whose schema is the longest work in it."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest

from conformance.json_files import Schema, check_schema
from golden import store


@pytest.fixture(scope="session", autouse=True)
def sound_manifests_checked_once() -> Iterator[None]:
    """Hold a manifest to its schema once: one of the same content was found to be as that says."""
    sound: set[str] = set()

    def checked(parsed: object, source: str, schema: Schema) -> None:
        content = json.dumps([parsed, schema])
        if content not in sound:
            check_schema(parsed, source, schema)
            sound.add(content)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(store, "check_schema", checked)
        yield

"""What a track log's two files hold, as JSON Schemas: a line of ``frames.jsonl``, and ``state.json``."""

from __future__ import annotations

from typing import Any

Schema = dict[str, Any]


def _list(items: Schema) -> Schema:
    return {"type": "array", "items": items}


NUMBER: Schema = {"type": "number"}
NUMBER_OR_NONE: Schema = {"type": ["number", "null"]}
COUNT: Schema = {"type": "integer", "minimum": 0, "maximum": 2**53}
INDEX: Schema = {**COUNT, "minimum": -1}
"""−1: none."""
DTYPE: Schema = {"enum": ["int64", "int32", "float16", "float32", "float64"]}

FRAME: Schema = {
    "type": "object",
    "properties": {
        "frame": COUNT,
        "keyframe": {"type": "boolean"},
        "tracks": _list(COUNT),
        "slots": _list(COUNT),
        "scores": _list(NUMBER),
        "labels": _list(COUNT),
        "margin": NUMBER_OR_NONE,
        "track_margins": _list(NUMBER_OR_NONE),
        "seconds": NUMBER,
        "segmentations": _list({"type": ["object", "null"]}),
    },
    "required": ["frame", "keyframe", "tracks", "slots", "scores", "labels", "segmentations"],
}
STATE_ARRAYS: Schema = {
    "type": "object",
    "properties": {
        "dtypes": {"type": "object", "additionalProperties": DTYPE},
        "frame": COUNT,
        "keyframes": COUNT,
        "next_identity": COUNT,
        "queries": _list(INDEX),
        "identities": _list(INDEX),
        "born": _list(INDEX),
        "kernels": _list(_list(NUMBER)),
        "scores": _list(_list(NUMBER)),
        "score_sums": _list(_list(NUMBER)),
    },
    "additionalProperties": False,
    "required": ["dtypes", "frame", "keyframes", "next_identity"],
}

"""Requests and answers of a tracker in any language, as JSON (docs/check-tracker.md)."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pycocotools import mask as coco_mask

from conformance.trackers.candidate import FrameAnswer, LivingTrack, OnlineFrame, OnlineRules, VideoFrame
from refimpl.errors import ConfigurationError

Array = NDArray[Any]


class AnswerError(ConfigurationError):
    """An answer lacks something, or something in it is not of its kind."""


# Requests ---------------------------------------------------------------------------------------------------


def finite_lists(array: Array) -> Any:
    """Nested lists for JSON, null for what is not finite."""
    if array.ndim > 1:
        return [finite_lists(row) for row in array]
    return [value if np.isfinite(value) else None for value in array.tolist()]


def associate_request(previous: Array, current: Array) -> dict[str, Any]:
    """The request to match two keyframes."""
    return {"op": "associate", "previous": finite_lists(previous), "current": finite_lists(current)}


def video_request(frames: Sequence[VideoFrame], keyframe_interval: int, state: Any) -> dict[str, Any]:
    """The request that asks for a video."""
    listed = [_named_lists(frame, ("kernels", "mask_features")) for frame in frames]
    return {"op": "video", "keyframe_interval": keyframe_interval, "state": state, "frames": listed}


def online_request(frames: Sequence[OnlineFrame], rules: OnlineRules, state: Any) -> dict[str, Any]:
    """The request that asks for the living tracks of a video."""
    names = ("kernels", "mask_features", "class_logits", "objectness")
    return {
        "op": "online",
        "keyframe_interval": rules.keyframe_interval,
        "birth": rules.birth,
        "death": rules.death,
        "rescore": rules.rescore,
        "state": state,
        "frames": [_named_lists(frame, names) for frame in frames],
    }


def _named_lists(frame: VideoFrame | OnlineFrame, names: Sequence[str]) -> dict[str, Any]:
    """What a frame has; what it has not is left out."""
    arrays = {name: getattr(frame, name) for name in names}
    return {name: finite_lists(array) for name, array in arrays.items() if array is not None}


# The same numbers, written otherwise ------------------------------------------------------------------------

DECIMAL = re.compile(r"-?\d+\.\d+(?:e[+-]?\d+)?")


def _as_integer(number: str) -> str:
    value = float(number)
    return str(int(value)) if value.is_integer() else number


def _with_exponent(number: str) -> str:
    return f"{float(number):.17E}"


def _negative_zero(number: str) -> str:
    return "-0.0" if float(number) == 0 else number


NOTATIONS: dict[str, Callable[[str], str]] = {
    "integers": _as_integer,
    "exponents": _with_exponent,
    "negative zeros": _negative_zero,
}
"""Ways to write the same numbers in JSON: each takes a decimal number as Python writes it."""


def request_text(request: dict[str, Any], notation: str | None = None) -> str:
    """A request as one line of JSON, its decimal numbers in one of `NOTATIONS`."""
    text = json.dumps(request, allow_nan=False)
    return DECIMAL.sub(lambda found: NOTATIONS[notation](found[0]), text) if notation else text


# Answers ----------------------------------------------------------------------------------------------------


def permutation_of(answer: dict[str, Any]) -> Array:
    """Read the answer to ``associate``.

    Raises
    ------
    AnswerError
    """
    return _integers(_field(answer, "permutation", list), "permutation")


def frames_of(answer: dict[str, Any]) -> tuple[list[FrameAnswer], Any]:
    """Read the answer to ``video``, and the state.

    Raises
    ------
    AnswerError
    """
    return [_frame(entry) for entry in _field(answer, "frames", list)], _field_or_null(answer, "state")


def tracks_of(answer: dict[str, Any]) -> tuple[list[list[LivingTrack]], Any]:
    """Read the answer to ``online``, and the state.

    Raises
    ------
    AnswerError
    """
    frames = _field(answer, "frames", list)
    return [[_track(one) for one in _field(entry, "tracks", list)] for entry in frames], _field_or_null(
        answer, "state"
    )


def _field(answer: Any, key: str, kind: type) -> Any:
    value = answer.get(key) if isinstance(answer, dict) else None
    if not isinstance(value, kind) or (kind is not bool and isinstance(value, bool)):
        raise AnswerError(f"the answer needs {key}, a {kind.__name__}; got {answer!r:.200}")
    return value


def _field_or_null(answer: dict[str, Any], key: str) -> Any:
    if key not in answer:
        raise AnswerError(f"the answer needs {key}, which may be anything; got {answer!r:.200}")
    return answer[key]


def _integers(listed: list[Any], name: str) -> Array:
    if not all(type(value) is int and abs(value) < 2**53 for value in listed):
        raise AnswerError(f"{name} must be a list of integers, got {listed!r:.80}")
    return np.array(listed, np.int64)


def _frame(entry: Any) -> FrameAnswer:
    """One entry of ``frames``."""
    order = _integers(_field(entry, "order", list), "order")
    return FrameAnswer(_field(entry, "keyframe", bool), order, _numbers(_field(entry, "masks", list)))


def _numbers(listed: list[Any]) -> Array:
    """The mask logits of one frame."""
    try:
        numbers = np.array(listed)
    except ValueError:
        numbers = np.array(None)
    if numbers.size and numbers.dtype.kind not in "iuf":
        raise AnswerError(f"masks must be nested lists of numbers (N, h, w), got {listed!r:.80}")
    return numbers.astype(np.float64)


def _track(entry: Any) -> LivingTrack:
    """One entry of ``tracks``."""
    identity, label = (int(_field(entry, name, int)) for name in ("identity", "label"))
    score = entry.get("score")
    if isinstance(score, bool) or not isinstance(score, int | float):
        raise AnswerError(f"a track needs score, a number; got {entry!r:.200}")
    return LivingTrack(identity, label, float(score), _segmentation(entry))


def _segmentation(entry: dict[str, Any]) -> Array | None:
    """Decode COCO's run lengths, compressed or not."""
    if entry.get("segmentation", False) is None:
        return None
    rle = _field(entry, "segmentation", dict)
    try:
        size, counts = [int(side) for side in rle["size"]], rle["counts"]
        if isinstance(counts, str):
            encoded = {"size": size, "counts": counts.encode()}
        else:
            if sum(counts) != size[0] * size[1] or min(counts, default=0) < 0:
                raise ValueError
            encoded = coco_mask.frPyObjects({"size": size, "counts": counts}, *size)
        mask: Array = coco_mask.decode([encoded])[:, :, 0].astype(bool)
    except (KeyError, TypeError, ValueError, IndexError):
        raise AnswerError(
            f"segmentation must be null or COCO's run lengths, size [h, w] and counts; got {rle!r:.80}"
        ) from None
    return mask

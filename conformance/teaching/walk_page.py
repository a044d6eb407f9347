"""The page of `mobileinst walk`: one file that opens offline and computes its own numbers again."""

from __future__ import annotations

import base64
import io
import json
import zlib
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from markupsafe import Markup
from PIL import Image
from scipy.special import expit

from conformance.reports.architecture_figure import Figure, architecture_figure
from conformance.teaching.chapters import chapters, source
from conformance.teaching.clip import (
    MASK_THRESHOLD,
    SPEAKING,
    Clip,
    ages,
    output,
    query_maskness,
    query_scores,
)
from conformance.teaching.hand import best_pixel, by_hand
from conformance.teaching.pages import page_template
from conformance.teaching.payload import Payload
from conformance.teaching.questions import QUESTIONS
from conformance.teaching.wrong import Wrong, gallery
from refimpl import Recording, __version__
from refimpl.errors import ConfigurationError
from refimpl.matching import masks_at, matching_score
from refimpl.ops.operation import Array

HERE = Path(__file__).parent
LIMIT = 4_500_000
"""Bytes of arrays, as text, that a page holds at most."""
SHOWN_SOURCES = 2
MATCHED = 12
"""Rows of the table of matching scores."""
CHAPTER_OF = (
    ("backbone.tpm", 2),
    ("backbone", 3),
    ("mask_decoder", 4),
    ("instance_decoder.class", 6),
    ("instance_decoder.objectness", 6),
    ("instance_decoder.kernel", 6),
    ("instance_decoder", 5),
    ("masks", 0),
)
"""Path of a box of Figure 3 → the chapter that explains it."""
COLOURS = ("#E69F00", "#56B4E9", "#009E73", "#F0E442", "#0072B2", "#D55E00", "#CC79A7", "#999999")
"""Okabe and Ito's, which no common colour blindness confuses."""


def walk_page(clip: Clip, described: str, names: Sequence[str] | None = None) -> tuple[str, list[str]]:
    """Return the page, and what had to be left out.

    Parameters
    ----------
    clip
        The frames as the network saw them.
    described
        Which network and weights these are.
    names
        Of the classes.

    Raises
    ------
    ConfigurationError
        The first frame alone is more than a page can hold.
    """
    recording = clip.keyframe.recording
    payload = _keyframe(recording)
    kept = np.flatnonzero(query_scores(recording) > SPEAKING)
    wrongs = list(gallery(recording, kept if len(kept) else query_scores(recording).argsort()[-1:]))
    frames, shown, left_out = _fill(payload, clip, wrongs)
    facts = {**_facts(clip, frames, wrongs, names), "mistakes_shown": shown}
    text = json.dumps(facts, allow_nan=False)
    content = {"facts_crc": zlib.crc32(text.encode()), "arrays": payload.entries}
    page = page_template("walk_template.html").render(
        chapters=_chapters(clip),
        figure=_figure(recording),
        chapter_of=chapter_of,
        facts=facts,
        facts_text=_script(text),
        payload=_script(json.dumps(content)),
        style=Markup((HERE / "walk.css").read_text(encoding="utf-8")),
        script=Markup((HERE / "walk.js").read_text(encoding="utf-8")),
        described=described,
        left_out=left_out,
        products=_products(clip),
        version=__version__,
    )
    return page, left_out


def _script(text: str) -> Markup:
    """Return JSON that no text in it can end as an element."""
    return Markup(text.replace("<", "\\u003c"))


def chapter_of(prefix: str) -> int:
    """Return the chapter that explains a box of Figure 3."""
    return next((chapter for path, chapter in CHAPTER_OF if prefix.startswith(path)), 0)


def _figure(recording: Recording) -> Figure | None:
    rows = [
        {"name": step.name, "shape": recording.tensors[name].shape, "verdict": "pass", "utilisation": None}
        for step, name in recording.results()
    ]
    return architecture_figure(rows, recording.tensors[recording.inputs["images"]].shape)


def _chapters(clip: Clip) -> list[dict[str, Any]]:
    return [
        {
            **vars(chapter),
            "formula": Markup(chapter.formula),
            "number": by_hand(place, clip),
            "questions": [
                (number, each.kind, each.asks, each.answer(clip))
                for number, each in enumerate(QUESTIONS, 1)
                if each.chapter == place
            ],
            "sources": [source(name) for name in chapter.functions[:SHOWN_SOURCES]],
        }
        for place, chapter in enumerate(chapters())
    ]


# What is shipped.


def _keyframe(recording: Recording) -> Payload:
    """Return the arrays without which there is no page."""
    payload = Payload()
    _add_frame(payload, recording, 0)
    payload.add("logits", output(recording, "masks"), "f4")
    if payload.size > LIMIT:
        raise ConfigurationError(
            f"one frame of this network takes {payload.size / 1e6:.1f} MB of a page's {LIMIT / 1e6:.1f}; "
            "choose a smaller --size"
        )
    return payload


def _fill(payload: Payload, clip: Clip, wrongs: Sequence[Wrong]) -> tuple[int, int, list[str]]:
    """Add mistakes, maps and further frames as long as there is room.

    Returns
    -------
    frames, mistakes, what was left out
    """
    maps = list(_maps(clip.keyframe.recording))
    later = list(enumerate(clip.frames))[1:]
    tensors = clip.keyframe.recording.tensors
    shown = _add_while_room(payload, [partial(_add_wrong, payload, w, p) for p, w in enumerate(wrongs)])
    mapped = _add_while_room(payload, [partial(payload.add_map, n, tensors[t][0]) for n, t in maps])
    followed = _add_while_room(payload, [partial(_add_frame, payload, f.recording, p) for p, f in later])
    counts = (
        ("pictures of mistakes", shown, wrongs),
        ("maps", mapped, maps),
        ("later frames", followed, later),
    )
    left_out = [f"{len(all_) - fit} of {len(all_)} {what}" for what, fit, all_ in counts if fit < len(all_)]
    return 1 + followed, shown, left_out


def _add_while_room(payload: Payload, additions: Sequence[Callable[[], object]]) -> int:
    """Make additions until one does not fit, which is taken back; return how many fit."""
    for place, add in enumerate(additions):
        before = set(payload.entries)
        add()
        if payload.size > LIMIT:
            payload.remove(set(payload.entries) - before)
            return place
    return len(additions)


def _add_frame(payload: Payload, recording: Recording, place: int) -> None:
    payload.add(f"features{place}", output(recording, "mask_features"), "f2")
    payload.add(f"kernels{place}", output(recording, "kernels"), "f4")
    for kind in ("global", "local"):
        weights = _attention(recording, f"instance_decoder.{kind}_decoder.0.cross_attn")
        if weights is not None:
            payload.add(f"{kind}{place}", weights, "f2")
    if place == 0 and (own := _attention(recording, "backbone")) is not None:
        payload.add("backbone_attention", own, "f2")


def _attention(recording: Recording, prefix: str) -> Array | None:
    """Return the weights (heads, queries, tokens) of the first softmax under a path, if it has four axes."""
    softmax = (step for step in recording.steps if step.op_type == "Softmax" and step.name.startswith(prefix))
    for step in softmax:
        weights = recording.tensors[step.outputs[0]]
        return weights[0] if weights.ndim == 4 else None
    return None


def _add_wrong(payload: Payload, wrong: Wrong, place: int) -> None:
    payload.add(f"wrong{place}", expit(wrong.masks) > MASK_THRESHOLD, "bits")
    low = min(wrong.before.min(), wrong.after.min())
    span = max(wrong.before.max(), wrong.after.max()) - low or 1.0
    for name, cells in (("before", wrong.before), ("after", wrong.after)):
        payload.add(f"{name}{place}", np.rint((cells - low) / span * 255), "u1")


def _maps(recording: Recording) -> Iterator[tuple[str, str]]:
    """Yield what may be looked at: the pyramid, X6, and the mask decoder's maps."""
    blocks = recording.blocks
    levels: dict[tuple[int, ...], str] = {}
    for path, tensor in blocks.items():
        shape = recording.tensors[tensor].shape
        if path.startswith("backbone.tpm.layer") and path.count(".") == 2:
            levels[shape[2:]] = tensor
    for place, tensor in enumerate(list(levels.values())[-3:], 3):
        yield f"X{place}", tensor
    if recording.tensors[_last_of_backbone(recording)].ndim == 4:
        yield "X6", _last_of_backbone(recording)
    for column in ("lateral", "enhancer", "top_down", "bottom_up", "output"):
        for level in range(3):
            path = f"mask_decoder.{column}.{level}"
            if path in blocks:
                yield path.removeprefix("mask_decoder."), blocks[path]


def _last_of_backbone(recording: Recording) -> str:
    return [step for step in recording.steps if step.name.startswith("backbone")][-1].outputs[0]


# What is said.


def _facts(clip: Clip, frames: int, wrongs: Sequence[Wrong], names: Sequence[str] | None) -> dict[str, Any]:
    recording = clip.keyframe.recording
    query, row, column = best_pixel(recording)
    return {
        "start": {"query": query, "row": row, "column": column},
        "frames": frames,
        "threshold": MASK_THRESHOLD,
        "speaking": SPEAKING,
        "colours": list(COLOURS),
        "tokens": _grids(recording),
        "pictures": [_picture(each.picture, each.placement.resized) for each in clip.frames[:frames]],
        "padded": list(clip.keyframe.placement.padded),
        "resized": list(clip.keyframe.placement.resized),
        "sums": [float(output(each.recording, "masks").sum()) for each in clip.frames[:frames]],
        "queries": [_queries(each.recording, names) for each in clip.frames[:frames]],
        "ages": ages(clip),
        "network_logit": float(output(recording, "masks")[query, row, column]),
        "wrong": [_wrong(wrong, recording) for wrong in wrongs],
        "matching": _matching(clip),
        "exercises": [
            {"answer": each.answer, "hint": each.hint, "wrong": dict(each.wrong)} for each in chapters()
        ],
    }


def _grids(recording: Recording) -> dict[str, list[int]]:
    """Return height and width of the two maps that queries look at."""
    height, width = output(recording, "mask_features").shape[1:]
    grids = {"X6": list(recording.tensors[_last_of_backbone(recording)].shape[2:])}
    pooled = recording.blocks.get("instance_decoder.local_features")
    grids["X_L"] = list(recording.tensors[pooled].shape[2:]) if pooled else [height, width]
    return grids


def _picture(picture: Array, size: tuple[int, int]) -> str:
    """Return the picture at the network's size, as a data address."""
    file = io.BytesIO()
    small = Image.fromarray(picture).resize((size[1], size[0]), Image.Resampling.BILINEAR)
    small.save(file, format="WEBP", quality=80)
    return f"data:image/webp;base64,{base64.b64encode(file.getvalue()).decode()}"


def _queries(recording: Recording, names: Sequence[str] | None) -> list[dict[str, Any]]:
    classes, objectness = expit(output(recording, "class_logits")), expit(output(recording, "objectness"))
    scores, sure = query_scores(recording), query_maskness(recording)
    pixels = (expit(output(recording, "masks")) > MASK_THRESHOLD).sum(axis=(1, 2))
    return [
        {
            "label": names[int(each.argmax())] if names else f"class {int(each.argmax())}",
            "class": _short(each.max()),
            "objectness": _short(objectness[place, 0]),
            "maskness": _short(sure[place]),
            "score": _short(scores[place]),
            "pixels": int(pixels[place]),
        }
        for place, each in enumerate(classes)
    ]


def _short(value: Any) -> float:
    return float(f"{float(value):.6g}")


def _wrong(wrong: Wrong, recording: Recording) -> dict[str, Any]:
    total = output(recording, "masks").size
    seen = "your eye cannot see this" if wrong.changed == 0 else f"{wrong.changed} mask pixels changed sides"
    return {
        "name": wrong.name,
        "happens": wrong.happens,
        "step": wrong.step,
        "changed": wrong.changed,
        "share": _short(wrong.changed / total),
        "error": _short(wrong.error),
        "seen": seen,
        "command": f"mobileinst faults '{wrong.name}' --write wrong",
        "slice": list(wrong.before.shape),
    }


def _matching(clip: Clip) -> dict[str, Any] | None:
    """Return the matching scores of the queries that fit any object best; None without a truth."""
    if not clip.truth:
        return None
    recording, truth = clip.keyframe.recording, clip.truth[0]
    masks = output(recording, "masks")
    small = masks_at(truth.masks, masks.shape[1:], np.float64)
    score = matching_score(output(recording, "class_logits"), masks, truth.labels, small)
    rows = np.sort(np.argsort(-score.max(axis=1))[:MATCHED])
    return {"queries": rows.tolist(), "scores": [[_short(x) for x in score[row]] for row in rows]}


def _products(clip: Clip) -> dict[str, Any]:
    """Return the default pixel's products as shipped: the eight largest, the others' sum, all."""
    recording = clip.keyframe.recording
    query, row, column = best_pixel(recording)
    kernel = output(recording, "kernels")[query].astype(np.float32).astype(np.float64)
    feature = output(recording, "mask_features")[:, row, column].astype(np.float16).astype(np.float64)
    products = kernel * feature
    order = np.argsort(-np.abs(products), kind="stable")
    shown = [(int(c), kernel[c], feature[c], products[c]) for c in order[:8]]
    total = float(products.sum())
    return {
        "shown": shown,
        "others": len(order) - len(shown),
        "rest": float(products[order[8:]].sum()),
        "sum": total,
        "probability": float(expit(total)),
        "bound": float(np.abs(kernel) @ np.abs(feature)) * (2.0**-11 + 2.0**-22),
    }

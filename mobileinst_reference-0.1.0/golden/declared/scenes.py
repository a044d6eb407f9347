"""Rendered scenes, exact to the last bit, confirmed by a second renderer of Python's own numbers."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict
from typing import Any

import numpy as np

from golden.case import Case, Confirmation, Golden, json_value
from golden.sources import painter
from golden.sources.comparison import confirmed
from refimpl import scenes
from refimpl.errors import VerificationError
from refimpl.ops.operation import Array

SOURCE = "brute force: every pixel in Python's own integers and fractions"
KEYS = ((0,), (1,), (-5,), (1 << 40,), (3, 4), (4, 3), (7, -7, 2))
NOISE: dict[str, Any] = {"height": 9, "width": 11, "cell": 4, "origin": (-3, 5), "seed": 8}
SCENE: dict[str, Any] = {"height": 20, "width": 30, "seed": 10, "shapes": 5, "blur": 1}
FRAMES = 3
LONG = 60
"""Frames within which shapes leave and enter anew."""


def _exact(found: dict[str, Array], truth: dict[str, Array]) -> Confirmation:
    return confirmed(SOURCE, found, truth, {})


def _agreed(found: Any, results: Any) -> Confirmation:
    if found != results:
        raise VerificationError(f"{SOURCE} has {found}, not {results}")
    return Confirmation(SOURCE, 0.0, "decisions")


def _hash() -> Case:
    results = {"hash": [f"{int(scenes.integer_hash(*keys).item()):016x}" for keys in KEYS]}

    def confirm() -> list[Confirmation]:
        return [_agreed({"hash": [f"{painter.hashed(*keys):016x}" for keys in KEYS]}, results)]

    document = {"inputs": {"keys": json_value(KEYS)}, "results": results}
    return Case({}, {}, lambda form: {}, confirm, decisions=document)


def _noise() -> Case:
    truth = {"noise": scenes.value_noise(**NOISE)}
    top, left = NOISE["origin"]

    def confirm() -> list[Confirmation]:
        rows, columns = range(top, top + NOISE["height"]), range(left, left + NOISE["width"])
        found = [[painter.noise(r, c, NOISE["cell"], NOISE["seed"]) for c in columns] for r in rows]
        return [_exact({"noise": np.asarray(found, np.int32)}, truth)]

    return Case({}, truth, lambda form: {}, confirm)


def _frames() -> Case:
    scene = scenes.make_scene(**SCENE)
    frames = list(scenes.render_video(FRAMES, **SCENE))
    truth = {f"picture{t}": frame.picture for t, frame in enumerate(frames)}
    truth |= {f"masks{t}": frame.masks for t, frame in enumerate(frames)}
    results = {
        "labels": frames[0].labels.tolist(),
        "identities": [frame.identities.tolist() for frame in frames],
        "identities_of_all": scenes.identities_of(scene, LONG).tolist(),
    }

    def confirm() -> list[Confirmation]:
        drawn = painter.drawn_up(**SCENE)
        painted = _painted(drawn)
        return [
            _agreed(drawn, _document(scene)),
            _agreed(_identities(drawn), results),
            *(_exact(painted, rendered) for rendered in (truth, _rendered_once(scene))),
        ]

    document = {"inputs": {"scene": _document(scene), "frames": LONG}, "results": results}
    return Case({}, truth, lambda form: {}, confirm, decisions=document)


def _document(scene: scenes.Scene) -> dict[str, Any]:
    whole = asdict(scene)
    whole["shapes"] = [{key: json_value(value) for key, value in shape.items()} for shape in whole["shapes"]]
    return {key: json_value(value) for key, value in whole.items()}


def _rendered_once(scene: scenes.Scene) -> dict[str, Array]:
    """The same frames, each by the function for one frame, masks by the one that does not paint."""
    pictures = {f"picture{t}": scenes.render_frame(scene, t).picture for t in range(FRAMES)}
    return {**pictures, **{f"masks{t}": scenes.render_truth(scene, t)[0] for t in range(FRAMES)}}


def _identities(scene: painter.Scene) -> dict[str, Any]:
    shapes = range(len(scene["shapes"]))
    return {
        "labels": [shape["label"] for shape in scene["shapes"]],
        "identities": [[painter.identity(scene, i, t) for i in shapes] for t in range(FRAMES)],
        "identities_of_all": sorted({painter.identity(scene, i, t) for i in shapes for t in range(LONG)}),
    }


def _painted(scene: painter.Scene) -> dict[str, Array]:
    rows, columns = range(scene["height"]), range(scene["width"])
    found: dict[str, Array] = {}
    for t in range(FRAMES):
        seen = [[painter.nearest(scene, t, r, c) for c in columns] for r in rows]
        found[f"picture{t}"] = np.asarray(painter.painted(scene, t, seen), np.uint8)
        found[f"masks{t}"] = np.asarray(
            [[[index == i for index in row] for row in seen] for i in range(len(scene["shapes"]))]
        )
    return found


def goldens() -> Iterator[Golden]:
    """Yield the goldens of scenes."""
    module = "refimpl.scenes"
    yield Golden(
        "scenes/hash",
        "scene",
        f"{module}.integer_hash",
        {},
        None,
        "SplitMix64's finaliser, the keys one after another; 64 bits in hexadecimal",
        _hash,
    )
    yield Golden(
        "scenes/noise",
        "scene",
        f"{module}.value_noise",
        {name: json_value(value) for name, value in NOISE.items()},
        None,
        "value noise in integers: divisions round down, for negative coordinates too",
        _noise,
    )
    yield Golden(
        "scenes/frames",
        "scene",
        f"{module}.render_video",
        {"frames": FRAMES, **SCENE},
        None,
        "three frames of five shapes: nearer ones hide farther ones, then blur and grain",
        _frames,
        tuple(f"{module}.{name}" for name in ("make_scene", "render_frame", "render_truth", "identities_of")),
    )

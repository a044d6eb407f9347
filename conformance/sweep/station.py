"""What judges pictures one after another: a candidate, the network it should be, and what is allowed."""

from __future__ import annotations

import hashlib
import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

import conformance
import refimpl
from conformance.candidates.candidate import Candidate
from conformance.candidates.kinds import Request, files_named
from conformance.candidates.process import apart
from conformance.graph.onnx_file import external_files
from conformance.judge.network import verify
from conformance.judge.output_cache import OutputCache
from conformance.judge.track_identity import KERNELS, TrackIdentity, not_judged
from conformance.pictures.picture import coco_results
from conformance.reports.report import Comparison, Decision, InputReport, Report
from conformance.sweep.pictures import Chunk, Picture
from conformance.sweep.rows import TABLES, Row, Rows
from conformance.sweep.screening import SAMPLED, STEPS, Limits, Screened, drawn, look_at_steps, screen
from refimpl import MobileInst, MobileInstConfig, Recording, record
from refimpl.errors import CandidateError, ConfigurationError, MobileInstError, SpaceError
from refimpl.inference import Placement, postprocess, preprocess
from refimpl.ops.operation import Array

NAME = "candidate"
"""What verdicts call it."""


@dataclass(frozen=True)
class Setup:
    """What a station is made from, wherever that is.

    Attributes
    ----------
    candidate
        ``NAME`` or ``NAME:OPTIONS``.
    request
        What it is made from, its network with it.
    size
        (height, width) of the network's input.
    timeout
        Seconds that a run may take.
    share
        Of the pictures that are judged in full whatever screening says.
    seed
        Of what is drawn.
    cache
        Where the reference's outputs are kept; None: nowhere.
    frames
        Whether the pictures are frames of one video.
    categories
        The ground truth's category of each label; empty: there is no ground truth.
    sizes
        The ground truth's (height, width) by image.
    model_sha256, project_sha256
        What the station must have.
    """

    candidate: str
    request: Request
    size: tuple[int, int]
    timeout: float
    share: float
    seed: int = 0
    cache: Path | None = None
    frames: bool = False
    categories: tuple[int, ...] = ()
    sizes: Mapping[int, tuple[int, int]] = field(default_factory=dict)
    model_sha256: str = ""
    project_sha256: str = ""

    @property
    def config(self) -> MobileInstConfig:
        """The network it should be."""
        assert self.request.config is not None
        return self.request.config

    def check(self) -> None:
        """Refuse to judge with another version of the project, or another model.

        Raises
        ------
        ConfigurationError
        """
        if self.project_sha256 != (own := project_hash()):
            raise ConfigurationError(
                f"the worker has another version of the project: {own[:12]}, not {self.project_sha256[:12]}; "
                "install the same on every worker"
            )
        if self.model_sha256 != (own := model_hash(self.candidate, self.request.model)):
            named = ", ".join(map(str, model_files(self.candidate, self.request.model))) or self.candidate
            raise ConfigurationError(
                f"the worker has another {named}: {own[:12] or 'none'}, not {self.model_sha256[:12]}; give "
                "every worker the same files at these paths"
            )


def project_hash() -> str:
    """Return a hash of the code that judges."""
    digest = hashlib.sha256()
    for package in (refimpl, conformance):
        root = Path(package.__path__[0])
        for source in sorted(root.rglob("*.py")):
            digest.update(str(source.relative_to(root)).encode() + source.read_bytes())
    return digest.hexdigest()


def model_files(candidate: str, model: Path | None) -> list[Path]:
    """Return the files that a candidate is made from: those named, and those that hold their weights."""
    named = [Path(name) for name in files_named(candidate)] + ([model] if model is not None else [])
    found = [path for path in named if path.is_file()]
    return [each for path in found for each in (path, *_weights_of(path))]


def _weights_of(path: Path) -> list[Path]:
    if path.suffix == ".onnx":
        return [each for each in external_files(path) if each.is_file()]
    beside = path.with_suffix(".bin")
    return [beside] if path.suffix in (".param", ".xml") and beside.is_file() else []


def model_hash(candidate: str, model: Path | None) -> str:
    """Return a hash of the files that a candidate is made from; empty where there is none."""
    digests = [_file_hash(path) for path in model_files(candidate, model)]
    return hashlib.sha256(" ".join(digests).encode()).hexdigest() if digests else ""


def _file_hash(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@dataclass(frozen=True)
class _Logits:
    """What instances are made of."""

    class_logits: Array
    objectness: Array
    masks: Array


@dataclass
class _Look:
    """One picture on its way."""

    picture: Picture
    images: Array
    placement: Placement
    reference: Mapping[str, Array]
    cached: bool
    recording: Recording | None = None
    found: Screened = field(default_factory=Screened)
    report: Report | None = None


class Station:
    """Judges pictures with one candidate, which is made when it is first needed.

    Parameters
    ----------
    setup

    Raises
    ------
    ConfigurationError
        This is another version of the project, or another model.
    """

    def __init__(self, setup: Setup) -> None:
        setup.check()
        self.setup = setup
        wide = {name: array.astype(np.float64) for name, array in setup.request.weights.items()}
        self.network = MobileInst(setup.config, wide)
        self.cache = OutputCache(self.network, setup.cache)

    @cached_property
    def candidate(self) -> Candidate:
        """The candidate, in a process of its own."""
        return apart(self.setup.candidate, self.setup.request, self.setup.timeout)

    def calibrate(self, picture: Picture) -> InputReport | None:
        """Judge a picture in full; None if it cannot be read."""
        try:
            images, _ = self._input(picture)
        except MobileInstError:
            return None
        return self._full(picture.name, images).leading

    def judge(self, chunk: Chunk, limits: Limits) -> Rows:
        """Judge pictures one after another; what cannot be read is said in its row."""
        rows: Rows = {table: [] for table in TABLES}
        tracks = TrackIdentity() if self.setup.frames else None
        if tracks and chunk.before:
            self._follow(tracks, self._screened(chunk.before, limits), limits)
        for picture in chunk.pictures:
            began, used = time.perf_counter(), time.process_time()
            told = self._judged(picture, limits, tracks, rows)
            spent = {"seconds": time.perf_counter() - began, "processor": time.process_time() - used}
            rows["pictures"].append({"picture": picture.name, **told, **spent, **_where()})
        return rows

    def _judged(self, picture: Picture, limits: Limits, tracks: TrackIdentity | None, rows: Rows) -> Row:
        """Judge one picture, add its rows, and return its own."""
        try:
            look = self._screened(picture, limits)
        except SpaceError:  # the same of every picture
            raise
        except MobileInstError as error:
            if tracks:
                tracks.skip()
            says = str(error).replace(str(picture.path), picture.name)
            return {"judged": "broken", "verdict": "not judged", "says": says}
        chosen = drawn(self.setup.seed, picture.name, "share") < self.setup.share
        if look.found.near or chosen:
            look.report = self._full(picture.name, look.images)
        decisions = look.report.leading.decisions if look.report else look.found.decisions
        decisions = [*decisions, *(self._follow(tracks, look, limits) if tracks else ())]
        rows["steps"] += list(_step_rows(look))
        rows["decisions"] += [_decision_row(picture.name, item) for item in decisions]
        rows["detections"] += self._detections(look)
        return {
            "sha256": hashlib.sha256(look.images.tobytes()).hexdigest(),
            "judged": "full" if look.report else "screened",
            "why": "; ".join(look.found.near) or ("drawn" if chosen else ""),
            **_verdict(look, decisions),
            "reference_cached": look.cached,
            "bytes": picture.path.stat().st_size if picture.path else look.images.nbytes,
        }

    def _input(self, picture: Picture) -> tuple[Array, Placement]:
        """Return (1, 3, H, W) float32, and where the picture is in it."""
        pixels = picture.read()
        wanted = self.setup.sizes.get(picture.image_id or 0, pixels.shape[:2])
        if tuple(wanted) != pixels.shape[:2]:
            height, width = pixels.shape[:2]
            raise ConfigurationError(
                f"{picture.name} is {height}×{width}, the ground truth says {wanted[0]}×{wanted[1]}"
            )
        height, width = self.setup.size
        images, placement = preprocess(pixels, sizing=self.setup.size)
        return images[..., :height, :width].astype(np.float32), placement

    def _screened(self, picture: Picture, limits: Limits) -> _Look:
        images, placement = self._input(picture)
        wide = images.astype(np.float64)
        recording = None
        if limits.steps and drawn(self.setup.seed, picture.name, "steps") < SAMPLED:
            recording = record(self.network, wide)
            reference = {name: recording.tensors[tensor] for name, tensor in recording.outputs.items()}
            cached = False
            self.cache.keep(wide, reference)
        else:
            reference, cached = self.cache.outputs(wide)
        look = _Look(picture, images, placement, reference, cached, recording)
        look.found = self._looked(look, limits)
        return look

    def _looked(self, look: _Look, limits: Limits) -> Screened:
        """Screen outputs and decisions, and of some pictures steps."""
        try:
            found = screen(self.candidate, look.images, look.reference, limits)
            if look.recording is not None and not found.near:
                names = sorted(limits.steps)
                chosen = [name for name in names if drawn(self.setup.seed, look.picture.name, name) < STEPS]
                found.steps = look_at_steps(
                    self.candidate, look.images, look.recording, limits, chosen or names[:1]
                )
        except CandidateError as error:
            return Screened(problems=[str(error)], near=[str(error)])
        found.near += [f"step {row.name}" for row in found.steps if row.verdict == "fail"]
        return found

    def _full(self, name: str, images: Array) -> Report:
        request = self.setup.request
        try:
            return verify(self.candidate, self.setup.config, request.weights, {name: images}, name=NAME)
        except CandidateError as error:
            digest = hashlib.sha256(images.tobytes()).hexdigest()
            item = InputReport(name, images.shape, digest, [], [], [], None, [str(error)])
            return Report([item], NAME, {}, str(request.declaration))

    def _follow(self, tracks: TrackIdentity, look: _Look, limits: Limits) -> Sequence[Decision]:
        if KERNELS not in limits.outputs:
            return [not_judged("the kernels of the pictures judged in full were not")]
        finite = {name: array for name, array in look.found.shipped.items() if np.isfinite(array).all()}
        return tracks.compare(look.reference, finite, limits.outputs)

    def _detections(self, look: _Look) -> list[Row]:
        """Return what both sides see, where there is ground truth."""
        if not self.setup.categories or look.picture.image_id is None:
            return []
        sides = {"reference": look.reference, "candidate": look.found.shipped}
        return [row for side, outputs in sides.items() for row in self._instances(side, outputs, look)]

    def _instances(self, side: str, outputs: Mapping[str, Array], look: _Look) -> list[Row]:
        names = ("class_logits", "objectness", "masks")
        if not all(name in outputs and np.isfinite(outputs[name]).all() for name in names):
            return []
        instances = postprocess(_Logits(*(outputs[name] for name in names)), look.placement)
        results = coco_results(instances, look.picture.image_id or 0, self.setup.categories)
        return [_detection_row(look.picture.name, side, each) for each in results]


def _detection_row(picture: str, side: str, result: Mapping[str, Any]) -> Row:
    segmentation = result["segmentation"]
    height, width = segmentation["size"]
    known = {key: result[key] for key in ("image_id", "category_id", "score")}
    place = {"height": height, "width": width, "counts": segmentation["counts"]}
    return {"picture": picture, "side": side, **known, **place}


def _verdict(look: _Look, decisions: Sequence[Decision]) -> Row:
    """Return the verdict, and in words what is wrong."""
    says = list(dict.fromkeys(look.found.problems))
    if look.report and look.report.verdict != "pass":
        says.insert(0, look.report.headline().partition(f"  {NAME} ")[2])
    tracks = [item for item in decisions if item.kind == "track identity" and item.flips]
    says += [f"{item.flips} tracks continue elsewhere" for item in tracks]
    verdict = look.report.verdict if look.report else "pass"
    return {"verdict": "fail" if look.found.problems or tracks else verdict, "says": "; ".join(says)}


def _step_rows(look: _Look) -> list[Row]:
    if look.report is None:
        parts = {"output": look.found.outputs, "step": look.found.steps}
    else:
        item = look.report.leading
        parts = {"output": item.outputs, "step": item.steps, "node": item.nodes}
    judged = "full" if look.report else "screened"
    return [_step_row(look.picture.name, part, judged, row) for part, rows in parts.items() for row in rows]


def _step_row(picture: str, part: str, judged: str, row: Comparison) -> Row:
    element = "" if row.worst_index is None else ",".join(map(str, row.worst_index))
    return {
        "picture": picture,
        "step": row.name,
        "operation": row.operation,
        "part": part,
        "judged": judged,
        "error": row.max_abs_error,
        "introduced": row.introduced_error,
        "bound": row.tolerance,
        "utilisation": row.utilisation,
        "element": element,
        "verdict": row.verdict,
    }


def _decision_row(picture: str, item: Decision) -> Row:
    counts = {name: getattr(item.histogram, name, None) for name in ("agreed", "tied", "flipped")}
    plain = {name: getattr(item, name) for name in TABLES["decisions"] if hasattr(item, name)}
    return {**plain, "picture": picture, "decision": item.kind, **counts, "verdict": item.verdict}


def _where() -> Row:
    """Return which process this is, and how much memory it has, in bytes."""
    memory = Path("/proc/self/statm")
    pages = int(memory.read_text().split()[1]) if memory.exists() else 0
    return {"ended": time.time(), "worker": str(os.getpid()), "resident": pages * os.sysconf("SC_PAGE_SIZE")}

"""From tracked frames to YouTube-VIS results: masks at the picture's size, a log that survives interruption.

The log is one line of JSON per finished frame, so memory does not grow with the video; beside it stands the
tracker's state after the last keyframe. Resuming takes up that state and the frames before it.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO, Any

import numpy as np
import scipy  # its parts are loaded at their first use
from numpy.typing import NDArray

from conformance.evaluation import segmentations
from conformance.files import atomic_write
from conformance.json_files import parse_json, read_json
from conformance.video.log_schemas import FRAME, STATE_ARRAYS
from refimpl.errors import FileError, MobileInstError
from refimpl.inference import Placement, placement_matrices
from refimpl.scenes import LABELS, Scene, render_truth
from refimpl.tracker import TrackedFrame, TrackerState

Array = NDArray[Any]
FRAMES, STATE = "frames.jsonl", "state.json"


def picture_masks(mask_logits: Array, placement: Placement, threshold: float = 0.45) -> Array:
    """Threshold mask probabilities at the picture's original size (paper section 4.2).

    Parameters
    ----------
    mask_logits : (N, h, w)
    placement : Placement
        Where the picture lies in the network's input.
    threshold : float

    Returns
    -------
    Array, (N, H, W) bool
    """
    probabilities = scipy.special.expit(mask_logits)
    rows, columns = placement_matrices(placement, probabilities.shape[1:], probabilities.dtype)
    masks = np.zeros((len(probabilities), *placement.original), bool)
    # Resizing takes weighted means: where nothing is above the threshold, nothing will be.
    for slot in np.flatnonzero(probabilities.max(axis=(1, 2), initial=0) > threshold):
        masks[slot] = (rows @ probabilities[slot]) @ columns.T > threshold
    return masks


def _read_state(path: Path) -> TrackerState:
    saved = read_json(path, STATE_ARRAYS)
    dtypes = saved.pop("dtypes")
    try:
        arrays = {name: np.array(values, dtypes.get(name)) for name, values in saved.items()}
        return TrackerState.from_arrays(arrays)
    except (MobileInstError, ValueError, TypeError, OverflowError) as error:
        raise FileError(f"{path}: not a tracker's state: {error}; delete it to start anew") from None


class TrackLog:
    """The finished frames of one video, in a folder.

    Parameters
    ----------
    folder : path
        Made if it is missing.

    Raises
    ------
    FileError
        The folder cannot be made or written.
    """

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder)
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise FileError(f"cannot make {folder}: {error.strerror}; choose another folder") from None

    def begin(self) -> None:
        """Forget the video in the folder: another one begins."""
        for name in (FRAMES, STATE):
            (self.folder / name).unlink(missing_ok=True)

    def resume(self) -> TrackerState | None:
        """Return the state to go on from, None if there is none, and drop frames finished after it.

        Those are the reused frames since the last keyframe; computed again, they come out the same.

        Raises
        ------
        FileError
            The folder does not hold what `append` writes.
        """
        path = self.folder / STATE
        if not path.exists():
            self.begin()
            return None
        state = _read_state(path)
        with atomic_write(self.folder / FRAMES) as temporary, temporary.open("wb") as file:
            kept = itertools.islice(self._whole_lines(), state.frame)
            count = sum(self._checked(index, line, state, file) for index, line in enumerate(kept))
            if count < state.frame:
                raise FileError(
                    f"{self.folder / FRAMES}: {count} frames of {state.frame}; delete it to start anew"
                )
        return state

    def _checked(self, index: int, line: bytes, state: TrackerState, file: IO[bytes]) -> bool:
        """Write a finished frame again if it is one of the state's video."""
        where = f"{self.folder / FRAMES}: line {index + 1}"
        masks = parse_json(line, where, FRAME)["segmentations"]
        if len(masks) != len(state.queries):
            raise FileError(
                f"{where}: {len(masks)} masks, the state has {len(state.queries)} slots; "
                "delete it to start anew"
            )
        # pycocotools' C code trusts what it is given.
        segmentations.read(masks, [None] * len(masks), lambda slot: f"{where}: slot {slot}")
        return file.write(line) > 0

    def append(
        self, tracked: TrackedFrame, masks: Array, state: TrackerState, seconds: float
    ) -> dict[str, Any]:
        """Add a finished frame with its masks (N, H, W) bool; return its record for a per-frame table.

        ``state`` is the tracker's after this frame. Without `resume` before the first frame, call `begin`.
        """
        living, association = tracked.living, tracked.association
        margins = association.track_margins[living].tolist() if association else []
        record = {
            "frame": tracked.frame,
            "keyframe": tracked.keyframe,
            "tracks": tracked.identities[living].tolist(),
            "slots": living.tolist(),
            "scores": tracked.mean_scores[living].max(axis=1, initial=0).tolist(),
            "labels": tracked.labels[living].tolist(),
            "margin": _finite(association.margin) if association else None,
            "track_margins": [_finite(margin) for margin in margins],
            "seconds": seconds,
        }
        line = json.dumps({**record, "segmentations": segmentations.encode(masks)}) + "\n"
        with (self.folder / FRAMES).open("a", encoding="ascii") as file:
            file.write(line)
        if tracked.keyframe:
            arrays = state.to_arrays()
            # In another dtype the resumed frames would differ in their last bits.
            saved: dict[str, Any] = {"dtypes": {name: str(array.dtype) for name, array in arrays.items()}}
            saved.update((name, array.tolist()) for name, array in arrays.items())
            with atomic_write(self.folder / STATE) as temporary:
                temporary.write_text(json.dumps(saved), encoding="ascii")
        return record

    def records(self) -> Iterator[dict[str, Any]]:
        """Yield the finished frames one by one."""
        for index, line in enumerate(self._whole_lines()):
            yield parse_json(line, f"{self.folder / FRAMES}: line {index + 1}", FRAME)

    def _whole_lines(self) -> Iterator[bytes]:
        """The lines that were written to their end."""
        path = self.folder / FRAMES
        if path.exists():
            with path.open("rb") as file:
                yield from (line for line in file if line.endswith(b"\n"))


def _finite(margin: float) -> float | None:
    """The margin for JSON, which lacks infinity: None if there is no other assignment."""
    return margin if np.isfinite(margin) else None


def video_results(
    log: TrackLog, state: TrackerState, video_id: int, keep_threshold: float = 0.005, first_category: int = 1
) -> list[dict[str, Any]]:
    """The video's instances in YouTube-VIS form: one per slot that is kept and seen at least once.

    Parameters
    ----------
    log : TrackLog
    state : TrackerState
        After the last frame.
    video_id : int
    keep_threshold : float
        Kept when the mean score of its best class is above.
    first_category : int
        Category id of label 0.
    """
    mean = state.score_sums / max(state.keyframes, 1)
    slots = np.flatnonzero(mean.max(axis=1, initial=0) > keep_threshold)
    shown: dict[int, list[segmentations.Rle | None]] = {slot: [] for slot in slots.tolist()}
    for record in log.records():
        for slot, mine in shown.items():
            mine.append(record["segmentations"][slot])
    return slot_results(mean, shown, video_id, first_category)


def slot_results(
    mean_scores: Array,
    shown: Mapping[int, Sequence[segmentations.Rle | None]],
    video_id: int,
    first_category: int = 1,
) -> list[dict[str, Any]]:
    """Instances in YouTube-VIS form: each slot with its best class, unless no frame shows it.

    Parameters
    ----------
    mean_scores : (N, classes)
    shown : mapping
        Slot → its segmentation in each frame.
    """
    return [
        {
            "video_id": video_id,
            "category_id": int(mean_scores[slot].argmax()) + first_category,
            "score": float(mean_scores[slot].max()),
            "segmentations": list(mine),
        }
        for slot, mine in shown.items()
        if any(mine)
    ]


def scene_ground_truth(scenes: Sequence[Scene], frames: int) -> dict[str, Any]:
    """The ground truth of rendered videos (ids from 1) in YouTube-VIS form; category id = label + 1."""
    annotations: list[dict[str, Any]] = []
    for video_id, scene in enumerate(scenes, 1):
        tracks: dict[int, dict[str, Any]] = {}
        for frame in range(frames):
            masks, labels, identities = render_truth(scene, frame)
            encoded = zip(segmentations.encode(masks), labels.tolist(), identities.tolist(), strict=True)
            for rle, label, identity in encoded:
                entry = {"video_id": video_id, "category_id": label + 1, "iscrowd": 0}
                track = tracks.setdefault(identity, {**entry, "segmentations": [None] * frames})
                track["segmentations"][frame] = rle
        annotations += [track for track in tracks.values() if any(track["segmentations"])]
    for index, annotation in enumerate(annotations, 1):
        annotation["id"] = index
    sizes = [{"height": scene.height, "width": scene.width, "length": frames} for scene in scenes]
    return {
        "videos": [{"id": index, **size} for index, size in enumerate(sizes, 1)],
        "categories": [{"id": label + 1, "name": name} for label, name in enumerate(LABELS)],
        "annotations": annotations,
    }

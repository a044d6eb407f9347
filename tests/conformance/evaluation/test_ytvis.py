"""Evaluation over sequences: mini-videos computed by hand, pycocotools on one-frame videos, bad input."""

import contextlib
import io
import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays
from pycocotools import mask as coco_mask
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from conformance.evaluation import coco, segmentations, ytvis
from conformance.evaluation.result_comparison import compare_files
from refimpl.errors import FileError

SIZE = (20, 40)
STATISTICS = dict(zip(ytvis.STATISTICS, range(12), strict=True))


def box(top, left, height, width, size=SIZE):
    """RLE of a rectangle."""
    mask = np.zeros((1, *size), bool)
    mask[0, top : top + height, left : left + width] = True
    return segmentations.encode(mask)[0]


# Two places of 10×10 pixels far apart.
LEFT, RIGHT = box(0, 0, 10, 10), box(0, 20, 10, 10)


def truth_of(*instances, length=4, videos=1, crowd=(), categories=(1,)):
    """Ground truth whose instances are (video, segmentations) or (video, segmentations, category)."""
    annotations = [
        {
            "id": index + 1,
            "video_id": one[0],
            "category_id": one[2] if len(one) > 2 else 1,
            "segmentations": one[1],
            "iscrowd": int(index in crowd),
        }
        for index, one in enumerate(instances)
    ]
    return {
        "videos": [
            {"id": v + 1, "height": SIZE[0], "width": SIZE[1], "length": length} for v in range(videos)
        ],
        "categories": [{"id": c, "name": str(c)} for c in categories],
        "annotations": annotations,
    }


def result(score, segmentations_, video=1, category=1):
    return {"video_id": video, "category_id": category, "score": score, "segmentations": segmentations_}


def written(folder, name, document):
    path = folder / name
    path.write_text(document if isinstance(document, str) else json.dumps(document))
    return path


def figures(folder, truth, results):
    evaluation = ytvis.evaluate_files(written(folder, "gt.json", truth), written(folder, "dt.json", results))
    return dict(zip(ytvis.STATISTICS, evaluation.stats.tolist(), strict=True))


def test_a_perfect_result_has_ap_one(tmp_path):
    """Two instances found exactly: every precision and recall is 1. AR1 counts one detection per video: 1/2.

    Their area, 100, is small; medium and large have no ground truth and are undefined.
    """
    truth = truth_of((1, [LEFT] * 4), (1, [RIGHT] * 4))
    got = figures(tmp_path, truth, [result(0.9, [LEFT] * 4), result(0.8, [RIGHT] * 4)])
    expected = {"AP": 1, "AP50": 1, "AP75": 1, "APs": 1, "APm": -1, "APl": -1}
    expected |= {"AR1": 0.5, "AR10": 1, "AR100": 1, "ARs": 1, "ARm": -1, "ARl": -1}
    assert got == pytest.approx(expected, abs=1e-12)


def test_an_identity_switch(tmp_path):
    """Two objects in two places over 4 frames; the tracker swaps them in the last frame.

    Each track: intersection 3·100 with its object, union 3·100 + 2·100 = 500, IoU 3/5. It counts at the
    thresholds .50, .55 and .60 (a match needs IoU ≥ threshold, and COCO's third threshold is the float 3/5),
    three of ten, each with precision 1 at every recall: AP = 3/10, AP50 = 1, AP75 = 0, AR10 = 3/10.
    """
    assert ytvis.IOU_THRESHOLDS[2] == 3 / 5
    truth = truth_of((1, [LEFT] * 4), (1, [RIGHT] * 4))
    switched = [result(0.9, [LEFT] * 3 + [RIGHT]), result(0.8, [RIGHT] * 3 + [LEFT])]
    got = figures(tmp_path, truth, switched)
    assert [got[k] for k in ("AP", "AP50", "AP75", "AR10")] == pytest.approx([0.3, 1, 0, 0.3], abs=1e-12)


def test_a_missed_frame(tmp_path):
    """One object over 4 frames, found in 3: IoU 300/400 = .75, so six of the ten thresholds (.50 … .75)."""
    got = figures(tmp_path, truth_of((1, [LEFT] * 4)), [result(0.9, [LEFT, None, LEFT, LEFT])])
    assert [got[k] for k in ("AP", "AP50", "AP75", "AR1")] == pytest.approx([0.6, 1, 1, 0.6], abs=1e-12)


def test_a_frame_too_many(tmp_path):
    """The object is there in 3 of 4 frames; found in all: the extra mask joins the union, 300/400 = .75."""
    truth = truth_of((1, [LEFT, LEFT, None, LEFT]))
    got = figures(tmp_path, truth, [result(0.9, [LEFT] * 4)])
    assert got["AP"] == pytest.approx(0.6, abs=1e-12)


@pytest.mark.parametrize(("first", "ap"), [(0.9, 1.0), (0.4, None)])
def test_a_duplicate_track(tmp_path, first, ap):
    """Object A twice, object B once, B's score .5 being between the duplicates' scores or above both.

    Duplicates at .9 and .8 with B at .5: detections are hit, false, hit. Precision 1 up to recall .5 (51 of
    the 101 recall points, 0 … .50), then 2/3 (50 points): AP = (51 + 50·2/3) / 101.
    Duplicates at .4 and .3: hit (B), hit (A), false. Precision 1 at every recall: AP = 1.
    """
    truth = truth_of((1, [LEFT] * 4), (1, [RIGHT] * 4))
    results = [result(first, [LEFT] * 4), result(first - 0.1, [LEFT] * 4), result(0.5, [RIGHT] * 4)]
    expected = (51 + 50 * 2 / 3) / 101 if first == 0.9 else 1.0
    got = figures(tmp_path, truth, results)
    assert got["AP"] == pytest.approx(expected, abs=1e-12)
    assert got["AR10"] == pytest.approx(1, abs=1e-12)


def test_a_crowd_is_ignored_and_matches_repeatedly(tmp_path):
    """One object, one crowd. Two detections on the crowd score above the object's: neither is counted.

    Precision 1 at every recall: AP 1. Without the crowd they are false: the hit comes third, precision 1/3.
    """
    results = [result(0.9, [RIGHT] * 4), result(0.8, [RIGHT] * 4), result(0.7, [LEFT] * 4)]
    with_crowd = truth_of((1, [LEFT] * 4), (1, [RIGHT] * 4), crowd=(1,))
    assert figures(tmp_path, with_crowd, results)["AP"] == pytest.approx(1, abs=1e-12)
    assert figures(tmp_path, truth_of((1, [LEFT] * 4)), results)["AP"] == pytest.approx(1 / 3, abs=1e-12)


def test_a_crowd_needs_the_same_iou_as_any_object(tmp_path):
    """A crowd over the right half (400 pixels), a detection on a quarter: IoU 1/4, below all thresholds.

    So it is a false positive in front of the hit: precision 1/2. (COCO's images would divide by the
    detection's area, giving 1 and AP 1; over sequences the IoU is the same for all.)
    """
    half = box(0, 20, 20, 20)
    truth = truth_of((1, [LEFT] * 4), (1, [half] * 4), crowd=(1,))
    results = [result(0.9, [RIGHT] * 4), result(0.8, [LEFT] * 4)]
    assert figures(tmp_path, truth, results)["AP"] == pytest.approx(1 / 2, abs=1e-12)


def test_empty_frames_count_nothing(tmp_path):
    """Object and track are absent in the same two frames: the sums are over the other two, IoU 1."""
    track = [None, LEFT, None, LEFT]
    assert figures(tmp_path, truth_of((1, track)), [result(0.5, track)])["AP"] == pytest.approx(1, abs=1e-12)


def test_tracks_without_any_mask(tmp_path):
    """A track that is nowhere hits nothing: false at .9, the hit at .5 second: precision 1/2."""
    results = [result(0.9, [None] * 4), result(0.5, [LEFT] * 4)]
    assert figures(tmp_path, truth_of((1, [LEFT] * 4)), results)["AP"] == pytest.approx(0.5, abs=1e-12)


def test_no_results_and_no_ground_truth(tmp_path):
    """Nothing found: 0 where there is ground truth. Nothing to find: undefined."""
    nothing = figures(tmp_path, truth_of((1, [LEFT] * 4)), [])
    assert (nothing["AP"], nothing["AR100"], nothing["APm"]) == (0, 0, -1)
    assert set(figures(tmp_path, truth_of(), [result(0.5, [LEFT] * 4)]).values()) == {-1}


def test_the_category_decides(tmp_path):
    """The right masks under another category: that category has no ground truth, so AP is category 1's, 0."""
    truth = truth_of((1, [LEFT] * 4), categories=(1, 2))
    assert figures(tmp_path, truth, [result(0.9, [LEFT] * 4, category=2)])["AP"] == 0


def test_scores_rank_across_videos(tmp_path):
    """Video 1: a false track at .9. Video 2: the hit at .5. Together the hit is second: precision 1/2."""
    truth = truth_of((1, [LEFT] * 4), (2, [LEFT] * 4), videos=2)
    results = [result(0.9, [RIGHT] * 4), result(0.5, [LEFT] * 4, video=2)]
    got = figures(tmp_path, truth, results)
    # Recall ends at 1/2: precision 1/2 at 51 of 101 points.
    assert got["AP"] == pytest.approx(51 / 2 / 101, abs=1e-12)
    assert got["AR1"] == pytest.approx(0.5, abs=1e-12)


def test_the_area_is_the_mean_of_the_frames_that_have_one(tmp_path):
    """Areas 128² and none: the mean over one frame is 128², small *and* medium, bounds being inclusive."""
    square = box(0, 0, 128, 128, (200, 200))
    truth = truth_of((1, [square, None]), length=2)
    truth["videos"][0] |= {"height": 200, "width": 200}
    got = figures(tmp_path, truth, [result(0.5, [square, None])])
    assert (got["APs"], got["APm"], got["APl"]) == (pytest.approx(1), pytest.approx(1), -1)


# pycocotools as the judge: a video of one frame is an image -------------------------------------------------


masks_and_scores = st.lists(
    st.tuples(
        st.integers(0, 2),  # image
        st.integers(1, 2),  # category
        st.tuples(*[st.integers(0, high) for high in (8, 14, 12, 26)]),  # box
        st.sampled_from([0.2, 0.5, 0.5, 0.9]),
    ),
    min_size=1,
    max_size=12,
)
AREAS = ((0, 1e10), (0, 40), (40, 120), (120, 1e10))


def shown(place):
    top, left, height, width = place
    return box(top, left, height + 1, width + 1)


def cocos(objects, found):
    """Precision, recall and the twelve figures of pycocotools."""
    judge = COCO()
    judge.dataset = {
        "images": [{"id": i, "height": SIZE[0], "width": SIZE[1]} for i in range(3)],
        "categories": [{"id": 1}, {"id": 2}],
        "annotations": [
            {
                "id": index + 1,
                "image_id": image,
                "category_id": category,
                "segmentation": shown(place),
                "area": float(coco_mask.area(shown(place))),
                "iscrowd": 0,
                "bbox": [0, 0, 1, 1],
            }
            for index, (image, category, place, _) in enumerate(objects)
        ],
    }
    results = [
        {"image_id": image, "category_id": category, "score": score, "segmentation": shown(place)}
        for image, category, place, score in found
    ]
    with contextlib.redirect_stdout(io.StringIO()):
        judge.createIndex()
        evaluation = COCOeval(judge, judge.loadRes(results), "segm")
        evaluation.params.areaRng = [list(limits) for limits in AREAS]
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    return evaluation.eval["precision"], evaluation.eval["recall"], evaluation.stats


@given(masks_and_scores, masks_and_scores)
def test_one_frame_videos_are_judged_as_pycocotools_judges_images(objects, found):
    truth = ytvis.Annotations({i: ytvis.Video(*SIZE, 1) for i in range(3)}, (1, 2), {i: [] for i in range(3)})
    for image, category, place, _ in objects:
        area = int(coco_mask.area(shown(place)))
        truth.sequences[image].append(ytvis.MaskSequence(category, 1, False, {0: shown(place)}, {0: area}))
    results = ytvis.parse_results([result(s, [shown(p)], i, c) for i, c, p, s in found], truth)
    mine = ytvis.evaluate(truth, results, AREAS)
    precision, recall, stats = cocos(objects, found)
    assert np.array_equal(mine.precision, precision)
    assert np.array_equal(mine.recall, recall)
    assert mine.stats == pytest.approx(stats, abs=1e-12)


def test_a_long_object_counts_as_its_frames_side_by_side():
    """IoU of sequences = IoU of the frames tiled into one picture, which pycocotools computes."""
    random = np.random.default_rng(0)
    masks = random.random((2, 5, 6, 7)) < 0.4
    masks[0, 2] = masks[1, 3] = False
    tiled = [coco_mask.encode(np.asfortranarray(m.reshape(30, 7).astype(np.uint8))) for m in masks]
    expected = coco_mask.iou([tiled[0]], [tiled[1]], [0])[0, 0]
    rles = [segmentations.encode(m) for m in masks]
    one, other = (
        ytvis.MaskSequence(
            1,
            1.0,
            False,
            {f: r for f, r in enumerate(rle) if r},
            {f: int(m[f].sum()) for f, r in enumerate(rle) if r},
        )
        for rle, m in zip(rles, masks, strict=True)
    )
    assert ytvis.sequence_iou([one], [other])[0, 0] == pytest.approx(expected, rel=1e-15)


# Segmentations ---------------------------------------------------------------------------------------------


@given(arrays(bool, array_shapes(min_dims=2, max_dims=2, max_side=12)))
def test_every_form_of_a_mask_is_read_alike(mask):
    """Compressed as text and bytes, and uncompressed counts made by hand, come back as the same pixels."""
    flat = np.concatenate([[False], mask.ravel(order="F")])
    edges = np.flatnonzero(np.diff(flat.astype(int)))
    counts = np.diff(np.concatenate([[0], edges, [mask.size]])).tolist()
    native = coco_mask.encode(np.asfortranarray(mask.astype(np.uint8)))
    forms = [
        {"size": list(mask.shape), "counts": counts},
        {"size": list(mask.shape), "counts": native["counts"].decode()},
        native,
    ]
    for rle in segmentations.read(forms, [mask.shape] * 3, str):
        assert rle is None if not mask.any() else np.array_equal(coco_mask.decode(rle), mask)


def test_polygons_are_read():
    rle = segmentations.read([[[0, 0, 10, 0, 10, 5, 0, 5]]], [SIZE], str)[0]
    assert coco_mask.decode(rle)[:5, :10].all()
    assert coco_mask.area(rle) == 50


def one_character_changed(place, character):
    counts = bytearray(LEFT["counts"].encode())
    counts[place % len(counts)] = character
    return bytes(counts)


random_counts = st.one_of(
    st.binary(min_size=1, max_size=12),
    st.lists(st.integers(48, 111), min_size=1, max_size=6).map(bytes),
    st.builds(one_character_changed, st.integers(0, 99), st.integers(46, 113)),
    st.just(LEFT["counts"].encode()),
)


@given(random_counts)
def test_any_counts_are_judged_as_decoding_them_would(counts):
    """Accepted only if a plain decoder of the format finds counts ≥ 0 that cover the frame."""
    values, position = [], 0
    try:
        while position < len(counts):
            value, shift, more = 0, 0, True
            while more:
                group = counts[position] - 48
                if not 0 <= group <= 63:
                    raise IndexError
                value |= (group & 31) << shift
                more, shift, position = bool(group & 32), shift + 5, position + 1
            if group & 16:
                value -= 1 << shift
            values.append(value + values[-2] if len(values) > 2 else value)
        sound = min(values) >= 0 and sum(values) == 800
    except IndexError:
        sound = False
    try:
        segmentations.read([{"size": list(SIZE), "counts": counts}], [SIZE], str)
        assert sound
    except FileError:
        assert not sound


def test_more_masks_than_a_byte_counts():
    """pycocotools' area() fails beyond 255 masks; 600 must work."""
    assert segmentations.areas_of([LEFT, None, RIGHT] * 200).sum() == 400 * 100


# Bad input -------------------------------------------------------------------------------------------------


def changed(document, path, value):
    document = json.loads(json.dumps(document))
    *parents, last = path
    inner = document
    for key in parents:
        inner = inner[key]
    inner[last] = value
    return document


GOOD_TRUTH = truth_of((1, [LEFT] * 4), (1, [RIGHT] * 4))
GOOD_RESULTS = [result(0.9, [LEFT] * 4), result(0.8, [RIGHT] * 4)]


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        (("videos",), 3, "videos must be a list"),
        (("videos", 0), 3, r"videos\[0\] must be an object"),
        (("videos", 0, "height"), 0, r"videos\[0\]: height"),
        (("videos", 0, "width"), 10**9, r"videos\[0\]: width must be an integer from 1 to 32768"),
        (("videos", 0, "length"), "4", r"videos\[0\]: length"),
        (("categories", 0, "id"), None, r"categories\[0\]: id"),
        (("annotations", 1, "id"), 1, r"annotations\[1\]: id 1 is used twice"),
        (("annotations", 1, "video_id"), 7, r"annotations\[1\]: video_id 7"),
        (("annotations", 0, "category_id"), 9, r"annotations\[0\]: category_id 9"),
        (("annotations", 0, "iscrowd"), 2, r"annotations\[0\]: iscrowd"),
        (("annotations", 0, "segmentations"), [LEFT], r"annotations\[0\]: segmentations must be a list of 4"),
        (("annotations", 1, "segmentations", 2), 5, r"annotations\[1\]: segmentations\[2\]"),
        (("annotations", 1, "segmentations", 2), [[1, 2, 3]], "polygon"),
    ],
)
def test_bad_ground_truth_is_named(tmp_path, path, value, message):
    with pytest.raises(FileError, match=message) as caught:
        ytvis.load_ground_truth(written(tmp_path, "gt.json", changed(GOOD_TRUTH, path, value)))
    assert "gt.json" in str(caught.value)


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        ((1, "video_id"), 7, r"\[1\]: video_id 7 is not in the ground truth"),
        ((0, "category_id"), 9, r"\[0\]: category_id 9"),
        ((0, "score"), float("nan"), "NaN is no number of JSON"),
        ((0, "score"), 10**400, "larger than any float64"),
        ((0, "score"), True, r"\[0\]: score"),
        ((1, "segmentations"), None, r"\[1\]: segmentations must be a list of 4"),
        ((1, "segmentations", 3), box(0, 0, 1, 1, (5, 5)), r"\[1\]: segmentations\[3\]: the mask is 5×5"),
        ((1, "segmentations", 3, "counts"), RIGHT["counts"][:-1], r"\[1\]: segmentations\[3\]: counts"),
        ((1, "segmentations", 3, "counts"), "é", r"\[1\]: segmentations\[3\]: counts have a foreign"),
        ((1, "segmentations", 3, "counts"), [1, -1, 800], r"\[1\]: segmentations\[3\]: uncompressed"),
        ((1, "segmentations", 3, "size"), [10**9, 10**9], r"\[1\]: segmentations\[3\]: size"),
    ],
)
def test_bad_results_are_named(tmp_path, path, value, message):
    truth = ytvis.load_ground_truth(written(tmp_path, "gt.json", GOOD_TRUTH))
    with pytest.raises(FileError, match=message) as caught:
        ytvis.load_results(written(tmp_path, "dt.json", changed(GOOD_RESULTS, path, value)), truth)
    assert "dt.json" in str(caught.value)


@pytest.mark.parametrize("text", ["", "[{", '{"a": 1}', "\x00", "[" * 100_000, "[" + "1" * 5000 + "]"])
def test_broken_files_are_named(tmp_path, text):
    path = written(tmp_path, "dt.json", text)
    truth = ytvis.load_ground_truth(written(tmp_path, "gt.json", GOOD_TRUTH))
    with pytest.raises(FileError, match=r"dt\.json"):
        ytvis.load_results(path, truth)


def test_missing_files_are_named(tmp_path):
    with pytest.raises(FileError, match=r"nowhere\.json"):
        ytvis.load_ground_truth(tmp_path / "nowhere.json")


# COCO and comparison ---------------------------------------------------------------------------------------


def as_images(truth, results):
    """The same as images: the first frame of every video."""
    images = {
        "images": truth["videos"],
        "categories": truth["categories"],
        "annotations": [
            {"id": a["id"], "image_id": 1, "category_id": 1, "segmentation": a["segmentations"][0]}
            for a in truth["annotations"]
        ],
    }
    found = [
        {"image_id": 1, "category_id": 1, "score": r["score"], "segmentation": r["segmentations"][0]}
        for r in results
    ]
    return images, found


def test_coco_results_are_judged(tmp_path):
    """Two objects, the better-scored detection false: hit second, recall 1/2, precision 1/2 at 51 points."""
    images, found = as_images(GOOD_TRUTH, GOOD_RESULTS)
    found[0]["segmentation"] = box(12, 0, 5, 5)
    paths = written(tmp_path, "gt.json", images), written(tmp_path, "dt.json", found)
    assert coco.evaluate_files(*paths).stats[0] == pytest.approx(51 / 2 / 101, abs=1e-12)


def test_no_coco_results_have_ap_zero(tmp_path):
    images, _ = as_images(GOOD_TRUTH, GOOD_RESULTS)
    paths = written(tmp_path, "gt.json", images), written(tmp_path, "dt.json", [])
    assert coco.evaluate_files(*paths).stats[0] == 0


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        ((1, "image_id"), 5, r"dt\.json: \[1\]: image_id 5"),
        ((0, "segmentation"), None, r"dt\.json: \[0\]: segmentation is missing"),
        ((0, "segmentation", "counts"), "0", r"dt\.json: \[0\]: segmentation: counts"),
        ((0, "score"), "high", r"dt\.json: \[0\]: score"),
    ],
)
def test_bad_coco_results_are_named(tmp_path, path, value, message):
    images, found = as_images(GOOD_TRUTH, GOOD_RESULTS)
    paths = written(tmp_path, "gt.json", images), written(tmp_path, "dt.json", changed(found, path, value))
    with pytest.raises(FileError, match=message):
        coco.evaluate_files(*paths)


def test_equal_files_do_not_differ(tmp_path):
    path = written(tmp_path, "a.json", GOOD_RESULTS)
    comparison = compare_files(path, path)
    assert (comparison.matched, comparison.decisions_differ, comparison.masks_differ) == (2, 0, 0)


def test_differences_are_counted(tmp_path):
    """B: the first track has another label and one frame more to the side, the second is missing, one is new.

    The shifted frame: 10×10 against 10×10 one column over: 2·10 pixels differ of 410: IoU 390/410.
    """
    other = [
        result(0.7, [box(0, 1, 10, 10)] + [LEFT] * 3, category=2),
        result(0.3, [box(12, 30, 3, 3)] * 4),
    ]
    comparison = compare_files(written(tmp_path, "a.json", GOOD_RESULTS), written(tmp_path, "b.json", other))
    assert (comparison.matched, comparison.only_a, comparison.only_b, comparison.labels_differ) == (
        1,
        1,
        1,
        1,
    )
    assert comparison.decisions_differ == 3
    assert comparison.pixels_differ == 20
    assert comparison.smallest_iou == pytest.approx(390 / 410)
    assert comparison.largest_score_difference == pytest.approx(0.2)
    assert comparison.highest_unmatched_score == 0.8


def test_a_swapped_order_is_counted(tmp_path):
    other = [result(0.5, [LEFT] * 4), result(0.8, [RIGHT] * 4)]
    comparison = compare_files(written(tmp_path, "a.json", GOOD_RESULTS), written(tmp_path, "b.json", other))
    assert (comparison.order_differs, comparison.decisions_differ) == (2, 0)

"""Association against brute force and SciPy, kernel reuse, and the online tracker as a state machine."""

import gc
import itertools
import json
import sys
import tracemalloc

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from scipy.optimize import linear_sum_assignment
from scipy.spatial.distance import cdist

from refimpl.association import associate_similarities, unit_kernels
from refimpl.errors import ConfigurationError, NonFiniteError, ShapeError
from refimpl.scenes import Oracle, make_scene
from refimpl.tracker import (
    KeyframeTensors,
    Tracker,
    TrackerState,
    associate,
    class_scores,
    cosine_similarity,
    frame_masks,
    track_video,
)


def every_assignment(similarities):
    """Total → permutation of every complete assignment, best first, ties in dictionary order with −1 last."""
    slots, queries = similarities.shape
    filled = [*range(queries), *[-1] * max(slots - queries, 0)]
    found = [
        (sum(similarities[i, q] for i, q in enumerate(choice) if q >= 0), choice)
        for choice in set(itertools.permutations(filled, slots))
        if sum(q >= 0 for q in choice) == min(slots, queries)
    ]
    return sorted(found, key=lambda one: (-one[0], [q if q >= 0 else 99 for q in one[1]]))


# Multiples of 1/4: sums are exact, and ties are frequent.
quarters = st.tuples(st.integers(0, 5), st.integers(0, 5)).flatmap(
    lambda shape: arrays(np.float64, shape, elements=st.integers(-4, 4).map(lambda value: value / 4))
)


@given(quarters)
def test_optimal_association_is_the_first_of_the_best(similarities):
    best = every_assignment(similarities)[0]
    found = associate_similarities(similarities)
    assert (found.total, tuple(found.permutation)) == best


@given(quarters, st.sampled_from(["optimal", "greedy"]))
def test_margins_are_those_of_brute_force(similarities, method):
    found = associate_similarities(similarities, method)
    choices = every_assignment(similarities)
    mine = tuple(found.permutation)
    others = [total for total, choice in choices if choice != mine]
    assert found.margin == (found.total - max(others) if others else np.inf)
    for slot, query in enumerate(mine):
        others = [total for total, choice in choices if choice[slot] != query]
        assert found.track_margins[slot] == (found.total - max(others) if others else np.inf)


@pytest.mark.parametrize("shape", [(200, 200), (100, 60), (60, 100)])
def test_optimal_total_is_scipys(shape):
    random = np.random.default_rng(3)
    previous, current = (random.standard_normal((n, 32)) for n in shape)
    found = associate(previous, current)
    cosines = 1 - cdist(previous, current, "cosine")
    assert found.total == pytest.approx(
        cosines[linear_sum_assignment(cosines, maximize=True)].sum(), abs=1e-9
    )
    assert np.allclose(found.similarities, cosines, rtol=0, atol=1e-11)


def test_greedy_takes_the_most_similar_pair_first():
    """0.9 is taken first although 0.8 + 0.8 would be more; the margin says what was given away: 0.9 − 1.6."""
    found = associate_similarities(np.array([[0.9, 0.8], [0.8, 0.0]]), "greedy")
    assert found.permutation.tolist() == [0, 1]
    assert found.margin == pytest.approx(-0.7, abs=1e-9)


def test_greedy_ties_go_to_the_lowest_slot_then_query():
    assert associate_similarities(np.ones((3, 3)), "greedy").permutation.tolist() == [0, 1, 2]


@pytest.mark.parametrize("scale", [1e-300, 5e-324, 1e-30, 1.0, 1e30, 1e300])
def test_norms_neither_overflow_nor_vanish(scale):
    """3-4-5 triangles, exact at any scale that represents them."""
    kernels = np.array([[3.0, 4.0], [0.0, 0.0]]) * scale
    expected = [[0.6, 0.8], [0.0, 0.0]]
    assert np.allclose(unit_kernels(kernels), expected, rtol=1e-15, atol=0)


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_cosine_keeps_the_dtype(dtype):
    kernels = np.array([[1, 2], [3, -1]], dtype)
    assert cosine_similarity(kernels, kernels).dtype == dtype


def test_equal_float32_kernels_tie():
    """Every kernel twice: the first permutation in dictionary order keeps each pair in its order."""
    kernels = np.random.default_rng(0).standard_normal((30, 64)).astype(np.float32)
    twice = np.concatenate([kernels, kernels])
    assert associate(twice, twice).permutation.tolist() == list(range(60))
    assert associate(twice, twice[::-1].copy()).permutation.tolist() == [
        *range(29, -1, -1),
        *range(59, 29, -1),
    ]


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_non_finite_kernels_are_named(value):
    kernels = np.ones((3, 4))
    kernels[2, 1] = value
    with pytest.raises(NonFiniteError, match="query 2, channel 1"):
        associate(np.ones((3, 4)), kernels)


@pytest.mark.parametrize("other", [np.ones((3, 5)), np.ones(4), np.ones((3, 4), int), np.ones((3, 0))])
def test_kernels_of_other_shapes_are_refused(other):
    with pytest.raises(ShapeError):
        associate(np.ones((3, 4)), other)


def test_similarities_beyond_one_are_refused():
    with pytest.raises(ShapeError, match=r"1\.5"):
        associate_similarities(np.array([[1.5]]))
    with pytest.raises(NonFiniteError):
        associate_similarities(np.array([[np.nan]]))


def test_an_unknown_method_is_refused():
    with pytest.raises(ConfigurationError, match="sinkhorn"):
        associate(np.ones((1, 1)), np.ones((1, 1)), "sinkhorn")


def random_tensors(random, queries=4, dimension=6, classes=3):
    return KeyframeTensors(
        random.standard_normal((queries, classes)),
        random.standard_normal((queries, 1)),
        random.standard_normal((queries, dimension)),
        random.standard_normal((dimension, 3, 5)),
    )


def test_reused_frames_are_the_keyframes_kernels_times_their_features():
    """Equation 2 as an explicit sum."""
    random = np.random.default_rng(0)
    first, second = random_tensors(random), random_tensors(random)
    tracker = Tracker(2)
    tracker.keyframe(first)
    masks = tracker.reuse(second.mask_features).mask_logits
    for n, y, x in itertools.product(range(4), range(3), range(5)):
        expected = sum(first.kernels[n, c] * second.mask_features[c, y, x] for c in range(6))
        assert masks[n, y, x] == pytest.approx(expected, rel=1e-12, abs=1e-14)


def test_scores_are_the_mean_over_keyframes_along_the_tracks():
    """Three keyframes whose queries are shuffled by known permutations; reused frames do not count."""
    random = np.random.default_rng(1)
    orders = [np.arange(4), np.array([2, 0, 3, 1]), np.array([1, 3, 2, 0])]
    kernels = np.eye(4, 6)
    parts = [random_tensors(random) for _ in orders]
    tracker = Tracker(2, rescore=False)
    for order, part in zip(orders, parts, strict=True):
        # Query order[s] is track s.
        shuffled = np.empty_like(kernels)
        shuffled[order] = kernels
        tracker.keyframe(KeyframeTensors(part.class_logits, part.objectness, shuffled, part.mask_features))
        assert tracker.state.queries.tolist() == order.tolist()
        tracked = tracker.reuse(part.mask_features)
    expected = np.mean([class_scores(p)[o] for o, p in zip(orders, parts, strict=True)], axis=0)
    assert np.allclose(tracked.mean_scores, expected, rtol=1e-14)


def test_score_is_the_geometric_mean_times_maskness():
    """√(σ(0)·σ(0)) = 1/2; maskness of logits (0, 0, −9, −9): mean of the probabilities above 0.45 = 1/2."""
    tensors = KeyframeTensors(np.zeros((1, 2)), np.zeros((1, 1)), np.ones((1, 1)), np.zeros((1, 2, 2)))
    masks = np.array([[[0.0, 0.0], [-9.0, -9.0]]])
    assert np.allclose(class_scores(tensors), 0.5)
    assert np.allclose(class_scores(tensors, masks), 0.25, atol=1e-6)


@pytest.mark.parametrize("interval", [1, 2, 3, 7])
def test_oracle_kernels_track_without_an_error(interval):
    """Every identity stays in its first slot, in spite of shuffled queries, noise and occlusion."""
    scene = make_scene(64, 96, 5)
    oracle = Oracle(scene, 14, noise=0.1, seed=3)
    tracker = Tracker(interval)
    first = oracle.keyframe(0).kernels @ oracle.codes.T
    for tracked in track_video(range(14), oracle, tracker):
        assert tracked.keyframe == (tracked.frame % interval == 0)
        owner = (tracker.state.kernels @ oracle.codes.T).argmax(axis=1)
        assert np.array_equal(owner, first.argmax(axis=1))


def test_births_and_deaths_follow_the_thresholds():
    """One slot's score goes 0.1, 0.5, 0.3, 0.1, 0.3, 0.5: born at 0.4, alive down to 0.2, born anew."""
    tracker = Tracker(1, birth=0.4, death=0.2, rescore=False)
    seen = []
    for score in (0.1, 0.5, 0.3, 0.1, 0.3, 0.5):
        logit = np.log(score**2 / (1 - score**2))
        tensors = KeyframeTensors(
            np.full((1, 1), logit), np.full((1, 1), 100.0), np.ones((1, 1)), np.ones((1, 1, 1))
        )
        seen.append(tracker.keyframe(tensors).identities.tolist())
    assert seen == [[-1], [0], [0], [-1], [-1], [1]]
    assert tracker.state.born.tolist() == [5]


def test_memory_stays_flat():
    """Over 1,000 frames not even one array object per frame is kept, the smallest thing a leak would hold."""
    random = np.random.default_rng(0)
    parts = [random_tensors(random) for _ in range(6)]
    tracker = Tracker(3)

    def step(count):
        for index in range(count):
            part = parts[index % 6]
            tracker.keyframe(part) if tracker.keyframe_due else tracker.reuse(part.mask_features)
        gc.collect()
        return tracemalloc.get_traced_memory()[0]

    tracemalloc.start()
    try:
        early, late = step(100), step(1000)
    finally:
        tracemalloc.stop()
    assert late - early < 1000 * sys.getsizeof(np.empty(0))


def test_state_survives_json_and_is_small():
    random = np.random.default_rng(2)
    tracker = Tracker(3)
    parts = [random_tensors(random) for _ in range(7)]
    for part in parts[:4]:
        tracker.keyframe(part) if tracker.keyframe_due else tracker.reuse(part.mask_features)
    text = json.dumps({name: array.tolist() for name, array in tracker.state.to_arrays().items()})
    resumed = Tracker(3, state=TrackerState.from_arrays(json.loads(text)))
    for part in parts[4:]:
        steps = [
            one.keyframe(part) if one.keyframe_due else one.reuse(part.mask_features)
            for one in (tracker, resumed)
        ]
        assert np.array_equal(steps[0].mask_logits, steps[1].mask_logits)
        assert np.array_equal(steps[0].mean_scores, steps[1].mean_scores)
        assert np.array_equal(steps[0].identities, steps[1].identities)


def test_an_empty_state_survives_too():
    arrays_ = {name: array.tolist() for name, array in TrackerState().to_arrays().items()}
    assert TrackerState.from_arrays(arrays_).kernels.shape == (0, 0)


def test_a_video_without_queries_goes_on_from_lists():
    """Lists of no slots tell neither the length of kernels nor the number of classes."""
    nothing = KeyframeTensors(np.zeros((0, 3)), np.zeros((0, 1)), np.zeros((0, 2)), np.ones((2, 4, 5)))
    first = Tracker(2)
    first.keyframe(nothing)
    lists = {name: array.tolist() for name, array in first.state.to_arrays().items()}
    second = Tracker(2, state=TrackerState.from_arrays(json.loads(json.dumps(lists))))
    assert second.reuse(nothing.mask_features).mask_logits.shape == (0, 4, 5)
    assert second.keyframe(nothing).mask_logits.shape == (0, 4, 5)
    assert second.state.score_sums.shape == (0, 3)


@pytest.mark.parametrize(
    "change", [{"frame": None}, {"extra": [1]}, {"kernels": [[1.0]] * 3}, {"scores": [[float("nan")]] * 4}]
)
def test_broken_states_are_refused(change):
    tracker = Tracker(1)
    tracker.keyframe(random_tensors(np.random.default_rng(0)))
    state = {**tracker.state.to_arrays(), **change}
    if change.get("frame", 0) is None:
        del state["frame"]
    with pytest.raises((ShapeError, NonFiniteError), match="tracker state"):
        TrackerState.from_arrays(state)


@pytest.mark.parametrize(
    "options",
    [
        {"keyframe_interval": 0},
        {"keyframe_interval": -3},
        {"keyframe_interval": 1.5},
        {"keyframe_interval": True},
        {"method": "nearest"},
        {"birth": 0.1, "death": 0.2},
        {"death": -0.1},
    ],
)
def test_bad_options_are_refused(options):
    with pytest.raises(ConfigurationError):
        Tracker(**options)


def test_frames_in_the_wrong_mode_are_refused():
    tensors = random_tensors(np.random.default_rng(0))
    tracker = Tracker(2)
    with pytest.raises(ConfigurationError, match="is a keyframe"):
        tracker.reuse(tensors.mask_features)
    tracker.keyframe(tensors)
    with pytest.raises(ConfigurationError, match="no keyframe"):
        tracker.keyframe(tensors)
    with pytest.raises(ShapeError, match="mask features"):
        tracker.reuse(np.ones((7, 3, 5)))


def test_another_network_in_the_middle_is_refused():
    random = np.random.default_rng(0)
    tracker = Tracker(1)
    tracker.keyframe(random_tensors(random))
    before = tracker.state
    with pytest.raises(ShapeError, match="one network"):
        tracker.keyframe(random_tensors(random, queries=5))
    assert tracker.state is before


def test_masks_of_no_query():
    assert frame_masks(np.ones((0, 2)), np.ones((2, 3, 4))).shape == (0, 3, 4)


class OnlineTracker(RuleBasedStateMachine):
    """Hundreds of frames with shuffled queries and scores at will, beside a model in plain Python."""

    count = 5

    @initialize(interval=st.integers(1, 4), method=st.sampled_from(["optimal", "greedy"]))
    def begin(self, interval, method):
        self.options = {"keyframe_interval": interval, "method": method, "rescore": False}
        self.tracker = Tracker(**self.options)
        self.frame, self.next_identity = 0, 0
        self.living = {}
        self.slot_of = None
        self.last = None

    @precondition(lambda self: self.tracker.keyframe_due)
    @rule(
        order=st.permutations(range(5)),
        scores=st.lists(st.sampled_from([0.05, 0.3, 0.9]), min_size=5, max_size=5),
    )
    def keyframe(self, order, scores):
        """``order[q]`` is the object that query q sees; object o has score ``scores[o]``."""
        assert self.frame % self.options["keyframe_interval"] == 0
        probability = np.array(scores)[order] ** 2
        tensors = KeyframeTensors(
            np.log(probability / (1 - probability))[:, None],
            np.full((5, 1), 100.0),
            np.eye(5)[list(order)] * (1 + self.frame % 7),
            np.arange(5.0).reshape(5, 1, 1),
        )
        self.last = self.tracker.keyframe(tensors)
        self.slot_of = self.slot_of or {seen: query for query, seen in enumerate(order)}
        for seen in sorted(range(5), key=self.slot_of.__getitem__):
            if seen in self.living and scores[seen] < 0.2:
                del self.living[seen]
            elif seen not in self.living and scores[seen] >= 0.4:
                self.living[seen] = self.next_identity
                self.next_identity += 1
        self.frame += 1

    @precondition(lambda self: not self.tracker.keyframe_due)
    @rule()
    def reuse(self):
        self.last = self.tracker.reuse(np.arange(5.0).reshape(5, 1, 1))
        self.frame += 1

    @rule()
    def resume(self):
        arrays_ = json.loads(json.dumps({k: v.tolist() for k, v in self.tracker.state.to_arrays().items()}))
        self.tracker = Tracker(**self.options, state=TrackerState.from_arrays(arrays_))

    @invariant()
    def identities_are_the_models(self):
        if self.last is None:
            return
        expected = [-1] * 5
        for seen, identity in self.living.items():
            expected[self.slot_of[seen]] = identity
        assert self.last.identities.tolist() == expected
        assert self.last.identities[self.last.living].tolist() == sorted(self.living.values())
        assert self.tracker.state.frame == self.frame

    @invariant()
    def slots_keep_their_objects(self):
        if self.last is None:
            return
        shown = self.last.mask_logits[:, 0, 0] / self.last.mask_logits.max(initial=1) * 4
        assert np.round(shown).tolist() == [float(s) for s in sorted(self.slot_of, key=self.slot_of.get)]


OnlineTracker.TestCase.settings = settings(max_examples=20, stateful_step_count=300)
TestOnlineTracker = OnlineTracker.TestCase


@pytest.mark.parametrize(("birth", "death"), [(0.4, 0.4), (0.4, 0.0), (0.0, 0.0), (2.0, 1.0)])
def test_thresholds_may_be_equal_and_nothing(birth, death):
    tracker = Tracker(3, birth=birth, death=death)
    assert (tracker.birth, tracker.death) == (birth, death)


@pytest.mark.parametrize(
    ("birth", "death"), [(0.4, 0.41), (0.4, -1e-9), (-0.1, 0.0), (np.nan, 0.2), (0.4, np.nan)]
)
def test_thresholds_in_the_wrong_order_are_named(birth, death):
    with pytest.raises(ConfigurationError, match="expected 0 ≤ death ≤ birth"):
        Tracker(3, birth=birth, death=death)

"""Trackers with one defect each, as they occur in ports. Each must be caught by a property."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from conformance.trackers import known_bad_associations as associations
from conformance.trackers import known_bad_online as online
from conformance.trackers import known_bad_videos as videos

KNOWN_BAD: dict[str, tuple[Callable[[], Any], str]] = {
    "greedy claimed optimal": (associations.GreedyClaimedOptimal, "optimal_brute_force"),
    "dot product for cosine": (associations.DotProduct, "scale_invariance"),
    "transposed assignment": (associations.TransposedAssignment, "equivariance"),
    "minimised instead of maximised": (associations.Minimised, "identity"),
    "best query of each slot alone": (associations.EachRowAlone, "one_to_one"),
    "ties in reverse order": (associations.LastOfTies, "tie_rule"),
    "absolute cosine": (associations.AbsoluteCosine, "optimal_brute_force"),
    "Euclidean distance": (associations.EuclideanDistance, "scale_invariance"),
    "epsilon added to the norm": (associations.EpsilonInNorm, "extreme_norms"),
    "norm overflows in float32": (associations.Float32Norm, "extreme_norms"),
    "centred cosine": (associations.CentredCosine, "optimal_brute_force"),
    "norm over the wrong axis": (associations.NormOfTheWrongAxis, "optimal_brute_force"),
    "NaN taken as zero": (associations.NanAccepted, "refuses_non_finite"),
    "zero kernel taken as opposite": (associations.ZeroNormIsFarAway, "zero_norm"),
    "surplus kernels cut off": (associations.SquareOnly, "one_to_one"),
    "input normalised in place": (associations.NormalisesInPlace, "one_to_one"),
    "keyframes one frame late": (videos.KeyframesOneLate, "keyframe_schedule"),
    "keyframes counted from one": (videos.CountsKeyframesFromOne, "keyframe_schedule"),
    "state kept between videos": (videos.StateLeaks, "independent_videos"),
    "frame counter lost on resume": (videos.CounterLostOnResume, "streaming"),
    "association not composed": (videos.OrderNotComposed, "tracks_followed"),
    "permutation inverted": (videos.PermutationInverted, "tracks_followed"),
    "kernels never reused": (videos.NeverReuses, "kernel_reuse"),
    "compared with the first keyframe": (videos.ComparesWithTheFirstKeyframe, "kernel_reuse"),
    "half precision claimed double": (associations.HalfPrecision, "precision"),
    "single precision claimed double": (associations.SinglePrecision, "precision"),
    "cosines in 8 bits": (associations.QuantisedCosines, "precision"),
    "rounding decides ties": (associations.RoundingBreaksTies, "tie_rule"),
    "room for one hundred kernels": (associations.AtMostOneHundred, "one_to_one_of_many"),
    "memory order ignored": (associations.IgnoresStrides, "number_formats"),
    "broken after an error": (associations.StaysBroken, "refuses_non_finite"),
    "subnormal numbers lost": (associations.FlushesSubnormals, "extreme_norms"),
    "kernels averaged": (videos.AveragedKernels, "drift"),
    "kernels of every frame checked": (videos.ReadsEveryFrame, "unread_kernels"),
    "frames counted in a byte": (videos.CounterInAByte, "long_videos"),
    "state rounded": (videos.StateRounded, "streaming"),
    "state kept in memory": (videos.StateInMemory, "interleaved_videos"),
    "h and w exchanged": (videos.MapsTransposed, "map_shapes"),
    "channels last": (videos.ChannelsLast, "map_shapes"),
    "axes of length one dropped": (videos.OnePixelSqueezed, "map_shapes"),
    "number of kernels not checked": (videos.NumberOfKernelsUnchecked, "recovery"),
    "born above the threshold only": (online.BirthAboveOnly, "lifecycle"),
    "dead below the threshold of birth": (online.DeathAtBirth, "lifecycle"),
    "dead at the threshold": (online.DeathAtThreshold, "lifecycle"),
    "old identity again": (online.OldIdentityAgain, "lifecycle"),
    "identity is the slot": (online.IdentityIsTheSlot, "lifecycle"),
    "scores of the last keyframe": (online.LastScores, "online_scores"),
    "mean over frames": (online.MeanOverFrames, "online_scores"),
    "last of equal classes": (online.LastOfEqualClasses, "online_scores"),
    "mask at one half": (online.MaskAtHalf, "online_masks"),
    "empty mask kept": (online.EmptyMaskKept, "online_masks"),
    "maskness of all pixels": (online.MasknessOfAllPixels, "maskness"),
    "maskness forgotten": (online.MasknessForgotten, "maskness"),
}
"""Name → the tracker and the property that must catch it (others may too)."""

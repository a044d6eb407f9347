"""What any tracker must satisfy, tried on one's own in any language, and trackers known to fail.

For tests of one's own: `tracker_properties`, what its callables take and return, strategies of Hypothesis.
"""

from conformance.trackers.candidate import (
    FrameAnswer,
    Identified,
    LivingTrack,
    OnlineFrame,
    OnlineRules,
    VideoFrame,
)
from conformance.trackers.kernel_strategies import Pair, kernel_sets, near_ties, pairs, unambiguous_pairs
from conformance.trackers.online_strategies import OnlineClip, online_clips
from conformance.trackers.pytest_properties import tracker_properties
from conformance.trackers.video_strategies import Clip, clips, turning_clips

__all__ = [
    "Clip",
    "FrameAnswer",
    "Identified",
    "LivingTrack",
    "OnlineClip",
    "OnlineFrame",
    "OnlineRules",
    "Pair",
    "VideoFrame",
    "clips",
    "kernel_sets",
    "near_ties",
    "online_clips",
    "pairs",
    "tracker_properties",
    "turning_clips",
    "unambiguous_pairs",
]

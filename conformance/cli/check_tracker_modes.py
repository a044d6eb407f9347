"""The modes of `mobileinst check-tracker`: which tracker is checked."""

from __future__ import annotations

from conformance.cli.check_tracker import check_tracker
from conformance.cli.function_job import job_of
from conformance.cli.output_files import XML, Reads, Writes
from conformance.cli.verify_tnn import files_of_command

MARKS = {"command": Reads(files_of_command), "junit": Writes(XML)}
ABOUT_ONE = ("own", "command", "timeout", "method", "precision", "only", "skip", "test", "junit")
"""Options about one tracker."""

KNOWN_BAD = job_of(check_tracker, "the known-bad trackers (--known-bad)", "known_bad", ABOUT_ONE)
COMMAND = job_of(
    check_tracker, "a tracker in any language (--command CMD)", "command", ("own", "known_bad"), MARKS
)
OWN = job_of(
    check_tracker,
    "this project's own tracker (--self)",
    "own",
    ("command", "known_bad", "timeout"),
    MARKS,
)
MODES = (KNOWN_BAD, COMMAND, OWN)

"""Errors a user can cause, each saying what was given, what was expected and what to do.

Every one derives from `MobileInstError`; the command line prints its message on one line and exits with 2.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Self

MOST_LISTED = 5


class MobileInstError(Exception):
    """Base of every error that bad input causes.

    Attributes
    ----------
    items
        All that is wrong, if it is more than the message lists; for machines.
    """

    items: tuple[str, ...] = ()

    def with_items(self, items: Sequence[str]) -> Self:
        """Return the error with all that is wrong, of which the message lists the first."""
        self.items = tuple(items) if len(items) > MOST_LISTED else ()
        return self


def first_of(items: Sequence[str]) -> list[str]:
    """Return the first few of a list, and how many more there are."""
    rest = len(items) - MOST_LISTED
    return [*items[:MOST_LISTED], *([f"and {rest} more"] if rest > 0 else [])]


class ConfigurationError(MobileInstError, ValueError):
    """An unknown preset or field, or a combination that no network can have."""


class ShapeError(MobileInstError, ValueError):
    """An array of the wrong shape, rank or dtype."""


class NonFiniteError(MobileInstError, ValueError):
    """NaN or infinity where a finite number is needed."""


class TargetError(MobileInstError, ValueError):
    """Ground truth that no loss can use: a label out of range, a mask not binary or of the wrong size."""


class WeightsError(MobileInstError, ValueError):
    """Missing, extra, misshapen or non-finite weights; the message lists them all."""


class FileError(MobileInstError, OSError):
    """A file that is missing, empty, truncated, of another format, or cannot be written."""


class SpaceError(FileError):
    """No space is left for the temporary files of a run: nothing is known of the candidate."""


class UnsupportedOperationError(MobileInstError, ValueError):
    """An operator, or an attribute of one, outside the vocabulary of `refimpl.ops`."""


class UnrecordedComputationError(MobileInstError, RuntimeError):
    """While recording, an operation was given an array that no recorded operation produced."""


class MissingDependencyError(MobileInstError, ImportError):
    """An optional package is not installed; the message names the extra that brings it."""


class CandidateError(MobileInstError, RuntimeError):
    """A candidate that cannot be run on the input: it crashed, or its inputs are not a network's."""


class ProcessError(CandidateError):
    """A candidate's process that ended, hangs, or does not answer as it should: nothing is known of it."""


class VerificationError(MobileInstError, AssertionError):
    """A candidate does not conform; raised only on request, for use in tests."""

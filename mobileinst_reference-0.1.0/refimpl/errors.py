"""Errors a user can cause, each saying what was given, what was expected and what to do.

Every one derives from `MobileInstError`; the command line prints its message on one line and exits with 2.
"""

from __future__ import annotations


class MobileInstError(Exception):
    """Base of every error that bad input causes."""


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


class UnsupportedOperationError(MobileInstError, ValueError):
    """An operator, or an attribute of one, outside the vocabulary of `refimpl.ops`."""


class UnrecordedComputationError(MobileInstError, RuntimeError):
    """While recording, an operation was given an array that no recorded operation produced."""


class MissingDependencyError(MobileInstError, ImportError):
    """An optional package is not installed; the message names the extra that brings it."""


class CandidateError(MobileInstError, RuntimeError):
    """A candidate that cannot be run on the input: it crashed, or its inputs are not a network's."""


class VerificationError(MobileInstError, AssertionError):
    """A candidate does not conform; raised only on request, for use in tests."""

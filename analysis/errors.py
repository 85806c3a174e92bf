"""Errors a user can cause or meet; each carries the exit code the command line ends with."""

from __future__ import annotations


class AnalysisError(Exception):
    """Something the reader of a store has to know about, told in one message.

    Attributes:
        exit_code: what the command line returns: 2 for bad usage, 3 for a store that cannot be read.

    """

    exit_code = 2


class QueryError(AnalysisError):
    """A query that is not valid, not read-only, or names a format or table that does not exist."""


class UnknownStudyError(AnalysisError):
    """A study that the store does not hold; the message offers the nearest name."""


class NotComparableError(AnalysisError):
    """Two sides that learnt different things, so that no difference between them means anything."""


class StoreError(AnalysisError):
    """A store that is missing, unreadable, or written by a newer version."""

    exit_code = 3

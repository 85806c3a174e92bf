"""Errors a user can cause: each one says where, what was received, the rule, and the remedy.

A caller prints ``str(error)`` and exits with ``error.exit_code``; no traceback is needed to act on it.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from dataclasses import dataclass
from enum import Enum, auto


class _NoValue(Enum):
    """An enum member is the same object in every process."""

    NO_VALUE = auto()


NO_VALUE = _NoValue.NO_VALUE
"""Stands where nothing was received, which None would not say."""


@dataclass(frozen=True, kw_only=True)
class Problem:
    """One broken rule: `path` into the study file, the `value` received, the `rule` and a `remedy`."""

    path: str
    value: object
    rule: str
    remedy: str = ""

    def __str__(self) -> str:
        where = f"{self.path}: " if self.path else ""
        received = "" if self.value is NO_VALUE else f"; received {shorten(self.value)}"
        remedy = f"; {self.remedy}" if self.remedy else ""
        return f"{where}{self.rule}{received}{remedy}"


class StudyError(Exception):
    """A study file, or what it asks for, breaks a rule.

    Attributes:
        problems: Every broken rule, never only the first.
        path, value, rule, remedy: Those of the first problem.
        exit_code: Exit code of a command that meets this error.
    """

    exit_code = 2

    def __init__(
        self,
        path: str = "",
        *,
        value: object = NO_VALUE,
        rule: str = "",
        remedy: str = "",
        problems: Iterable[Problem] = (),
        source: str = "",
    ) -> None:
        self.problems = tuple(problems) or (Problem(path=path, value=value, rule=rule, remedy=remedy),)
        self.source = source
        super().__init__(self.message())

    @property
    def path(self) -> str:
        """Dotted path of the first problem, such as ``space.model.depth.grid[2]``."""
        return self.problems[0].path

    @property
    def value(self) -> object:
        """The value received, or None where there was none."""
        value = self.problems[0].value
        return None if value is NO_VALUE else value

    @property
    def rule(self) -> str:
        """The rule that the value breaks."""
        return self.problems[0].rule

    @property
    def remedy(self) -> str:
        """What to write instead."""
        return self.problems[0].remedy

    def message(self) -> str:
        """The whole text: one line, or one line for each problem under a heading."""
        if len(self.problems) == 1:
            return f"{self.source}: {self.problems[0]}" if self.source else str(self.problems[0])
        head = (
            f"{self.source}: {len(self.problems)} problems"
            if self.source
            else f"{len(self.problems)} problems"
        )
        return "\n".join([head, *(f"  {problem}" for problem in self.problems)])

    def in_file(self, source: str) -> StudyError:
        """The same error with the file it came from in front."""
        return type(self)(problems=self.problems, source=source)

    def __reduce__(self) -> tuple[object, ...]:
        # Exceptions pickle their args alone; a worker process must hand back all problems.
        return _rebuild, (type(self), self.problems, self.source)


class DataError(StudyError):
    """A data set cannot be read as asked for: missing, of another layout, or too small."""


class StoreError(StudyError):
    """The results store cannot be read or written, or is of a newer schema."""

    exit_code = 3


def _rebuild(kind: type[StudyError], problems: tuple[Problem, ...], source: str) -> StudyError:
    return kind(problems=problems, source=source)


def shorten(value: object, limit: int = 80) -> str:
    """`repr` of a value, cut in the middle beyond `limit` characters."""
    text = repr(value)
    return text if len(text) <= limit else f"{text[: limit // 2]} ... {text[-limit // 3 :]}"


def nearest(word: object, choices: Iterable[object]) -> str:
    """Return a remedy that names the closest valid choice by spelling, and the choices if there are few.

    >>> nearest("reverze", ["store", "reverse"])
    "did you mean 'reverse'? Choices: store, reverse"
    """
    names = [str(choice) for choice in choices]
    close = difflib.get_close_matches(str(word).lower(), names, n=1, cutoff=0.5)
    hint = f"did you mean {close[0]!r}? " if close else ""
    return f"{hint}Choices: {', '.join(names)}" if names else hint.strip()

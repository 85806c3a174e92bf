"""One setting: what it means, which values it takes, and whether it is part of a trial's identity.

A field of the dataclasses in `study.settings` is annotated with a `Setting`. From it follow the checks of a
study file, the JSON Schema, the reference page, the columns of a trial's row and the identity of a trial. The
standard library is enough here: pydantic calls the two methods below by their names, and the training loop
never needs pydantic.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

from study.code import is_path
from study.errors import nearest

ALWAYS, IF_CHANGED, NEVER = "always", "if changed", "never"
"""Whether a setting is part of the identity. `IF_CHANGED`: only where it differs from its default. A setting
that is added later is of this kind, so that the trials from before it keep their ids."""


class BrokenRule(ValueError):
    """A value that a setting does not take: the `rule` it breaks, and the `remedy`."""

    def __init__(self, rule: str, remedy: str = "") -> None:
        super().__init__(rule)
        self.rule = rule
        self.remedy = remedy


class Options(dict[str, Any]):
    """Options of what a study brings along: any keys, with values that JSON has. It is not to be changed.

    Two are equal if their JSON is, so that 1, 1.0 and true are three values.
    """

    def __hash__(self) -> int:  # type: ignore[override]
        return hash(self._json)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, dict) and self._json == Options(other)._json

    def __ne__(self, other: object) -> bool:
        return not self == other

    @property
    def _json(self) -> str:
        return json.dumps(self, sort_keys=True)

    @classmethod
    def checked(cls, value: Any) -> Options:
        """Return a mapping as options.

        Raises:
            BrokenRule: It is no mapping, a key is no name, or JSON has no such value.
        """
        if not isinstance(value, dict):
            raise BrokenRule("must be a mapping", "for example {heads: 4}")
        for key in value:
            if not (isinstance(key, str) and key.isidentifier()):
                raise BrokenRule(f"a key must be the name of an argument, not {key!r}")
        try:
            json.dumps(value, allow_nan=False)
        except (TypeError, ValueError) as error:
            raise BrokenRule(f"must hold numbers, words, lists and mappings ({error})") from None
        return cls(value)

    @classmethod
    def __get_pydantic_core_schema__(cls, source: Any, handler: Callable[[Any], Any]) -> Any:
        return {"type": "function-plain", "function": {"type": "no-info", "function": cls.checked}}

    @classmethod
    def __get_pydantic_json_schema__(cls, schema: Any, handler: Callable[[Any], Any]) -> dict[str, Any]:
        return {"type": "object"}


NO_OPTIONS = Options()


@dataclass(frozen=True)
class Setting:
    """What is to be known of a setting beside its type and default.

    Attributes:
        meaning: One sentence.
        unit: Of the value; empty for words and pure numbers.
        at_least, above, at_most, below: Limits of a number.
        choices: The words that it takes.
        importable: Whether it takes an import path too, such as ``mine:make``.
        check: Raises `BrokenRule` for a value that it does not take.
        identity: `ALWAYS`, `IF_CHANGED` or `NEVER`.
        only_with: Another setting of the section and the value, or the values, with which alone this one is
            used.
        unless: Other settings of the section that take the place of this one where they are given.
        column: The column of a trial's row that holds it.
        written: JSON Schema of the other ways in which a study file may write it.
    """

    meaning: str = ""
    unit: str = ""
    at_least: float | None = None
    above: float | None = None
    at_most: float | None = None
    below: float | None = None
    choices: tuple[str, ...] = ()
    importable: bool = False
    check: Callable[[Any], None] | None = None
    identity: str = ALWAYS
    only_with: tuple[str, Any] | None = None
    unless: tuple[str, ...] = ()
    column: str = ""
    written: Mapping[str, Any] | None = None

    def unused(self, section: Any) -> bool:
        """Whether the other settings of its section leave this one without a part to play."""
        if any(getattr(section, name) is not None for name in self.unless):
            return True
        if self.only_with is None:
            return False
        name, wanted = self.only_with
        return getattr(section, name) not in (wanted if isinstance(wanted, tuple) else (wanted,))

    def validated(self, value: Any) -> Any:
        """Return the value itself, whose type is right already. None stands for a setting that is left open.

        Raises:
            BrokenRule: The setting does not take it.
        """
        if value is None:
            return value
        if self.at_least is not None and value < self.at_least:
            raise BrokenRule(f"must be at least {self.at_least:g}", f"the nearest is {self.at_least:g}")
        if self.at_most is not None and value > self.at_most:
            raise BrokenRule(f"must be at most {self.at_most:g}", f"the nearest is {self.at_most:g}")
        if self.above is not None and value <= self.above:
            raise BrokenRule(f"must be more than {self.above:g}")
        if self.below is not None and value >= self.below:
            raise BrokenRule(f"must be less than {self.below:g}")
        if self.choices and value not in self.choices and not (self.importable and is_path(value)):
            raise BrokenRule("must be one of the choices", nearest(value, self.choices))
        if self.check is not None:
            self.check(value)
        return value

    def __get_pydantic_core_schema__(self, source: Any, handler: Callable[[Any], Any]) -> Any:
        """A check after that of the type. Pydantic's schemas are plain dictionaries."""
        function = {"type": "no-info", "function": partial(_validate, self)}
        return {"type": "function-after", "function": function, "schema": handler(source)}

    def __get_pydantic_json_schema__(self, schema: Any, handler: Callable[[Any], Any]) -> dict[str, Any]:
        """The type's JSON Schema with meaning and limits."""
        found = dict(self.written or handler(schema))
        limits = {
            "minimum": self.at_least,
            "exclusiveMinimum": self.above,
            "maximum": self.at_most,
            "exclusiveMaximum": self.below,
        }
        if self.written is None:
            found |= {name: limit for name, limit in limits.items() if limit is not None}
        if self.choices and not self.importable:
            optional = any(part.get("type") == "null" for part in found.get("anyOf", ()))
            found["enum"] = [*self.choices, None] if optional else list(self.choices)
        if self.meaning:
            found["description"] = f"{self.meaning} Unit: {self.unit}." if self.unit else self.meaning
        return found


def _validate(setting: Setting, value: Any) -> Any:
    return setting.validated(value)

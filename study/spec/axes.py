"""The axes of a space: what values one dotted path takes, and the spaces that are made of them."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar

from pydantic import AfterValidator, ConfigDict, Discriminator, Field, Tag, model_validator
from pydantic_core import PydanticCustomError

from study.errors import nearest
from study.settings.setting import Setting
from study.spec.fields import PATHS, Natural, PositiveReal, Section, is_setting
from study.spec.messages import MANY, ONE

KINDS = ("grid", "choice", "uniform", "loguniform", "int")
"""A list to try in full, a list to sample from, and three distributions."""


MAX_VALUES = 100_000
"""Whole numbers of one axis; more than a search could ever try."""


def _scalar(value: Any) -> Any:
    if value is not None and not isinstance(value, bool | int | float | str):
        raise PydanticCustomError("scalar", "must be a single value", {"remedy": "give a number or a word"})
    return value


Values = Annotated[tuple[Annotated[Any, AfterValidator(_scalar)], ...], Field(min_length=1, strict=False)]


class Axis(Section):
    """The values of one dotted path: a list to try in full, or a distribution to sample from."""

    model_config = ConfigDict(json_schema_extra={"oneOf": [{"required": [kind]} for kind in KINDS]})
    _examples: ClassVar[str] = "for example {grid: [1, 2]} or {loguniform: [0.01, 1.0]}"

    grid: Values | None = Field(default=None, description="Values to try in full.")
    choice: Values | None = Field(default=None, description="Values to sample from.")
    uniform: Annotated[tuple[float, float], Field(strict=False)] | None = Field(
        default=None, description="The ends of a range to sample from evenly."
    )
    loguniform: Annotated[tuple[PositiveReal, PositiveReal], Field(strict=False)] | None = Field(
        default=None, description="The ends of a range to sample from evenly on a logarithmic scale."
    )
    integer: Annotated[tuple[int, int], Field(strict=False)] | None = Field(
        default=None,
        alias="int",
        description="The least and the greatest of the whole numbers to sample from.",
    )
    step: Annotated[int | None, Setting("The distance of the whole numbers of int.", at_least=1)] = None

    @model_validator(mode="after")
    def _one_kind(self) -> Axis:
        given = [kind for kind in KINDS if self.content(kind) is not None]
        if len(given) != 1:
            remedy = f"keep one of {', '.join(given)}" if given else self._examples
            rule = f"needs exactly one of {', '.join(KINDS)}"
            raise PydanticCustomError("axis", rule, {"remedy": remedy})
        if self.step is not None and self.kind != "int":
            raise PydanticCustomError("axis", "step belongs to int alone", {"remedy": "remove step"})
        if self.bounds is not None and self.bounds[0] >= self.bounds[1]:
            remedy = f"for example {self.kind}: [{self.bounds[1]}, {self.bounds[0]}]"
            raise PydanticCustomError("axis", "needs its low bound below its high bound", {"remedy": remedy})
        if self.integer is not None and self._count() > MAX_VALUES:
            remedy = f"raise step to {-(-(self.integer[1] - self.integer[0]) // (MAX_VALUES - 1))} or more"
            raise PydanticCustomError("axis", f"must have at most {MAX_VALUES:,} values", {"remedy": remedy})
        return self

    def _count(self) -> int:
        low, high = self.integer or (0, -1)
        return (high - low) // (self.step or 1) + 1

    def to_dict(self) -> dict[str, Any]:
        """Plain values under the file's own keys."""
        return self.model_dump(mode="json", by_alias=True, exclude_none=True)

    def content(self, kind: str) -> tuple[Any, ...] | None:
        """What the file gives under `kind`, None if it gives nothing."""
        return self.integer if kind == "int" else getattr(self, kind)

    @property
    def kind(self) -> str:
        """Which of grid, choice, uniform, loguniform, int this axis is."""
        return next(kind for kind in KINDS if self.content(kind) is not None)

    @property
    def bounds(self) -> tuple[Any, Any] | None:
        """(low, high) of a distribution; None for a list of values."""
        return self.uniform or self.loguniform or self.integer

    @property
    def values(self) -> tuple[Any, ...] | None:
        """All values of grid, choice and int; None for a continuous distribution."""
        if self.integer is not None:
            return tuple(range(self.integer[0], self.integer[1] + 1, self.step or 1))
        return self.grid if self.grid is not None else self.choice


def _check_path(path: str) -> str:
    if not is_setting(path):
        remedy = "list seeds under the key seeds" if path.startswith("seed") else _nearest_path(path)
        raise PydanticCustomError("path", "must be the dotted path of a setting", {"remedy": remedy})
    return path


def _nearest_path(path: str) -> str:
    section = path.partition(".")[0]
    inside = [name for name in PATHS if name.startswith(f"{section}.")]
    return nearest(path, inside or PATHS)


def one_or_many(value: Any) -> str:
    """The tag of a value that may be one thing or a list of them."""
    return MANY if isinstance(value, list | tuple) else ONE


SubSpace = Annotated[dict[Annotated[str, AfterValidator(_check_path)], Axis], Field(min_length=1)]
SubSpaces = Annotated[tuple[SubSpace, ...], Field(min_length=1, strict=False)]
Space = Annotated[Annotated[SubSpace, Tag(ONE)] | Annotated[SubSpaces, Tag(MANY)], Discriminator(one_or_many)]
Seeds = Annotated[tuple[Natural, ...], Field(min_length=1, strict=False)]

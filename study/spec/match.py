"""Equal budgets: the section of a study file that has one setting follow from a predicted number.

``match: {memory_peak_bytes: 5.0e+7}`` gives every point of the study the width at which a training step is
predicted to take 50 MB, whatever its depth and its memory strategy. `study.plan.match` finds the value.
"""

from __future__ import annotations

import re
from typing import Annotated

from pydantic import model_validator
from pydantic_core import PydanticCustomError

from study.errors import nearest
from study.settings.setting import BrokenRule, Setting
from study.spec.fields import Section

QUANTITIES = ("memory_peak_bytes", "parameters")
"""What can be asked for."""
AXES = ("model.width", "model.depth", "train.batch_size", "model.options.<name>")
"""Settings that can be solved for: one more of them never makes a training step smaller."""

_OPTION = re.compile(r"model\.options\.[A-Za-z_]\w*")


def _check_axis(path: str) -> None:
    if path not in AXES[:-1] and not _OPTION.fullmatch(path):
        raise BrokenRule(f"must be one of {', '.join(AXES)}", nearest(path, AXES[:-1]))


class Match(Section):
    """One setting that is solved for at every point of the study, so that all points share a predicted size.

    The solved value is a setting like any other: it is in the identity and in the row of its trials.
    """

    memory_peak_bytes: Annotated[
        float | None,
        Setting("The peak memory of a training step on one worker, all categories.", "bytes", above=0),
    ] = None
    parameters: Annotated[
        float | None, Setting("The trainable parameters of the network.", "parameters", above=0)
    ] = None
    by: Annotated[
        str,
        Setting(
            "The setting that is solved for: model.width, model.depth, train.batch_size, or a whole number "
            "among the options of a network of your own, as model.options.<name>.",
            check=_check_axis,
        ),
    ] = "model.width"
    within: Annotated[
        float,
        Setting("How far the prediction may be from what is asked for, as a share of it.", above=0, below=1),
    ] = 0.02

    @model_validator(mode="after")
    def _one_quantity(self) -> Match:
        given = [name for name in QUANTITIES if getattr(self, name) is not None]
        if len(given) != 1:
            remedy = f"keep one of {', '.join(given)}" if given else "for example memory_peak_bytes: 5.0e+7"
            raise PydanticCustomError(
                "match", f"needs exactly one of {', '.join(QUANTITIES)}", {"remedy": remedy}
            )
        if self.parameters is not None and self.by == "train.batch_size":
            rule = "the batch changes no network, so no batch gives it a number of parameters"
            raise PydanticCustomError("match", rule, {"remedy": "match by model.width or model.depth"})
        return self

    @property
    def quantity(self) -> str:
        """Which of `QUANTITIES` is asked for."""
        return "parameters" if self.memory_peak_bytes is None else "memory_peak_bytes"

    @property
    def asked(self) -> float:
        """How much of it."""
        return float(getattr(self, self.quantity))

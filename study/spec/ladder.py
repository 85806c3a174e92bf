"""A ladder for studies of scale: from the size of a network to its batch, learning rate and steps.

With N trainable parameters, and every constant of the base network marked 0::

    batch = batch_0 (N / N_0)^b     learning rate = rate_0 (N / N_0)^r     images seen = images_0 (N / N_0)^e

Steps are images seen over batch, and epochs are images seen over the images of the training set. A constant
comes from a paper, which `SOURCES` names and `revstudy plan` shows, or from the study file.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any

from pydantic import Field

from study.settings.setting import Setting
from study.spec.fields import Section

DERIVED = ("batch_size", "learning_rate", "epochs")

_GOMEZ = "Gomez et al. 2017 (arXiv 1707.04585), RevNet-38 on CIFAR-10"
_PORIAN = "Porian et al. 2024 (arXiv 2406.19146): language models, AdamW"
SOURCES = {
    "base_parameters": _GOMEZ,
    "base_batch_size": _GOMEZ,
    "base_learning_rate": _GOMEZ,
    "base_images": f"{_GOMEZ}: 80,000 steps of 100",
    "batch_exponent": _PORIAN,
    "rate_exponent": _PORIAN,
    "images_exponent": "Hoffmann et al. 2022 (arXiv 2203.15556): data in proportion to parameters",
    "batch_multiple": "a choice: whole shares for 1, 2 or 4 workers",
}
"""Where each default comes from."""


class Ladder(Section):
    """The rule's constants; what the file leaves out has the value and the source of `SOURCES`.

    ``derive`` lists which of the settings of ``train`` follow from the rule.
    """

    base_parameters: Annotated[int, Setting("Trainable parameters of the base network.", at_least=1)] = (
        464_890
    )
    base_batch_size: Annotated[int, Setting("Batch of the base network.", "images", at_least=1)] = 100
    base_learning_rate: Annotated[float, Setting("Learning rate of the base network.", above=0)] = 0.1
    base_images: Annotated[
        float, Setting("Images that the base network sees in its training.", "images", above=0)
    ] = 8_000_000
    batch_exponent: Annotated[float, Setting("The power of size with which the batch grows.")] = 2 / 3
    rate_exponent: Annotated[float, Setting("The power of size with which the learning rate grows.")] = -1 / 3
    images_exponent: Annotated[float, Setting("The power of size with which the images seen grow.")] = 1.0
    batch_multiple: Annotated[int, Setting("The batch is a multiple of it.", "images", at_least=1)] = 4
    derive: Annotated[
        tuple[Annotated[str, Setting(choices=DERIVED)], ...],
        Field(min_length=1, strict=False, description="The settings of train that follow from the rule."),
    ] = DERIVED

    @property
    def constants(self) -> list[dict[str, Any]]:
        """Name, value and source of each constant."""
        found = []
        for name, source in SOURCES.items():
            value = getattr(self, name)
            default = value == type(self).model_fields[name].default
            found.append(
                {"constant": name, "value": value, "source": source if default else "the study file"}
            )
        return found


@dataclass(frozen=True, kw_only=True)
class Rung:
    """What the rule gives for one network, before it is cut to what the study derives."""

    parameters: int
    batch_size: int
    learning_rate: float
    epochs: int
    steps: int


def rung(ladder: Ladder, *, parameters: int, examples: int) -> Rung:
    """Apply the rule to a network of so many trainable parameters and a training set of so many images.

    >>> rung(Ladder(), parameters=464_890, examples=45_000)
    Rung(parameters=464890, batch_size=100, learning_rate=0.1, epochs=178, steps=80100)
    >>> rung(Ladder(), parameters=8 * 464_890, examples=45_000).batch_size
    400

    Returns:
        The network's size with the batch, learning rate, epochs and steps that follow from it.
    """
    size, multiple = parameters / ladder.base_parameters, ladder.batch_multiple
    batch = max(1, round(ladder.base_batch_size * size**ladder.batch_exponent / multiple)) * multiple
    images = ladder.base_images * size**ladder.images_exponent
    epochs = max(1, round(images / examples))
    return Rung(
        parameters=parameters,
        batch_size=batch,
        # Four digits: more would make other trials of networks that differ by a few parameters.
        learning_rate=float(f"{ladder.base_learning_rate * size**ladder.rate_exponent:.4g}"),
        epochs=epochs,
        steps=epochs * (examples // min(batch, examples)),
    )

"""Do activations stay of one size when a network gets wider or deeper? The check of its parametrization.

Language models are trained for a few steps at one rate, and the slope of what their activations are, and of
what a step changes in them, is fitted over the size: see `revmodels.measure.coordinate_check`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass

import torch

from revmodels.measure.coordinate_check import coordinate_check
from revmodels.models.language import LanguageModel
from revmodels.models.parametrization import BASE_DEPTH
from revmodels.models.presets import create_model
from study.errors import StudyError

DESIGN, FULL = "410m", 1024
"""The preset whose heads have 64 features, as the base of the parametrizations has, and its width."""
VOCABULARY, ROWS = 256, 4
FLAT = 0.05
"""Slopes of at most so much count as flat."""


@dataclass(frozen=True, kw_only=True)
class Check:
    """What is checked.

    Attributes:
        parametrizations: Of `revmodels.models.parametrization`.
        families: ``revgpt``, ``gpt`` or both.
        widths: Features of a stream, multiples of 64; depth is then that of the base, 2.
        depths: Blocks; the width is then the smallest of the widths.
        rate: The learning rate of AdamW at the base.
        steps: Of training, two or more.
        seeds: Of the weights.
        context: Tokens of a row.
        strategy: Of the networks that have an inverse; others store.
    """

    parametrizations: Sequence[str] = ("standard", "mup", "completep")
    families: Sequence[str] = ("revgpt",)
    widths: Sequence[int] = (128, 256, 512)
    depths: Sequence[int] = (2, 4, 8, 16)
    rate: float = 0.001
    steps: int = 5
    seeds: Sequence[int] = (0, 1)
    context: int = 64
    strategy: str = "reverse"


@dataclass(frozen=True, kw_only=True)
class Slopes:
    """Of one parametrization, the slopes of logarithms over that of width or depth.

    Attributes:
        stream: What the head reads after the last step, root mean square.
        stream_change: How far that is from what it was before the first.
        logits_change: Likewise of the logits.
        flat: Whether all three are at most `FLAT`, up or down.
    """

    family: str
    parametrization: str
    over: str
    sizes: tuple[int, ...]
    stream: float
    stream_change: float
    logits_change: float

    @property
    def flat(self) -> bool:
        """Whether activations stay of one size."""
        return max(abs(self.stream), abs(self.stream_change), abs(self.logits_change)) <= FLAT

    def to_json(self) -> dict[str, object]:
        """Plain values for a machine to read."""
        return {**asdict(self), "flat": self.flat}


def coordinate_slopes(check: Check) -> Iterator[Slopes]:
    """Train the networks.

    Yields:
        The slopes of each parametrization over width, then over depth.

    Raises:
        StudyError: Widths are no multiples of 64, or sizes are fewer than two.
    """
    for name, sizes, step in (("widths", check.widths, 64), ("depths", check.depths, 1)):
        if len(set(sizes)) < 2 or any(size < 1 or size % step for size in sizes):
            raise StudyError(
                name,
                value=list(sizes),
                rule=f"a slope needs two or more multiples of {step}",
                remedy="for example 128 256 512",
            )
    tokens = torch.randint(VOCABULARY, (ROWS, check.context + 1), generator=torch.Generator().manual_seed(0))
    for family in check.families:
        for parametrization in check.parametrizations:
            for over, sizes in (("width", check.widths), ("depth", check.depths)):

                def build(
                    size: float, over: str = over, family: str = family, scheme: str = parametrization
                ) -> LanguageModel:
                    width, depth = (size, BASE_DEPTH) if over == "width" else (min(check.widths), size)
                    network = create_model(
                        f"{family}_{DESIGN}",
                        width=width / FULL,
                        depth=int(depth),
                        strategy=check.strategy if family == "revgpt" else "store",
                        vocab_size=VOCABULARY,
                        context_length=check.context,
                        tied=False,
                        parametrization=scheme,
                    )
                    assert isinstance(network, LanguageModel)
                    return network

                found = coordinate_check(
                    build, sizes, tokens, lr=check.rate, steps=check.steps, seeds=check.seeds
                )
                yield Slopes(
                    family=family,
                    parametrization=parametrization,
                    over=over,
                    sizes=tuple(sizes),
                    **found.slopes,
                )

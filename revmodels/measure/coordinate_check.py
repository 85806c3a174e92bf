"""Whether a network's activations stay of one size when it grows: the check of a parametrization.

Networks of several sizes are trained for a few steps with the same rate. If a parametrization is right, what
activations are, and what a step changes in them, is of one size in all of them (Yang et al. 2022, appendix
D.1): the slope of its logarithm over that of the size is about zero.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from revmodels.memory.preserved_state import random_state_kept
from revmodels.models.language import LanguageModel
from revmodels.models.parameter_groups import parameter_groups

QUANTITIES = ("stream", "stream_change", "logits_change")


@dataclass(frozen=True, kw_only=True)
class CoordinateCheck:
    """What was found.

    Attributes:
        sizes: of the networks, as they were given: widths or depths.
        scales: of each quantity, its root mean square in every network. ``stream`` is what the head reads
            after the last step, ``stream_change`` and ``logits_change`` how far that and the logits are from
            those before the first.
        slopes: of each quantity, d log(scale) / d log(size), by least squares.
    """

    sizes: tuple[float, ...]
    scales: Mapping[str, tuple[float, ...]]
    slopes: Mapping[str, float]

    @property
    def steepest(self) -> float:
        """The largest magnitude of a slope."""
        return max(abs(slope) for slope in self.slopes.values())


def coordinate_check(
    build: Callable[[float], LanguageModel],
    sizes: Sequence[float],
    tokens: Tensor,
    *,
    lr: float,
    steps: int = 5,
    seeds: Sequence[int] = (0, 1, 2),
) -> CoordinateCheck:
    """Train networks of several sizes for a few steps, and fit how their activations grow.

    Args:
        build: makes the network of a size, with weights from the global random generator.
        sizes: at least two positive numbers, such as widths or depths.
        tokens: (B, T + 1) of int64; each token is learnt from those before it, in every step the same.
        lr: η of AdamW, for the groups of `parameter_groups`.
        steps: how many; two or more, since an output layer that starts at zero gives nothing else a gradient
            in the first.
        seeds: of the weights; scales are averaged over them.

    Returns:
        Scales and slopes. The caller's random generator is left as it was.

    Raises:
        ValueError: there are not two sizes, or no seed, or fewer than two steps.
    """
    if steps < 2:
        raise ValueError(f"coordinate_check: steps must be 2 or more; received {steps}.")
    if len(set(sizes)) < 2 or not all(size > 0 for size in sizes) or not seeds:
        raise ValueError(
            f"coordinate_check: a slope needs at least two positive sizes and one seed; received sizes "
            f"{list(sizes)} and seeds {list(seeds)}."
        )
    found: dict[str, list[float]] = {name: [] for name in QUANTITIES}
    with random_state_kept(tokens.device):
        for size in sizes:
            runs = []
            for seed in seeds:
                torch.manual_seed(seed)
                runs.append(_scales(build(size), tokens, lr, steps))
            for name in QUANTITIES:
                found[name].append(math.exp(sum(math.log(run[name]) for run in runs) / len(runs)))
    slopes = {name: _slope(sizes, scales) for name, scales in found.items()}
    return CoordinateCheck(
        sizes=tuple(sizes), scales={name: tuple(s) for name, s in found.items()}, slopes=slopes
    )


def _scales(model: LanguageModel, tokens: Tensor, lr: float, steps: int) -> dict[str, float]:
    rows, targets = tokens[:, :-1], tokens[:, 1:]
    optimizer = torch.optim.AdamW(parameter_groups(model, lr))
    before = _seen(model, rows)
    for _ in range(steps):
        optimizer.zero_grad()
        model(rows, targets).mean.backward()
        optimizer.step()
    stream, logits = _seen(model, rows)
    return {
        "stream": _size(stream),
        "stream_change": _size(stream - before[0]),
        "logits_change": _size(logits - before[1]),
    }


@torch.no_grad()
def _seen(model: LanguageModel, rows: Tensor) -> tuple[Tensor, Tensor]:
    stream = model.features(rows)
    return stream, model.precision.run(model.head, stream)


def _size(x: Tensor) -> float:
    return x.double().square().mean().sqrt().item()


def _slope(sizes: Sequence[float], scales: Sequence[float]) -> float:
    x, y = [math.log(s) for s in sizes], [math.log(s) for s in scales]
    x = [a - sum(x) / len(x) for a in x]
    return sum(a * b for a, b in zip(x, y, strict=True)) / sum(a * a for a in x)

"""Networks that could be trained instead of those of a study, with their predicted bytes and operations.

Candidates have the settings of the study but for depth, width, memory strategy and the parts of a batch. The
loss of a law knows size and data alone, so the shapes are those that the study has trained, and the same made
deeper and wider in nearly equal measure.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

from study.errors import StudyError
from study.plan.cost import count_parameters, step_examples, trial_cost, trial_operations
from study.plan.points import apply_point
from study.settings.trial import TrialSettings
from study.spec.study import Study
from study.tasks.registry import task_of

Shape = tuple[int, float]
"""Depth and width."""

MOST = 16
"""Shapes that are compared, unless the caller names them: each takes seconds for each strategy."""
DOUBLINGS = 12


def grown(trained: Iterable[Shape], size: Callable[[Shape], float | None], *, largest: float) -> list[Shape]:
    """Return shapes to compare: those of a study, and larger ones of like proportions.

    Depth and width are doubled any number of times, one at most once more often than the other.

    Args:
        trained: Depths and widths of the study.
        size: Parameters of a shape; None where the design has no such network.
        largest: Parameters at most.

    Returns:
        At most `MOST` shapes of different sizes, ascending, spread evenly over the range.
    """
    sizes: dict[float, Shape] = {}
    for depth, width in dict.fromkeys(trained):
        for doubling in range(DOUBLINGS):
            deep, wide = depth << doubling, width * 2**doubling
            found = {shape: size(shape) for shape in ((deep, wide), (2 * deep, wide), (deep, 2 * wide))}
            fitting = {n: shape for shape, n in found.items() if n is not None and n <= largest}
            sizes = {**fitting, **sizes}
            if not fitting and any(n is not None for n in found.values()):
                break
    ordered = [sizes[n] for n in sorted(sizes)]
    last = len(ordered) - 1
    if last < MOST:
        return ordered
    return [ordered[i] for i in sorted({round(k * last / (MOST - 1)) for k in range(MOST)})]


def size_of(study: Study) -> Callable[[Shape], float | None]:
    """Return what counts the parameters of a shape as a law does: without embeddings, if it is a language
    model.
    """
    free = _unmatched(study)

    def size(shape: Shape) -> float | None:
        try:
            settings = apply_point(free, {"model.depth": shape[0], "model.width": shape[1]})
            return float(law_parameters(settings))
        except StudyError:
            return None

    return size


def _unmatched(study: Study) -> Study:
    """The study without its match: the sizes of candidates are what is compared."""
    return study.model_copy(update={"match": None})


def law_parameters(settings: TrialSettings) -> int:
    """Parameters as the column that laws are fitted to counts them."""
    from revmodels.models.catalog import PRESETS
    from revmodels.models.decoder import LanguageArchitecture

    architecture = PRESETS.get(settings.model.name)
    if not isinstance(architecture, LanguageArchitecture):
        return count_parameters(settings)
    depth = settings.model.depth
    sized = architecture if depth is None else architecture.with_depth(depth)
    return sized.parameters(settings.model.width).non_embedding


def candidates(
    study: Study, shapes: Sequence[Shape], *, strategies: Sequence[str], parts: Sequence[int] = (1,)
) -> Iterator[dict[str, Any]]:
    """Predict bytes and operations of each combination, on fake tensors; nothing is allocated.

    Args:
        study: What all have in common.
        shapes: Depths and widths.
        strategies: Memory strategies.
        parts: Into how many parts a batch is cut.

    Yields:
        The fields of an `analysis.laws.frontier.Candidate`, one candidate after another; what the network
        cannot have, such as a strategy, is left out.

    Raises:
        StudyError: No combination is possible.
    """
    study, found, problem = _unmatched(study), 0, None
    for (depth, width), name in itertools.product(shapes, strategies):
        point = {"model.depth": depth, "model.width": width, "memory.strategy": name}
        operations = None
        for count in parts:
            try:
                settings = apply_point(study, {**point, "train.accumulate": count})
            except StudyError as error:
                problem = error
                continue
            if operations is None:
                operations = _operations(settings)
            if operations is None:
                break
            found += 1
            yield _candidate(settings, operations)
    if not found:
        raise problem or StudyError("memory.strategy", value=strategies, rule="gives no candidate")


def _candidate(settings: TrialSettings, operations: float) -> dict[str, Any]:
    return {
        "model": settings.model.name,
        "depth": settings.model.depth or 0,
        "width": settings.model.width,
        "context": task_of(settings).shape(settings).tokens_per_example,
        "strategy": settings.memory.strategy or "",
        "batch": settings.train.batch_size,
        "accumulate": settings.train.accumulate,
        "compute_dtype": settings.precision.compute,
        "stream_dtype": settings.precision.stream,
        "optimizer": settings.train.optimizer,
        "optimizer_state": "fp32",
        "parameters": law_parameters(settings),
        "memory_bytes": trial_cost(settings).memory_bytes,
        "operations": operations,
    }


def _operations(settings: TrialSettings) -> float | None:
    """Operations for each token, or each example, with what the strategy computes again; None if unknown."""
    _, hardware = trial_operations(settings)
    tokens = task_of(settings).shape(settings).tokens_per_example or 1
    return None if hardware is None else hardware / (step_examples(settings) * tokens)

"""Which workers and shares of a machine make sense together, and how many trials fit at once."""

from __future__ import annotations

import math
from collections.abc import Callable

from study.errors import StudyError
from study.identity import strategy_of
from study.settings.run import ScalingSettings
from study.settings.trial import TrialSettings


def check_scaling(settings: TrialSettings) -> None:
    """Check the section ``scaling`` together with what it bears on.

    Raises:
        StudyError: A batch that its workers cannot share, workers for an executor that has one, sharding of
            what cannot be sharded, or a part of a GPU for a trial whose memory or time is measured.
    """
    scaling, batch = settings.scaling, settings.train.batch_size
    least = scaling.min_workers or scaling.workers
    if least > scaling.workers:
        raise StudyError(
            "scaling.min_workers",
            value=least,
            rule=f"must be at most the greatest number of workers, {scaling.workers}",
            remedy=f"for example workers: {{min: {scaling.workers}, max: {least}}}",
        )
    share = math.lcm(*range(least, scaling.workers + 1))
    if batch % share:
        of = f"the {share} workers that share it"
        if least < scaling.workers:
            of = f"{share}, so that any number of {least} to {scaling.workers} workers can share it"
        raise StudyError(
            "train.batch_size",
            value=batch,
            rule=f"must be a multiple of {of}",
            remedy=f"the nearest is {max(1, round(batch / share)) * share}",
        )
    if scaling.executor == "tune" and scaling.workers > 1:
        raise StudyError(
            "scaling.executor",
            value="tune",
            rule=f"has one worker for a trial, not {scaling.workers}",
            remedy="use auto or train",
        )
    if strategy_of(settings).whole_network and scaling.workers > 1:
        raise StudyError(
            "memory.strategy",
            value=settings.memory.strategy,
            rule=f"is offered for trials of one worker, not {scaling.workers}",
            remedy="use scaling.workers: 1, or another strategy",
        )
    if scaling.parallel == "fsdp2":
        _check_sharding(settings)
    _check_gpu_share(settings)


def _check_sharding(settings: TrialSettings) -> None:
    if not settings.scaling.distributed:
        raise StudyError(
            "scaling.parallel",
            value="fsdp2",
            rule="shards a network over workers, and there is one",
            remedy="raise scaling.workers, or use ddp",
        )
    if settings.precision.compute == "fp16":
        raise StudyError(
            "scaling.parallel",
            value="fsdp2",
            rule="is not offered with fp16, whose loss scale every worker would have to agree on",
            remedy="use precision.compute: bf16, or ddp",
        )


def _check_gpu_share(settings: TrialSettings) -> None:
    share = settings.scaling.gpus_per_worker
    if float(share).is_integer():
        return
    if share > 1:
        raise StudyError(
            "scaling.gpus_per_worker",
            value=share,
            rule="must be a whole number of GPUs, or a part of one below 1",
            remedy=f"use {math.floor(share)} or {math.ceil(share)}",
        )
    if settings.scaling.workers > 1:
        raise StudyError(
            "scaling.gpus_per_worker",
            value=share,
            rule="must be a whole number where a trial has several workers: NCCL takes one worker a GPU",
            remedy="use 1, or one worker",
        )
    if settings.probe.cost:
        raise StudyError(
            "scaling.gpus_per_worker",
            value=share,
            rule="must be a whole number where memory and time are measured: trials that share a GPU "
            "disturb both",
            remedy="use 1, or set probe.cost: false, which leaves both out of the trial's row",
        )


def at_once(scaling: ScalingSettings, fit: Callable[[int], int]) -> int:
    """Return how many trials of this size run side by side, 0 if not even one does.

    `fit` tells how many groups of a number of workers there is room for. An elastic trial has its greatest
    number if there is room for it; else one trial runs, with as many workers as there is room for.
    """
    room = fit(scaling.workers)
    if room < 1 and scaling.min_workers is not None:
        room = min(1, fit(scaling.min_workers))
    return min(1, room) if scaling.alone else room

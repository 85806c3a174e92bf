"""Settings of what a trial runs on, and of what is measured beside the training."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from study.settings.setting import IF_CHANGED, NEVER, Setting
from study.settings.strict import Strict

EXECUTORS = ("auto", "tune", "train")
PARALLELS = ("ddp", "fsdp2")
PLACEMENTS = ("PACK", "SPREAD")


_WORKERS = {
    "anyOf": [
        {"type": "integer", "minimum": 1},
        {
            "type": "object",
            "properties": {
                name: {"type": "integer", "minimum": 1, "description": f"The {word} workers that it takes."}
                for name, word in (("min", "fewest"), ("max", "most"))
            },
            "required": ["min", "max"],
            "additionalProperties": False,
        },
    ]
}
"""A number of workers, or ``{min, max}`` of an elastic one, which `study.spec.fields` takes apart."""


@dataclass(frozen=True, kw_only=True)
class ScalingSettings(Strict):
    """Data-parallel workers and what each one gets.

    With `min_workers`, the number is elastic: a trial starts with as many as there is room for, from
    `min_workers` to `workers`, and goes on with another number when machines come and go.
    """

    workers: Annotated[
        int,
        Setting(
            "Data-parallel workers of a trial, or {min, max} where their number may change.",
            "workers",
            at_least=1,
            column="workers",
            written=_WORKERS,
        ),
    ] = 1
    min_workers: Annotated[
        int | None,
        Setting(
            "The least number of workers of an elastic trial; without it, their number is fixed.",
            "workers",
            at_least=1,
            column="workers_min",
        ),
    ] = None
    cpus_per_worker: Annotated[
        float, Setting("Cores of each worker, and its threads.", "cores", above=0, identity=NEVER)
    ] = 1
    gpus_per_worker: Annotated[
        float,
        Setting(
            "GPUs of each worker; below 1, several trials share one.",
            "GPUs",
            at_least=0,
            identity=NEVER,
            column="gpus_per_worker",
        ),
    ] = 0
    executor: Annotated[
        str,
        Setting(
            "What runs a trial: a reused process of Ray Tune, or a group of Ray Train; auto by the number "
            "of workers.",
            choices=EXECUTORS,
            identity=NEVER,
        ),
    ] = "auto"
    parallel: Annotated[
        str,
        Setting(
            "What each worker holds: the whole network (ddp), or a share of its parameters, gradients "
            "and optimizer state (fsdp2).",
            choices=PARALLELS,
            identity=IF_CHANGED,
            column="parallel",
        ),
    ] = "ddp"
    placement: Annotated[
        str,
        Setting(
            "Whether workers share few machines (PACK) or are spread over many (SPREAD).",
            choices=PLACEMENTS,
            identity=NEVER,
        ),
    ] = "PACK"
    alone: Annotated[
        bool,
        Setting(
            "Whether trials run one at a time, so that none disturbs the times of another.", identity=NEVER
        ),
    ] = False

    @property
    def elastic(self) -> bool:
        """Whether the number of workers may change."""
        return self.min_workers is not None and self.min_workers < self.workers

    @property
    def distributed(self) -> bool:
        """Whether a trial is a group of workers rather than one reused process."""
        return self.executor == "train" or (self.workers > 1 and self.executor == "auto")


@dataclass(frozen=True, kw_only=True)
class ProbeSettings(Strict):
    """When fidelity is measured: before the training, at each `every`-th evaluation, and at the end."""

    every: Annotated[
        int | None,
        Setting(
            "Evaluations from one probe to the next; without it, only the first and the last are probed.",
            "evaluations",
            at_least=1,
        ),
    ] = None
    examples: Annotated[int, Setting("Examples of a probe's batch.", "examples", at_least=1)] = 64
    enabled: Annotated[bool, Setting("Whether fidelity is measured at all.", identity=NEVER)] = True
    reference: Annotated[
        bool,
        Setting("Whether every block's gradient is also compared with a float64 copy.", identity=IF_CHANGED),
    ] = False
    lipschitz: Annotated[
        bool,
        Setting("Whether the amplification of errors by F and G is also estimated.", identity=IF_CHANGED),
    ] = False
    cost: Annotated[
        bool,
        Setting(
            "Whether memory and time are measured; without them, trials may share a GPU.", identity=IF_CHANGED
        ),
    ] = True

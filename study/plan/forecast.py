"""What the trials of a plan will take together: time, GPU-hours, and which of them will not fit."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

from study.plan.durations import UNKNOWN, Calibration, Clock, Time
from study.plan.machine import Machine, Misfit, misfits
from study.plan.searches import PlannedSearch
from study.settings.run import ScalingSettings
from study.settings.trial import Trial

if TYPE_CHECKING:
    from study.plan.cost import Cost


@dataclass(frozen=True, kw_only=True)
class SearchForecast:
    """What the trials of a search will take, from those at the ends of its axes.

    `time_s` is the mean time of one, None if unknown; `memory_bytes` the most that one takes.
    """

    step: int
    trials: int
    time_s: float | None
    memory_bytes: int | None


@dataclass(frozen=True, kw_only=True)
class Forecast:
    """Predictions for the trials of a plan, and for those that its searches may propose.

    Attributes:
        machine: What was planned for.
        times: By trial id.
        total_s: Time until the last trial ends, as many side by side as fit; None if some trial's time is
            unknown or the machine cannot hold one.
        worker_hours, gpu_hours: Workers' and GPUs' time, summed over the trials of known time.
        misfits: Trials that will not fit.
        calibration: What was timed, if anything was.
        searches: One for each search that has something left to propose.
    """

    machine: Machine
    times: dict[str, Time] = field(default_factory=dict)
    total_s: float | None = None
    worker_hours: float = 0.0
    gpu_hours: float = 0.0
    misfits: tuple[Misfit, ...] = ()
    calibration: Calibration | None = None
    searches: tuple[SearchForecast, ...] = ()

    @property
    def unknown(self) -> int:
        """Trials whose time is unknown."""
        return sum(time.source == UNKNOWN for time in self.times.values())

    @property
    def sources(self) -> dict[str, int]:
        """How many trials' times come from where."""
        counts: dict[str, int] = {}
        for time in self.times.values():
            counts[time.source] = counts.get(time.source, 0) + 1
        return counts

    def to_json(self) -> dict[str, Any]:
        """Plain values for a machine to read."""
        return {
            "machine": self.machine.to_json(),
            "total_s": self.total_s,
            "worker_hours": self.worker_hours,
            "gpu_hours": self.gpu_hours,
            "times_from": self.sources,
            "calibration": asdict(self.calibration) if self.calibration else None,
            "does_not_fit": [asdict(misfit) for misfit in self.misfits],
            "searches": [asdict(search) for search in self.searches],
        }


def forecast(
    trials: Sequence[Trial],
    costs: Mapping[str, Cost],
    clock: Clock,
    machine: Machine,
    calibration: Calibration | None = None,
    searches: Sequence[tuple[PlannedSearch, Sequence[Trial]]] = (),
) -> Forecast:
    """Predict the times and the fit of `trials` on `machine`, and of searches by the trials at their ends."""
    times = {trial.trial_id: clock.time(trial.settings) for trial in trials}
    by_size: dict[ScalingSettings, list[float | None]] = {}
    workers = gpus = 0.0
    for trial in trials:
        scaling, seconds = trial.settings.scaling, times[trial.trial_id].seconds
        by_size.setdefault(scaling, []).append(seconds)
        workers += (seconds or 0.0) * scaling.workers / 3600
        gpus += (seconds or 0.0) * scaling.workers * scaling.gpus_per_worker / 3600
    found: list[SearchForecast] = []
    corners: list[Trial] = []
    for search, at_ends in searches:
        times_s = [clock.time(trial.settings).seconds for trial in at_ends]
        known = [seconds for seconds in times_s if seconds is not None]
        mean = statistics.fmean(known) if known and len(known) == len(times_s) else None
        sizes = [costs[trial.trial_id].memory_bytes for trial in at_ends if trial.trial_id in costs]
        scaling, memory = at_ends[0].settings.scaling, max(sizes, default=None)
        found.append(SearchForecast(step=search.step, trials=search.count, time_s=mean, memory_bytes=memory))
        by_size.setdefault(scaling, []).extend([mean] * search.count)
        hours = (mean or 0.0) * search.count * scaling.workers / 3600
        workers, gpus, corners = workers + hours, gpus + hours * scaling.gpus_per_worker, [*corners, *at_ends]
    return Forecast(
        machine=machine,
        searches=tuple(found),
        times=times,
        total_s=_elapsed(by_size, machine),
        worker_hours=workers,
        gpu_hours=gpus,
        misfits=misfits([*trials, *corners], costs, machine),
        calibration=calibration,
    )


def _elapsed(by_size: Mapping[ScalingSettings, Sequence[float | None]], machine: Machine) -> float | None:
    """Trials of equal size run side by side, one size after another; no shorter than the longest trial."""
    total = 0.0
    for scaling, group in by_size.items():
        known, at_once = [seconds for seconds in group if seconds is not None], machine.at_once(scaling)
        if len(known) < len(group) or at_once < 1:
            return None
        total += max(sum(known) / at_once, max(known))
    return total

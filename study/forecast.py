"""What the trials of a plan will take together: time, GPU-hours, and which of them will not fit."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from study.capacity import Machine, Misfit, misfits, this_machine
from study.estimate import UNKNOWN, Calibration, Clock, Time, calibrate
from study.history import History
from study.plan import Plan
from study.settings import ScalingSettings, Trial

if TYPE_CHECKING:
    from study.build import Cost


@dataclass(frozen=True, kw_only=True)
class Forecast:
    """Predictions for the trials of a plan; those of its searches are not known before they run.

    Attributes
    ----------
    machine
        What was planned for.
    times
        By trial id.
    total_s
        Time until the last trial ends, as many side by side as fit; None if some trial's time is unknown or
        the machine cannot hold one.
    worker_hours, gpu_hours
        Workers' and GPUs' time, summed over the trials of known time.
    misfits
        Trials that will not fit.
    calibration
        What was timed, if anything was.

    """

    machine: Machine
    times: dict[str, Time] = field(default_factory=dict)
    total_s: float | None = None
    worker_hours: float = 0.0
    gpu_hours: float = 0.0
    misfits: tuple[Misfit, ...] = ()
    calibration: Calibration | None = None

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
        }


def forecast(
    trials: Sequence[Trial],
    costs: Mapping[str, Cost],
    clock: Clock,
    machine: Machine,
    calibration: Calibration | None = None,
) -> Forecast:
    """Predict the times and the fit of `trials` on `machine`."""
    times = {trial.trial_id: clock.time(trial.settings) for trial in trials}
    by_size: dict[ScalingSettings, list[float | None]] = {}
    workers = gpus = 0.0
    for trial in trials:
        scaling, seconds = trial.settings.scaling, times[trial.trial_id].seconds
        by_size.setdefault(scaling, []).append(seconds)
        workers += (seconds or 0.0) * scaling.workers / 3600
        gpus += (seconds or 0.0) * scaling.workers * scaling.gpus_per_worker / 3600
    return Forecast(
        machine=machine,
        times=times,
        total_s=_elapsed(by_size, machine),
        worker_hours=workers,
        gpu_hours=gpus,
        misfits=misfits(trials, costs, machine),
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


def forecast_plan(
    plan: Plan, store: str | Path, *, calibrate_now: bool = False, memory_bytes: int | None = None
) -> Plan:
    """The plan with the forecast of its trials, from the store's past and, if asked for, a calibration.

    Raises
    ------
    StudyError
        The calibration went wrong.
    StoreError
        The store cannot be read.

    """
    ids = {trial.trial_id for trial in (*plan.trials, *plan.already_done)}
    rows = History(store).timed(ids) if plan.trials else []
    calibration = calibrate(plan.trials) if calibrate_now and plan.trials else None
    machine = this_machine(memory_bytes=memory_bytes)
    found = forecast(plan.trials, plan.costs, Clock(rows, calibrated=calibration), machine, calibration)
    return replace(plan, forecast=found)

"""A plan with the forecast of its trials."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from study.plan.expand import Plan
from study.plan.machine import Machine, this_machine
from study.plan.searches import ends
from study.spec.study import Study
from study.store.reader import History


def forecast_plan(
    plan: Plan,
    study: Study,
    store: str | Path,
    *,
    calibrate_now: bool = False,
    memory_bytes: int | None = None,
    machine: Machine | None = None,
) -> Plan:
    """Return the plan with the forecast of its trials, from the store's past and, if asked for, a
    calibration.

    It is a forecast for `machine`, or for the one that this process runs on, with `memory_bytes` if given.

    A plan with nothing left to train has nothing to forecast, and needs no PyTorch to say so.

    Raises:
        StudyError: The calibration went wrong.
        StoreError: The store cannot be read.
    """
    ids = {trial.trial_id for trial in (*plan.trials, *plan.already_done)}

    searches = [(search, ends(study, search)) for search in plan.searches if search.count]
    searches = [(search, trials) for search, trials in searches if trials]
    asked = [*plan.trials, *(trial for _, trials in searches for trial in trials)]
    if not asked:
        return plan
    from study.plan.cost import trial_cost
    from study.plan.durations import Clock, calibrate
    from study.plan.forecast import forecast

    rows = History(store).timed(ids)
    calibration = calibrate(asked) if calibrate_now else None
    machine, clock = machine or this_machine(memory_bytes=memory_bytes), Clock(rows, calibrated=calibration)
    costs = {trial.trial_id: plan.costs.get(trial.trial_id) or trial_cost(trial.settings) for trial in asked}
    return replace(plan, forecast=forecast(plan.trials, costs, clock, machine, calibration, searches))

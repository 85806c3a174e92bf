"""The verb that looks ahead: plan."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from study.cli.imports import leave_out_pandas
from study.cli.options import LIMIT, STORE, JsonOption, LimitOption, ScaleOption, StoreOption, StudyArgument
from study.cli.output import duration, megabytes, print_json, print_rows, say

if TYPE_CHECKING:
    from study.cluster.survey import Node
    from study.plan.expand import Plan
    from study.plan.forecast import Forecast
    from study.plan.machine import Machine
    from study.settings.train import TrainSettings


def register(app: typer.Typer) -> None:
    """Add the verb to the program."""
    example = "`revstudy plan quickstart`, `revstudy plan depth.yaml --calibrate --json`, "
    example += "`revstudy plan paper-cifar --scale tiny`"
    app.command(epilog=f"Example: {example}")(plan)


def plan(
    study: StudyArgument,
    scale: ScaleOption = None,
    store: StoreOption = STORE,
    limit: LimitOption = LIMIT,
    as_json: JsonOption = False,
    predict: Annotated[
        bool, typer.Option(help="Predict the memory of each model, about a second a model, and all times.")
    ] = True,
    calibrate: Annotated[
        bool,
        typer.Option(
            "--calibrate",
            help="Train a few steps of the cheapest model, in case the store has no times.",
        ),
    ] = False,
    memory_gb: Annotated[
        float | None,
        typer.Option(
            "--memory-gb",
            min=0.001,
            metavar="GB",
            help="Plan for a GPU (or, without GPUs, a machine) of this memory instead of what is here.",
        ),
    ] = None,
    address: Annotated[
        str | None,
        typer.Option(
            "--address",
            metavar="ADDRESS",
            help="Plan for a running Ray cluster, auto or host:port, and say what it cannot run.",
        ),
    ] = None,
) -> None:
    """Show what a run would train: trials, parameters, memory, time, and what will not fit.

    Models are built on fake tensors: nothing is allocated, trained (but for `--calibrate`) or written.

    Trials that any study of the store has done are counted, not planned. Times come from the store's own past
    trials: `same` settings on this kind of machine, or `scaled` by the work of a training step from the
    nearest ones; else from `--calibrate`; else they are `unknown`.
    """
    leave_out_pandas()
    from study.run import plan_run
    from study.spec.load import load_study

    loaded = load_study(study, scale)
    planned = plan_run(loaded, store, predict=predict, limit=limit, here=address is None)
    nodes = _nodes(address, store)
    if predict:
        from study.plan.predict import forecast_plan

        memory = None if memory_gb is None else round(memory_gb * 1e9)
        planned = forecast_plan(
            planned,
            loaded,
            store,
            calibrate_now=calibrate,
            memory_bytes=memory,
            machine=_together(nodes) if nodes and memory is None else None,
        )
    unable = _unable(planned, nodes) if nodes else []
    if as_json:
        cluster = {"nodes": [node.to_json() for node in nodes], "cannot_run": unable}
        print_json({**planned.to_json(), **({"cluster": cluster} if nodes else {})})
        return
    say_plan(planned, say)
    if planned.ladder is not None:
        for name in ("rungs", "constants"):
            say()
            print_rows(planned.ladder[name])
    if planned.match:
        say()
        _say_match(planned.match)
    rows = _rows(planned)
    if rows:
        say()
        print_rows(rows)
    if planned.forecast is not None and planned.total:
        say()
        _say_forecast(planned.forecast, "on the cluster" if nodes else "on this machine")
        _say_company(planned)
    if nodes:
        say()
        _say_cluster(nodes, unable)


def _nodes(address: str | None, store: str) -> list[Node]:
    """The machines of a running cluster, if one is named."""
    if address is None:
        return []
    from study.cluster.session import ray_session
    from study.cluster.survey import survey
    from study.store.files import located

    with ray_session(address):
        return survey(located(store), measured=False)


def _together(nodes: list[Node]) -> Machine:
    from study.cluster.survey import as_machine

    return as_machine(nodes)


def _unable(planned: Plan, nodes: list[Node]) -> list[dict[str, Any]]:
    """Trials of the plan that the machines of a cluster cannot run, by the reason."""
    from study.cluster.survey import lacking

    found: dict[str, list[str]] = {}
    for trial in planned.trials:
        cost = planned.costs.get(trial.trial_id)
        why = lacking(nodes, trial.settings.scaling, cost.memory_bytes if cost else None)
        if why:
            found.setdefault(why, []).append(trial.trial_id)
    return [{"reason": why, "trial_ids": trials} for why, trials in found.items()]


def _say_cluster(nodes: list[Node], unable: list[dict[str, Any]]) -> None:
    from analysis.wording import count_text

    fit = [node for node in nodes if not node.problems]
    cpus, gpus = sum(node.cpus for node in fit), sum(node.gpus for node in fit)
    say(f"The cluster: {len(fit)} of {len(nodes)} machines can run trials, with {cpus:g} CPUs, {gpus:g} GPUs")
    for problem in (problem for node in nodes for problem in node.problems):
        say(f"Problem: {problem}")
    for group in unable:
        say(f"Cannot run there: {count_text(len(group['trial_ids']), 'trial')}: {group['reason']}")


def say_plan(planned: Plan, write: Any) -> None:
    """Write the counts of a plan and a line for each search."""
    searched = sum(search.count for search in planned.searches)
    others = {name: count for name, count in planned.done_by.items() if name != planned.study}
    by = f" ({', '.join(f'{count} by {name}' for name, count in others.items())})" if others else ""
    write(
        f"{planned.study}: {len(planned.trials)} new grid trials, up to {searched} searched ones; "
        f"{len(planned.already_done)} already done{by}, {len(planned.duplicates)} duplicates"
        + (f", {len(planned.beyond_budget)} beyond the budget" if planned.beyond_budget else "")
    )
    for search in planned.searches:
        goals = ", ".join(f"{name} {way}" for name, way in search.objectives.items())
        limits = [
            f"{name} at {'most' if way == 'max' else 'least'} {value:g}"
            for name, limit in search.constraints.items()
            for way, value in limit.items()
        ]
        goals += f" with {', '.join(limits)}" if limits else ""
        count = f"{search.count} trials" if search.count else "nothing left to propose"
        write(f"search by {search.sampler} for {goals}: {count}")


def _say_match(found: list[dict[str, Any]]) -> None:
    """Write what each network was given so that its predicted size is the one asked for."""
    first = found[0]
    memory = first["quantity"] == "memory_peak_bytes"
    write: Any = megabytes if memory else "{:,.0f}".format
    say(f"Matched: {first['by']} gives each point {first['quantity']} of {write(first['asked'])}")
    shown = ("model", "depth", "width", "strategy", "compute", "batch")
    option = first["by"] if first["by"].startswith("model.options.") else None
    print_rows(
        [
            {
                **{name: row[name] for name in shown},
                **({option: row["found"]} if option else {}),
                "asked": write(row["asked"]),
                "predicted": write(row["predicted"]),
                "off": f"{row['off']:+.2%}",
            }
            for row in found
        ]
    )


def _say_forecast(found: Forecast, where: str) -> None:
    from study.plan.durations import CALIBRATED, UNKNOWN

    for search in found.searches:
        each = "an unknown time" if search.time_s is None else f"about {duration(search.time_s)}"
        say(
            f"Search: up to {search.trials} trials of {each} and up to {megabytes(search.memory_bytes)}, "
            "by the ends of its axes"
        )
    known = len(found.times) - found.unknown + sum(s.trials for s in found.searches if s.time_s is not None)
    if found.total_s is not None:
        line = f"Time {where}: about {duration(found.total_s)}"
    elif known:
        line = f"Time: unknown for {found.unknown} of {len(found.times)} grid trials"
    else:
        line = "Time: unknown; the store has no trials to go by (--calibrate times a few steps)"
    if known:
        line += f"; {found.worker_hours:.3g} worker-hours, {found.gpu_hours:.3g} GPU-hours"
        sources = ", ".join(f"{n} {s}" for s, n in found.sources.items() if s != UNKNOWN)
        line += f" (from {sources})" if sources else ""
    say(line)
    if found.calibration is not None and CALIBRATED in found.sources:
        step = found.calibration
        say(
            f"Calibrated on {step.model}: {1 / step.example_s:.4g} examples/s, scaled by the work of a "
            "training step (3 forward passes stored, 4 rebuilt); evaluation and probes come on top"
        )
    for misfit in found.misfits:
        say(
            f"Does not fit: {misfit.model} ({len(misfit.trial_ids)} trials) needs "
            f"{megabytes(misfit.needed_bytes)}, {misfit.what} is {megabytes(misfit.available_bytes)}: "
            f"{misfit.remedy}"
        )


def _say_company(planned: Plan) -> None:
    """Say whether the trials whose time is measured run alone."""
    assert planned.forecast is not None
    timed = {trial.settings.scaling for trial in planned.trials if trial.settings.probe.cost}
    together = max((planned.forecast.machine.at_once(scaling) for scaling in timed), default=0)
    if together > 1:
        say(
            f"Up to {together} trials run side by side, each on its own cores or GPU (concurrent_trials in "
            "their rows); scaling.alone: true runs them one at a time, for times that are to be compared"
        )
    elif timed:
        say("Trials run one at a time: none disturbs the times of another")


def _length(train: TrainSettings) -> str:
    return f"{train.steps:,} steps" if train.steps is not None else f"{train.tokens:,} tokens"


def _rows(planned: Plan) -> list[dict[str, Any]]:
    """One row per distinct model of the plan, with the trials that train it."""
    rows: dict[tuple[Any, ...], dict[str, Any]] = {}
    coupled = any(trial.settings.model.coupling for trial in planned.trials)
    streams = any(trial.settings.precision.stream != "fp32" for trial in planned.trials)
    exact = any(trial.settings.precision.coupling == "exact" for trial in planned.trials)
    for trial in planned.trials:
        s, cost = trial.settings, planned.costs.get(trial.trial_id)
        time = planned.forecast.times.get(trial.trial_id) if planned.forecast else None
        row = {
            "model": s.model.name,
            "depth": s.model.depth,
            "width": s.model.width,
            "strategy": s.memory.strategy,
            "compute": s.precision.compute,
            **({"stream": s.precision.stream} if streams else {}),
            **({"inverse": s.precision.coupling} if exact else {}),
            "workers": s.scaling.workers,
            "batch": s.train.batch_size,
            "epochs": s.train.epochs if s.train.by_epoch else _length(s.train),
            "parameters": cost.parameters if cost else None,
            "peak memory": megabytes(cost.memory_bytes if cost else None),
            "activations": megabytes(cost.activation_bytes if cost else None),
        }
        if coupled:
            row["coupling"] = s.model.coupling_text or "additive"
            row["error growth"] = f"{cost.coupling_growth:.3g}" if cost and cost.coupling_growth else None
        seen = rows.setdefault(tuple(row.values()), {**row, "time of one": "unknown", "trials": 0})
        seen["trials"] += 1
        if time is not None and time.seconds is not None:
            seen["time of one"] = duration(time.seconds)
    return list(rows.values())

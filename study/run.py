"""Run a study: what is planned and not done yet goes to Ray; what comes back is rows in the store.

`run` is also `resume`: a second run finds everything done and does not even start Ray.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from analysis.schema import OUTCOMES
from study import outcomes
from study.execution import Execution
from study.executors.progress import ELSEWHERE, FAILURES, FOUND, Progress
from study.plan.expand import LIMIT, Plan, make_plan
from study.plan.machine import this_machine
from study.plan.search_progress import remaining
from study.plan.searches import common_settings
from study.record import extended, read_record
from study.spec.study import Study
from study.store.files import located
from study.store.leases import damaged_leases
from study.store.reader import History, Row, read_rows
from study.store.tidy import tidy
from study.store.writer import check_writable, write_study


@dataclass(frozen=True, kw_only=True)
class RunSummary:
    """What a run did and where it left the study.

    Attributes:
        outcomes: How many trials of this run ended in each way.
        already_done: Trials of the study that earlier runs had finished.
        failures: Trials of the plan, or of this run's searches, that stand as failed in the store.
        left: Trials that were not trained: the time was up, the budget reached, the run was interrupted, or
            another run has them.
        elsewhere: Those of them that another run is training.
        wall_s: Time of the run.
        interrupted: It was ended by Ctrl-C.
        missing: Trials that had ended, in this run or before it, and whose rows cannot be read back from the
            store, each with how it ended.
    """

    study: str
    store: str
    outcomes: dict[str, int] = field(default_factory=dict)
    already_done: int = 0
    failures: int = 0
    left: int = 0
    elsewhere: int = 0
    wall_s: float = 0.0
    interrupted: bool = False
    missing: Mapping[str, str] = field(default_factory=dict)

    @property
    def trained(self) -> int:
        """Trials that this run brought to an end."""
        return sum(self.outcomes.values())

    @property
    def exit_code(self) -> int:
        """0 all is well, 1 some trials of the study failed, 3 the store lost rows, 130 interrupted."""
        return 3 if self.missing else 130 if self.interrupted else 1 if self.failures else 0


def plan_run(
    study: Study, store: str | Path, *, predict: bool = False, limit: int = LIMIT, here: bool = True
) -> Plan:
    """The plan of a study on a store, its searches cut to what they have left to propose.

    A trial that was `unfit` counts as done while this machine does not fit it either. With `here` false it is
    planned: other machines will train, and each judges for itself.

    Raises:
        StudyError: The study cannot be run as it is.
        StoreError: The store cannot be read.
    """
    history = History(store)

    def done(trial_ids: Collection[str]) -> dict[str, str]:
        unfit = _unfit_here(history.unfit(trial_ids)) if here and study.budget.unfit == "skip" else {}
        return {**unfit, **history.done(trial_ids)}

    plan = make_plan(study, done=done, predict=predict, limit=limit)
    for search in plan.searches:
        common_settings(study, search)
    rows = read_rows(store) if plan.searches else {}
    return replace(plan, searches=tuple(remaining(study, search, rows) for search in plan.searches))


def _unfit_here(rows: list[Row]) -> dict[str, str]:
    """Those of some unfit trials that this machine has no room for, each with the study that tried it."""
    if not rows:
        return {}
    machine = this_machine()

    def lacks(row: Row) -> bool:
        on_gpu = bool(row["gpus_per_worker"]) and machine.gpus > 0
        return bool(machine.lacks(row["memory_predicted_bytes"], on_gpu=on_gpu))

    return {row["trial_id"]: row["study"] for row in rows if lacks(row)}


def run_study(
    study: Study,
    store: str | Path,
    *,
    address: str | None = None,
    progress: Progress | None = None,
    on_plan: Callable[[Plan], None] | None = None,
    extend: bool = False,
    limit: int = LIMIT,
) -> RunSummary:
    """Train every trial of a study that the store does not have.

    Args:
        study: The study.
        store: A folder, made if it is missing. On a cluster of several machines, one that all of them share.
        address: A running Ray cluster; None starts Ray on this machine, and only if there is something to
            train.
        progress: Told what happens; the caller closes it.
        on_plan: Called with the plan before anything runs.
        extend: Whether a study of this name but of other content may be added to the one in the store.
        limit: Grid trials that the study may have.

    Raises:
        StudyError: The study cannot be run as it is, or the store has one of this name and of other content.
        StoreError: The store cannot be written here or on a machine of the cluster; nothing was started.
        ClusterError: Ray cannot be reached, is too small for a trial, has a machine that cannot run trials,
            or died again and again.
    """
    begun = time.time()
    progress = progress or Progress()
    plan = plan_run(study, store, limit=limit, here=address is None)
    beside = extended(read_record(store, study.name), study, store, extend=extend)
    check_writable(store)
    planned = [trial.trial_id for trial in (*plan.already_done, *plan.trials)]
    rows = read_rows(store)
    searched = {i for i, row in rows.items() if row["study"] == study.name} - set(planned)
    count = len(plan.already_done) + len(searched) + plan.total
    write_study(store, study.to_dict(), planned, planned=count, beside=beside)
    if on_plan is not None:
        on_plan(plan)
    for file in damaged_leases(store):
        progress.note(f"{file} is damaged: it counts for nothing and is removed")
    interrupted = False
    tidy(store, {trial_id for trial_id, row in rows.items() if row["outcome"] in outcomes.FINAL})
    if plan.total:
        try:
            Execution(
                study,
                located(store),
                progress=progress,
                begun=begun,
                replan=lambda: plan_run(study, store, limit=limit, here=address is None),
            ).execute(plan, address)
        except KeyboardInterrupt:
            interrupted = True
    before, rows = rows, read_rows(store)
    part = {
        *planned,
        *progress.ended,
        *progress.others,
        *(i for i, row in rows.items() if row["study"] == study.name),
    }
    judged = {*planned, *progress.ended} & rows.keys()
    ended = Counter(o for o in progress.ended.values() if o in OUTCOMES)
    others = Counter(progress.others.values())
    left = max(0, plan.total - ended.total() - others[FOUND])
    settled = sum(not _interrupted(rows[i]) for i in part & rows.keys())
    write_study(store, study.to_dict(), part & rows.keys(), planned=settled + left, beside=beside)
    return RunSummary(
        study=study.name,
        store=str(store),
        outcomes=dict(ended),
        already_done=len(plan.already_done) + len(searched) + others[FOUND],
        failures=sum(rows[i]["outcome"] in FAILURES and not _interrupted(rows[i]) for i in judged),
        left=left + len(plan.beyond_budget),
        elsewhere=others[ELSEWHERE],
        wall_s=time.time() - begun,
        interrupted=interrupted,
        missing=_missing(before, progress.ended, rows),
    )


def _missing(before: Mapping[str, Row], ended: Mapping[str, str], now: Mapping[str, Row]) -> dict[str, str]:
    """What ended, by this run's processes or by the rows before it, and cannot be read back."""
    known = {i: str(row["outcome"]) for i, row in before.items()}
    known.update({i: outcome for i, outcome in ended.items() if outcome in OUTCOMES})
    return {i: outcome for i, outcome in known.items() if i not in now or _is_worse(now[i], outcome)}


def _is_worse(row: Row, outcome: str) -> bool:
    """Whether a row tells of less than what is known to have been there."""
    return outcome in outcomes.FINAL and row["outcome"] not in outcomes.FINAL


def _interrupted(row: Row) -> bool:
    """Whether a trial's row says that the user ended the run, rather than that the trial failed."""
    return row["error_class"] == KeyboardInterrupt.__name__

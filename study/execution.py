"""Trains what a plan has left: starts Ray, runs batch after batch, and starts Ray anew if it dies."""

from __future__ import annotations

import signal
import threading
import time
import uuid
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import astuple, replace
from itertools import groupby
from typing import TYPE_CHECKING, Any

from study import outcomes
from study.executors.progress import Progress
from study.plan.expand import Plan
from study.plan.search_progress import complete, known_points
from study.plan.searches import PlannedSearch, common_settings, search_space, trials_at
from study.ray_internals import missing, untested
from study.settings.trial import Trial
from study.spec.study import Study
from study.store.leases import HEARTBEAT_S, STALE_S, read_leases
from study.store.reader import History

if TYPE_CHECKING:
    from study.cluster.session import Cluster
    from study.executors.job import Job
    from study.executors.lost import LostTrials
    from study.executors.tune import Batch

RESTARTS = 3
"""How often a run starts a Ray of its own anew after it died."""


class Execution:
    """The training of what a plan has left, from the start of Ray to its end.

    Args:
        study: The study.
        store: Its store, as every process finds it.
        progress: Told what happens.
        begun: When the run began, in seconds since 1970.
        replan: Makes the plan anew, after Ray has died.
    """

    def __init__(
        self, study: Study, store: str, *, progress: Progress, begun: float, replan: Callable[[], Plan]
    ) -> None:
        self._study = study
        self._replan = replan
        self._store = store
        self._progress = progress
        self._ends_at = None if study.budget.time_s is None else begun + study.budget.time_s
        self._id = ""
        self._lost: LostTrials | None = None

    def execute(self, plan: Plan, address: str | None) -> None:
        """Train what the plan has left; if a Ray of our own dies under it, in a new one.

        Raises:
            ClusterError: Ray cannot be reached, is too small for a trial, or died again and again.
            StoreError: The store cannot be written any more.
            KeyboardInterrupt: The user, or SIGTERM, ended the run; trials in training have their rows.
            ClusterLostError: A Ray that was joined died, or our own too often.
            SystemExit: The run was asked to end.
        """
        from study.cluster.session import ClusterLostError
        from study.train.length import evaluations

        searches = [search for search in plan.searches if search.trials]
        shared = [common_settings(self._study, search) for search in searches]
        epochs = sum(evaluations(t.settings) for t in plan.trials)
        epochs += sum(evaluations(s) * search.count for s, search in zip(shared, searches, strict=True))
        self._progress.begin(trials=plan.total, epochs=epochs)
        for restarts_left in reversed(range(RESTARTS + 1)):
            try:
                with _termination_as_interrupt():
                    self._train(plan, address)
                return
            except ClusterLostError:
                if address is not None or not restarts_left:
                    raise
            except SystemExit as end:
                if end.code != signal.SIGTERM:
                    raise
                # While Ray starts, a handler of its own is in place of ours.
                raise KeyboardInterrupt("the run was ended by SIGTERM") from None
            except KeyboardInterrupt as why:
                if self._lost is not None:
                    self._lost.interrupted(KeyboardInterrupt(str(why) or "the user ended the run"))
                raise
            plan = self._replan()

    def _train(self, plan: Plan, address: str | None) -> None:
        """Start Ray, then run the grid's trials by size, then the searches in order."""
        from study.cluster.session import ray_session

        self._id = uuid.uuid4().hex  # what a Ray that died has left running is another's
        searches = [search for search in plan.searches if search.trials]
        sizes = [trial.settings.scaling for trial in plan.trials]
        sizes += [common_settings(self._study, search).scaling for search in searches]
        several = any(size.distributed for size in sizes)
        with (
            ray_session(address, dashboard=several, code=self._study.code) as cluster,
            _termination_as_interrupt(),
        ):  # Ray has its own
            from study.cluster.nodes import check_nodes
            from study.executors.lost import LostTrials
            from study.executors.tune import concurrency, run_batch

            self._say_what_is_untested()
            if cluster.joined:
                check_nodes(self._store)
            for size in sizes:
                concurrency(size, cluster)
            lost = self._lost = self._lost or LostTrials()
            elsewhere: list[Job] = []
            for batch in self._batches(plan, searches, cluster):
                elsewhere += run_batch(batch, cluster=cluster, progress=self._progress, lost=lost)
            while freed := self._freed(elsewhere):
                elsewhere = [job for job in elsewhere if job not in freed]
                for trials in _by_size(job.trial for job in freed):
                    batch = self._grid_batch(trials, cluster)
                    elsewhere += run_batch(batch, cluster=cluster, progress=self._progress, lost=lost)

    def _say_what_is_untested(self) -> None:
        """Tell the user where the installed Ray is not one that was tested, or lacks what a run relies on."""
        if warning := untested():
            self._progress.note(warning)
        for internal in missing():
            self._progress.note(f"this Ray has no {internal.name}, so a run lacks this: {internal.purpose}")

    def _freed(self, jobs: list[Job]) -> list[Job]:
        """Return those jobs that nobody trains any more, or has trained.

        A lease may be what a killed run has left. It takes a while to tell: a living one is refreshed.
        """
        seen: dict[str, str] = {}
        freed: list[Job] = []
        waiting, ends_at = list(jobs), time.monotonic() + STALE_S + 2 * HEARTBEAT_S
        while waiting and time.monotonic() < ends_at:
            leases = read_leases(self._store)
            for job in list(waiting):
                lease = leases.get(job.trial.trial_id)
                if lease is None:
                    freed.append(job)
                elif seen.setdefault(lease.trial_id, lease.heartbeat_at) == lease.heartbeat_at:
                    continue
                waiting.remove(job)
            if waiting:
                time.sleep(0.5)
        return freed

    def _batches(self, plan: Plan, searches: list[PlannedSearch], cluster: Cluster) -> Iterator[Batch]:
        for trials in _by_size(plan.trials):
            yield self._grid_batch(trials, cluster)
        left = None if self._study.budget.trials is None else self._study.budget.trials - len(plan.trials)
        for search in searches:
            points = search.trials if left is None else min(search.trials, left // len(search.seeds))
            if points > 0:
                left = None if left is None else left - points * len(search.seeds)
                yield self._search_batch(replace(search, trials=points), cluster)

    def _grid_batch(self, trials: list[Trial], cluster: Cluster) -> Batch:
        from study.executors.job_queue import JobQueue
        from study.executors.tune import Batch

        following = History(self._store).attempts([trial.trial_id for trial in trials])
        return Batch(
            scaling=trials[0].settings.scaling,
            queue=JobQueue(self._job(trial, following, cluster) for trial in trials),
        )

    def _search_batch(self, search: PlannedSearch, cluster: Cluster) -> Batch:
        from study.executors.journal import Journal
        from study.executors.search import StoreSearch, make_scheduler
        from study.executors.tune import Batch
        from study.store.rows import with_metrics
        from study.train.length import evaluations

        history = History(self._store)
        rows = {trial_id: with_metrics(row) for trial_id, row in history.rows().items()}
        following = history.attempts()
        step, settings = self._study.steps[search.step], common_settings(self._study, search)
        searcher = StoreSearch(
            search_space(self._study, search.step),
            objectives=search.objectives,
            sampler=search.sampler,
            seed=step.sampler_seed,
            make_jobs=lambda point: [
                self._job(trial, following, cluster, objective=next(iter(search.objectives.items())))
                for trial in trials_at(self._study, search, point)
            ],
            find_row=lambda trial_id: (
                rows[trial_id] if trial_id in rows and rows[trial_id]["outcome"] in outcomes.FINAL else None
            ),
            limit=search.trials,
            known=complete(search, known_points(self._study, search, rows)),
            constraints=search.constraints,
            journal=Journal(
                self._store,
                self._study.name,
                search.step,
                space=search.space,
                objectives=search.objectives,
            ),
        )
        return Batch(
            scaling=settings.scaling,
            queue=searcher,
            scheduler=make_scheduler(
                step.pruning, epochs=evaluations(settings), objectives=search.objectives
            ),
        )

    def _job(self, trial: Trial, following: dict[str, int], cluster: Cluster, **of_search: Any) -> Job:
        from study.executors.job import Job
        from study.executors.tune import concurrency

        return Job(
            trial=trial,
            store=self._store,
            attempt=following.get(trial.trial_id, 0),
            ends_at=self._ends_at,
            time_s=self._study.budget.trial_time_s,
            concurrent_trials=concurrency(trial.settings.scaling, cluster),
            run=self._id,
            may_not_fit=self._study.budget.unfit == "try",
            **of_search,
        )


@contextmanager
def _termination_as_interrupt() -> Iterator[None]:
    """Take a request to end (SIGTERM, as before a machine is taken away) as Ctrl-C, which writes rows."""

    def interrupt(number: int, frame: Any) -> None:
        raise KeyboardInterrupt(f"the run was ended by {signal.Signals(number).name}")

    if threading.current_thread() is not threading.main_thread():
        yield  # only the main thread may say what a signal does
        return
    before = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before or signal.SIG_DFL)


def _by_size(trials: Iterable[Trial]) -> Iterator[list[Trial]]:
    """Trials of equal resources together, those of one worker first."""

    def size(trial: Trial) -> tuple[Any, ...]:
        scaling = trial.settings.scaling
        return scaling.distributed, *(value or 0 for value in astuple(scaling))

    for _, group in groupby(sorted(trials, key=size), key=size):
        yield list(group)

"""The verb that watches: status."""

from __future__ import annotations

import sys
import time
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated, Any

import typer

from study.cli import interrupts
from study.cli.imports import leave_out_pandas
from study.cli.options import STORE, JsonOption, StoreOption, study_name
from study.cli.output import duration, print_json, print_rows, say, tell

if TYPE_CHECKING:
    from rich.console import RenderableType

    from study.status import StoreStatus, StudyStatus


def register(app: typer.Typer) -> None:
    """Add the verb to the program."""
    app.command(epilog="Example: `revstudy status quickstart --watch`")(status)


def status(
    study: Annotated[str | None, typer.Argument(help="Only this study.")] = None,
    store: StoreOption = STORE,
    watch: Annotated[bool, typer.Option("--watch", help="Look again and again, until interrupted.")] = False,
    every: Annotated[
        float, typer.Option(min=0.2, metavar="SECONDS", help="With --watch: time between two looks.")
    ] = 2.0,
    as_json: JsonOption = False,
) -> None:
    """Show how far each study of the store is: done, failed, retried, running now, and the time left.

    A trial counts as running while its process refreshes its lease in the store, whichever machine it is on.
    A study that was interrupted shows what is left of it; `revstudy run` goes on.
    """
    leave_out_pandas()
    from study.status import store_status

    name = study_name(study)
    if not watch:
        found = store_status(store, name)
        print_json(found.to_json()) if as_json else _say(found)
        return
    try:
        with interrupts.own_time():
            _watch(lambda: store_status(store, name, check_files=False), every, as_json=as_json)
    except KeyboardInterrupt:
        tell("stopped; the study goes on")


def _watch(look: Any, every: float, *, as_json: bool) -> None:
    """A table that is drawn anew in place on a terminal; else one, or a JSON document, for each change."""
    if sys.stdout.isatty() and not as_json:
        from rich.live import Live

        with Live(_drawn(look()), auto_refresh=False, screen=False) as live:
            while True:
                time.sleep(every)
                live.update(_drawn(look()), refresh=True)
    before = None
    while True:
        found = look()
        if (now := (_counts(found), found.running)) != before:
            print_json(found.to_json()) if as_json else _say(found)
            sys.stdout.flush()
            before = now
        time.sleep(every)


def _counts(found: StoreStatus) -> list[Any]:
    return [(s.study, s.trials, s.ok, s.failed, s.retried, s.running) for s in found.studies]


def _say(found: StoreStatus) -> None:
    if found.studies:
        print_rows([_row(of) for of in found.studies])
    else:
        say(f"The store {found.store} holds no trials yet.")
    if found.running:
        say()
        print_rows(_running(found))
    for item in found.files_left_out:
        tell(f"left out: {item['file']}: {item['reason']}")


def _drawn(found: StoreStatus) -> RenderableType:
    """Both tables for a terminal."""
    from rich.console import Group
    from rich.table import Table

    tables = []
    for title, rows in (
        (f"{found.store}, {datetime.now():%H:%M:%S}", [_row(of) for of in found.studies]),
        ("running", _running(found)),
    ):
        table = Table(title=title, title_justify="left")
        for name in rows[0] if rows else ("nothing",):
            table.add_column(name)
        for row in rows:
            table.add_row(*("" if value is None else str(value) for value in row.values()))
        tables.append(table)
    return Group(*tables)


def _row(of: StudyStatus) -> dict[str, Any]:
    done = of.trials - of.interrupted
    return {
        "study": of.study,
        "done": f"{done}/{of.planned}" if of.planned is not None else str(done),
        "running": of.running,
        "ok": of.ok,
        "pruned": of.pruned,
        "failed": of.failed,
        "interrupted": of.interrupted,
        "retried": of.retried,
        "rate": f"{of.rate_per_hour:.3g}/h" if of.rate_per_hour else "",
        "time left": duration(of.time_left_s) if of.time_left_s is not None else "",
        "best validation accuracy": _accuracy(of.best_accuracy_val),
        "its test accuracy": _accuracy(of.best_accuracy_test),
        "last row (UTC)": f"{of.last_row_at:%Y-%m-%d %H:%M:%S}" if of.last_row_at else "",
    }


def _accuracy(value: float | None) -> str:
    return "" if value is None else f"{value:.4f}"


def _running(found: StoreStatus) -> list[dict[str, Any]]:
    now = datetime.now(UTC)
    return [
        {
            "trial": lease.trial_id,
            "study": lease.study,
            "epoch": f"{lease.epoch}/{lease.epochs}",
            "host": lease.host,
            "for": duration(max(0.0, (now - datetime.fromisoformat(lease.started_at)).total_seconds())),
        }
        for lease in found.running
    ]

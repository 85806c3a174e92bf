"""The verb that watches: status."""

from __future__ import annotations

import sys
import textwrap
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


WIDE = 80
"""Columns that a line may take."""


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
        for of in found.studies:
            for line in _lines(of):
                say(line)
    else:
        say(f"The store {found.store} holds no trials yet.")
    if found.running:
        say()
        print_rows(_running(found))  # at most 80 columns wide: a host is cut, an id is not
    for item in found.files_left_out:
        tell(f"left out: {item['file']}: {item['reason']}")


def _drawn(found: StoreStatus) -> RenderableType:
    """The studies, and a table of what runs, for a terminal."""
    from rich.console import Group
    from rich.table import Table
    from rich.text import Text

    lines = [f"{found.store}, {datetime.now():%H:%M:%S}"]
    lines += [line for of in found.studies for line in _lines(of)] or ["no trials yet"]
    parts: list[RenderableType] = [Text("\n".join(lines))]
    if running := _running(found):
        table = Table(title="running", title_justify="left")
        for name in running[0]:
            table.add_column(name)
        for row in running:
            table.add_row(*map(str, row.values()))
        parts.append(table)
    return Group(*parts)


def _lines(of: StudyStatus) -> list[str]:
    """A study in lines of at most `WIDE` columns: counts above 0, then pace, best score and last row."""
    done = of.trials - of.interrupted
    ends = [f"{of.ok} ok"]
    ends += [f"{n} {word}" for n, word in ((of.failed, "failed"), (of.pruned, "pruned")) if n]
    counts = [f"{done}/{of.planned}" if of.planned is not None else str(done), "done", f"({', '.join(ends)})"]
    more = [(of.running, "running"), (of.interrupted, "interrupted"), (of.retried, "retried")]
    head = ", ".join([" ".join(counts), *(f"{n} {word}" for n, word in more if n)])
    rest = []
    if of.rate_per_hour:
        rest.append(f"{_rate(of.rate_per_hour)} trials an hour")
    if of.time_left_s is not None:
        rest.append(f"about {duration(of.time_left_s)} left")
    if best := _best(of):
        rest.append(best)
    if of.last_row_at:
        rest.append(f"last row {of.last_row_at:%Y-%m-%d %H:%M:%S} UTC")
    name = f"{of.study} [{', '.join(of.tags)}]" if of.tags else of.study
    lines = textwrap.wrap(f"{name}: {head}", WIDE, subsequent_indent="  ", break_on_hyphens=False)
    told = ""
    for part in rest:
        if told and len(told) + len(part) + 4 > WIDE:
            lines, told = [*lines, f"  {told};"], ""
        told += f"; {part}" if told else part
    return [*lines, f"  {told}"] if told else lines


def _best(of: StudyStatus) -> str:
    """The best score in validation, and that trial's in the test; empty where there is none."""
    from analysis.score import ACCURACY, BITS_PER_BYTE

    for metric, val, test in (
        (ACCURACY, of.best_accuracy_val, of.best_accuracy_test),
        (BITS_PER_BYTE, of.best_bits_per_byte_val, of.best_bits_per_byte_test),
    ):
        if val is not None:
            tested = f" ({metric.text(test)} in test)" if test is not None else ""
            return f"best {metric.text(val)} in validation{tested}"
    return ""


def _running(found: StoreStatus) -> list[dict[str, Any]]:
    now = datetime.now(UTC)
    return [
        {
            "trial": lease.trial_id,
            "study": _cut(lease.study, 24),
            "epoch": f"{lease.epoch}/{lease.epochs}",
            "host": _cut(lease.host, 16),
            "for": duration(max(0.0, (now - datetime.fromisoformat(lease.started_at)).total_seconds())),
        }
        for lease in found.running
    ]


def _cut(text: str, most: int) -> str:
    return text if len(text) <= most else f"{text[: most - 1]}…"


def _rate(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"

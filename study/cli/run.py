"""The verb that trains: run. At its end a store of very many files is merged."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from study.cli import interrupts
from study.cli.options import LIMIT, STORE, JsonOption, LimitOption, ScaleOption, StoreOption, StudyArgument
from study.cli.output import duration, print_json, say, tell
from study.cli.plan import say_plan

if TYPE_CHECKING:
    from collections.abc import Sequence

    from study.executors.loggers import Logger
    from study.run import RunSummary

MANY_FILES = 2_000
"""Files from which on a store reads so much faster merged that it is worth a minute."""


def register(app: typer.Typer) -> None:
    """Add the verb to the program."""
    example = "`revstudy run quickstart --store results`, `revstudy run paper-cifar --scale tiny`"
    app.command(epilog=f"Example: {example}")(run)


def run(
    study: StudyArgument,
    scale: ScaleOption = None,
    store: StoreOption = STORE,
    limit: LimitOption = LIMIT,
    address: Annotated[
        str | None,
        typer.Option(
            metavar="HOST:PORT",
            envvar="RAY_ADDRESS",
            help="A running Ray cluster, or `auto`; without it Ray is started on this machine.",
        ),
    ] = None,
    merge: Annotated[
        bool,
        typer.Option(help=f"Merge the files of the study at the end, if it has over {MANY_FILES:,} of them."),
    ] = True,
    extend: Annotated[
        bool,
        typer.Option(
            "--extend",
            help="Add to the study of this name in the store, although it has other content.",
        ),
    ] = False,
    log_to: Annotated[
        list[str] | None,
        typer.Option(
            "--log-to",
            metavar="KIND:TARGET",
            help="Also log to `tensorboard:DIR` or `mlflow:URI`; may be repeated. Each needs its package.",
        ),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Train every trial of a study that the store does not have yet. Run it again to resume.

    A study file that says something else than the study of its name in the store is refused, with the
    difference: give it another name, or pass `--extend`.
    """
    from study.cli.bars import terminal_progress
    from study.run import run_study
    from study.spec.load import load_study

    loaded = load_study(study, scale)
    loggers = _loggers(log_to or ())
    with interrupts.own_time(), terminal_progress() as progress:
        progress.loggers += loggers
        summary = run_study(
            loaded,
            store,
            address=address,
            progress=progress,
            on_plan=lambda p: say_plan(p, tell),
            extend=extend,
            limit=limit,
        )
    if merge and not summary.interrupted:
        merge_many(store, summary.study)
    if as_json:
        print_json(_summary_json(summary))
    else:
        _say_summary(summary)
    raise typer.Exit(summary.exit_code)


def _loggers(specs: Sequence[str]) -> list[Logger]:
    """The loggers that a run is to tell too, opened before anything is trained."""
    if not specs:
        return []
    from study.executors.loggers import open_logger

    return [open_logger(spec) for spec in specs]


def merge_many(store: str, study: str) -> None:
    """Merge the files of a study that has very many, as `compact` does, or say what keeps it from that.

    A run that still trains on the store looks for what others have trained by the names of files.
    """
    from analysis.errors import AnalysisError
    from analysis.store.compact import compact as merge
    from analysis.store.listing import list_files
    from study.store.leases import read_leases

    folder = f"/study={study}/"
    files = sum(folder in path for paths in list_files(store).files.values() for path in paths)
    if files <= MANY_FILES:
        return
    if read_leases(store):
        tell(f"{files:,} files; another run is training on this store, `revstudy compact` merges them later")
        return
    tell(f"merging {files:,} files, so that reports and queries read them several times as fast")
    try:
        merge(store, study)
    except AnalysisError as error:
        tell(f"they stay as they are: {error}")


def _summary_json(summary: RunSummary) -> dict[str, Any]:
    return {
        "study": summary.study,
        "store": summary.store,
        "trained": summary.trained,
        "outcomes": summary.outcomes,
        "already_done": summary.already_done,
        "failures": summary.failures,
        "left": summary.left,
        "elsewhere": summary.elsewhere,
        "wall_s": summary.wall_s,
        "interrupted": summary.interrupted,
        "missing": dict(summary.missing),
        "findings": _findings(summary),
    }


def _say_summary(summary: RunSummary) -> None:
    counts = ", ".join(f"{count} {outcome}" for outcome, count in summary.outcomes.items())
    counts = counts or ("none finished" if summary.left else "nothing to do")
    say(
        f"{summary.study}: {summary.trained} trials trained in {duration(summary.wall_s)} ({counts}), "
        f"{summary.already_done} were done before"
    )
    if summary.interrupted:
        say("Interrupted. What is done is kept; run the same command to go on.")
    if summary.elsewhere:
        say(f"Another run on this store is training {summary.elsewhere} of the trials that are left.")
    if summary.left and not summary.interrupted:
        say(f"{summary.left} trials are left; run the same command to go on.")
    if summary.failures:
        say(f"{summary.failures} trials failed: revstudy query failures --store {summary.store}")
    if summary.missing:
        shown = ", ".join(f"{i} ({outcome})" for i, outcome in [*summary.missing.items()][:10])
        more = len(summary.missing) - 10
        say(
            f"The store lost {len(summary.missing)} trials that had ended: {shown}"
            + (f" and {more} more" if more > 0 else "")
            + ". Their rows cannot be read back; run the same command to train them again."
        )
    say(f"Results: {summary.store} (revstudy report {summary.study} --store {summary.store})")
    for number, finding in enumerate(_findings(summary), start=1):
        say(f"{number}. {finding}")


def _findings(summary: RunSummary) -> list[str]:
    if summary.interrupted or summary.missing:
        return []
    from analysis.answers.findings import findings
    from analysis.store.store import open_store

    return findings(open_store(summary.store), summary.study)

"""The command line: one verb, one function. Results go to standard output, progress and errors to the other.

Exit codes: 0 done, 1 some trials failed, 2 bad usage or study file, 3 store unreadable or not writable,
4 cluster unreachable, 124 ended by --timeout, 130 interrupted. Heavy packages are imported by the verbs that
need them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from study.cli import interrupts
from study.cli import plan as cli_plan
from study.cli import status as cli_status
from study.cli import submit as cli_submit
from study.cli import tables as cli_tables
from study.cli.options import STORE, JsonOption, ScaleOption, StoreOption, StudyArgument
from study.cli.output import duration, print_json, print_rows, say, tell
from study.cli.plan import say_plan
from study.cli.tables import MANY_FILES, merge_many

if TYPE_CHECKING:
    from study.run import RunSummary

app = typer.Typer(
    name="revstudy",
    help="Train deep networks without storing activations, and measure what that costs.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="markdown",
)


cli_plan.register(app)


@app.command(
    epilog="Example: `revstudy run quickstart --store results`, `revstudy run paper-cifar --scale tiny`"
)
def run(
    study: StudyArgument,
    scale: ScaleOption = None,
    store: StoreOption = STORE,
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
    as_json: JsonOption = False,
) -> None:
    """Train every trial of a study that the store does not have yet. Run it again to resume.

    A study file that says something else than the study of its name in the store is refused, with the
    difference: give it another name, or pass `--extend`.
    """
    from study.progress import terminal_progress
    from study.run import run_study
    from study.spec.load import load_study

    loaded = load_study(study, scale)
    with interrupts.own_time(), terminal_progress() as progress:
        summary = run_study(
            loaded,
            store,
            address=address,
            progress=progress,
            on_plan=lambda p: say_plan(p, tell),
            extend=extend,
        )
    if merge and not summary.interrupted:
        merge_many(store, summary.study)
    if as_json:
        print_json(_summary_json(summary))
    else:
        _say_summary(summary)
    raise typer.Exit(summary.exit_code)


cli_submit.register(app)
cli_status.register(app)
cli_tables.register(app)


@app.command(epilog="Example: `revstudy models 'revnet*'`")
def models(
    pattern: Annotated[str, typer.Argument(help="A shell pattern of names.")] = "*",
    as_json: JsonOption = False,
) -> None:
    """List the networks with their depth and parameters."""
    from study.catalog import model_rows

    rows = model_rows(pattern)
    print_json(rows) if as_json else print_rows(rows)


@app.command(epilog="Example: `revstudy datasets`")
def datasets(as_json: JsonOption = False) -> None:
    """List the data sets, which of them are at hand, and how to get the others."""
    from study.catalog import dataset_rows

    rows = dataset_rows()
    print_json(rows) if as_json else print_rows(rows)


@app.command(epilog="Example: `revstudy doctor --store results`")
def doctor(store: StoreOption = STORE, as_json: JsonOption = False) -> None:
    """Check whether this machine is ready: versions, one training step, disk, memory, store."""
    from study.doctor import run_checks

    checks = run_checks(store)
    good = all(check.ok for check in checks)
    if as_json:
        print_json({"ok": good, "checks": [check.to_dict() for check in checks]})
    else:
        print_rows(
            [
                {"check": c.name, "": "ok" if c.ok else "PROBLEM", "found": c.found, "remedy": c.remedy}
                for c in checks
            ]
        )
    raise typer.Exit(0 if good else 1)


@app.command(epilog="Example: `revstudy schema > study.schema.json`")
def schema(
    what: Annotated[
        str, typer.Argument(help="study, or a table of the store: trials, epochs, blocks.")
    ] = "study",
    as_json: JsonOption = False,
) -> None:
    """Print the JSON Schema of study files, or the columns of a table with units and meanings."""
    if what == "study":
        from study.spec.study import Study

        print_json(Study.json_schema())
        return
    from analysis.formats import render
    from analysis.queries import describe

    say(str(render(describe(what), "json" if as_json else "markdown")))


def main() -> None:
    """Run the command line; a known error becomes its message and exit code, without a traceback."""
    try:
        app()
    except Exception as error:
        code = getattr(error, "exit_code", None)
        if code is None:
            raise
        tell(f"revstudy: {error}")
        raise SystemExit(code) from None


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

"""The verbs that look after what is in a store: compact, rerun, note."""

from __future__ import annotations

from typing import Annotated

import typer

from study.cli.imports import leave_out_pandas
from study.cli.options import STORE, JsonOption, OfStudy, StoreOption, study_name
from study.cli.output import print_json, print_rows, say, tell


def register(app: typer.Typer) -> None:
    """Add the verbs to the program."""
    for verb, example in (
        (compact, "`revstudy compact --store results`"),
        (rerun, "`revstudy rerun 0123456789abcdef --store results`"),
        (note, '`revstudy note 0123456789abcdef "the fan of this machine was broken"`'),
    ):
        app.command(epilog=f"Example: {example}")(verb)


def compact(
    study: OfStudy = None,
    store: StoreOption = STORE,
    as_json: JsonOption = False,
) -> None:
    """Merge the files of single trials into one per table, so that a large store reads fast.

    It may run while trials do, and may be cut off at any moment: no row is lost or read twice.
    """
    leave_out_pandas()
    from analysis.store.compact import compact as merge

    def progress(step: str) -> None:
        if not step.startswith("delete "):
            tell(step)

    done = merge(store, study_name(study), progress=progress)
    rows = [
        {
            "study": d.study,
            "table": d.table,
            "files": d.files,
            "rows": d.rows,
            "bytes_before": d.bytes_before,
            "bytes_after": d.bytes_after,
        }
        for d in done
    ]
    if as_json:
        print_json({"store": store, "merged": rows})
    elif rows:
        print_rows(rows)
    else:
        say("Nothing to merge: no table of a study has more than one file.")


def rerun(
    trial: Annotated[str, typer.Argument(metavar="TRIAL", help="A trial's id, or the start of it.")],
    store: StoreOption = STORE,
    as_json: JsonOption = False,
) -> None:
    """Train one trial again from its row, and compare the results. Nothing is written."""
    from study.rerun import COMPARED, find_trial
    from study.rerun import rerun as train_again

    found = find_trial(store, trial)
    tell(f"training trial {found.trial_id} of {found.study} again")
    result = train_again(store, found)
    if as_json:
        print_json(
            {"trial_id": found.trial_id, "same": result.same, "recorded": result.recorded, "now": result.now}
        )
    else:
        print_rows(
            [{"": n, "recorded": str(result.recorded[n]), "now": str(result.now[n])} for n in COMPARED]
        )
        say(
            "Accuracies and losses are the same to the last bit."
            if result.same
            else f"The results differ; {result.why}."
        )


def note(
    trial: Annotated[
        str | None,
        typer.Argument(metavar="[TRIAL]", help="A trial's id, or the start of it; without it, all."),
    ] = None,
    text: Annotated[
        str | None,
        typer.Argument(metavar="[TEXT]", help="What to remember; without it, show what was written."),
    ] = None,
    store: StoreOption = STORE,
    as_json: JsonOption = False,
) -> None:
    """Write a note about a trial, or show the notes of the store.

    Notes lie beside the rows, which they never touch. They are added to one another, and the report shows
    them with their trial.
    """
    leave_out_pandas()
    from dataclasses import asdict

    from analysis.store.store import open_store

    if trial is not None and text is not None:
        from study.notes import add_note

        notes = [add_note(store, trial, text)]
    else:
        notes = [n for n in open_store(store).notes() if trial is None or n.trial_id.startswith(trial)]
    if as_json:
        print_json([asdict(n) for n in notes])
    elif notes:
        print_rows([{"trial": n.trial_id, "study": n.study, "at": n.at[:19], "note": n.text} for n in notes])
    else:
        say("No notes.")

"""The verb that fits laws to rows: fit."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from study.cli.imports import leave_out_pandas
from study.cli.options import STORE, JsonOption, OfStudy, StoreOption, study_name
from study.cli.output import print_json, say

if TYPE_CHECKING:
    from analysis.store.store import Store

EvaluationsOption = Annotated[
    str,
    typer.Option(
        "--evaluations",
        metavar="WHICH",
        help="final: those after a finished schedule; all: those before its end too; auto: all only where "
        "the final ones are of fewer than three amounts of data.",
    ),
]
WhereOption = Annotated[
    str | None,
    typer.Option("--where", metavar="SQL", help="Only trials for which this holds, as in SQL."),
]


def register(app: typer.Typer) -> None:
    """Add the verb to the program."""
    example = "`revstudy fit scaling`, `revstudy fit scaling-cpu --where \"strategy = 'reverse'\" --json`, "
    example += "`revstudy fit precision --x depth --y reconstruction_rel_error --by compute_dtype`"
    app.command(epilog=f"Example: {example}")(fit)


def fit(
    study: OfStudy = None,
    store: StoreOption = STORE,
    loss: Annotated[
        str, typer.Option("--loss", metavar="COLUMN", help="The column that is taken as the loss.")
    ] = "loss_val",
    evaluations: EvaluationsOption = "auto",
    where: WhereOption = None,
    x: Annotated[
        str | None, typer.Option("--x", metavar="COLUMN", help="With --y: any numeric column of trials.")
    ] = None,
    y: Annotated[
        str | None,
        typer.Option("--y", metavar="COLUMN", help="Fitted as a power of --x instead of the loss."),
    ] = None,
    by: Annotated[
        list[str] | None,
        typer.Option(
            "--by", metavar="COLUMN", help="With --x: a law for each of its values; may be repeated."
        ),
    ] = None,
    precision: Annotated[
        bool,
        typer.Option(
            "--precision",
            help="Fit what precision takes from the size, and errors of rebuilding over bits and depth.",
        ),
    ] = False,
    resamples: Annotated[
        int, typer.Option("--resamples", min=20, help="Resamples of trainings behind the intervals.")
    ] = 1000,
    as_json: JsonOption = False,
) -> None:
    """Fit the law L(N, D) = E + A/N^a + B/D^b of loss over size and data to the rows of a study.

    It prints the five numbers with 90 % intervals (bootstrap over trainings), predicts the largest rung from
    the others and compares, does so with each rung, and says what the rows cannot tell. With --x and --y it
    fits how any two columns go together, such as an error over depth.
    """
    from analysis.store.store import open_store

    leave_out_pandas()
    opened = open_store(store, study_name(study))
    if x is not None or y is not None:
        from analysis.answers.law_text import relation_text
        from analysis.laws.relation import RelationError, fit_relation

        if x is None or y is None:
            raise RelationError("--x and --y go together: name a column for each")
        relations = fit_relation(opened, x, y, by=by or (), where=where)
        if as_json:
            print_json({"x": x, "y": y, "relations": [one.to_dict() for one in relations]})
        else:
            say(relation_text(relations, x, y))
        return
    if precision:
        _fit_precision(opened, loss, evaluations, where, as_json=as_json)
        return
    from analysis.answers.law_text import law_text
    from analysis.laws.study_law import fit_study

    found = fit_study(opened, loss=loss, evaluations=evaluations, where=where, resamples=resamples)
    if as_json:
        print_json({"study": opened.study, **found.to_dict()})
    else:
        say(law_text(found, opened.study))


def _fit_precision(opened: Store, loss: str, evaluations: str, where: str | None, *, as_json: bool) -> None:
    from analysis.answers.law_text import precision_text
    from analysis.errors import AnalysisError
    from analysis.laws.precision import fit_study_precision
    from analysis.laws.stream import ERRORS, fit_stream

    law, why, streams = None, "", []
    try:
        law = fit_study_precision(opened, loss=loss, evaluations=evaluations, where=where)
    except AnalysisError as error:
        why, failed = str(error), error
    for column in ERRORS:
        try:
            streams.append(fit_stream(opened, column, where=where))
        except AnalysisError:
            continue
    if law is None and not streams:
        raise failed
    if as_json:
        found = None if law is None else law.to_dict()
        print_json({"effective_size": found, "why_not": why, "streams": [one.to_dict() for one in streams]})
    else:
        say(precision_text(law, why, streams))

"""The verbs that judge results: compare, claims."""

from __future__ import annotations

from typing import Annotated

import typer

from study.cli.imports import leave_out_pandas
from study.cli.options import STORE, JsonOption, OfStudy, StoreOption, study_name
from study.cli.output import print_json, say


def register(app: typer.Typer) -> None:
    """Add the verbs to the program."""
    for verb, example in (
        (compare, "`revstudy compare quickstart precision`, `revstudy compare old-results new-results`"),
        (claims, "`revstudy claims`, `revstudy claims --json`"),
    ):
        app.command(epilog=f"Example: {example}")(verb)


def compare(
    a: Annotated[str, typer.Argument(metavar="A", help="A study of the store, or the folder of a store.")],
    b: Annotated[str, typer.Argument(metavar="B", help="What to compare it with.")],
    store: StoreOption = STORE,
    as_json: JsonOption = False,
) -> None:
    """Compare two studies or two stores: what changed, and paired differences with intervals."""
    leave_out_pandas()
    from analysis.answers.compare import compare as compare_rows
    from analysis.answers.compare import open_side
    from analysis.answers.compare_text import comparison_text

    (name_a, rows_a), (name_b, rows_b) = open_side(a, store), open_side(b, store)
    result = compare_rows(rows_a, rows_b, names=(name_a, name_b))
    print_json(result.to_dict()) if as_json else say(comparison_text(result))


def claims(
    study: OfStudy = None,
    store: StoreOption = STORE,
    as_json: JsonOption = False,
) -> None:
    """Judge the claims of the RevNet paper by the rows of the store."""
    leave_out_pandas()
    from analysis.claims.judge import claims_text, counts, judge
    from analysis.store.store import open_store

    verdicts = judge(open_store(store, study_name(study)))
    if as_json:
        print_json({"claims": [verdict.to_dict() for verdict in verdicts], "counts": counts(verdicts)})
    else:
        say(claims_text(verdicts))

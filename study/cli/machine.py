"""The verbs that say what is at hand here: models, datasets, doctor."""

from __future__ import annotations

from typing import Annotated

import typer

from study.cli.options import STORE, JsonOption, StoreOption
from study.cli.output import print_json, print_rows


def register(app: typer.Typer) -> None:
    """Add the verbs to the program."""
    for verb, example in (
        (models, "`revstudy models 'revnet*'`"),
        (datasets, "`revstudy datasets`"),
        (doctor, "`revstudy doctor --store results`"),
    ):
        app.command(epilog=f"Example: {example}")(verb)


def models(
    pattern: Annotated[str, typer.Argument(help="A shell pattern of names.")] = "*",
    as_json: JsonOption = False,
) -> None:
    """List the networks with their depth and parameters."""
    from study.catalog import model_rows

    rows = model_rows(pattern)
    print_json(rows) if as_json else print_rows(rows)


def datasets(as_json: JsonOption = False) -> None:
    """List the data sets, which of them are at hand, and how to get the others."""
    from study.catalog import dataset_rows

    rows = dataset_rows()
    print_json(rows) if as_json else print_rows(rows)


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

"""The program `revstudy`: its verbs are in the other files here, one file a family.

Results go to standard output, progress and errors to the other. Exit codes: 0 done, 1 some trials failed,
2 bad usage or study file, 3 store unreadable, not writable or missing rows, 4 cluster unreachable,
124 ended by --timeout, 130 interrupted. Heavy packages are imported by the verbs that need them.
"""

from __future__ import annotations

from typing import Annotated

import typer

from study.cli import (
    coordinates,
    fit,
    frontier,
    init,
    judge,
    machine,
    plan,
    query,
    report,
    run,
    status,
    submit,
    upkeep,
)
from study.cli.output import say, tell

app = typer.Typer(
    name="revstudy",
    help="Train deep networks without storing activations, and measure what that costs.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="markdown",
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _show_version(asked: bool) -> None:
    if asked:
        from importlib.metadata import version

        say(f"revstudy {version('revstudy')}")
        raise typer.Exit


@app.callback()
def program(
    version: Annotated[
        bool,
        typer.Option("--version", callback=_show_version, is_eager=True, help="Show the version and exit."),
    ] = False,
) -> None:
    """Train deep networks without storing activations, and measure what that costs."""


for family in (
    init,
    plan,
    run,
    submit,
    status,
    query,
    report,
    fit,
    frontier,
    judge,
    coordinates,
    upkeep,
    machine,
):
    family.register(app)


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

"""What every verb of the program has, and options that come in groups."""

from __future__ import annotations

from dataclasses import dataclass
from importlib.metadata import version
from typing import Annotated

import pytest
import typer

from study.cli.main import app
from study.cli.options import with_options

VERBS = [command.callback.__name__ for command in app.registered_commands]


def test_the_version_is_that_of_the_package(revstudy):
    answer = revstudy("--version")
    assert (answer.code, answer.out) == (0, f"revstudy {version('revstudy')}\n")


def test_there_are_all_verbs():
    assert {"plan", "run", "status", "query", "describe", "report", "serve", "figures"} <= set(VERBS)
    assert {"compact", "compare", "rerun", "submit", "claims", "models", "datasets", "doctor"} <= set(VERBS)


@pytest.mark.parametrize("verb", ["", *VERBS])
def test_each_verb_explains_itself_with_an_example(revstudy, verb):
    short, long = (revstudy(*filter(None, [verb, flag])) for flag in ("-h", "--help"))
    assert (short.code, short.out) == (0, long.out)
    assert "-h" in short.out
    assert not verb or "Example:" in short.out


@dataclass(frozen=True, kw_only=True)
class Size:
    """A group of options."""

    wide: Annotated[int, typer.Option(min=1, help="How wide.")] = 3
    name: Annotated[str | None, typer.Option("--called")] = None


@pytest.mark.parametrize(
    ("words", "made"),
    [
        (["x"], ("x", Size(), False)),
        (["x", "--wide", "5", "--called", "n", "--fast"], ("x", Size(wide=5, name="n"), True)),
    ],
)
def test_a_group_of_options_is_one_object(words, made):
    seen = []
    program = typer.Typer()

    @program.command()
    @with_options
    def verb(what: str, size: Size, fast: Annotated[bool, typer.Option("--fast")] = False) -> None:
        seen.append((what, size, fast))

    program(words, standalone_mode=False)
    assert seen == [made]

"""The verb that writes a first study file: init."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from study.cli.output import say, tell


def register(app: typer.Typer) -> None:
    """Add the verb to the program."""
    app.command(epilog="Example: `revstudy init depth --task language`")(init)


def init(
    name: Annotated[str, typer.Argument(help="The study's name; NAME.yaml is written.")] = "study",
    task: Annotated[
        str | None, typer.Option("--task", help="classification or language. Default: classification.")
    ] = None,
    model: Annotated[
        str | None, typer.Option("--model", help="A preset, or your own network as module:function.")
    ] = None,
    data: Annotated[
        str | None, typer.Option("--data", help="A data set, or your own as module:function.")
    ] = None,
    minutes: Annotated[
        float | None,
        typer.Option("--minutes", min=0.1, help="Time that one run may take. Default: no limit."),
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace a file that is there.")] = False,
) -> None:
    """Write a commented study file, and say what to do next.

    On a terminal it asks for what is not given.
    """
    from study.errors import StudyError, nearest
    from study.spec.load import load_study
    from study.spec.scaffold import NETWORKS, TASKS, study_text

    asks = sys.stdin.isatty() and task is None
    if asks:
        task = typer.prompt("Task, classification or language", default=TASKS[0], err=True)
    task = task or TASKS[0]
    if task not in TASKS:
        raise StudyError("--task", value=task, rule="must be a task", remedy=nearest(task, TASKS))
    if asks:
        preset, built_in = NETWORKS[task]
        model = model or typer.prompt("Network, a preset or module:function", default=preset, err=True)
        data = data or typer.prompt("Data set, or module:function", default=built_in, err=True)
    file = Path(f"{name.removesuffix('.yaml')}.yaml")
    if file.exists() and not force:
        rule, remedy = "is there already, and was not touched", "take another name, or add --force"
        raise StudyError("NAME", value=str(file), rule=rule, remedy=remedy)
    text = study_text(file.stem, task=task, model=model or "", data=data or "", minutes=minutes)
    part = file.with_name(f".{file.name}.part")
    part.write_text(text)
    try:
        load_study(part.rename(part.with_suffix(".yaml")))
    except StudyError as error:
        tell(f"The file needs your hand before it runs: {error}")
    finally:
        part.with_suffix(".yaml").replace(file)
    say(f"{file} is written. Next:\n  revstudy plan {file}\n  revstudy run {file}")

"""Arguments and options that several verbs share."""

from __future__ import annotations

from typing import Annotated

import typer

StudyArgument = Annotated[
    str, typer.Argument(metavar="STUDY", help="A study file, or the name of a built-in study.")
]
ScaleOption = Annotated[
    str | None,
    typer.Option(
        "--scale",
        metavar="NAME",
        help="One of the study's own scales, such as smoke: fewer, smaller or shorter trials of the same "
        "kind, kept as the study STUDY-NAME.",
    ),
]
StoreOption = Annotated[
    str, typer.Option("--store", metavar="DIR", envvar="REVSTUDY_STORE", help="The results store.")
]
JsonOption = Annotated[bool, typer.Option("--json", help="Write JSON to standard output.")]
FORMAT_HELP = "table, json, csv, parquet, markdown or latex."
FormatOption = Annotated[str, typer.Option("--format", metavar="FORMAT", help=FORMAT_HELP)]
OfStudy = Annotated[
    str | None, typer.Argument(metavar="[STUDY]", help="A study of the store; without it, all.")
]
MemoryOption = Annotated[
    float | None,
    typer.Option(
        "--memory-gb",
        min=0.001,
        metavar="GB",
        help="Memory that queries may take together, and the most that an answer may hold, beside the rows "
        "of the store. Default: 4, or half of what DuckDB would take of this machine if that is less.",
    ),
]
STORE = "results"


def study_name(study: str | None) -> str | None:
    """The name of a study, given as such or as a study file."""
    if study is None or not study.endswith((".yaml", ".yml", ".py")):
        return study
    from study.spec.load import load_study

    return load_study(study).name

"""Arguments and options that several verbs share."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from dataclasses import MISSING, fields, is_dataclass
from typing import Annotated, Any, get_type_hints

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
LimitOption = Annotated[
    int,
    typer.Option(
        "--limit", min=1, metavar="TRIALS", help="Refuse a study whose grids have more trials than that."
    ),
]
LIMIT = 250_000
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


def bytes_of(gigabytes: float | None) -> int | None:
    """Gigabytes of an option as bytes."""
    return None if gigabytes is None else round(gigabytes * 1e9)


def with_options(verb: Callable[..., None]) -> Callable[..., None]:
    """Let a verb take options in groups.

    A parameter whose type is a dataclass is replaced by that class's fields, each annotated as an option of
    typer's with its default. The verb gets an object of the class with what the user gave.

    Returns:
        The verb with one keyword parameter for each option, for `typer` to read.
    """
    hints = get_type_hints(verb, include_extras=True)
    groups: dict[str, Any] = {name: kind for name, kind in hints.items() if is_dataclass(kind)}
    parameters: list[inspect.Parameter] = []
    for parameter in inspect.signature(verb).parameters.values():
        if parameter.name not in groups:
            kept = parameter.replace(annotation=hints[parameter.name], kind=inspect.Parameter.KEYWORD_ONLY)
            parameters.append(kept)
            continue
        group = groups[parameter.name]
        inner = get_type_hints(group, include_extras=True)
        for field in fields(group):
            assert field.default is not MISSING, f"the option {field.name} has no default"
            parameters.append(
                inspect.Parameter(
                    field.name,
                    inspect.Parameter.KEYWORD_ONLY,
                    default=field.default,
                    annotation=inner[field.name],
                )
            )

    @functools.wraps(verb)
    def called(**given: Any) -> None:
        made = {
            name: group(**{field.name: given.pop(field.name) for field in fields(group)})
            for name, group in groups.items()
        }
        verb(**given, **made)

    called.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    called.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
    del called.__wrapped__
    return called

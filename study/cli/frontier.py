"""The verb that says what to train within a budget: frontier."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from study.cli.fit import EvaluationsOption, WhereOption
from study.cli.imports import leave_out_pandas
from study.cli.options import STORE, JsonOption, StoreOption, study_name
from study.cli.output import print_json, say, tell
from study.errors import StoreError, StudyError

if TYPE_CHECKING:
    from analysis.laws.frontier import Candidate, Frontier, Known
    from analysis.laws.study_law import StudyLaw
    from analysis.store.store import Store
    from study.spec.study import Study

_UNITS = {"": 1, "B": 1, "KB": 10**3, "MB": 10**6, "GB": 10**9, "TB": 10**12}
_UNITS.update({"KIB": 2**10, "MIB": 2**20, "GIB": 2**30, "TIB": 2**40})


def register(app: typer.Typer) -> None:
    """Add the verb to the program."""
    example = "`revstudy frontier --memory 24GB --flops 1e18 --study scaling`, "
    example += "`revstudy frontier --memory 40MB --flops 2e13 --study scaling-cpu --parts 1,8 --json`"
    app.command(epilog=f"Example: {example}")(frontier)


def frontier(
    memory: Annotated[
        str, typer.Option("--memory", metavar="SIZE", help="The most bytes of a step, such as 24GB or 80GiB.")
    ],
    flops: Annotated[
        float,
        typer.Option("--flops", metavar="N", help="Operations of the whole training, recomputation too."),
    ],
    study: Annotated[
        str, typer.Option("--study", metavar="STUDY", help="The study whose law and settings count.")
    ] = "scaling",
    store: StoreOption = STORE,
    strategy: Annotated[
        str,
        typer.Option(
            "--strategy", metavar="NAMES", help="Memory strategies to compare, with commas between."
        ),
    ] = "store,reverse,checkpoint",
    depth: Annotated[
        str | None,
        typer.Option(
            "--depth", metavar="LAYERS", help="Depths to compare, as 4,8; without, like the study's."
        ),
    ] = None,
    width: Annotated[
        str | None,
        typer.Option("--width", metavar="FACTORS", help="Widths to compare, as 0.5,1; with --depth."),
    ] = None,
    parts: Annotated[
        str,
        typer.Option("--parts", metavar="COUNTS", help="Into how many parts a batch may be cut, as 1,4,16."),
    ] = "1",
    evaluations: EvaluationsOption = "auto",
    where: WhereOption = None,
    factor: Annotated[
        float,
        typer.Option(
            "--factor", min=1, help="How many times beyond the rows of the study its law is trusted."
        ),
    ] = 10.0,
    extrapolate: Annotated[
        bool, typer.Option("--extrapolate", help="Trust the law however far beyond its rows.")
    ] = False,
    figure: Annotated[
        Path | None, typer.Option("--figure", metavar="FILE", help="Write the map as an offline HTML file.")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Say what to train with so many bytes and operations: strategy, depth, width, and the loss to expect.

    The law of the study's rows gives the loss of each candidate, for the data that its operations buy. Bytes
    are predicted and operations counted on fake tensors, with what a strategy computes again. Batch, context,
    precision and optimizer are those of the study: its law holds for no others.
    """
    from analysis.answers.frontier_text import frontier_text
    from analysis.laws.frontier import frontier as best_of
    from analysis.laws.study_law import fit_study
    from analysis.store.store import open_store

    leave_out_pandas()
    budget = bytes_from(memory)
    opened = open_store(store, study_name(study))
    law = fit_study(opened, evaluations=evaluations, where=where)
    spec = _recorded(store, opened.study or study)
    largest = law.points.parameters.max() * factor
    if extrapolate:
        from analysis.laws.efficient import best_size

        largest = max(largest, 4 * best_size(law.law, flops / law.per_pair))
    shapes = _given(depth, width) or _shapes(spec, opened, where, float(largest))
    tell(
        f"{len(shapes)} networks of up to {largest:.3g} parameters: predicting bytes and counting operations"
    )
    listed = _compared(
        spec, shapes, strategies=strategy.split(","), parts=[int(p) for p in _numbers(parts, "--parts")]
    )
    found = best_of(
        _known(law), listed, memory=budget, operations=flops, factor=factor, extrapolate=extrapolate
    )
    if figure is not None:
        _draw(found, figure)
    if as_json:
        print_json({"study": opened.study, **found.to_dict(), "warnings": list(law.warnings)})
        return
    say(frontier_text(found))
    if law.warnings:
        say("\n".join(["", "Warnings of the law:", *(f"  - {warning}" for warning in law.warnings)]))


def bytes_from(text: str) -> float:
    """Return the bytes that a size such as 24GB, 80 GiB or 1e9 stands for.

    >>> bytes_from("24GB"), bytes_from("1 GiB")
    (24000000000.0, 1073741824.0)

    Raises:
        StudyError: It is no size.
    """
    match = re.fullmatch(r"\s*([0-9.]+(?:e[0-9]+)?)\s*([kmgt]?i?b?)\s*", text, re.IGNORECASE)
    unit = (match.group(2) if match else "").upper()
    unit = unit if not unit or unit.endswith("B") else f"{unit}B"
    try:
        value = float(match.group(1)) * _UNITS[unit] if match else 0.0
    except (ValueError, KeyError):
        value = 0.0
    if value <= 0:
        rule, remedy = "must be a size in bytes, above 0", "write 24GB, 80GiB or 40MB"
        raise StudyError("--memory", value=text, rule=rule, remedy=remedy)
    return value


def _numbers(text: str, option: str) -> list[float]:
    try:
        values = [float(part) for part in text.split(",")]
    except ValueError:
        values = []
    if not values or min(values) <= 0:
        rule = "must be numbers above 0 with commas between"
        raise StudyError(option, value=text, rule=rule, remedy="write for example 1,4,16")
    return values


def _given(depth: str | None, width: str | None) -> list[tuple[int, float]]:
    if depth is None and width is None:
        return []
    if depth is None or width is None:
        rule = "go together: each depth is tried at each width"
        raise StudyError("--depth, --width", rule=rule, remedy="give both, or neither")
    return [(int(d), w) for d in _numbers(depth, "--depth") for w in _numbers(width, "--width")]


def _recorded(store: str, name: str) -> Study:
    """The study as the store remembers it."""
    from study.record import BESIDE, read_record
    from study.spec.load import parse_study

    record = read_record(store, name)
    if record is None:
        raise StoreError(
            "--study",
            value=name,
            rule=f"has no study.json in the store {store}, so its settings are not known",
            remedy=f"run `revstudy run {name} --store {store}` once more; nothing is trained twice",
        )
    return parse_study({key: value for key, value in record.items() if key not in BESIDE})


def _shapes(spec: Study, opened: Store, where: str | None, largest: float) -> list[tuple[int, float]]:
    from study.plan.candidates import grown, size_of

    condition = f" AND ({where})" if where else ""
    rows = opened.sql(
        f"SELECT DISTINCT depth, width, model FROM trials WHERE outcome = 'ok'{condition} ORDER BY ALL"
    ).to_pylist()
    trained = [(row["depth"], row["width"]) for row in rows]
    return grown(trained, size_of(spec), largest=largest)


def _compared(
    spec: Study, shapes: list[tuple[int, float]], *, strategies: list[str], parts: list[int]
) -> list[Candidate]:
    from analysis.laws.frontier import Candidate
    from study.plan.candidates import candidates

    return [Candidate(**one) for one in candidates(spec, shapes, strategies=strategies, parts=parts)]


def _draw(found: Frontier, path: Path) -> None:
    from analysis.figures.frontier_map import figure

    try:
        figure(found).write_html(path, include_plotlyjs=True)
    except OSError as error:
        rule = f"cannot be written: {error.strerror or error}"
        raise StudyError("--figure", value=str(path), rule=rule) from None
    tell(f"Map: {path}")


def _known(law: StudyLaw) -> Known:
    from analysis.laws.frontier import Known

    points: Any = law.points
    return Known(
        law=law.law,
        parameters=(float(points.parameters.min()), float(points.parameters.max())),
        data=(float(points.data.min()), float(points.data.max())),
        unit=points.unit,
        noise=law.law.residuals,
    )

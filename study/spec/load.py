"""Reading a study from YAML, from Python, or by the name of a built-in one; every broken rule is reported."""

from __future__ import annotations

import runpy
from dataclasses import replace
from importlib import resources
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from study.code import is_path
from study.errors import Problem, StudyError, nearest
from study.spec.messages import problems_of
from study.spec.rules import space_problems
from study.spec.study import Study, keys_beside
from study.spec.yaml_file import read_yaml


def builtin_studies() -> tuple[str, ...]:
    """Names of the studies that ship with the package."""
    folder = resources.files("study") / "studies"
    return tuple(sorted(f.name.removesuffix(".yaml") for f in folder.iterdir() if f.name.endswith(".yaml")))


def load_study(file_or_builtin: str | Path, scale: str | None = None) -> Study:
    """Read a study from a YAML or Python file, or by the name of a built-in study; at one of its scales.

    A Python file defines `study`, a `Study` or its plain values. A file without `name` is named after itself.

    Returns:
        The study, validated.

    Raises:
        StudyError: No such file, built-in study or scale, YAML that does not parse, or broken rules; all of
            them are listed.
    """
    path, source = Path(file_or_builtin), str(file_or_builtin)
    if path.suffix not in (".yaml", ".yml", ".py") and not path.is_file():
        names = builtin_studies()
        if source not in names:
            rule = "must be a study file or the name of a built-in study"
            raise StudyError(value=source, rule=rule, remedy=nearest(source, names))
        path = Path(str(resources.files("study") / "studies" / f"{source}.yaml"))
    values = _read_python(path) if path.suffix == ".py" else read_yaml(path)
    if isinstance(values, Study):
        values = values.to_dict()
    if isinstance(values, dict):
        values = {"name": path.stem, **values}
        if path.is_file() and source not in builtin_studies() and brings_code(values):
            folder = path.resolve().parent
            values["code"] = str((folder / Path(values.get("code") or ".").expanduser()).resolve())
    study = parse_study(values, source=source)
    return study if scale is None else study.at_scale(scale)


def brings_code(values: Any) -> bool:
    """Whether a study names a network, data set or task by an import path, in a section or in a space."""
    if isinstance(values, dict):
        return any(brings_code(value) for value in values.values())
    if isinstance(values, list | tuple):
        return any(brings_code(value) for value in values)
    return isinstance(values, str) and is_path(values)


def _read_python(path: Path) -> Any:
    try:
        return runpy.run_path(str(path))["study"]
    except KeyError:
        raise StudyError(value=str(path), rule="a Python study defines `study`", remedy="assign it") from None
    except StudyError:
        raise
    except Exception as error:
        rule = f"must be Python that runs ({type(error).__name__}: {error})"
        raise StudyError(value=str(path), rule=rule, remedy="run the file by itself to see where") from error


def parse_study(values: Any, *, source: str = "") -> Study:
    """Validate the plain content of a study file.

    Returns:
        The study, validated.

    Raises:
        StudyError: Any broken rule; `problems` lists all of them.
    """
    if not isinstance(values, dict):
        remedy = "for example name: my-study"
        raise StudyError(value=values, rule="must be a mapping of sections", remedy=remedy, source=source)
    try:
        study = Study.model_validate(values)
    except ValidationError as error:
        raise StudyError(problems=problems_of(error, keys=keys_beside), source=source) from None
    problems = space_problems(study)
    for name in study.scales:
        problems += _problems_at_scale(study, name)
    if problems:
        raise StudyError(problems=problems, source=source)
    return study


def _problems_at_scale(study: Study, name: str) -> list[Problem]:
    """Rules that a scale breaks only together with the study's own sections, under the scale's place."""
    prefix = f"scales.{name}"
    try:
        scaled = study.at_scale(name)
    except ValidationError as error:
        return problems_of(error, keys=keys_beside, prefix=prefix)
    return [replace(problem, path=f"{prefix}.{problem.path}") for problem in space_problems(scaled)]

"""Pages of the documentation that are written from the source: settings, columns and commands.

The pages that lie beside the code, such as the README of `revmodels`, become pages of the site too.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
ELSEWHERE = {
    "revmodels": "revmodels/README.md",
    "benchmarks": "benchmarks/README.md",
    "contributing": "CONTRIBUTING.md",
    "changelog": "CHANGELOG.md",
}
"""Pages of the site that lie elsewhere in the repository."""


def write(folder: Path) -> None:
    """Write every page into a folder; a page that has not changed is left as it is."""
    folder.mkdir(exist_ok=True)
    pages = {"settings": settings(), "columns": columns(), "commands": commands()}
    pages |= {name: (ROOT / path).read_text() for name, path in ELSEWHERE.items()}
    for name, text in pages.items():
        path = folder / f"{name}.md"
        if not path.exists() or path.read_text() != text:
            path.write_text(text)


def with_site_links(text: str, page: str) -> str:
    """Lead the links of a page to pages of the site; a file that is no page is named and not linked.

    Args:
        text: the page's Markdown.
        page: its path from `docs`, without the suffix.

    Returns:
        The Markdown with other links. Those to the web and within the page stay.
    """
    name = page.removeprefix("reference/")
    folder = (ROOT / ELSEWHERE[name] if name != page and name in ELSEWHERE else ROOT / "docs" / page).parent
    pages = {(ROOT / path).resolve(): f"/reference/{name}.md" for name, path in ELSEWHERE.items()}

    def led(link: re.Match[str]) -> str:
        shown, target, heading = link.groups(default="")
        path = (folder / target).resolve()
        if ":" in target or not path.exists() or path.suffix == ".png":
            return link[0]
        if path in pages:
            return f"[{shown}]({pages[path]}{heading})"
        if path.is_relative_to(ROOT / "docs") and path.suffix == ".md":
            return f"[{shown}](/{path.relative_to(ROOT / 'docs')}{heading})"
        return f"{shown} (`{path.relative_to(ROOT)}`)"

    return re.sub(r"\[([^\]]*)\]\(([^)\s#]+)(#[^)\s]*)?\)", led, text)


def columns() -> str:
    """Every table and column of the results store."""
    from analysis.schema import TABLES

    lines = ["# Columns of the results store", ""]
    lines += ["`revstudy describe` prints the same. A cell is empty where the question does not arise.", ""]
    for table in TABLES.values():
        lines += [f"## {table.name}", "", f"{table.meaning[0].upper()}{table.meaning[1:]}.", ""]
        lines += _table(("column", "type", "unit", "meaning"), _column_rows(table.columns))
    return "\n".join(lines)


def _column_rows(found: Iterable[Any]) -> Iterator[tuple[str, ...]]:
    for column in found:
        yield f"`{column.name}`", str(column.type), column.unit, column.meaning


def commands() -> str:
    """Every verb of `revstudy` with its arguments and options."""
    import typer

    from study.cli.main import app

    group = typer.main.get_command(app)
    lines = ["# Commands", "", "`revstudy VERB --help` prints the same.", ""]
    for name, command in group.commands.items():  # type: ignore[attr-defined]
        lines += [f"## {name}", "", command.help or "", ""]
        if command.epilog:
            lines += [command.epilog, ""]
        lines += _table(("argument or option", "default", "meaning"), _parameter_rows(command.params))
    return "\n".join(lines)


def _parameter_rows(parameters: Iterable[Any]) -> Iterator[tuple[str, ...]]:
    for parameter in parameters:
        names = [*parameter.opts, *parameter.secondary_opts]
        if parameter.param_type_name == "argument":
            names = [parameter.name.upper()]
        default = parameter.default
        shown = "" if default in (None, False, ()) or callable(default) else f"`{default}`"
        yield " ".join(f"`{name}`" for name in names), shown, getattr(parameter, "help", "") or ""


def settings() -> str:
    """Every section and key of a study file."""
    from study.spec.study import Study

    schema = Study.json_schema()
    lines = ["# Settings of a study file", "", "`revstudy schema` prints the JSON Schema of the same.", ""]
    for name, section in {"Study": schema, **schema["$defs"]}.items():
        if "properties" in section:
            lines += [f"## {name}", "", section.get("description", ""), ""]
            lines += _table(("key", "default", "values", "meaning"), _key_rows(section["properties"]))
    return "\n".join(lines)


def _key_rows(properties: dict[str, Any]) -> Iterator[tuple[str, ...]]:
    from study.spec.explain import legal_values

    for key, value in properties.items():
        default = value.get("default")
        section = isinstance(default, dict) or default in (None, "")
        yield (
            f"`{key}`",
            "" if section else f"`{default}`",
            ", ".join(legal_values(value)),
            value.get("description", ""),
        )


def _table(heads: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> list[str]:
    """A Markdown table; nothing where there are no rows."""
    cells = [
        "| " + " | ".join(" ".join(cell.replace("|", "\\|").split()) for cell in row) + " |" for row in rows
    ]
    if not cells:
        return []
    return ["| " + " | ".join(heads) + " |", "|" + "---|" * len(heads), *cells, ""]

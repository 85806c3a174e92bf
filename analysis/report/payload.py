"""What the page receives: rows by column and figures by row number, as JSON that cannot leave its element."""

from __future__ import annotations

import base64
import functools
import hashlib
import json
import math
import re
from collections.abc import Sequence
from datetime import datetime
from itertools import pairwise
from pathlib import Path
from typing import Any

from markupsafe import Markup

from analysis.cohort import Cohort
from analysis.figures.series import significant
from analysis.schema import TRIALS
from analysis.stats import Row
from analysis.wording import precision_label

_NAME = re.compile(r"\w+", re.ASCII)
TEMPLATES = Path(__file__).parent / "templates"


def inline(name: str) -> Markup:
    """A script or style of the templates folder, to stand in the page as it is."""
    return Markup((TEMPLATES / name).read_text(encoding="utf-8"))


def script(*names: str) -> Markup:
    """Scripts of the templates folder as one: they share their names, and hand none to the page."""
    return Markup('"use strict";\n(() => {\n' + "".join(map(inline, names)) + "})();\n")


def hashed(script: str) -> str:
    """The hash by which the page's content security policy allows a script, and no other."""
    return "sha256-" + base64.b64encode(hashlib.sha256(script.encode("utf-8")).digest()).decode()


def json_for_html(value: Any) -> str:
    """Return JSON that may stand inside a script element: no character of it can end the element or open
    another.

    Numbers that are not finite become the strings ``NaN``, ``Infinity`` and ``-Infinity``.
    """
    text = json.dumps(_plain(value), ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    for character in "<>&\u2028\u2029":
        text = text.replace(character, f"\\u{ord(character):04x}")
    return text


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {str(k): _plain(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return value if _is_plain(value) else [_plain(v) for v in value]
    if isinstance(value, float) and not math.isfinite(value):
        return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"
    if isinstance(value, int) and not isinstance(value, bool) and abs(value) > 2**53:
        return str(value)
    if isinstance(value, datetime):
        return value.strftime("%Y-%m-%d %H:%M:%S")
    if isinstance(value, str):
        return value.encode("utf-8", "replace").decode("utf-8")
    return value


def _is_plain(values: Sequence[Any]) -> bool:
    """Whether a list needs no change; most are long lists of numbers or texts, which this tells fast."""
    kinds = set(map(type, values)) - {type(None)}
    if kinds == {str}:
        try:
            "".join(v for v in values if v is not None).encode("utf-8")
        except UnicodeEncodeError:
            return False
        return True
    if kinds == {int} or kinds == {float} or kinds == {int, float}:
        numbers = [v for v in values if v is not None]
        return all(map(math.isfinite, numbers)) and min(numbers) >= -(2**53) and max(numbers) <= 2**53
    return False


def settings(trials: Cohort) -> list[dict[str, Any]] | None:
    """The settings documents of all trials by dotted path, as words and codes: a tenth of their size.

    Sorted by path, the words of a row put together give its ``config_json`` to the letter; a word is None
    where the row has no such path.

    Returns:
        None where a document is missing or not in canonical form, so that it could not be put together again.

    """
    columns = {}
    for path, setting in trials.settings().items():
        words = [word if word is None else _compact(word) for word in setting.words]
        columns[path] = [words[code] for code in setting.codes.tolist()]
    templates: dict[tuple[str, ...], str | None] = {}
    for number, row in enumerate(trials):
        parts = {path: words[number] for path, words in columns.items() if words[number] is not None}
        paths = tuple(parts)
        if paths not in templates:
            templates[paths] = _template(paths)
        template = templates[paths]
        if template is None or template % tuple(parts.values()) != row["config_json"]:
            return None
    return [{"path": path, **_coded(words)} for path, words in columns.items()]


def _template(paths: tuple[str, ...]) -> str | None:
    """The canonical document with these sorted paths, %s for values; None if a name is no plain word."""
    if any(below.startswith(f"{path}.") for path, below in pairwise(paths)):
        return None  # a name with a dot in it
    document: dict[str, Any] = {}
    for path in paths:
        *above, last = path.split(".")
        if not all(map(_NAME.fullmatch, (*above, last))):
            return None
        functools.reduce(lambda node, name: node.setdefault(name, {}), above, document)[last] = "%s"
    return json.dumps(document, sort_keys=True, separators=(",", ":")).replace('"%s"', "%s")


def _compact(text: str) -> str:
    """JSON of a value as the canonical form writes it: lists without spaces."""
    return json.dumps(json.loads(text), separators=(",", ":")) if text.startswith("[") else text


def _coded(values: Sequence[Any]) -> dict[str, Any]:
    words = list(dict.fromkeys(values))
    code = {word: index for index, word in enumerate(words)}
    return {"words": words, "codes": [code[value] for value in values]}


def columns(rows: Sequence[Row]) -> list[dict[str, Any]]:
    """Return the rows by column, texts as words and codes, so that ten thousand trials stay a small file.

    The column config_json is left to `settings` where that can hold it.
    """
    described = [(c.name, c.unit, c.meaning, str(c.type)) for c in TRIALS.columns]
    described.append(("precision", "", "arithmetic of F and G, its stream, coupling and matmul", "string"))
    result = []
    for name, unit, meaning, type in described:
        values = [precision_label(row) if name == "precision" else row[name] for row in rows]
        column: dict[str, Any] = {"name": name, "unit": unit, "meaning": meaning, "type": type}
        if type == "string":
            few = len(set(values)) < len(values)
            column.update(_coded(values) if few else {"values": values})
        else:
            column["values"] = [significant(v, 9) if isinstance(v, float) else v for v in values]
        result.append(column)
    return result


def embeddable(figure: dict[str, Any], position: dict[str, int], common: dict[str, int]) -> dict[str, Any]:
    """A figure for the page: trials by row number, hover texts that the page can write itself left out."""
    traces = []
    for trace in figure["data"]:
        trace = {k: v for k, v in trace.items() if v is not None}
        trace["customdata"] = [_rows_of(ids, position) for ids in trace["customdata"]]
        role = trace["meta"]["role"]
        texts = None if role == "cell" else trace.pop("text", None)
        if texts and role not in ("curve", "mean", "pair", "front", "band"):
            own = ["" if text in common else text for text in texts]
            if any(own):
                trace["text"] = own
        traces.append(trace)
    layout = {k: v for k, v in figure["layout"].items() if k not in ("title", "template")}
    return {"data": traces, "layout": layout}


def _rows_of(ids: str | list[str], position: dict[str, int]) -> list[Any]:
    """Row numbers of the trials behind a point, or of each cell in a line of a heat map."""
    if isinstance(ids, str):
        return [position[i] for i in ids.split()]
    return [_rows_of(cell, position) for cell in ids]

"""What the page receives: rows by column and figures by row number, as JSON that cannot leave its element."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from datetime import datetime
from typing import Any

from analysis.figures.series import significant
from analysis.labels import precision_label
from analysis.schema import TRIALS
from analysis.stats import Row


def json_for_html(value: Any) -> str:
    """JSON that may stand inside a script element: no character of it can end the element or open another.

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
        return [_plain(v) for v in value]
    if isinstance(value, float) and not math.isfinite(value):
        return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"
    if isinstance(value, int) and not isinstance(value, bool) and abs(value) > 2**53:
        return str(value)
    if isinstance(value, datetime):
        return value.strftime("%Y-%m-%d %H:%M:%S")
    if isinstance(value, str):
        return value.encode("utf-8", "replace").decode("utf-8")
    return value


def columns(rows: Sequence[Row]) -> list[dict[str, Any]]:
    """The rows by column, texts as words and codes, so that ten thousand trials stay a small file."""
    described = [(c.name, c.unit, c.meaning, str(c.type)) for c in TRIALS.columns]
    described.append(("precision", "", "arithmetic of F and G, its stream, coupling and matmul", "string"))
    result = []
    for name, unit, meaning, type in described:
        values = [precision_label(row) if name == "precision" else row[name] for row in rows]
        column: dict[str, Any] = {"name": name, "unit": unit, "meaning": meaning, "type": type}
        if type == "string":
            words = list(dict.fromkeys(values))
            if len(words) < len(values):
                code = {word: index for index, word in enumerate(words)}
                column.update(words=words, codes=[code[v] for v in values])
            else:
                column["values"] = values
        else:
            column["values"] = [significant(v, 9) if isinstance(v, float) else v for v in values]
        result.append(column)
    return result


def embeddable(figure: dict[str, Any], position: dict[str, int], common: dict[str, int]) -> dict[str, Any]:
    """A figure for the page: trials by row number, hover texts that the page can write itself left out."""
    traces = []
    for trace in figure["data"]:
        trace = {k: v for k, v in trace.items() if v is not None}
        trace["customdata"] = [[position[i] for i in ids.split()] for ids in trace["customdata"]]
        texts = trace.pop("text", None)
        if texts and trace["meta"]["role"] not in ("curve", "mean", "front"):
            own = ["" if text in common else text for text in texts]
            if any(own):
                trace["text"] = own
        traces.append(trace)
    layout = {k: v for k, v in figure["layout"].items() if k not in ("title", "template")}
    return {"data": traces, "layout": layout}

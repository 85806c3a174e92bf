"""The report: one offline HTML file with the answer first, linked figures, and every trial behind them."""

from __future__ import annotations

import os
import re
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from markupsafe import Markup
from plotly.offline import get_plotlyjs

from analysis.cohort import cohort_of
from analysis.errors import AnalysisError
from analysis.report.content import Content, templates
from analysis.report.payload import columns, hashed, inline, json_for_html, script, settings
from analysis.report.progress import Progress
from analysis.score import main_score
from analysis.stats import Row
from analysis.store.store import Store, open_store
from analysis.strategies import STRATEGIES
from analysis.theme import OUTCOME_COLORS

_FILTERS = ("study", "data", "family", "model", "strategy", "precision", "depth", "width", "outcome", "seed")
_TABLE = (
    *("trial_id", "outcome", "model", "depth", "width", "strategy", "precision", "seed"),
    *("score_test", "score_val", "memory_peak_bytes", "memory_activation_bytes", "step_time_s"),
    *("reconstruction_rel_error", "gradient_rel_error"),
)


def write_report(
    store_path: str | Path,
    study: str | None = None,
    out: str | Path | None = None,
    *,
    refresh_s: float | None = None,
) -> Path:
    """Writes the report of a store, or of one study in it, as one HTML file that needs no network.

    The file appears whole or not at all, and the same rows give the same bytes.

    Args:
        store_path: the store.
        study: only this study.
        out: the file to write; ``<store>/<study>.html`` by default, ``<store>/report.html`` for all studies.
        refresh_s: the page loads itself anew after so many seconds, to follow a store that grows.

    Returns:
        The path written.

    Raises:
        AnalysisError: the store cannot be read, has no such study, or the file cannot be written.

    """
    return write_page(open_store(store_path, study), out, refresh_s=refresh_s)


def write_page(
    store: Store,
    out: str | Path | None = None,
    *,
    refresh_s: float | None = None,
    progress: Progress | None = None,
) -> Path:
    """Writes the report of an open store, as `write_report` does.

    Args:
        store: an open store.
        out: as for `write_report`.
        refresh_s: as for `write_report`.
        progress: how far the run is, if somebody knows.

    Returns:
        The path written.

    Raises:
        AnalysisError: the file cannot be written.

    """
    name = re.sub(r"[^\w.+-]+", "_", store.study).strip("._") if store.study else ""
    path = Path(out) if out is not None else Path(store.path) / f"{name or 'report'}.html"
    page = render_report(store, refresh_s=refresh_s, progress=progress)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
        try:
            with os.fdopen(handle, "w", encoding="utf-8") as file:
                file.write(page)
            Path(temporary).chmod(0o644)
            Path(temporary).replace(path)
        except BaseException:
            Path(temporary).unlink(missing_ok=True)
            raise
    except OSError as error:
        raise AnalysisError(f"cannot write the report to {str(path)!r}: {error.strerror or error}") from None
    return path


def render_report(store: Store, *, refresh_s: float | None = None, progress: Progress | None = None) -> str:
    """Return the report of an open store as HTML text.

    Args:
        store: an open store.
        refresh_s: as for `write_page`.
        progress: how far the run is, if somebody knows.

    """
    store.read_ahead("trials", "blocks", "epochs")  # what follows needs the trials alone at first
    position = {row["trial_id"]: index for index, row in enumerate(store.rows("trials"))}
    return render_content(Content(store, position, progress), refresh_s=refresh_s)


def render_content(
    content: Content, *, refresh_s: float | None = None, follows: dict[str, Any] | None = None
) -> str:
    """Return a page as HTML text.

    Args:
        content: What it says.
        refresh_s: as for `write_report`.
        follows: where the page asks for changes, and the version that it holds; None if it asks nobody.

    """
    data = json_for_html({**page_payload(content), "refresh_s": refresh_s, "live": follows})
    code, plotly = script("report.js", "equal_memory.js", "explore.js", "live.js"), get_plotlyjs()
    return (
        templates()
        .get_template("report.html.j2")
        .render(
            **content.words,
            style=inline("report.css"),
            plotly=Markup(plotly),
            script=code,
            payload=Markup(data),
            figures=Markup(json_for_html(content.figures)),
            hashes=[hashed(plotly), hashed(code)],
        )
    )


def page_payload(content: Content) -> dict[str, Any]:
    """Return the rows of a page and what its script must know of them."""
    rows = content.rows
    ordered = [row["trial_id"] for row in content.store.rows("trials")] == [row["trial_id"] for row in rows]
    documents = settings(cohort_of(content.store)) if ordered else None
    shown = rows if documents is None else [{**row, "config_json": None} for row in rows]
    return {
        "columns": columns(shown),
        "settings": documents,
        "n": len(rows),
        "equal_memory": content.equal_memory,
        "remarks": content.remarks,
        **about(rows),
    }


def about(rows: Sequence[Row]) -> dict[str, Any]:
    """Return what the script of a page must know of its columns."""
    metric = main_score(rows)
    return {
        "colors": {"strategy": {s.name: s.color for s in STRATEGIES.values()}, "outcome": OUTCOME_COLORS},
        "filters": _FILTERS,
        "table": [name.replace("score_", f"{metric.stem}_") for name in _TABLE],
        "titles": {metric.test: f"test {metric.name}", metric.val: f"validation {metric.name}"},
        "score": {
            "column": metric.val,
            "test": metric.test,
            "scale": metric.scale,
            "better": metric.better,
            "name": metric.name,
            "unit": metric.unit,
        },
    }

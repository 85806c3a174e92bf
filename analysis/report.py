"""The report: one offline HTML file with the answer first, linked figures, and every trial behind them."""

from __future__ import annotations

import base64
import hashlib
import os
import re
import tempfile
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jinja2
from markupsafe import Markup
from plotly.offline import get_plotlyjs

from analysis.errors import AnalysisError
from analysis.figures import FIGURES
from analysis.figures.series import describe
from analysis.findings import findings
from analysis.labels import precision_label, width_text
from analysis.payload import columns, embeddable, json_for_html
from analysis.recommend import Recommendation, accuracy_column, recommend
from analysis.sections import SECTIONS
from analysis.stats import Row, estimate, finite
from analysis.store import Store, open_store
from analysis.units import bytes_text, count_text, error_text, percent_text, seconds_text

_TEMPLATES = Path(__file__).parent / "templates"

_FILTERS = ("study", "data", "family", "model", "strategy", "precision", "depth", "width", "outcome", "seed")
_TABLE = (
    *("trial_id", "outcome", "model", "depth", "width", "strategy", "precision", "seed"),
    *("accuracy_test", "accuracy_val", "memory_peak_bytes", "memory_activation_bytes", "step_time_s"),
    *("reconstruction_rel_error", "gradient_rel_error"),
)


def write_report(store_path: str | Path, study: str | None = None, out: str | Path | None = None) -> Path:
    """Writes the report of a store, or of one study in it, as one HTML file that needs no network.

    The file appears whole or not at all, and the same rows give the same bytes.

    Args:
        store_path: the store.
        study: only this study.
        out: the file to write; ``<store>/<study>.html`` by default, ``<store>/report.html`` for all studies.

    Returns:
        The path written.

    Raises:
        AnalysisError: the store cannot be read, has no such study, or the file cannot be written.

    """
    store = open_store(store_path, study)
    name = re.sub(r"[^\w.+-]+", "_", study).strip("._") if study else ""
    path = Path(out) if out is not None else Path(store_path) / f"{name or 'report'}.html"
    page = render_report(store)
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


def render_report(store: Store) -> str:
    """The report of an open store as HTML text."""
    rows = store.rows("trials")
    position = {row["trial_id"]: index for index, row in enumerate(rows)}
    picks = recommend(rows)
    common = {describe([row]): index for index, row in enumerate(rows)}
    figures, notes, infos = {}, {}, {}
    for name, module in FIGURES.items():
        infos[name] = module.info(store)
        notes[name] = infos[name].notes
        drawn = module.figure(infos[name])
        if drawn is not None:
            figures[name] = embeddable(drawn.to_plotly_json(), position, common)
    payload = {
        "columns": columns(rows),
        "n": len(rows),
        "figures": figures,
        "filters": _FILTERS,
        "table": _TABLE,
        "accuracy": accuracy_column(rows),
    }
    script = (_TEMPLATES / "report.js").read_text(encoding="utf-8")
    plotly = get_plotlyjs()
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(_TEMPLATES), autoescape=True, undefined=jinja2.StrictUndefined
    )
    return environment.get_template("report.html.j2").render(
        title=store.study or (store.studies[0] if len(store.studies) == 1 else "All studies"),
        headline=_headline(rows),
        facts=_facts(rows),
        answer=[_answer(r, position) for r in picks],
        enough=_enough(picks, rows),
        several_data=len({r["data"] for r in rows}) > 1,
        findings=[tuple(text.split(": ", 1)) for text in findings(store)],
        sections=SECTIONS,
        drawn=set(figures),
        heights={name: figure["layout"]["height"] for name, figure in figures.items()},
        notes=notes,
        failures=[
            {"failure": f, "rows": [position[i] for i in f.ids]} for f in infos["failures"].failures[:50]
        ],
        more_failures=max(0, len(infos["failures"].failures) - 50),
        provenance=_provenance(rows),
        skipped=[{"path": _inside(s.path), "reason": s.reason} for s in store.skipped],
        style=Markup((_TEMPLATES / "report.css").read_text(encoding="utf-8")),
        plotly=Markup(plotly),
        script=Markup(script),
        payload=Markup(json_for_html(payload)),
        hashes=[_hash(plotly), _hash(script)],
    )


def _headline(rows: Sequence[Row]) -> str:
    if not rows:
        return "This store holds no trial yet. `revstudy run quickstart` writes the first."
    outcomes = Counter(row["outcome"] or "unknown" for row in rows)
    ok = outcomes.pop("ok", 0)
    text = f"{count_text(len(rows), 'trial')}, {ok} ended ok"
    if outcomes:
        text += ", " + ", ".join(f"{n} {outcome}" for outcome, n in sorted(outcomes.items()))
    return text + "."


def _facts(rows: Sequence[Row]) -> list[tuple[str, str]]:
    def distinct(name: str) -> str:
        values = sorted({str(r[name]) for r in rows if r[name] is not None})
        return ", ".join(values[:4]) + (f" and {len(values) - 4} more" if len(values) > 4 else "")

    finished = [r["finished_at"] for r in rows if r["finished_at"] is not None]
    facts = [
        ("Data", distinct("data")),
        ("Models", distinct("model")),
        ("Device", distinct("device")),
        ("Trial time", seconds_text(sum(r["wall_s"] for r in rows if finite(r["wall_s"])) if rows else None)),
        ("Last row", f"{max(finished):%Y-%m-%d %H:%M} UTC" if finished else ""),
    ]
    return [(name, value) for name, value in facts if value and value != "unknown"]


def _answer(pick: Recommendation, position: dict[str, int]) -> dict[str, Any]:
    """One line of the recommendation, as text."""
    first = pick.choice.rows[0]
    accuracy = pick.choice.accuracy
    errors = [r["gradient_rel_error"] for r in pick.choice.rows if finite(r["gradient_rel_error"])]
    time = estimate(r["step_time_s"] for r in pick.choice.rows)
    interval = None
    if accuracy.low is not None and accuracy.high is not None:
        interval = f"{100 * accuracy.low:.1f} to {100 * accuracy.high:.1f} %"
    return {
        "data": pick.data,
        "budget": _round_bytes(pick.budget_bytes),
        "model": first["model"],
        "settings": f"depth {first['depth']} · width {width_text(first)}",
        "how": f"{first['strategy']} · {precision_label(first)}",
        "accuracy": percent_text(accuracy.mean),
        "interval": interval,
        "n": count_text(accuracy.n, "seed"),
        "peak": bytes_text(pick.choice.peak_bytes),
        "time": seconds_text(time.mean) if time else "–",
        "error": error_text(max(errors)) if errors else "none",
        "candidates": pick.candidates,
        "rows": [position[i] for i in pick.choice.ids],
    }


def _enough(picks: Sequence[Recommendation], rows: Sequence[Row]) -> str:
    """Says so where the largest footprints buy no accuracy; only asked of a single data set."""
    measured = [
        r["memory_peak_bytes"] for r in rows if r["outcome"] == "ok" and finite(r["memory_peak_bytes"])
    ]
    if not picks or len({pick.data for pick in picks}) > 1:
        return ""
    top = max(pick.budget_bytes for pick in picks)
    if max(measured) <= top:
        return ""
    return (
        f"More than {_round_bytes(top)} bought no validation accuracy here, though trials took up to "
        f"{bytes_text(max(measured))}."
    )


def _round_bytes(value: float) -> str:
    text = bytes_text(value)
    return re.sub(r"\.?0+ ", " ", text) if "." in text else text


def _provenance(rows: Sequence[Row]) -> list[dict[str, Any]]:
    names = (
        "revstudy_version",
        "git_commit",
        "torch_version",
        "ray_version",
        "python_version",
        "platform",
        "device",
    )
    counts = Counter(
        tuple(
            f"{str(row[n])[:10]}{' (with changes)' if row['git_dirty'] else ''}"
            if n == "git_commit" and row[n]
            else row[n] or "–"
            for n in names
        )
        for row in rows
    )
    return [
        {"trials": n, **dict(zip(names, key, strict=True))}
        for key, n in sorted(counts.items(), key=lambda item: (-item[1], item[0]))
    ]


def _inside(path: str) -> str:
    """A file's path from its study's folder on, so that the page names no folder of the machine."""
    return path[path.rfind("study=") :] if "study=" in path else Path(path).name


def _hash(script: str) -> str:
    digest = hashlib.sha256(script.encode("utf-8")).digest()
    return "sha256-" + base64.b64encode(digest).decode()

"""The report: one offline HTML file with the answer first, linked figures, and every trial behind them."""

from __future__ import annotations

import os
import re
import tempfile
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jinja2
from markupsafe import Markup, escape
from plotly.offline import get_plotlyjs

from analysis.answers.compare_text import compare_studies
from analysis.answers.findings import findings
from analysis.answers.precision import precision_answer, precision_verdicts
from analysis.answers.recommend import configurations_of, recommend
from analysis.answers.recommendation_text import answer, enough, none_faithful
from analysis.answers.verdict import near_text, nearest, verdict
from analysis.claims.judge import NOT_MEASURED, judge, measured_text
from analysis.cohort import cohort_of
from analysis.errors import AnalysisError
from analysis.faithful import LIMIT_TEXT
from analysis.figures import FIGURES
from analysis.figures.series import describe
from analysis.report.layout import sections
from analysis.report.payload import TEMPLATES, columns, embeddable, hashed, inline, json_for_html, settings
from analysis.score import main_score
from analysis.stats import Row, finite
from analysis.store.store import Store, open_store
from analysis.wording import count_text, seconds_text

_FILTERS = ("study", "data", "family", "model", "strategy", "precision", "depth", "width", "outcome", "seed")
MOST_DESCRIBED = 4
"""Studies whose descriptions stand at the head of the page of a whole store."""
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
    store = open_store(store_path, study)
    name = re.sub(r"[^\w.+-]+", "_", study).strip("._") if study else ""
    path = Path(out) if out is not None else Path(store_path) / f"{name or 'report'}.html"
    page = render_report(store, refresh_s=refresh_s)
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


def render_report(store: Store, *, refresh_s: float | None = None, console: str | None = None) -> str:
    """Return the report of an open store as HTML text.

    Args:
        store: an open store.
        refresh_s: as for `write_report`.
        console: address of a SQL console to link to.

    """
    store.read_ahead("trials", "blocks", "epochs")  # what follows needs the trials alone at first
    trials = cohort_of(store)
    rows = store.rows("trials")
    position = {row["trial_id"]: index for index, row in enumerate(rows)}
    picks = recommend(trials, points=configurations_of(store))
    metric = main_score(rows)
    common = {describe([row]): index for index, row in enumerate(rows)}
    documents = settings(trials)
    shown = rows if documents is None else [{**row, "config_json": None} for row in rows]
    payload = {
        "columns": columns(shown),
        "settings": documents,
        "n": len(rows),
        "filters": _FILTERS,
        "table": [name.replace("score_", f"{metric.stem}_") for name in _TABLE],
        "titles": {metric.test: f"test {metric.name}", metric.val: f"validation {metric.name}"},
        "refresh_s": refresh_s,
        "remarks": _remarks(store, position),
    }
    data = json_for_html(payload)
    figures, notes, infos = {}, {}, {}
    for name, module in FIGURES.items():
        infos[name] = module.info(store)
        notes[name] = infos[name].notes
        drawn = module.figure(infos[name])
        if drawn is not None:
            figures[name] = embeddable(drawn.to_plotly_json(), position, common)
    script, plotly = inline("report.js"), get_plotlyjs()
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(TEMPLATES), autoescape=True, undefined=jinja2.StrictUndefined
    )
    environment.filters["commands"] = _commands
    return environment.get_template("report.html.j2").render(
        title=store.study or (store.studies[0] if len(store.studies) == 1 else "All studies"),
        headline=_headline(rows),
        descriptions=[(name, text) for name in _shown_studies(store) if (text := _described(store, name))],
        facts=_facts(rows),
        verdict=verdict(trials),
        nearest=[text for near in nearest(configurations_of(store)) if (text := near_text(near))],
        answer=[answer(r, position) for r in picks],
        unfaithful=none_faithful(configurations_of(store)),
        limit=LIMIT_TEXT,
        metric=metric,
        enough=enough(picks, rows),
        left_out=_left_out(rows),
        several_data=len({r["data"] for r in rows}) > 1,
        comparisons=compare_studies(store) if store.study is None else [],
        findings=[tuple(text.split(": ", 1)) for text in findings(store)],
        sections=sections(metric),
        precision=precision_answer(trials) if precision_verdicts(trials) else "",
        claims=[
            {
                "claim": v,
                "measured": measured_text(v),
                "rows": [position[i] for i in v.trials if i in position],
            }
            for v in judge(store)
            if v.verdict != NOT_MEASURED
        ],
        drawn=set(figures),
        heights={name: figure["layout"]["height"] for name, figure in figures.items()},
        notes=notes,
        failures=[
            {"failure": f, "rows": [position[i] for i in f.ids]} for f in infos["failures"].failures[:50]
        ],
        more_failures=max(0, len(infos["failures"].failures) - 50),
        provenance=_provenance(rows),
        skipped=[{"path": _inside(s.path), "reason": s.reason} for s in store.skipped],
        style=inline("report.css"),
        plotly=Markup(plotly),
        script=script,
        payload=Markup(data),
        figures=Markup(json_for_html(figures)),
        hashes=[hashed(plotly), hashed(script)],
        console=console,
    )


def _commands(text: str) -> Markup:
    """Text as HTML, what stands between backticks as code; the text itself is escaped first."""
    return Markup(re.sub(r"`([^`]*)`", r"<code>\1</code>", str(escape(text))))


def _shown_studies(store: Store) -> tuple[str, ...]:
    """The study of a store that is open for one, else the first few of all."""
    return (store.study,) if store.study is not None else tuple(store.studies)[:MOST_DESCRIBED]


def _described(store: Store, study: str) -> str:
    """What a study says of itself, and its tags."""
    tags = store.tags(study)
    return " ".join(filter(None, [store.description(study), f"Tags: {', '.join(tags)}." if tags else ""]))


def _remarks(store: Store, position: Mapping[str, int]) -> dict[int, list[str]]:
    """What people have written about trials, by the trials' places in the table."""
    found: dict[int, list[str]] = {}
    for note in store.notes():
        if note.trial_id in position:
            found.setdefault(position[note.trial_id], []).append(note.text)
    return found


def _headline(rows: Sequence[Row]) -> str:
    if not rows:
        return "This store holds no trial yet. `revstudy run quickstart` writes the first."
    outcomes = Counter(row["outcome"] or "unknown" for row in rows)
    ok = outcomes.pop("ok", 0)
    text = f"{count_text(len(rows), 'trial')}, {ok:,} ended ok"
    if outcomes:
        text += ", " + ", ".join(f"{n:,} {outcome}" for outcome, n in sorted(outcomes.items()))
    return text + "."


def _left_out(rows: Sequence[Row]) -> str:
    """Says which trials no recommendation, mean, pair, front or fit holds; nothing if all ended ok."""
    outcomes = Counter(row["outcome"] or "unknown" for row in rows if row["outcome"] != "ok")
    if not outcomes:
        return ""
    listed = ", ".join(f"{n:,} {outcome}" for outcome, n in sorted(outcomes.items()))
    n = count_text(sum(outcomes.values()), "trial")
    return f"Left out of these numbers: {n} cut short or failed ({listed})."


def _facts(rows: Sequence[Row]) -> list[tuple[str, str]]:
    def distinct(name: str) -> str:
        values = sorted({str(r[name]) for r in rows if r[name] is not None})
        return ", ".join(values[:4]) + (f" and {len(values) - 4} more" if len(values) > 4 else "")

    times = [r["wall_s"] for r in rows if finite(r["wall_s"])]
    finished = [r["finished_at"] for r in rows if r["finished_at"] is not None]
    facts = [
        ("Data", distinct("data")),
        ("Models", distinct("model")),
        ("Device", distinct("device")),
        ("Trial time", seconds_text(sum(times) if times else None)),
        ("Last row", f"{max(finished):%Y-%m-%d %H:%M} UTC" if finished else ""),
    ]
    return [(name, value) for name, value in facts if value and value != "unknown"]


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

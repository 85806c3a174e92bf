"""What the report says and draws of a store: its texts, its figures, and the rows that it shows."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import jinja2
from markupsafe import Markup, escape

from analysis.answers.compare_text import compare_studies
from analysis.answers.equal_memory import in_words, within_each_budget
from analysis.answers.findings import findings
from analysis.answers.precision import precision_answer, precision_verdicts
from analysis.answers.recommend import configurations_of, recommend
from analysis.answers.recommendation_text import answer, enough, none_faithful
from analysis.answers.verdict import near_text, nearest, verdict
from analysis.claims.judge import NOT_MEASURED, judge, measured_text
from analysis.cohort import cohort_of
from analysis.faithful import LIMIT_TEXT
from analysis.figures import FIGURES
from analysis.figures.series import describe
from analysis.report.layout import Chapter, Panel, sections
from analysis.report.payload import TEMPLATES, embeddable, json_for_html
from analysis.report.progress import Progress, table, waiting
from analysis.score import main_score
from analysis.stats import Row, finite
from analysis.store.store import Store
from analysis.wording import count_text, seconds_text

MOST_DESCRIBED = 4
"""Studies whose descriptions stand at the head of the page of a whole store."""

PARTS = ("masthead", "nav", "answer", "precision", "failures", "claims", "compare", "provenance")
"""The blocks of the template that say something of the rows, each under the element of that ``data-part``."""


@dataclass(frozen=True)
class Content:
    """The content of a page of one store.

    Args:
        store: The store.
        position: The number of each trial on the page.
        progress: How far the run is, if somebody knows.
        console: Address of a SQL console to link to.
        live: Whether the page follows the store.

    """

    store: Store
    position: Mapping[str, int]
    progress: Progress | None = None
    console: str | None = None
    live: bool = False

    @cached_property
    def rows(self) -> list[Row]:
        """The trials by their number on the page."""
        return sorted(self.store.rows("trials"), key=lambda row: self.position[row["trial_id"]])

    @cached_property
    def figures(self) -> dict[str, dict[str, Any]]:
        """The figures that have something to show, as the page takes them."""
        common = {describe([row]): index for index, row in enumerate(self.rows)}
        found = {}
        for name, module in FIGURES.items():
            drawn = module.figure(self._infos[name])
            if drawn is not None:
                found[name] = embeddable(drawn.to_plotly_json(), dict(self.position), common)
        return found

    @cached_property
    def _infos(self) -> dict[str, Any]:
        return {name: module.info(self.store) for name, module in FIGURES.items()}

    def told(self, progress: Progress | None) -> Content:
        """The same content when the run is further; what the rows say is taken over."""
        later = replace(self, progress=progress)
        kept = ("rows", "figures", "_infos", "_known", "sections")
        later.__dict__.update({name: self.__dict__[name] for name in kept if name in self.__dict__})
        return later

    @cached_property
    def words(self) -> dict[str, Any]:
        """What the templates ask for."""
        judged = sum(len(c.rows) for c in configurations_of(self.store))
        wait, running = waiting(self.progress, judged), table(self.progress)
        known = self._known
        if wait:
            known = {
                **known,
                "verdict": ("", ""),
                "nearest": [],
                "answer": [],
                "unfaithful": [],
                "findings": [],
            }
        return {
            **known,
            "wait": wait,
            "progress": self.progress.text() if self.progress is not None else "",
            "share": _share(self.progress),
            "running": running,
            "more_running": 0 if self.progress is None else len(self.progress.running) - len(running),
        }

    @cached_property
    def _known(self) -> dict[str, Any]:
        store, rows = self.store, self.rows
        trials, points, metric = cohort_of(store), configurations_of(store), main_score(rows)
        picks = recommend(trials, points=points)
        failures = self._infos["failures"].failures
        return {
            "title": store.study or (store.studies[0] if len(store.studies) == 1 else "All studies"),
            "headline": _headline(rows),
            "descriptions": [(n, text) for n in _shown_studies(store) if (text := _described(store, n))],
            "facts": _facts(rows),
            "verdict": verdict(trials),
            "nearest": [text for near in nearest(points) if (text := near_text(near))],
            "answer": [answer(r, dict(self.position)) for r in picks],
            "unfaithful": none_faithful(points),
            "limit": LIMIT_TEXT,
            "metric": metric,
            "equal_memory": in_words(within_each_budget(points), self.position),
            "enough": enough(picks, rows),
            "left_out": _left_out(rows),
            "several_data": len({r["data"] for r in rows}) > 1,
            "comparisons": compare_studies(store) if store.study is None else [],
            "findings": [tuple(text.split(": ", 1)) for text in findings(store)],
            "sections": self.sections,
            "precision": precision_answer(trials) if precision_verdicts(trials) else "",
            "claims": [
                {
                    "claim": v,
                    "measured": measured_text(v),
                    "rows": [self.position[i] for i in v.trials if i in self.position],
                }
                for v in judge(store)
                if v.verdict != NOT_MEASURED
            ],
            "drawn": set(self.figures),
            "heights": {name: figure["layout"]["height"] for name, figure in self.figures.items()},
            "notes": {name: info.notes for name, info in self._infos.items()},
            "failures": [{"failure": f, "rows": [self.position[i] for i in f.ids]} for f in failures[:50]],
            "more_failures": max(0, len(failures) - 50),
            "provenance": _provenance(rows),
            "skipped": [{"path": _inside(s.path), "reason": s.reason} for s in store.skipped],
            "console": self.console,
            "live": self.live,
        }

    @cached_property
    def sections(self) -> tuple[Chapter, ...]:
        """The chapters of the page."""
        return sections(main_score(self.rows))

    @property
    def remarks(self) -> dict[int, list[str]]:
        """What people have written about trials, by the trials' numbers."""
        found: dict[int, list[str]] = {}
        for note in self.store.notes():
            if note.trial_id in self.position:
                found.setdefault(self.position[note.trial_id], []).append(note.text)
        return found

    @property
    def equal_memory(self) -> list[dict[str, Any]]:
        """The best of each kind within each budget; nothing while recommendations wait."""
        return [] if self.words["wait"] else self._known["equal_memory"]

    @property
    def panels(self) -> list[Panel]:
        """The places of all figures."""
        return [panel for chapter in self.sections for panel in chapter.panels]

    def parts(self) -> dict[str, str]:
        """What follows the rows on a live page, as HTML by the name of its element."""
        template = templates().get_template("report.html.j2")
        context = template.new_context(self.words)
        found = {name: "".join(template.blocks[name](context)).strip() for name in PARTS}
        panel = templates().get_template("panel.html.j2")
        for one in self.panels:
            found[f"panel-{one.figure}"] = panel.render(**self.words, panel=one).strip()
        found["equal_memory"] = json_for_html(self.equal_memory)
        return found


def templates() -> jinja2.Environment:
    """The templates of the page."""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(TEMPLATES), autoescape=True, undefined=jinja2.StrictUndefined
    )
    environment.filters["commands"] = _commands
    return environment


def _share(progress: Progress | None) -> float | None:
    """The part of the run that is done; None where nothing runs or nobody knows how much there is."""
    if progress is None or not progress.running or not progress.planned:
        return None
    return min(1.0, (progress.done + sum(one.share for one in progress.running)) / progress.planned)


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

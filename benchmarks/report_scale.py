"""Report and queries on stores of 100, 1,000 and 10,000 trials with 100 epochs each.

What is measured, each in a fresh process or page, as medians of `--repeats`:

* build: wall time of `revstudy report` from start of the program to its end, and the processor time it took
  (which other programs on the machine lengthen less), on the store as trials write it (a file per trial and
  table) and after `revstudy compact`;
* size of the page;
* first interaction: from the start of navigation to the frame in which a press of the Filter button has
  opened the filters, in headless Chromium; the press is tried every 5 ms, so that it answers
  as soon as the page can;
* named queries on the largest store (10,000 trials hold 1,000,000 epoch rows), opened and read before: the
  median over all named queries of each one's median of seven.

The stores are made by `benchmarks.sweep_store`; their numbers mean nothing, their shape does. They lie in the
page cache of the operating system when they are read. Sizes may be measured one at a time into one file:
those that it has already, and that are not measured again, stay in it. `--prepare` makes the stores and
measures nothing.

    python -m benchmarks.report_scale --stores /tmp/scale --out benchmarks/results/report_scale.json
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import shutil
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import duckdb
import plotly
import pyarrow as pa
from playwright.sync_api import sync_playwright

from analysis.queries import NAMED, run_query
from analysis.store.compact import compact
from analysis.store.store import open_store
from benchmarks.sweep_store import write_store

EPOCHS = 100
LIMITS = {100: (3.0, 6e6, 1.5), 1_000: (5.0, 8e6, 2.0), 10_000: (15.0, 15e6, 4.0)}
"""Trials: seconds to build, bytes, seconds to the first interaction."""
QUERY_LIMIT_S = 0.150
PRESS = """
const tried = setInterval(() => {
    const button = document.getElementById('open-filters');
    if (!button) return;
    if (button.getAttribute('aria-expanded') !== 'true') button.click();
    if (button.getAttribute('aria-expanded') === 'true') {
        clearInterval(tried);
        requestAnimationFrame(() => setTimeout(() => { window.firstInteraction = performance.now(); }));
    }
}, 5);
"""


def build_s(store: Path, page: Path) -> tuple[float, float]:
    """Wall time, and processor time, of the command that writes the report."""
    begun, used = time.perf_counter(), os.times()
    subprocess.run(
        [sys.executable, "-m", "study.cli", "report", "--store", str(store), "-o", str(page)],
        check=True,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    took, now = time.perf_counter() - begun, os.times()
    cpu = now.children_user - used.children_user + now.children_system - used.children_system
    return took, cpu


def first_interactions_s(page: Path, repeats: int) -> list[float]:
    """Seconds to the first interaction, each in a browser of its own that has never seen the page."""
    program = shutil.which("chromium") or shutil.which("google-chrome")
    found = []
    for _ in range(repeats):
        with sync_playwright() as playwright:
            browser = playwright.chromium.launch(
                executable_path=program, args=["--no-sandbox", "--disable-gpu"]
            )
            tab = browser.new_page(viewport={"width": 1280, "height": 900})
            tab.add_init_script(PRESS)
            tab.goto(page.as_uri(), wait_until="commit")
            tab.wait_for_function("window.firstInteraction", timeout=60_000)
            found.append(tab.evaluate("window.firstInteraction") / 1000)
            browser.close()
    return found


def queries_s(store: Path, repeats: int = 7) -> dict[str, float]:
    """Median time of every named query over a store that is open and read."""
    opened = open_store(store)
    for table in ("trials", "epochs", "blocks"):
        opened.table(table)
    found = {}
    for name in NAMED:
        times = []
        for _ in range(repeats):
            begun = time.perf_counter()
            run_query(opened, name)
            times.append(time.perf_counter() - begun)
        found[name] = statistics.median(times)
    return found


def machine() -> dict[str, Any]:
    """What the figures were measured on."""
    return {
        "cpus": os.cpu_count(),
        "platform": platform.platform(),
        "python": platform.python_version(),
        "duckdb": duckdb.__version__,
        "pyarrow": pa.__version__,
        "plotly": plotly.__version__,
    }


def prepare(trials: int, folder: Path) -> tuple[Path, Path]:
    """The store of one size, and a merged copy; those that are there already are used as they are."""
    store, merged = folder / f"s{trials}", folder / f"c{trials}"
    if not store.exists():
        write_store(store, trials=trials, epochs=EPOCHS)
    if not merged.exists():
        shutil.copytree(store, merged)
        compact(merged)
    return store, merged


def measure(trials: int, folder: Path, repeats: int) -> dict[str, Any]:
    """All figures of one size."""
    store, merged = prepare(trials, folder)
    page = folder / f"{trials}.html"
    load = os.getloadavg()[0]
    limits = LIMITS.get(trials)
    builds = {s: [build_s(s, page) for _ in range(repeats)] for s in (store, merged)}
    result: dict[str, Any] = {
        "trials": trials,
        "epoch_rows": trials * EPOCHS,
        "repeats": repeats,
        "load_1_min": load,
        "build_s": statistics.median(wall for wall, _ in builds[store]),
        "build_cpu_s": statistics.median(cpu for _, cpu in builds[store]),
        "build_compacted_s": statistics.median(wall for wall, _ in builds[merged]),
        "build_compacted_cpu_s": statistics.median(cpu for _, cpu in builds[merged]),
        "page_bytes": page.stat().st_size,
        "first_interaction_s": statistics.median(first_interactions_s(page, repeats)),
        "limits": limits and dict(zip(("build_s", "page_bytes", "first_interaction_s"), limits, strict=True)),
    }
    return result


def main() -> None:
    """Measure, print, and write the JSON file if asked to."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--stores", type=Path, default=Path("scale-stores"), help="where the stores are made")
    parser.add_argument("--trials", type=int, nargs="+", default=list(LIMITS))
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--prepare", action="store_true", help="make the stores and measure nothing")
    parser.add_argument("--out", type=Path, help="JSON file for the figures")
    arguments = parser.parse_args()
    arguments.stores.mkdir(parents=True, exist_ok=True)
    if arguments.prepare:
        for trials in arguments.trials:
            prepare(trials, arguments.stores.absolute())
        return
    results = []
    for trials in arguments.trials:
        results.append(measure(trials, arguments.stores.absolute(), arguments.repeats))
        print(json.dumps(results[-1]), flush=True)
    largest = max(arguments.trials)
    queries = queries_s(arguments.stores / f"c{largest}")
    median = statistics.median(queries.values())
    answer = {
        "machine": machine(),
        "stores": results,
        "queries": {
            "epoch_rows": largest * EPOCHS,
            "median_s": median,
            "limit_s": QUERY_LIMIT_S,
            "each_s": queries,
        },
    }
    print(json.dumps(answer["queries"]), flush=True)
    if arguments.out:
        arguments.out.parent.mkdir(parents=True, exist_ok=True)
        known = json.loads(arguments.out.read_text()) if arguments.out.exists() else {}
        arguments.out.write_text(json.dumps(joined(known, answer), indent=1) + "\n")


def joined(known: dict[str, Any], new: dict[str, Any]) -> dict[str, Any]:
    """The new figures, and the known ones of other sizes; the queries are those of the larger store."""
    again = {store["trials"] for store in new["stores"]}
    stores = [store for store in known.get("stores", []) if store["trials"] not in again] + new["stores"]
    queries = [q["queries"] for q in (new, known) if q]
    return {
        **new,
        "stores": sorted(stores, key=lambda store: store["trials"]),
        "queries": max(queries, key=lambda q: q["epoch_rows"]),
    }


if __name__ == "__main__":
    main()

"""The page of `revstudy serve` on a store of many trials, while more come.

The store is served by the command line and opened in headless Chromium. Then rows are written, one after
another, as a finished trial writes them. What is measured:

* `seen_s`: from the moment that a row is in the store until the page shows the new count;
* `update_s`: how long the page was at work for one message: rows put in, filters and table brought up to
  date, figures near the window drawn; the largest message, that of all figures, is among them;
* `figures_s`: from the row until the message with the figures that know of it was taken.

The rows are copies of one that is there, under new identities; they stay in the store.
`benchmarks.report_scale --prepare` makes stores.

    python -m benchmarks.live_page --store scale-stores/s10000 --rows 5
"""

from __future__ import annotations

import argparse
import json
import os
import secrets
import shutil
import subprocess
import sys
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from playwright.sync_api import Page, sync_playwright

from analysis.store.store import open_store
from benchmarks.results_file import circumstances
from study.store.rows import TrialResult
from study.store.writer import write_result

PROGRAMS = ("chromium", "chromium-browser", "google-chrome")
NOTE = """() => {
    window.updates = [];
    setInterval(() => {
        const last = window.revstudyUpdate;
        if (last && last.count > window.updates.length) window.updates.push({...last, at: Date.now() / 1000});
    }, 5);
}"""


def main() -> int:
    """Measure, print, and write the JSON file if asked to."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--store", type=Path, required=True)
    parser.add_argument("--rows", type=int, default=5, help="how many are written")
    parser.add_argument("--out", type=Path, help="JSON file for the figures")
    arguments = parser.parse_args()
    command = [sys.executable, "-m", "study.cli", "serve", "--store", str(arguments.store), "--port", "0"]
    process = subprocess.Popen([*command, "--json"], stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        told = json.loads("".join(iter(process.stdout.readline, "}\n")) + "}")
        with sync_playwright() as playwright:
            program = os.environ.get("BROWSER_PATH") or next(filter(None, map(shutil.which, PROGRAMS)))
            browser = playwright.chromium.launch(
                executable_path=program, args=["--no-sandbox", "--disable-gpu"]
            )
            page = browser.new_page(viewport={"width": 1240, "height": 900})
            page.set_default_timeout(300_000)
            answer = measure(page, told["url"], arguments.store, arguments.rows)
    finally:
        process.terminate()
        process.wait(timeout=30)
    text = json.dumps({**circumstances(), "load_1_min": os.getloadavg()[0], **answer}, indent=2)
    print(text)
    if arguments.out is not None:
        arguments.out.write_text(text + "\n")
    return 0


def measure(page: Page, url: str, store: Path, rows: int) -> dict[str, Any]:
    """Write rows, and see how the page takes them."""
    row = next(r for r in open_store(store).rows("trials") if r["outcome"] == "ok")
    page.goto(url)
    page.wait_for_selector("html[data-drawn=true]")
    count = page.evaluate("Number(document.getElementById('count').textContent.replace(/\\D/g, ''))")
    page.evaluate(NOTE)
    found: dict[str, Any] = {"trials": count, "seen_s": [], "figures_s": []}
    for number in range(1, rows + 1):
        before = page.evaluate("window.updates.length")
        new = {**row, "trial_id": secrets.token_hex(8), "finished_at": datetime.now(UTC)}
        write_result(store, TrialResult(trial=new))
        written = time.time()
        page.wait_for_function(
            "n => document.getElementById('count').textContent.replace(/\\D/g, '') === String(n)",
            arg=count + number,
            polling=10,
        )
        found["seen_s"].append(time.time() - written)
        page.wait_for_function("n => window.updates.length >= n + 2", arg=before, polling=10)
        found["figures_s"].append(page.evaluate("window.updates.at(-1).at") - written)
    found["update_s"] = [update["ms"] / 1000 for update in page.evaluate("window.updates")]
    return found


if __name__ == "__main__":
    sys.exit(main())

"""The Chromium that opens reports in tests: finds one, or brings one.

``python -m tests.browser.chromium`` prints where it is. If there is none, it asks Playwright for its own and,
as root, the system's package manager. If neither has one it says in one line what to install.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from playwright.sync_api import sync_playwright

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
REMEDY = (
    "install Chromium or Google Chrome (Debian, Ubuntu: apt-get install chromium), or name it in BROWSER_PATH"
)


def find() -> str | None:
    """The path of a Chromium that starts: the one named in BROWSER_PATH, the system's, or Playwright's."""
    named = os.environ.get("BROWSER_PATH")
    for path in filter(None, [named, *map(shutil.which, NAMES)]):
        if _starts(path):
            return path
    with sync_playwright() as playwright:
        own = playwright.chromium.executable_path
    return own if _starts(own) else None


def bring() -> str | None:
    """A Chromium that starts, installed if need be and possible."""
    found = find()
    if found:
        return found
    commands = [[sys.executable, "-m", "playwright", "install", "chromium"]]
    if os.geteuid() == 0 and shutil.which("apt-get"):
        commands += [["apt-get", "update", "--quiet"], ["apt-get", "install", "--yes", "--quiet", "chromium"]]
    for command in commands:
        print(f"no Chromium here: {' '.join(command)}", file=sys.stderr)
        _done(command, timeout=600)
        found = find()
        if found:
            return found
    return None


def required() -> str:
    """A Chromium for a test, which is skipped without one; in continuous integration it fails."""
    found = find()
    if found is None:
        message = f"this test opens a browser, and there is none: {REMEDY}"
        (pytest.fail if os.environ.get("CI") else pytest.skip)(message)
    return found


def _starts(path: str) -> bool:
    """Tell whether a browser is there and finds its libraries."""
    return Path(path).exists() and _done([path, "--version"], timeout=60)


def _done(command: list[str], timeout: float) -> bool:
    """Run a command, silently, and tell whether it ended well."""
    try:
        return subprocess.run(command, capture_output=True, timeout=timeout, check=False).returncode == 0
    except (OSError, subprocess.TimeoutExpired):
        return False


def main() -> int:
    """Print the browser's path."""
    found = bring()
    if found is None:
        print(f"the tests that open a browser cannot run: {REMEDY}", file=sys.stderr)
        return 1 if os.environ.get("CI") else 0
    print(found)
    return 0


if __name__ == "__main__":
    sys.exit(main())

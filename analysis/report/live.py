"""Follows a store for pages that are open: finds out what is new, and tells each page what it lacks.

Rows, figures and parts of the page carry the version at which they last changed. A page names the version
that it holds, and is sent what changed since. So a page that was asleep, or lost its connection, catches up.
New rows are read and told at once; figures and texts, which take longer, follow.
"""

from __future__ import annotations

import asyncio
import contextlib
import secrets
import threading
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from analysis.errors import AnalysisError
from analysis.report.content import Content
from analysis.report.page import about, render_content
from analysis.report.payload import columns, json_for_html
from analysis.report.progress import Ask, Progress
from analysis.report.watch import Signature, signature_of
from analysis.store.growing import new_trials
from analysis.store.listing import Listing, list_files
from analysis.store.store import Store, open_store

InThread = Callable[[Callable[[], Any]], Awaitable[Any]]

PAUSE_S = 0.4
"""Between two looks at the store, while a page is open."""

ASK_S = 1.0
"""Between two questions how far the run is, while no row comes."""

REST = 2.0
"""After figures were drawn, so many times as long as that took nothing is drawn again."""

SILENCE_S = 15.0
"""A page that was told nothing for so long is sent an empty line, so that a lost connection is noticed."""


class Follower:
    """What is known of a store, and since which version.

    Args:
        path: The store.
        study: Only this study.
        progress: Answers how far the run is.
        memory_bytes: As in `analysis.store.store.open_store`.
        console: Address of the SQL console.
        in_thread: Runs what takes long in a thread.

    """

    def __init__(
        self,
        path: str | Path,
        study: str | None,
        *,
        progress: Ask | None,
        memory_bytes: int | None,
        console: str,
        in_thread: InThread,
    ):
        self._path, self._study, self._memory, self._console = path, study, memory_bytes, console
        self._ask = progress
        self._in_thread = in_thread
        self._generation = secrets.token_hex(4)
        self._version = 0
        self._store: Store | None = None
        self._listing: Listing | None = None
        self._seen: Signature | None = None
        self._numbers: dict[str, int] = {}
        self._rows: dict[int, int] = {}
        self._parts: dict[str, tuple[int, str]] = {}
        self._figures: dict[str, tuple[int, str]] = {}
        self._drawn: tuple[Store, Progress | None] | None = None
        self._content: Content | None = None
        self._page: tuple[int, str] | None = None
        self._about: dict[str, Any] = {}
        self._ask_at = 0.0
        self._looking = threading.RLock()
        self._changed = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._open_pages = 0

    def store(self) -> Store:
        """The store as its files are now."""
        with self._looking:
            self._look()
            assert self._store is not None
            return self._store

    def page(self) -> str:
        """The page as the store is now, which asks for what changes after that."""
        with self._looking:
            self._look()
            self._draw()
            assert self._content is not None
            if self._page is None or self._page[0] != self._version:
                follows = {"generation": self._generation, "version": self._version}
                self._page = self._version, render_content(self._content, follows=follows)
            return self._page[1]

    async def changes(self, generation: str, version: int) -> AsyncGenerator[tuple[int, str], None]:
        """Yields what a page lacks, each time something changed.

        Args:
            generation: Which follower it came from.
            version: What it holds.

        Yields:
            The new version and the changes as JSON; an empty text after some silence.

        """
        self._open_pages += 1
        if self._task is None or self._task.done():
            self._task = asyncio.create_task(self._follow())
        try:
            while generation == self._generation:
                changed = self._changed
                if self._version > version:
                    now, told = await self._in_thread(partial(self._since, version))
                    version = now
                    yield now, told
                    continue
                try:
                    await asyncio.wait_for(changed.wait(), SILENCE_S)
                except TimeoutError:
                    yield version, ""
            # the page is of another server, or trials were deleted: its rows have other numbers
            yield version, '{"reload":true}'
        finally:
            self._open_pages -= 1

    async def _follow(self) -> None:
        """Looks at the store for as long as a page is open; rows do not wait for figures."""
        await asyncio.gather(self._repeat(self._look, rest=0.5), self._repeat(self._draw, rest=REST))

    async def _repeat(self, work: Callable[[], object], rest: float) -> None:
        while self._open_pages:
            begun, before = time.monotonic(), self._version
            # A store may be unreadable for a moment. Who asks for the page is told of a lasting fault.
            with contextlib.suppress(AnalysisError):
                await self._in_thread(work)
            if self._version > before:
                self._wake()
            await asyncio.sleep(max(PAUSE_S, rest * (time.monotonic() - begun)))

    def _wake(self) -> None:
        changed, self._changed = self._changed, asyncio.Event()
        changed.set()

    def _look(self) -> None:
        """Reads the rows that came, and gives them numbers."""
        with self._looking:
            listing = list_files(self._path)
            seen = signature_of(listing)
            if self._store is not None and seen == self._seen:
                return
            before = self._store
            if before is None or self._listing is None:
                store, came = open_store(self._path, self._study, memory_bytes=self._memory), None
                store.read_ahead("trials", "blocks", "epochs")
            else:
                store, came = before.grown(listing), new_trials(self._listing, listing)
            trials = dict.fromkeys(store.table("trials")["trial_id"].to_pylist())
            if came is None:  # files were merged, which changes few rows or none
                old = {} if before is None else {row["trial_id"]: row for row in before.rows("trials")}
                came = {row["trial_id"] for row in store.rows("trials") if old.get(row["trial_id"]) != row}
            if not self._numbers.keys() <= trials.keys():  # trials were deleted: their numbers serve no more
                self._generation, self._numbers, self._rows = secrets.token_hex(4), {}, {}
            self._store, self._listing, self._seen = store, listing, seen
            new = [trial for trial in trials if trial not in self._numbers]
            changed = {*new, *(came & trials.keys())}
            if not changed:
                return
            for trial in new:
                self._numbers[trial] = len(self._numbers)
            self._version += 1
            self._rows.update((self._numbers[trial], self._version) for trial in changed)

    def _draw(self) -> bool:
        """Draws the figures and writes the texts; tells whether there was a reason to."""
        with self._looking:
            store = self._store
            assert store is not None
        progress = self._progress(store)
        if self._drawn is not None and self._drawn[0] is store and self._drawn[1] == progress:
            return False
        content = Content(store, dict(self._numbers), progress, console=self._console, live=True)
        if self._drawn is not None and self._drawn[0] is store and self._content is not None:
            content = self._content.told(progress)
        figures = {name: json_for_html(figure) for name, figure in content.figures.items()}
        parts = content.parts()
        with self._looking:
            self._content, self._drawn = content, (store, progress)
            self._about = about(content.rows)
            for known, now in ((self._figures, figures), (self._parts, parts)):
                different = {name: text for name, text in now.items() if known.get(name, (0, ""))[1] != text}
                gone = {name: "null" for name in known if name not in now and known[name][1] != "null"}
                if different or gone:
                    self._version += 1
                    known.update({n: (self._version, text) for n, text in {**different, **gone}.items()})
        return True

    def _progress(self, store: Store) -> Progress | None:
        """How far the run is; asked anew where rows came, else once in a while."""
        now = time.monotonic()
        same = self._drawn is not None and self._drawn[0] is store
        if self._ask is None or (same and now < self._ask_at):
            return self._drawn[1] if self._drawn is not None else None
        found = self._ask(store)
        self._ask_at = time.monotonic() + max(ASK_S, 10 * (time.monotonic() - now))
        return found

    def _since(self, version: int) -> tuple[int, str]:
        """What changed since a version, as JSON."""
        with self._looking:
            assert self._store is not None
            changed = [trial for trial, number in self._numbers.items() if self._rows[number] > version]
            rows = self._store.rows_of("trials", changed) if changed else []
            rows.sort(key=lambda row: self._numbers[row["trial_id"]])
            figures = {name: text for name, (at, text) in self._figures.items() if at > version}
            parts = {name: text for name, (at, text) in self._parts.items() if at > version}
            told: dict[str, Any] = {"n": len(self._numbers), "at": time.time()}
            if rows:
                told["rows"] = [self._numbers[row["trial_id"]] for row in rows]
                told["columns"] = _plain_columns(columns(rows))
            if self._about:
                told["about"] = self._about
            if parts:
                told["parts"] = parts
            text = json_for_html(told)
            if figures:
                drawn = ",".join(f"{json_for_html(name)}:{figure}" for name, figure in figures.items())
                text = text[:-1] + f',"figures":{{{drawn}}}}}'
            return self._version, text


def _plain_columns(found: Sequence[dict[str, Any]]) -> dict[str, list[Any]]:
    """The values of each column, one for each row."""
    return {
        column["name"]: column["values"]
        if "values" in column
        else [column["words"][code] for code in column["codes"]]
        for column in found
    }

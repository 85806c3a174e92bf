"""Serves the report of a store to this machine's browser, beside a read-only SQL console.

It listens on the loopback address alone, answers requests that name this machine as their host alone (so
that no web page can reach it by a name that resolves here), and takes queries as JSON alone, which a page of
another origin may not send without being asked first. The statements pass `analysis.store.store.Store.sql`.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import jinja2
from aiohttp import web

from analysis.errors import AnalysisError, QueryError
from analysis.formats import cells
from analysis.queries import NAMED, run_query
from analysis.report.page import render_report
from analysis.report.payload import hashed, inline
from analysis.report.watch import Signature, signature
from analysis.schema import TABLES
from analysis.store.store import Store, open_store

HOST = "127.0.0.1"
MOST_ROWS = 1_000
TIME_LIMIT_S = 30.0
_TEMPLATES = Path(__file__).parent / "templates"
_LARGEST_QUERY = 100_000


class Site:
    """The pages of one store. A request after the store changed gets the new rows."""

    def __init__(self, store: str | Path, study: str | None = None, *, time_limit_s: float = TIME_LIMIT_S):
        self._path = store
        self._study = study
        self._time_limit = time_limit_s
        self._lock = asyncio.Lock()
        self._seen: Signature | None = None
        self._store: Store | None = None
        self._report: str | None = None

    def application(self) -> web.Application:
        """The web application."""
        app = web.Application(middlewares=[_this_machine_only], client_max_size=2 * _LARGEST_QUERY)
        app.router.add_get("/", self.report)
        app.router.add_get("/sql", self.console)
        app.router.add_post("/query", self.query)
        return app

    async def report(self, request: web.Request) -> web.Response:
        """The report, built anew where the store changed."""
        async with self._lock:
            try:
                page = await asyncio.to_thread(self._built)
            except AnalysisError as error:
                return web.Response(status=500, text=str(error))
        return web.Response(text=page, content_type="text/html", headers=_HEADERS)

    async def console(self, request: web.Request) -> web.Response:
        """The page that asks for SQL."""
        return web.Response(text=console_page(), content_type="text/html", headers=_HEADERS)

    async def query(self, request: web.Request) -> web.Response:
        """Answers ``{"sql": ...}`` with columns and rows as text, or with an error and its reason."""
        if request.content_type != "application/json":
            return web.json_response({"error": "send the query as application/json"}, status=415)
        try:
            sent = await request.json()
        except json.JSONDecodeError:
            return web.json_response({"error": "the request is not JSON"}, status=400)
        text = sent.get("sql") if isinstance(sent, dict) else None
        if not isinstance(text, str) or len(text) > _LARGEST_QUERY:
            return web.json_response({"error": "send one statement as a text under 'sql'"}, status=400)
        async with self._lock:
            try:
                store = await asyncio.to_thread(self._opened)
                task = asyncio.create_task(asyncio.to_thread(run_query, store, text, limit=MOST_ROWS + 1))
                done, _ = await asyncio.wait({task}, timeout=self._time_limit)
                if not done:
                    store.interrupt()
                answer = await task
            except QueryError as error:
                reason = str(error)
                if "INTERRUPT" in reason:
                    reason = f"the query took longer than {self._time_limit:g} s and was ended"
                return web.json_response({"error": reason}, status=400)
            except AnalysisError as error:
                return web.json_response({"error": str(error)}, status=500)
        shown = answer.slice(0, MOST_ROWS)
        return web.json_response(
            {
                "columns": shown.column_names,
                "rows": cells(shown),
                "more": answer.num_rows > MOST_ROWS,
            }
        )

    def _opened(self) -> Store:
        now = signature(self._path)
        if self._store is None or now != self._seen:
            self._store, self._seen, self._report = open_store(self._path, self._study), now, None
        return self._store

    def _built(self) -> str:
        store = self._opened()
        if self._report is None:
            self._report = render_report(store, refresh_s=5.0, console="/sql")
        return self._report


_HEADERS = {
    "Cache-Control": "no-store",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
}


@web.middleware
async def _this_machine_only(
    request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
) -> web.StreamResponse:
    name = request.host.rpartition(":")[0] or request.host
    if name not in (HOST, "localhost"):
        return web.Response(status=403, text="This server answers to 127.0.0.1 and localhost alone.")
    origin = request.headers.get("Origin")
    if origin is not None and origin != f"http://{request.host}":
        return web.Response(status=403, text="This server answers its own pages alone.")
    return await handler(request)


def console_page() -> str:
    """The SQL console as HTML."""
    script, style = inline("console.js"), inline("report.css")
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(_TEMPLATES), autoescape=True, undefined=jinja2.StrictUndefined
    )
    return environment.get_template("console.html.j2").render(
        style=style,
        script=script,
        hash=hashed(script),
        named=list(NAMED.values()),
        tables=list(TABLES.values()),
        most_rows=MOST_ROWS,
    )


def serve(
    store: str | Path,
    study: str | None = None,
    *,
    port: int = 8321,
    on_ready: Callable[[str], Any] = lambda url: None,
) -> None:
    """Serves until interrupted.

    Args:
        store: the store.
        study: only this study.
        port: a port of the loopback address; 0 takes a free one.
        on_ready: told the address once it answers.

    Raises:
        AnalysisError: the store cannot be read, or the port is taken.

    """
    open_store(store, study)
    asyncio.run(_serve(Site(store, study), port, on_ready))


async def _serve(site: Site, port: int, on_ready: Callable[[str], Any]) -> None:
    runner = web.AppRunner(site.application(), access_log=None)
    await runner.setup()
    try:
        try:
            await web.TCPSite(runner, HOST, port).start()
        except OSError as error:
            raise AnalysisError(
                f"cannot listen on {HOST}:{port}: {error.strerror or error}; choose another --port, or 0"
            ) from None
        on_ready(f"http://{HOST}:{runner.addresses[0][1]}/")
        await asyncio.Event().wait()
    finally:
        await runner.cleanup()

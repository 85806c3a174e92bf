"""Serves the report of a store to this machine's browser, beside a read-only SQL console.

An open report follows the store by itself, see `analysis.report.live`.

It listens on the loopback address alone; `analysis.report.access` says whom it answers. It takes queries as
JSON alone, which a page of another origin may not send without being asked first. Each query runs in a thread
of its own and within limits of time, memory and size; it ends when the browser that asked has gone.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import threading
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any, TypeVar

import jinja2
from aiohttp import web
from aiohttp.typedefs import Middleware
from markupsafe import Markup
from plotly.offline import get_plotlyjs

from analysis.errors import AnalysisError, QueryError
from analysis.formats import cells
from analysis.named_queries import NAMED
from analysis.queries import run_query
from analysis.report.access import HEADERS, HOST, Handler, new_token, this_machine_only, token_only
from analysis.report.live import Follower
from analysis.report.payload import hashed, inline, json_for_html
from analysis.report.progress import Ask
from analysis.schema import TABLES
from analysis.store.statement import Stop
from analysis.store.store import open_store

T = TypeVar("T")

MOST_ROWS = 1_000
MOST_ANSWER_BYTES = 20_000_000
MOST_QUERIES = 4
"""Queries that run at a time; others wait for their turn."""
TIME_LIMIT_S = 30.0
_GRACE_S = 1.0
"""Seconds that a query has to end once it is told to; an answer is sent then, whatever the query does."""
_TEMPLATES = Path(__file__).parent / "templates"
_LARGEST_QUERY = 100_000
_SQL = (
    "select from where group order by having limit join on using as and or not in is null between like ilike "
    "distinct case when then else end with union all asc desc count avg min max sum median quantile_cont "
    "stddev corr round any_value list describe summarize"
)


class BadRequestError(Exception):
    """A request that breaks a rule, told by the text."""

    def __init__(self, status: int, rule: str):
        self.status = status
        super().__init__(rule)


class Site:
    """The pages of one store. A request after the store changed gets the new rows.

    Args:
        store: the store.
        study: only this study.
        token: what a request must know; None lets in every user of this machine.
        time_limit_s: the most seconds that a query may take.
        memory_bytes: the most memory that all queries may take together, as in `open_store`.
        progress: answers how far the run is.

    """

    def __init__(
        self,
        store: str | Path,
        study: str | None = None,
        *,
        token: str | None,
        time_limit_s: float = TIME_LIMIT_S,
        memory_bytes: int | None = None,
        progress: Ask | None = None,
    ):
        self._token = token
        self._time_limit = time_limit_s
        self._slots = asyncio.Semaphore(MOST_QUERIES)
        self._running: set[Stop] = set()
        self._building: asyncio.Task[str] | None = None
        self._follower = Follower(
            store,
            study,
            progress=progress,
            memory_bytes=memory_bytes,
            console="/sql",
            in_thread=_in_thread,
        )

    def runner(self) -> web.AppRunner:
        """What serves the site; a handler is cancelled when the browser that asked has gone."""
        middlewares: list[Middleware] = [_in_one_line, this_machine_only]
        if self._token is not None:
            middlewares.append(token_only(self._token))
        app = web.Application(middlewares=middlewares, client_max_size=2 * _LARGEST_QUERY)
        app.router.add_get("/", self.report)
        app.router.add_get("/changes", self.changes)
        app.router.add_get("/sql", self.console)
        app.router.add_get("/plotly.js", self.library)
        app.router.add_post("/query", self.query)
        app.on_shutdown.append(self._end_queries)
        return web.AppRunner(app, access_log=None, handler_cancellation=True, shutdown_timeout=_GRACE_S)

    async def report(self, request: web.Request) -> web.Response:
        """The report, built anew where the store changed; who asks while it is built waits for the same."""
        if self._building is None or self._building.done():
            self._building = asyncio.create_task(_in_thread(self._follower.page))
        page = await asyncio.shield(self._building)
        return web.Response(text=page, content_type="text/html", headers=HEADERS)

    async def changes(self, request: web.Request) -> web.StreamResponse:
        """Server-sent events: what an open page lacks, for as long as it is open."""
        version = request.headers.get("Last-Event-ID") or request.query.get("version", "")
        if not version.isdecimal():
            raise BadRequestError(400, "ask for changes with ?generation=…&version=N, as the page does")
        stream = web.StreamResponse(headers={**HEADERS, "Content-Type": "text/event-stream"})
        await stream.prepare(request)
        changes = self._follower.changes(request.query.get("generation", ""), int(version))
        with contextlib.suppress(ConnectionError):
            async with contextlib.aclosing(changes):
                async for number, told in changes:
                    sent = f"id: {number}\ndata: {told}\n\n" if told else ": nothing new\n\n"
                    await stream.write(sent.encode())
        return stream

    async def console(self, request: web.Request) -> web.Response:
        """The page that asks for SQL."""
        return web.Response(text=console_page(), content_type="text/html", headers=HEADERS)

    async def library(self, request: web.Request) -> web.Response:
        """The library that the console draws charts with; the report holds it itself."""
        headers = {**HEADERS, "Cache-Control": "private, max-age=86400"}
        return web.Response(text=get_plotlyjs(), content_type="text/javascript", headers=headers)

    async def query(self, request: web.Request) -> web.Response:
        """Answers ``{"sql": ...}`` with columns and rows as text, or with an error and its reason."""
        text = await _statement(request)
        stop = Stop(self._time_limit)
        async with self._turn(stop) as begin:
            answer = begin(lambda: self._answer(text, stop))
            done, _ = await asyncio.wait({answer}, timeout=self._time_limit + _GRACE_S)
            if not done:
                raise QueryError(f"the query took longer than {self._time_limit:g} s and was told to end")
            return web.json_response(answer.result(), headers=HEADERS)

    @contextlib.asynccontextmanager
    async def _turn(self, stop: Stop) -> AsyncIterator[Callable[[Callable[[], T]], asyncio.Future[T]]]:
        """A turn to run a query. It is over when its thread has ended, which may be after its request."""
        await self._slots.acquire()
        self._running.add(stop)
        threads: list[asyncio.Future[Any]] = []

        def over(thread: asyncio.Future[Any] | None) -> None:
            if thread is not None and not thread.cancelled():
                thread.exception()  # nobody else may be there to ask for it
            self._running.discard(stop)
            self._slots.release()

        def begin(work: Callable[[], T]) -> asyncio.Future[T]:
            thread = asyncio.ensure_future(_in_thread(work))
            thread.add_done_callback(over)
            threads.append(thread)
            return thread

        try:
            yield begin
        finally:
            stop.end("the browser that asked has gone")
            if not threads:
                over(None)

    def _answer(self, text: str, stop: Stop) -> dict[str, Any]:
        answer = run_query(
            self._follower.store(), text, limit=MOST_ROWS + 1, most_bytes=MOST_ANSWER_BYTES, stop=stop
        )
        shown = answer.slice(0, MOST_ROWS)
        try:
            rows = cells(shown)
        except Exception as error:  # Python has no value for some of DuckDB's
            raise QueryError(
                f"the answer cannot be shown as text ({error}): cast it, as in x::varchar"
            ) from None
        return {"columns": shown.column_names, "rows": rows, "more": answer.num_rows > MOST_ROWS}

    async def _end_queries(self, app: web.Application) -> None:
        for stop in tuple(self._running):
            stop.end("the server was stopped")


async def _in_thread(work: Callable[[], T]) -> T:
    """As `asyncio.to_thread`, in a thread that does not keep the program from ending."""
    loop = asyncio.get_running_loop()
    answer: asyncio.Future[T] = loop.create_future()

    def tell(how: Callable[[Any], None], what: Any) -> None:
        if not answer.done():
            how(what)

    def run() -> None:
        how: Callable[[Any], None]
        try:
            how, what = answer.set_result, work()
        except Exception as error:
            how, what = answer.set_exception, error  # type: ignore[assignment]
        with contextlib.suppress(RuntimeError):  # the loop has ended, and nobody waits any more
            loop.call_soon_threadsafe(tell, how, what)

    threading.Thread(target=run, name="serve", daemon=True).start()
    return await answer


async def _statement(request: web.Request) -> str:
    """Reads the statement that a request holds.

    Returns:
        The statement; nothing is known of it but that it is text.

    Raises:
        BadRequestError: it is not what `Site.query` asks for.

    """
    if request.content_type != "application/json":
        raise BadRequestError(415, "send the query as application/json")
    try:
        body = await request.read()
    except web.HTTPRequestEntityTooLarge:
        raise BadRequestError(413, f"a request may have {2 * _LARGEST_QUERY:,} bytes at most") from None
    except web.RequestPayloadError as error:
        raise BadRequestError(400, f"the request cannot be read: {error}") from None
    try:
        sent = json.loads(body.decode("utf-8"))
    except UnicodeDecodeError:
        raise BadRequestError(400, "the request is not text in UTF-8") from None
    except (ValueError, RecursionError):
        raise BadRequestError(400, "the request is not JSON that can be read") from None
    if not isinstance(sent, dict) or not isinstance(sent.get("sql"), str):
        raise BadRequestError(400, "send an object with one statement as a text under 'sql'")
    text: str = sent["sql"]
    if len(text) > _LARGEST_QUERY:
        raise BadRequestError(413, f"a statement may have {_LARGEST_QUERY:,} characters at most")
    return text


@web.middleware
async def _in_one_line(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Answers with the reason, as JSON, what would else be a traceback here and a riddle there."""
    try:
        return await handler(request)
    except web.HTTPException:
        raise
    except BadRequestError as error:
        status, reason = error.status, str(error)
    except QueryError as error:
        status, reason = 400, str(error)
    except AnalysisError as error:
        status, reason = 503, str(error)
    except ConnectionError:
        status, reason = 400, "the connection was closed"
    return web.json_response({"error": reason}, status=status, headers=HEADERS)


def _words() -> list[dict[str, str]]:
    """What the console completes: tables, columns, named queries, and words of SQL."""
    found = {table.name: "table" for table in TABLES.values()} | dict.fromkeys(NAMED, "named query")
    for table in TABLES.values():
        for column in table.columns:
            found.setdefault(column.name, f"{table.name}{f', {column.unit}' if column.unit else ''}")
    for word in _SQL.split():
        found.setdefault(word, "SQL")
    return [{"name": name, "what": what} for name, what in found.items()]


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
        known=Markup(json_for_html(_words())),
        tables=list(TABLES.values()),
        most_rows=MOST_ROWS,
    )


def serve(
    store: str | Path,
    study: str | None = None,
    *,
    port: int = 8321,
    with_token: bool = True,
    time_limit_s: float = TIME_LIMIT_S,
    memory_bytes: int | None = None,
    progress: Ask | None = None,
    on_ready: Callable[[str], Any] = lambda url: None,
) -> None:
    """Serves until interrupted.

    Args:
        store: the store.
        study: only this study.
        port: a port of the loopback address; 0 takes a free one.
        with_token: answer those alone who know the token, which is drawn anew each time.
        time_limit_s: the most seconds that a query may take.
        memory_bytes: the most memory that all queries may take together, as in `open_store`.
        progress: answers how far the run is.
        on_ready: told the address, with the token as its query, once the server answers.

    Raises:
        AnalysisError: the store cannot be read, or the port is taken.

    """
    open_store(store, study)
    token = new_token() if with_token else None
    site = Site(
        store, study, token=token, time_limit_s=time_limit_s, memory_bytes=memory_bytes, progress=progress
    )
    asyncio.run(_serve(site, port, lambda url: on_ready(url if token is None else f"{url}?token={token}")))


async def _serve(site: Site, port: int, on_ready: Callable[[str], Any]) -> None:
    runner = site.runner()
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

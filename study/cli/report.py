"""The verbs that make pages and images of a store: report, serve, figures."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from study.cli import interrupts
from study.cli.imports import leave_out_pandas
from study.cli.options import STORE, JsonOption, MemoryOption, OfStudy, StoreOption, bytes_of, study_name
from study.cli.output import print_json, say, tell
from study.cli.run import MANY_FILES


def register(app: typer.Typer) -> None:
    """Add the verbs to the program."""
    for verb, example in (
        (report, "`revstudy report quickstart -o report.html`, `revstudy report quickstart --watch`"),
        (serve, "`revstudy serve quickstart --port 8321`"),
        (figures, "`revstudy figures quickstart --format svg -o figures`"),
    ):
        app.command(epilog=f"Example: {example}")(verb)


def report(
    study: OfStudy = None,
    store: StoreOption = STORE,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", metavar="FILE", help="Default: NAME.html in the store.")
    ] = None,
    watch: Annotated[
        bool, typer.Option("--watch", help="Write it again whenever trials end, until interrupted.")
    ] = False,
    every: Annotated[
        float, typer.Option(min=0.2, metavar="SECONDS", help="With --watch: time between two looks.")
    ] = 2.0,
    as_json: JsonOption = False,
) -> None:
    """Write one offline HTML file with every figure and trial of a study."""
    leave_out_pandas()
    name = study_name(study)
    target = output or Path(store) / f"{name or 'report'}.html"

    def announce(path: Path) -> None:
        if as_json:
            print_json({"report": str(path), "study": name, "bytes": path.stat().st_size})
        else:
            say(f"Report: {path}")

    if not watch:
        from analysis.report.page import write_report

        announce(write_report(store, name, target))
        _advise(store)
        return
    from analysis.report.watch import watch_report
    from study.cli.page_progress import progress_of

    def written(path: Path, seconds: float) -> None:
        announce(path)
        sys.stdout.flush()
        tell(f"written in {seconds:.1f} s; watching {store} (Ctrl+C ends it)")

    try:
        with interrupts.own_time():
            watch_report(store, name, target, every=every, on_write=written, progress=progress_of)
    except KeyboardInterrupt:
        tell("stopped; the report stays")


def serve(
    study: OfStudy = None,
    store: StoreOption = STORE,
    port: Annotated[
        int, typer.Option(min=0, max=65535, help="Port on 127.0.0.1; 0 takes a free one.")
    ] = 8321,
    token: Annotated[
        bool,
        typer.Option(
            help="Answer those alone who open the address with its token; without it every user of this "
            "machine can read the store."
        ),
    ] = True,
    timeout: Annotated[
        float, typer.Option("--timeout", min=0.1, metavar="SECONDS", help="The most that a query may take.")
    ] = 30.0,
    memory_gb: MemoryOption = None,
    as_json: JsonOption = False,
) -> None:
    """Serve the report and a read-only SQL console to this machine's browser, until interrupted.

    An open report follows a running study by itself.
    """
    from analysis.report.serve import serve as serve_store
    from study.cli.page_progress import progress_of

    def ready(url: str) -> None:
        console = url.replace("/?", "/sql?") if token else f"{url}sql"
        if as_json:
            print_json({"url": url, "console": console})
        else:
            say(f"Report: {url}   SQL: {console}   (Ctrl+C ends it)")
        sys.stdout.flush()

    try:
        with interrupts.own_time():
            serve_store(
                store,
                study_name(study),
                port=port,
                with_token=token,
                time_limit_s=timeout,
                memory_bytes=bytes_of(memory_gb),
                progress=progress_of,
                on_ready=ready,
            )
    except KeyboardInterrupt:
        tell("stopped")
        interrupts.leave(0)


def figures(
    study: OfStudy = None,
    store: StoreOption = STORE,
    output: Annotated[
        Path, typer.Option("--output", "-o", metavar="DIR", help="Folder for the images.")
    ] = Path("figures"),
    format: Annotated[str, typer.Option("--format", metavar="FORMAT", help="png, svg or pdf.")] = "png",
    figure: Annotated[
        list[str] | None, typer.Option("--figure", metavar="NAME", help="Only this one; may be repeated.")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Write the report's figures as images. Needs kaleido and Chrome or Chromium."""
    from analysis.report.export import export_figures
    from analysis.store.store import open_store

    opened = open_store(store, study_name(study))
    paths = export_figures(opened, output, format=format, names=figure or ())
    if as_json:
        print_json({"figures": [str(path) for path in paths]})
        return
    for path in paths:
        say(str(path))
    if not paths:
        say("No figure has anything to show yet.")


def _advise(store: str) -> None:
    """Say so where merging the files would make reading faster."""
    from analysis.store.listing import list_files

    files = sum(map(len, list_files(store).files.values()))
    if files > MANY_FILES:
        tell(f"{files} files were read; `revstudy compact --store {store}` makes this several times as fast")

"""The verbs that read a store (query, describe, report, serve, figures, compare, claims); compact, rerun."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from study.cli import interrupts
from study.cli.options import STORE, JsonOption, StoreOption, study_name
from study.cli.output import print_json, print_rows, say, tell

MANY_FILES = 2_000
"""Files from which on a store reads so much faster merged that it is worth a minute."""
WHOLE = 1_000
"""Characters of a cell where the words are the answer."""
FORMAT_HELP = "table, json, csv, parquet, markdown or latex."
FormatOption = Annotated[str, typer.Option("--format", metavar="FORMAT", help=FORMAT_HELP)]
OfStudy = Annotated[
    str | None, typer.Argument(metavar="[STUDY]", help="A study of the store; without it, all.")
]


MemoryOption = Annotated[
    float | None,
    typer.Option(
        "--memory-gb",
        min=0.001,
        metavar="GB",
        help="Memory that queries may take together, and the most that an answer may hold, beside the rows "
        "of the store. Default: 4, or half of what DuckDB would take of this machine if that is less.",
    ),
]


def register(app: typer.Typer) -> None:
    """Add the verbs to the program."""
    sql = "select model, max(accuracy_test) from trials group by all"
    for verb, example in (
        (query, f'`revstudy query "{sql}"`, `revstudy query pareto --format latex`'),
        (describe, "`revstudy describe epochs`"),
        (report, "`revstudy report quickstart -o report.html`, `revstudy report quickstart --watch`"),
        (serve, "`revstudy serve quickstart --port 8321`"),
        (figures, "`revstudy figures quickstart --format svg -o figures`"),
        (compare, "`revstudy compare quickstart precision`, `revstudy compare old-results new-results`"),
        (claims, "`revstudy claims`, `revstudy claims --json`"),
        (compact, "`revstudy compact --store results`"),
        (rerun, "`revstudy rerun 0123456789abcdef --store results`"),
    ):
        app.command(epilog=f"Example: {example}")(verb)


def query(
    sql: Annotated[
        str | None,
        typer.Argument(help="One SELECT over the views trials, epochs and blocks, or a named query."),
    ] = None,
    store: StoreOption = STORE,
    format: FormatOption = "table",
    listed: Annotated[bool, typer.Option("--list", help="List the named queries.")] = False,
    timeout: Annotated[
        float | None,
        typer.Option(
            "--timeout",
            min=0.1,
            metavar="SECONDS",
            help="Give up after so long, with exit code 124. Without it there is no limit.",
        ),
    ] = None,
    memory_gb: MemoryOption = None,
    as_json: JsonOption = False,
) -> None:
    """Answer SQL over the store, read-only. Without a query, list the named queries."""
    from analysis.queries import list_queries, run_query
    from analysis.store.store import open_store

    if sql is None or listed:
        _write(list_queries(), format, as_json, widest=WHOLE)
        return
    with interrupts.time_limit(timeout):
        answer = run_query(open_store(store, memory_bytes=_bytes_of(memory_gb)), sql)
    _write(answer, format, as_json)


def describe(
    table: Annotated[str | None, typer.Argument(help="trials, epochs or blocks; without it, all.")] = None,
    format: FormatOption = "table",
    as_json: JsonOption = False,
) -> None:
    """Describe every table and column of a store: type, unit and meaning."""
    from analysis.queries import describe as columns_of

    _write(columns_of(table), format, as_json, widest=WHOLE)


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

    def written(path: Path, seconds: float) -> None:
        announce(path)
        sys.stdout.flush()
        tell(f"written in {seconds:.1f} s; watching {store} (Ctrl+C ends it)")

    try:
        with interrupts.own_time():
            watch_report(store, name, target, every=every, on_write=written)
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
    """Serve the report and a read-only SQL console to this machine's browser, until interrupted."""
    from analysis.report.serve import serve as serve_store

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
                memory_bytes=_bytes_of(memory_gb),
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


def compare(
    a: Annotated[str, typer.Argument(metavar="A", help="A study of the store, or the folder of a store.")],
    b: Annotated[str, typer.Argument(metavar="B", help="What to compare it with.")],
    store: StoreOption = STORE,
    as_json: JsonOption = False,
) -> None:
    """Compare two studies or two stores: what changed, and paired differences with intervals."""
    from analysis.answers.compare import compare as compare_rows
    from analysis.answers.compare import open_side
    from analysis.answers.compare_text import comparison_text

    (name_a, rows_a), (name_b, rows_b) = open_side(a, store), open_side(b, store)
    result = compare_rows(rows_a, rows_b, names=(name_a, name_b))
    print_json(result.to_dict()) if as_json else say(comparison_text(result))


def claims(
    study: OfStudy = None,
    store: StoreOption = STORE,
    as_json: JsonOption = False,
) -> None:
    """Judge the claims of the RevNet paper by the rows of the store."""
    from analysis.claims.judge import claims_text, counts, judge
    from analysis.store.store import open_store

    verdicts = judge(open_store(store, study_name(study)))
    if as_json:
        print_json({"claims": [verdict.to_dict() for verdict in verdicts], "counts": counts(verdicts)})
    else:
        say(claims_text(verdicts))


def compact(
    study: OfStudy = None,
    store: StoreOption = STORE,
    as_json: JsonOption = False,
) -> None:
    """Merge the files of single trials into one per table, so that a large store reads fast.

    It may run while trials do, and may be cut off at any moment: no row is lost or read twice.
    """
    from analysis.store.compact import compact as merge

    def progress(step: str) -> None:
        if not step.startswith("delete "):
            tell(step)

    done = merge(store, study_name(study), progress=progress)
    rows = [
        {
            "study": d.study,
            "table": d.table,
            "files": d.files,
            "rows": d.rows,
            "bytes_before": d.bytes_before,
            "bytes_after": d.bytes_after,
        }
        for d in done
    ]
    if as_json:
        print_json({"store": store, "merged": rows})
    elif rows:
        print_rows(rows)
    else:
        say("Nothing to merge: no table of a study has more than one file.")


def merge_many(store: str, study: str) -> None:
    """Merge the files of a study that has very many, as `compact` does, or say what keeps it from that.

    A run that still trains on the store looks for what others have trained by the names of files.
    """
    from analysis.errors import AnalysisError
    from analysis.store.compact import compact as merge
    from analysis.store.listing import list_files
    from study.store.leases import read_leases

    folder = f"/study={study}/"
    files = sum(folder in path for paths in list_files(store).files.values() for path in paths)
    if files <= MANY_FILES:
        return
    if read_leases(store):
        tell(f"{files:,} files; another run is training on this store, `revstudy compact` merges them later")
        return
    tell(f"merging {files:,} files, so that reports and queries read them several times as fast")
    try:
        merge(store, study)
    except AnalysisError as error:
        tell(f"they stay as they are: {error}")


def rerun(
    trial: Annotated[str, typer.Argument(metavar="TRIAL", help="A trial's id, or the start of it.")],
    store: StoreOption = STORE,
    as_json: JsonOption = False,
) -> None:
    """Train one trial again from its row, and compare the results. Nothing is written."""
    from study.rerun import COMPARED, find_trial
    from study.rerun import rerun as train_again

    found = find_trial(store, trial)
    tell(f"training trial {found.trial_id} of {found.study} again")
    result = train_again(store, found)
    if as_json:
        print_json(
            {"trial_id": found.trial_id, "same": result.same, "recorded": result.recorded, "now": result.now}
        )
    else:
        print_rows(
            [{"": n, "recorded": str(result.recorded[n]), "now": str(result.now[n])} for n in COMPARED]
        )
        say("Accuracies and losses are the same to the last bit." if result.same else "The results differ.")


def _bytes_of(gigabytes: float | None) -> int | None:
    return None if gigabytes is None else round(gigabytes * 1e9)


def _advise(store: str) -> None:
    """Say so where merging the files would make reading faster."""
    from analysis.store.listing import list_files

    files = sum(map(len, list_files(store).files.values()))
    if files > MANY_FILES:
        tell(f"{files} files were read; `revstudy compact --store {store}` makes this several times as fast")


def _write(table: object, format: str, as_json: bool, *, widest: int = 60) -> None:
    from analysis.formats import render

    answer = render(table, "json" if as_json else format, widest=widest)
    if isinstance(answer, bytes):
        sys.stdout.buffer.write(answer)
    else:
        say(answer.removesuffix("\n"))

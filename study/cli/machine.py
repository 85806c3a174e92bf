"""The verbs that say what is at hand here: models, datasets, doctor."""

from __future__ import annotations

from textwrap import fill
from typing import TYPE_CHECKING, Annotated, Any

import typer

from study.cli.options import STORE, JsonOption, StoreOption
from study.cli.output import print_json, print_rows, say

if TYPE_CHECKING:
    from study.cluster.survey import Node


def register(app: typer.Typer) -> None:
    """Add the verbs to the program."""
    for verb, example in (
        (models, "`revstudy models 'revnet*'`"),
        (datasets, "`revstudy datasets`"),
        (doctor, "`revstudy doctor --store results`, `revstudy doctor --address auto --store /mnt/results`"),
    ):
        app.command(epilog=f"Example: {example}")(verb)


def models(
    pattern: Annotated[str, typer.Argument(help="A shell pattern of names.")] = "*",
    as_json: JsonOption = False,
) -> None:
    """List the networks with their depth and parameters."""
    from study.catalog import model_rows

    rows = model_rows(pattern)
    print_json(rows) if as_json else print_rows(rows)


def datasets(as_json: JsonOption = False) -> None:
    """List the data sets, which of them are at hand, and how to get the others."""
    from study.catalog import dataset_rows

    rows = dataset_rows()
    if as_json:
        print_json(rows)
        return
    print_rows([{"data": row["data"], "at hand": row["at_hand"], "what": row["what"]} for row in rows])
    for row in rows:
        if row["to_get"]:
            say(fill(f"To get {row['data']}: {row['to_get']}.", 100, break_long_words=False))


def doctor(
    store: StoreOption = STORE,
    address: Annotated[
        str | None,
        typer.Option(
            "--address",
            metavar="ADDRESS",
            help="Also look at every machine of a running Ray cluster: auto, or host:port.",
        ),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Check whether this machine is ready: versions, one training step, disk, memory, store.

    With `--address`, every machine of that cluster too: its GPUs and their memory, versions, whether it
    shares the store, how far its clock is off, and how fast an object gets to it from another machine.
    """
    from study.doctor import run_checks

    checks, nodes = run_checks(store), _nodes(address, store)
    good = all(check.ok for check in checks) and not any(node.problems for node in nodes)
    if as_json:
        found = {"nodes": [node.to_json() for node in nodes]} if address else {}
        print_json({"ok": good, "checks": [check.to_dict() for check in checks], **found})
    else:
        print_rows(
            [
                {"check": c.name, "": "ok" if c.ok else "PROBLEM", "found": c.found, "remedy": c.remedy}
                for c in checks
            ]
        )
        if nodes:
            say()
            print_rows([_row(node) for node in nodes])
        for problem in (problem for node in nodes for problem in node.problems):
            say(problem)
    raise typer.Exit(0 if good else 1)


def _nodes(address: str | None, store: str) -> list[Node]:
    if address is None:
        return []
    from study.cluster.session import ray_session
    from study.cluster.survey import survey
    from study.store.files import located

    with ray_session(address):
        return survey(located(store))


def _row(node: Node) -> dict[str, Any]:
    memories = sorted({round(size / 1e9) for size in node.gpu_memory_bytes})
    named = ", ".join(dict.fromkeys(node.gpu_names))
    clock = None
    if node.clock_s is not None and node.clock_error_s is not None:
        clock = f"{1000 * node.clock_s:+.0f} ± {1000 * node.clock_error_s:.0f} ms"
    return {
        "machine": node.name,
        "": "PROBLEM" if node.problems else "ok",
        "CPUs": f"{node.cpus:g}",
        "memory": None if node.memory_bytes is None else f"{node.memory_bytes / 1e9:.1f} GB",
        "GPUs": f"{node.gpus:g}",
        "GPU": named or None,
        "GPU memory": " to ".join(map(str, (memories[0], memories[-1])[: len(memories)])) + " GB"
        if memories
        else None,
        "clock": clock,
        "from the one before": None if node.bytes_per_s is None else f"{node.bytes_per_s / 1e6:,.0f} MB/s",
        "versions": node.versions or None,
    }

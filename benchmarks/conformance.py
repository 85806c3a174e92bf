"""The same guarantees measured on this package and on its peers.

Usage: ``python -m benchmarks.conformance [--only ours memcnn revtorch revlib momentumnet] [--details]``. The
peers come with the ``bench`` extra, but for momentumnet, which asks for packages that it does not use here:
``pip install --no-deps momentumnet==0.10``. Prints a table with a row for each guarantee and for each use of
`benchmarks.conformance_uses`, from measurements made now; exit code 1 if one of ours does not hold. A peer
that is not installed gets no column, and a line that says so.

Every implementation wraps the same residual functions with the same weights, in the settings that its
documentation offers for what the row asks: memcnn with ``preserve_rng_state=True`` and, for a retained graph,
``num_bwd_passes=2``; RevTorch with ``fix_random_seed=True`` where F draws random numbers and, for a retained
graph, ``eagerly_discard_variables=False``; RevLib in its default ``MemoryModes.autograd_function``. The
reference is this package's stored twin: plain backpropagation. momentumnet computes another network, with a
velocity instead of a second stream; its reference is its own storing network, ``use_backprop=True``.

A cell says ``yes``; ``refused`` where the implementation raises an error of its own, which is an answer where
the row allows it; or ``no`` with the largest figure, or with the error that Python or PyTorch stumbled over.
"""

from __future__ import annotations

import argparse
import copy
import importlib.util
import sys
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from importlib.metadata import version
from tempfile import TemporaryDirectory

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from benchmarks.conformance_peers import IMPLEMENTATIONS, Implementation, Residuals, Row
from benchmarks.conformance_uses import (
    CHANNELS,
    SIDE,
    USES,
    SeenDropout,
    complex_linear,
    drawing,
    dropping,
    half_normalized,
    normalized,
    right_or_refused,
)
from revmodels.testing import guarantees
from revmodels.testing.check import BROKEN, HOLDS, Finding, examine
from revmodels.testing.instruments import loss
from revmodels.testing.network_under_test import Figure, Make, Subject, Unit, errors


def distributed(make: Make, tolerance: float, **flags: bool) -> list[Figure]:
    """Gradients under DistributedDataParallel, three steps in one process."""
    subject = make(torch.float64)
    parallel = DistributedDataParallel(subject.model, **flags)
    for net in (parallel, subject.twin):
        for i in range(3):
            x = (subject.inputs[0] / (i + 1)).requires_grad_(True)
            loss(net(x.clone())).backward()
    return errors({n: (p.grad, q.grad) for n, (p, q) in subject.parameters.items()}, tolerance)


def compiled(make: Make, tolerance: float) -> list[Figure]:
    """Gradients under ``torch.compile(fullgraph=True)``: no part of the network is left to Python."""
    subject = make(torch.float64)
    torch._dynamo.reset()
    for net in (torch.compile(subject.model, fullgraph=True, backend="aot_eager"), subject.twin):
        loss(net(subject.inputs[0].clone().requires_grad_(True).clone())).backward()
    return errors({n: (p.grad, q.grad) for n, (p, q) in subject.parameters.items()}, tolerance)


WANTED = {
    "memcnn": "memcnn==1.5.2",
    "revtorch": "revtorch==0.2.4",
    "revlib": "revlib==1.7.2",
    "momentumnet": "--no-deps momentumnet==0.10",
}
"""What a peer is installed with."""
SPECIAL = (guarantees.gradients, guarantees.random_state, guarantees.statistics_once)
ROWS = (
    Row("gradients, even depth", guarantees.gradients),
    Row("gradients, odd depth", guarantees.gradients, depth=5),
    Row("gradients, 64 blocks", guarantees.gradients, depth=64),
    Row("gradients, batch norm", guarantees.gradients, normalized),
    Row("gradients, dropout", guarantees.gradients, dropping),
    Row("random state, dropout", guarantees.random_state, drawing),
    Row("statistics once", guarantees.statistics_once, normalized),
    *(
        Row(name.replace("_", " "), check)
        for name, check in guarantees.GUARANTEES.items()
        if check not in SPECIAL
    ),
    Row("DDP", distributed),
    Row("DDP static_graph", partial(distributed, static_graph=True)),
    Row("DDP find_unused_parameters", partial(distributed, find_unused_parameters=True)),
    Row("torch.compile fullgraph", compiled, depth=2),
    *(
        Row(
            name,
            right_or_refused(check),
            residual,
            nested=residual is half_normalized,
            anchor_every=1 if residual is complex_linear else None,
        )
        for name, check, residual in USES
    ),
)


def make_residuals(row: Row, depth: int, dtype: torch.dtype) -> Residuals:
    """F and G of `depth` blocks, with fresh weights; in a nested row each is a pair for a sequence."""

    def one() -> nn.Module:
        parts = [row.residual() for _ in range(1 + row.nested)]
        return (nn.ModuleList(parts) if row.nested else parts[0]).to(dtype)

    return [(one(), one()) for _ in range(depth)]


def make_subject(build: type[Implementation], row: Row, dtype: torch.dtype) -> Subject:
    """An implementation around the row's residual functions, and its stored twin around copies of them."""
    torch.manual_seed(0)
    residuals = make_residuals(row, row.depth, dtype)
    copies = [(copy.deepcopy(f), copy.deepcopy(g)) for f, g in residuals]
    for originals, others in zip(residuals, copies, strict=True):
        for original, other in zip(originals, others, strict=True):
            for a, b in zip(original.modules(), other.modules(), strict=True):
                if isinstance(b, SeenDropout):
                    b.repeats = [a]  # In a list: it is no part of the twin.
    if row.nested:
        residuals = [tuple(build([tuple(part)], row) for part in pair) for pair in residuals]
        copies = [tuple(build.stored([tuple(part)], row) for part in pair) for pair in copies]
    model = build(residuals, row)
    parameters: dict[str, tuple[Tensor, Tensor]] = {}
    buffers: dict[str, tuple[Tensor, Tensor]] = {}
    units = []
    for i, (originals, others) in enumerate(zip(residuals, copies, strict=True)):
        names = []
        for letter, original, other in zip("fg", originals, others, strict=True):
            for (name, p), q in zip(original.named_parameters(), other.parameters(), strict=True):
                names.append(f"blocks.{i}.{letter}.{name}")
                parameters[names[-1]] = p, q
            for (name, b), c in zip(original.named_buffers(), other.buffers(), strict=True):
                buffers[f"blocks.{i}.{letter}.{name}"] = b, c
        units.append(Unit(name=f"blocks.{i}", residuals=originals, parameters=tuple(names)))
    x = torch.randn(4, 2 * CHANNELS, SIDE, SIDE, dtype=dtype)
    return Subject(
        model=model,
        twin=build.stored(copies, row),
        inputs=(x,),
        parameters=parameters,
        buffers=buffers,
        units=tuple(units),
        deepened=lambda more: build(make_residuals(row, row.depth + more, dtype), row),
        round_trips=partial(model.round_trips, x) if model.round_trips is not None else None,
    )


def measure(implementation: str) -> dict[str, Finding]:
    """Every row on one implementation."""
    build, found = IMPLEMENTATIONS[implementation], {}
    with warnings.catch_warnings(), one_process_group():
        warnings.simplefilter("ignore")
        for row in ROWS:
            (found[row.name],) = examine(partial(make_subject, build, row), {row.name: row.check}).findings
    return found


@contextmanager
def one_process_group() -> Iterator[None]:
    """A context with a process group of this process alone."""
    with TemporaryDirectory() as folder:
        dist.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=0, world_size=1)
        try:
            yield
        finally:
            dist.destroy_process_group()


def cell(finding: Finding) -> str:
    """What the table says of a finding."""
    if finding.outcome == HOLDS:
        return "refused" if "as it is refused" in finding.detail else "yes"
    if finding.outcome != BROKEN:
        return "–"
    if not finding.figures:
        return f"**no**: {finding.detail.split()[1].rstrip(':')}"
    worst = max((f.value for f in finding.figures if not f.holds), key=lambda v: (v != v, v))
    return "**no**: none" if worst == float("inf") else f"**no**: {worst:.2g}"


def table(columns: dict[str, dict[str, Finding]]) -> str:
    """Rows are guarantees, columns implementations; Markdown."""
    lines = ["| guarantee | " + " | ".join(columns) + " |", "|---" * (1 + len(columns)) + "|"]
    for row in ROWS:
        lines.append(
            f"| {row.name} | " + " | ".join(cell(found[row.name]) for found in columns.values()) + " |"
        )
    return "\n".join(lines)


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, print, and return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--only", nargs="+", choices=list(IMPLEMENTATIONS), default=list(IMPLEMENTATIONS))
    parser.add_argument("--details", action="store_true", help="print what was measured for every no")
    chosen = parser.parse_args(arguments)
    columns = {}
    for name in chosen.only:
        if name != "ours" and importlib.util.find_spec(name) is None:
            print(f"{name} is not installed, and gets no column: pip install {WANTED[name]}", file=sys.stderr)
            continue
        label = name if name == "ours" else f"{name} {version(name)}"
        columns[label] = measure(name)
    print(table(columns))
    if chosen.details:
        for label, findings in columns.items():
            for row, finding in findings.items():
                if finding.outcome == BROKEN:
                    print(f"{label}: {row}: {finding.detail.splitlines()[0][:200]}")
    ours = columns.get("ours", {})
    return int(any(finding.outcome != HOLDS for finding in ours.values()))


if __name__ == "__main__":
    sys.exit(main())

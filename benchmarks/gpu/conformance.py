"""Does the engine keep its promises on this device?

    python benchmarks/gpu/conformance.py --out DIR

Every case trains a step on the device: gradients of rebuilt activations against the stored twin's, in every
arithmetic, with cuDNN's search for kernels on and off; exact coupling, which must rebuild every bit; dropout
and the random state; running statistics; a compiled network; CUDA graphs; and the suite of guarantees of
`revmodels.testing.check`. Results are lines of ``conformance.jsonl``; a case that is there is not run again.
"""

from __future__ import annotations

import contextlib
import copy
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

if __package__ in (None, ""):
    sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from benchmarks.gpu.common import Deadline, Lines, device_name, ended, parser
from revmodels import Precision, ReversibleBlock, ReversibleSequence, create_model, measure
from study.train.build import matmul_precision

HOLDS, BROKEN, NOT_APPLICABLE = "holds", "broken", "not applicable"

Figures = dict[str, float]
Case = Callable[[str, bool], tuple[Figures, float]]
"""Measures on a device, tiny or not: relative figures, and the limit that all of them must meet."""


class NotApplicableError(Exception):
    """The case is about something that this device does not have."""


LIMITS = {"fp64": 1e-9, "fp32": 1e-2, "tf32": 3e-1, "bf16": 3e-1, "fp16": 1e-1}
"""Largest relative error of a parameter's gradient with additive coupling on an fp32 or wider stream."""


def sized(tiny: bool) -> tuple[int, int, int]:
    """(depth, batch, pixels along a side)."""
    return (26, 4, 8) if tiny else (110, 64, 32)


def network(device: str, tiny: bool, precision: Precision, strategy: str = "reverse") -> nn.Module:
    """A RevNet with equal weights at every call."""
    torch.manual_seed(0)
    model = create_model(
        "revnet110", num_classes=10, depth=sized(tiny)[0], precision=precision, strategy=strategy
    )
    return model.to(device=device, memory_format=torch.channels_last).train()  # type: ignore[call-overload]


def examples(device: str, tiny: bool, dtype: torch.dtype = torch.float32) -> tuple[Tensor, Tensor]:
    """A batch of noise."""
    _, batch, size = sized(tiny)
    generator = torch.Generator().manual_seed(1)
    images = torch.randn(batch, 3, size, size, generator=generator).to(device, dtype)
    return images.contiguous(memory_format=torch.channels_last), (torch.arange(batch) % 10).to(device)


@contextlib.contextmanager
def kernels_searched(searched: bool) -> Iterator[None]:
    """A context with cuDNN's benchmark mode on or off."""
    before = torch.backends.cudnn.benchmark
    torch.backends.cudnn.benchmark = searched
    try:
        yield
    finally:
        torch.backends.cudnn.benchmark = before


def faithful(
    device: str, tiny: bool, *, precision: Precision, limit: float, searched: bool = False
) -> tuple[Figures, float]:
    """Errors of the rebuilt pairs and of the gradients."""
    dtype = torch.float64 if precision.compute == "fp64" else torch.float32
    with kernels_searched(searched), matmul_precision(precision.matmul):
        model = network(device, tiny, precision)
        found = measure.fidelity(model, examples(device, tiny, dtype))
    return {"gradient": found.gradient_rel_error, "rebuilt": found.reconstruction_rel_error}, limit


def gradients(model: nn.Module, batch: tuple[Tensor, Tensor]) -> list[Tensor]:
    """Of every parameter, from one step."""
    model.zero_grad(set_to_none=True)
    F.cross_entropy(model(batch[0]), batch[1]).backward()
    return [p.grad.detach().clone() for p in model.parameters() if p.grad is not None]


def error(found: Sequence[Tensor], right: Sequence[Tensor]) -> float:
    """Relative, of all gradients together; infinite if some are missing."""
    if len(found) != len(right):
        return float("inf")
    flat, other = (torch.cat([t.double().flatten() for t in side]) for side in (found, right))
    return float((flat - other).norm() / other.norm())


def dropout(device: str, tiny: bool) -> tuple[Figures, float]:
    """Dropout is replayed, and the caller's random state is what storing leaves."""
    width, blocks = (8, 3) if tiny else (64, 16)
    torch.manual_seed(0)
    parts = [
        [nn.Sequential(nn.Linear(width, width), nn.Dropout(0.3), nn.Tanh()) for _ in "fg"]
        for _ in range(blocks)
    ]
    net = ReversibleSequence([ReversibleBlock(f, g) for f, g in parts]).double().to(device)
    x = torch.randn(16, 2 * width, dtype=torch.float64, device=device, requires_grad=True)
    found, states = [], []
    for strategy in ("reverse", "store"):
        net.strategy = strategy
        net.zero_grad(set_to_none=True)
        torch.manual_seed(7)
        net(x).square().sum().backward()
        found.append([p.grad.clone() for p in net.parameters() if p.grad is not None])
        states.append(torch.cuda.get_rng_state(device) if x.is_cuda else torch.get_rng_state())
    return {"gradient": error(*found), "state": float((states[0] != states[1]).sum())}, 1e-10


def statistics_once(device: str, tiny: bool) -> tuple[Figures, float]:
    """Running statistics after two steps equal the stored twin's."""
    precision, batch = Precision(compute="fp64", stream="fp64"), examples(device, tiny, torch.float64)
    models = [network(device, tiny, precision, strategy) for strategy in ("reverse", "store")]
    for model in models:
        for _ in range(2):
            gradients(model, batch)
    buffers = [[b.double() for b in model.buffers()] for model in models]
    return {"statistics": error(*buffers)}, 1e-10


def compiled(device: str, tiny: bool) -> tuple[Figures, float]:
    """Gradients of the compiled network, without a graph break, against the stored twin's."""
    precision, batch = Precision(), examples(device, tiny)
    right = gradients(network(device, tiny, precision, "store"), batch)
    torch._dynamo.reset()
    model = torch.compile(network(device, tiny, precision), fullgraph=True)
    found = [gradients(model, batch) for _ in range(2)][-1]
    return {"gradient": error(found, right)}, LIMITS["fp32"]


def cuda_graphs_of_compile(device: str, tiny: bool) -> tuple[Figures, float]:
    """The same under ``mode="reduce-overhead"``, which replays CUDA graphs."""
    if not device.startswith("cuda"):
        raise NotApplicableError("CUDA graphs take CUDA")
    precision, batch = Precision(), examples(device, tiny)
    right = gradients(network(device, tiny, precision, "store"), batch)
    torch._dynamo.reset()
    model = torch.compile(network(device, tiny, precision), fullgraph=True, mode="reduce-overhead")
    for _ in range(4):
        torch.compiler.cudagraph_mark_step_begin()
        found = gradients(model, batch)
    return {"gradient": error(found, right)}, LIMITS["fp32"]


def captured(device: str, tiny: bool) -> tuple[Figures, float]:
    """A whole eager step, captured as one CUDA graph and replayed on other images."""
    if not device.startswith("cuda"):
        raise NotApplicableError("CUDA graphs take CUDA")
    precision = Precision()
    images, targets = examples(device, tiny)
    model = network(device, tiny, precision)
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        for _ in range(3):
            gradients(model, (images, targets))
    torch.cuda.current_stream().wait_stream(side)
    model.zero_grad(set_to_none=True)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        F.cross_entropy(model(images), targets).backward()
    images.copy_(images.flip(0))
    graph.replay()
    found = [p.grad.clone() for p in model.parameters() if p.grad is not None]
    right = gradients(network(device, tiny, precision, "store"), (images, targets))
    return {"gradient": error(found, right)}, LIMITS["fp32"]


def flat_in_depth(device: str, tiny: bool) -> tuple[Figures, float]:
    """Growth of the activations from 3 units a stage to 9, as a share of the stored twin's growth."""
    growth = {}
    for strategy in ("reverse", "store"):
        sizes = []
        for depth in (38, 110):
            torch.manual_seed(0)
            model = create_model("revnet110", num_classes=10, depth=depth, strategy=strategy).to(device)
            sizes.append(measure.peak_memory(model, examples(device, tiny)).activation_bytes)
        growth[strategy] = sizes[1] - sizes[0]
    return {"growth": max(0, growth["reverse"]) / growth["store"]}, 0.01


def guarantees(device: str, tiny: bool) -> tuple[Figures, float]:
    """How many guarantees of `revmodels.testing.check` are broken on a small network of this device."""
    from revmodels.testing.check import check_reversible

    torch.manual_seed(0)
    model = create_model("revnet38", num_classes=10, depth=26, width=0.25).to(device)
    images = torch.randn(4, 3, 8, 8, device=device)
    report = check_reversible(model, images)
    return {"broken": float(len(report.broken))}, 0.0


def cases() -> dict[str, Case]:
    """Every case by name."""
    found: dict[str, Case] = {}
    for searched in (False, True):
        words = "cudnn benchmark" if searched else "cudnn default"
        for compute, stream, matmul in (
            ("fp64", "fp64", "ieee"),
            ("fp32", "fp32", "ieee"),
            ("fp32", "fp32", "tf32"),
            ("bf16", "fp32", "ieee"),
            ("fp16", "fp32", "ieee"),
        ):
            name = matmul if matmul == "tf32" else compute
            precision = Precision(compute=compute, stream=stream, matmul=matmul)
            found[f"additive, {name}, {words}"] = partial(
                faithful, precision=precision, limit=LIMITS[name], searched=searched
            )
        for compute, matmul in (("fp32", "ieee"), ("fp32", "tf32"), ("bf16", "ieee"), ("fp16", "ieee")):
            name = matmul if matmul == "tf32" else compute
            precision = Precision(compute=compute, coupling="exact", matmul=matmul)
            found[f"exact, {name}, {words}"] = partial(
                faithful, precision=precision, limit=0.0, searched=searched
            )
    return found | {
        "dropout and random state": dropout,
        "running statistics move once": statistics_once,
        "memory flat in depth": flat_in_depth,
        "guarantees": guarantees,
        "compiled, no graph break": compiled,
        "compiled with CUDA graphs": cuda_graphs_of_compile,
        "step captured as a CUDA graph": captured,
    }


def run(name: str, case: Case, device: str, tiny: bool) -> dict[str, Any]:
    """One line: what the case found, or what it raised."""
    began = time.perf_counter()
    line: dict[str, Any] = {"case": name, "outcome": BROKEN, "figures": {}, "limit": None, "detail": ""}
    try:
        with matmul_precision("ieee"):  # convolutions are tf32 by default; cases that want it say so
            figures, limit = case(device, tiny)
        holds = all(value <= limit for value in figures.values())
        line |= {"figures": copy.copy(figures), "limit": limit, "outcome": HOLDS if holds else BROKEN}
    except NotApplicableError as reason:
        line |= {"outcome": NOT_APPLICABLE, "detail": str(reason)}
    except Exception as problem:  # whatever is raised where it should work is a result
        line |= {"detail": f"{type(problem).__name__}: {problem}"[:1000]}
    seconds = time.perf_counter() - began
    around = {"device": device_name(device), "torch_version": str(torch.__version__), "tiny": tiny}
    return line | around | {"seconds": round(seconds, 2)}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run what is missing; exit code 1 if a case is broken, 3 if some are left."""
    made = parser(__doc__ or "")
    made.add_argument("--only", nargs="+", metavar="WORD", help="cases whose name has one of these words")
    chosen = made.parse_args(arguments)
    deadline, lines = Deadline(chosen.minutes), Lines(chosen.out / "conformance.jsonl")
    wanted = {
        name: case
        for name, case in cases().items()
        if not chosen.only or any(word in name for word in chosen.only)
    }
    done = {line["case"] for line in lines.read()}
    for name, case in wanted.items():
        if name in done or deadline.passed:
            continue
        line = run(name, case, chosen.device, chosen.tiny)
        lines.add(line)
        done.add(name)
        figures = ", ".join(f"{key} {value:.1e}" for key, value in line["figures"].items())
        print(f"{line['outcome']:15s}{name:40s}{figures} {line['detail'][:120]}", flush=True)
    code = ended(len(set(wanted) - done), "cases")
    broken = [line["case"] for line in lines.read() if line["outcome"] == BROKEN and line["case"] in wanted]
    return code or int(bool(broken))


if __name__ == "__main__":
    sys.exit(main())

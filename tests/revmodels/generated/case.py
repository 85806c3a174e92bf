"""A case: a network and what is done with it, as plain data, and how hypothesis draws one."""

from __future__ import annotations

from dataclasses import dataclass

from hypothesis import strategies as st

from tests.revmodels.generated.ordinary import ANY, IN_PLACE, KINDS, REAL, WRAPPERS, Layer
from tests.revmodels.generated.unusual import UNUSUAL

Event = tuple[str | int | bool, ...]


@dataclass(frozen=True, kw_only=True)
class Case:
    """A network and its use. Every field's default is the plainest.

    Attributes:
        kind: kind of the streams' shape.
        batch: examples, where the kind has a batch.
        dtype: of parameters and inputs.
        layout: of the inputs in memory.
        pair: whether the network is called with two streams or with one tensor.
        residuals: the layers of each residual function.
        units: which residual functions are F and G of each unit.
        order: the units of the sequence, by position in `units`; one may come twice.
        entry: position in `order` of a unit that is a stage entry; -1 without one.
        exact: whether the coupling is exact.
        framed: whether trainable layers stand before and behind the sequence.
        strategy: under which it is tried.
        anchor_every: see `ReversibleSequence`.
        compiled: whether it is compiled, with PyTorch's ``aot_eager``.
        hooks: (kind, where) of hooks that are put on before the first event.
        events: what happens, first to last.
        seed: of the numbers in it.
    """

    kind: str = "vector"
    batch: int = 2
    dtype: str = "float64"
    layout: str = "contiguous"
    pair: bool = False
    residuals: tuple[tuple[Layer, ...], ...] = (("linear",),)
    units: tuple[tuple[int, int], ...] = ((0, 0),)
    order: tuple[int, ...] = (0,)
    entry: int = -1
    exact: bool = False
    framed: bool = False
    strategy: str = "reverse"
    anchor_every: int | None = None
    compiled: bool = False
    hooks: tuple[tuple[str, int], ...] = ()
    events: tuple[Event, ...] = (("call", "plain"), ("backward", 0, "weighted", False))
    seed: int = 0


LAYOUTS = ("contiguous", "channels last", "strided", "expanded", "derived", "same memory")
STRATEGIES = ("reverse", "checkpoint", "budget", "store")
HOOKS = (
    "keep output",
    "keep inner output",
    "keep pair",
    "keep input",
    "halve input of F",
    "double output of F",
    "double output of unit",
    "backward of F",
    "backward of layer",
    "backward of unit",
    "halve gradient of F",
    "backward pre of F",
    "tensor in F",
    "halve gradient in F",
    "deep supervision",
    "supervision inside F",
    "parameter",
    "accumulated",
    "step when accumulated",
    "global forward",
    "global backward",
    "gradient of input",
)
CALLS = (
    *("plain",) * 3, "no grad", "functional", "second sequence", "checkpointed", "frozen input",
    "saved elsewhere", "packed", "autocast", "same input", "inference", "backward's autocast",
)  # fmt: skip
LOSSES = ("weighted", "sum", "square", "first", "second", "in place", "transposed", "detached half")
TARGETS = ("all", "inputs", "parameters", "first parameters", "last parameters")
CHANGES = (
    "eval", "train", "eval of a layer", "data", "in place", "freeze", "unfreeze", "state", "buffer",
    "buffers", "new parameter", "optimizer", "zero", "none", "draw", "input", "freeze all", "load", "half",
    "append",
)  # fmt: skip


def _rarely(draw: st.DrawFn, one_in: int) -> bool:
    return draw(st.integers(0, one_in - 1)) == one_in - 1


def _names(table: dict, kind: str) -> list[str]:
    return [name for name, (kinds, _) in table.items() if kind in kinds]


@st.composite
def layers(draw: st.DrawFn, kind: str, dtype: str) -> tuple[Layer, ...]:
    """One to four layers; some are wrapped, one may be unusual."""
    table = ANY if dtype == "complex128" else ANY | REAL
    common = [n for n in ("linear", "conv", "tanh") if n in _names(table, kind)]
    plain = st.sampled_from(common) | st.sampled_from(_names(table, kind))
    found: list[Layer] = draw(st.lists(plain, min_size=1, max_size=3))
    if dtype == "float64" and _rarely(draw, 5):
        found.insert(draw(st.integers(0, len(found))), draw(st.sampled_from(_names(UNUSUAL, kind))))
    if _rarely(draw, 6):
        # Behind another layer; first in F it would write to the stream, which is the rarer case.
        first = 0 if _rarely(draw, 5) else 1
        allowed = [n for n in _names(IN_PLACE, kind) if dtype != "complex128" or "Re" not in n]
        found.insert(draw(st.integers(first, len(found))), draw(st.sampled_from(allowed)))
    if _rarely(draw, 4):
        wrapper = draw(st.sampled_from(sorted(WRAPPERS)))
        start = draw(st.integers(0, len(found) - 1))
        stop = draw(st.integers(start + 1, len(found)))
        found[start:stop] = [(wrapper, tuple(found[start:stop]))]
    return tuple(found)


@st.composite
def events(draw: st.DrawFn) -> tuple[Event, ...]:
    """A step; half the time more calls, backward passes and changes, in any order."""
    found: list[Event] = [("call", draw(st.sampled_from(CALLS)))]
    calls = 1
    usual = draw(st.booleans())
    for _ in range(0 if usual else draw(st.integers(1, 5))):
        what = draw(st.sampled_from(("call", "backward", "grad", "change", "change", "switch", "copy")))
        if what == "call":
            found.append(("call", draw(st.sampled_from(CALLS))))
            calls += 1
        elif what == "backward":
            found.append(
                (
                    "backward",
                    draw(st.integers(0, calls - 1)),
                    draw(st.sampled_from(LOSSES)),
                    draw(st.booleans()),
                )
            )
        elif what == "grad":
            targets = draw(st.sampled_from(TARGETS)), draw(st.booleans())
            found.append(("grad", draw(st.integers(0, calls - 1)), draw(st.sampled_from(LOSSES)), *targets))
        elif what == "change":
            found.append(("change", draw(st.sampled_from(CHANGES)), draw(st.integers(0, 5))))
        elif what == "switch":
            every = draw(st.sampled_from((None, 1, 2)))
            found.append(("switch", draw(st.sampled_from(STRATEGIES)), every))
        else:
            found.append(("copy", draw(st.sampled_from(("deepcopy", "pickle", "state dict")))))
    ways = ("backward", "backward", "backward", "grad", "thread", "anomaly", "double", "joint")
    way = draw(st.sampled_from(ways))
    if way == "grad":
        found.append(
            ("grad", calls - 1, draw(st.sampled_from(LOSSES)), draw(st.sampled_from(TARGETS)), False)
        )
    else:
        found.append((way, draw(st.integers(0, calls - 1)), draw(st.sampled_from(LOSSES)), False))
    return _retaining(found)


def _retaining(events: list[Event]) -> tuple[Event, ...]:
    """The events with each graph kept that is differentiated again: without, PyTorch promises nothing."""
    used: set[int] = set()
    joint = any(event[0] == "joint" for event in events)
    found: list[Event] = []
    for event in reversed(events):
        if event[0] in ("backward", "grad", "thread", "anomaly", "double") and isinstance(event[1], int):
            again = event[1] in used or (joint and event[0] != "joint")
            used.add(event[1])
            event = (*event[:-1], bool(event[-1]) or again)
        found.append(event)
    return tuple(reversed(found))


@st.composite
def cases(draw: st.DrawFn) -> Case:
    """Any case."""
    kind = draw(st.sampled_from(KINDS))
    dtype = draw(st.sampled_from(("float64",) * 9 + ("float32", "bfloat16", "complex128")))
    pool = draw(st.lists(layers(kind, dtype), min_size=1, max_size=3))
    index = st.integers(0, len(pool) - 1)
    units = draw(st.lists(st.tuples(index, index), min_size=1, max_size=4))
    order = list(range(len(units)))
    if _rarely(draw, 6):
        order.insert(draw(st.integers(0, len(order))), draw(st.integers(0, len(units) - 1)))
    compiled = _rarely(draw, 150)
    strategy = draw(st.sampled_from(("reverse",) * 6 + ("budget", "checkpoint")))
    return Case(
        kind=kind,
        batch=draw(st.sampled_from((1, 2, 3))),
        dtype=dtype,
        layout=draw(st.sampled_from(LAYOUTS)),
        pair=draw(st.booleans()),
        residuals=tuple(pool),
        units=tuple(units),
        order=tuple(order),
        entry=draw(st.integers(0, len(order) - 1)) if _rarely(draw, 6) else -1,
        exact=dtype == "float64" and _rarely(draw, 12),
        framed=draw(st.booleans()),
        strategy="reverse" if compiled else strategy,
        anchor_every=draw(st.sampled_from((1, 2))) if strategy != "budget" and _rarely(draw, 4) else None,
        compiled=compiled,
        hooks=tuple(draw(st.lists(st.tuples(st.sampled_from(HOOKS), st.integers(0, 5)), max_size=2)))
        if draw(st.booleans())
        else (),
        events=draw(events()),
        seed=draw(st.integers(0, 2**16)),
    )

"""Judges a case against its stored twin: equal, refused by name, or wrong."""

from __future__ import annotations

import itertools
import math
import warnings
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor
from torch.utils.checkpoint import set_checkpoint_early_stop

from revmodels.errors import RevModelsError
from tests.revmodels.generated.case import Case
from tests.revmodels.generated.inverse_loss import inverse_loss
from tests.revmodels.generated.program import Entry, Program

TOLERANCE = {"float64": 1e-10, "complex128": 1e-10, "float32": 2e-3, "bfloat16": 0.3}
FLOOR = {"float64": 1e-3, "complex128": 1e-3, "float32": 1e-2, "bfloat16": 0.1}
"""A tensor is judged against its own norm or, if that is smaller, this share of the largest of its kind."""
AUTOCAST = 0.02
"""In place of the tolerance for float32 under autocast: five roundings to bfloat16. With its cache, autocast
casts a weight that is used twice once, and the twin sums the two gradients in bfloat16. Without the cache the
tolerance is that of float32."""
DISTURBANCE = {"float64": 1e-15, "complex128": 1e-15, "float32": 1e-7, "bfloat16": 4e-3}
MARGIN = {"float64": 1e3, "complex128": 1e3, "float32": 1e3, "bfloat16": 10.0}
"""A rounding error in the input, and how many times what becomes of it in the twin is allowed."""
INVERSE_MARGIN = 10.0
"""How many times what naive inverses lose a gradient may be off."""
ROUNDING = 4.0
"""How many times the error in float64, in units of the dtype's rounding, a coarser dtype may show."""

EQUAL, REFUSED, TWIN_FAILS, SENSITIVE, WRONG, RAW = (
    "equal",
    "refused by name",
    "twin fails",
    "sensitive",
    "wrong",
    "raw error",
)
FINDINGS = (WRONG, RAW)


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """What a case has shown.

    Attributes:
        outcome: ``equal``; ``refused by name``: an error of this package; ``twin fails``: the stored twin
            raises an error as well, so nothing is asked; ``sensitive``: the twin itself answers a rounding
            error in its input with as large a difference; ``wrong``: other numbers in silence; ``raw error``:
            an error that is not this package's, where the twin works.
        what: which error, or what differs.
        error: largest relative error.
    """

    outcome: str
    what: str = ""
    error: float = 0.0

    @property
    def is_finding(self) -> bool:
        """Whether a promise is broken."""
        return self.outcome in FINDINGS


def judge(case: Case) -> Verdict:
    """Run `case` and its twin."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        twin = Program(case, stored=True).run()
        tried = Program(case, stored=False, compiled=case.compiled).run()
        what, error = difference(case, tried.log, twin.log, whole=tried.error is None and twin.error is None)
        if error > TOLERANCE[case.dtype]:
            return _differs(case, twin, tried, what, error)
    if twin.error is not None and tried.at >= twin.at:
        return Verdict(outcome=TWIN_FAILS, what=_name(twin.error), error=error)
    if tried.error is None:
        return Verdict(outcome=EQUAL, error=error)
    if is_named(tried.error):
        return Verdict(outcome=REFUSED, what=_name(tried.error), error=error)
    if case.compiled and Program(case, stored=True, compiled=True).run().error is not None:
        return Verdict(outcome=TWIN_FAILS, what=_name(tried.error), error=error)
    if "modified by an inplace operation" in str(tried.error) and _fails_when_used_plainly(case):
        return Verdict(outcome=TWIN_FAILS, what=_name(tried.error), error=error)
    return Verdict(outcome=RAW, what=_name(tried.error), error=error)


def _fails_when_used_plainly(case: Case) -> bool:
    """Whether the twin too overwrites what it needs.

    Hooks on what is saved keep PyTorch from noticing, and so does a pass that asks for few gradients.
    """
    return Program(_asked_for_all(_called_plainly(case)), stored=True).run().error is not None


def _asked_for_all(case: Case) -> Case:
    events = [
        ("grad", event[1], event[2], "all", event[4]) if event[0] == "grad" else event
        for event in case.events
    ]
    return replace(case, events=tuple(events))


def _overwrites(case: Case) -> bool:
    """Whether the twin itself computes with overwritten numbers, which hooks on what is saved hide."""
    error = Program(_called_plainly(case), stored=True).run().error
    return "modified by an inplace operation" in str(error)


def _called_plainly(case: Case) -> Case:
    events = tuple(("call", "plain") if event[0] == "call" else event for event in case.events)
    return replace(case, events=events)


def is_named(error: BaseException | None) -> bool:
    """Whether this package raised it; the compiler may have put it or its words into an error of its own."""
    while error is not None:
        if isinstance(error, RevModelsError) or "got CompileError(" in str(error):
            return True
        error = getattr(error, "inner_exception", None) or error.__cause__
    return False


def _differs(case: Case, twin: Program, tried: Program, what: str, error: float) -> Verdict:
    if _stops_too_early(case, twin):
        return Verdict(outcome=TWIN_FAILS, what="a checkpoint of the twin's stops too early", error=error)
    if _varies(case, twin):
        return Verdict(outcome=TWIN_FAILS, what="two runs of the twin differ", error=error)
    disturbed = Program(case, stored=True, disturbance=DISTURBANCE[case.dtype]).run()
    _, own = difference(case, disturbed.log, twin.log, whole=True)
    if error < MARGIN[case.dtype] * own and math.isfinite(error):
        return Verdict(outcome=SENSITIVE, what=what, error=error)
    if case != _called_plainly(case) and _overwrites(case):
        return Verdict(outcome=TWIN_FAILS, what="the twin overwrites what it needs", error=error)
    if case.compiled and _draws(case, twin):
        return Verdict(outcome=TWIN_FAILS, what="a compiled network draws other random numbers", error=error)
    if error < INVERSE_MARGIN * _inverse_loss(case, tried):
        return Verdict(outcome=SENSITIVE, what=what, error=error)
    if _is_rounding(case, tried, twin):
        return Verdict(outcome=SENSITIVE, what=what, error=error)
    if _rounds_the_sums_of_autocast(case, twin, tried):
        return Verdict(outcome=EQUAL, error=error)
    if _goes_off_with_a_checkpointed_twin(case, twin, what):
        return Verdict(outcome=TWIN_FAILS, what="a checkpoint changes the twin's numbers", error=error)
    return Verdict(outcome=WRONG, what=what, error=error)


def _varies(case: Case, twin: Program) -> bool:
    """Whether a second run of the twin gives other numbers: it reads memory that nobody has written.

    Randomized leaky ReLU saves its noise before it draws it, so a hook that copies what is saved copies that.
    """
    again = Program(case, stored=True).run()
    return difference(case, again.log, twin.log, whole=True)[1] > TOLERANCE[case.dtype]


def _inverse_loss(case: Case, tried: Program) -> float:
    """What naive inverses lose, if all is right with an anchor at each unit; otherwise 0."""
    if case.dtype not in ("float64", "complex128") or case.strategy != "reverse" or tried.error is not None:
        return 0.0
    kept = replace(case, anchor_every=1)
    exact, found = Program(kept, stored=True).run(), Program(kept, stored=False).run()
    if difference(case, found.log, exact.log, whole=True)[1] > TOLERANCE[case.dtype]:
        return 0.0
    return inverse_loss(case)


def _stops_too_early(case: Case, twin: Program) -> bool:
    """Whether a checkpoint of the case's own reads memory that nobody has written, and nothing else differs.

    PyTorch's checkpoint stops as soon as the last tensor has been saved. Randomized leaky ReLU saves its
    noise before it draws it, so the twin's gradients are other ones in every run.
    """
    with set_checkpoint_early_stop(False):
        right = Program(case, stored=True).run()
        if difference(case, twin.log, right.log, whole=True)[1] <= TOLERANCE[case.dtype]:
            return False
        tried = Program(case, stored=False, compiled=case.compiled).run()
    if right.error is not None or tried.error is not None:
        return False
    return difference(case, tried.log, right.log, whole=True)[1] <= TOLERANCE[case.dtype]


def _goes_off_with_a_checkpointed_twin(case: Case, twin: Program, what: str) -> bool:
    """Whether a checkpoint around the network has changed the twin's own numbers, there or before.

    PyTorch's checkpoint repeats neither a module's own generator nor what it counts or averages.
    """
    if not any(event == ("call", "checkpointed") for event in case.events):
        return False
    plainly = Program(_called_plainly(case), stored=True).run()
    its_own, error = difference(case, twin.log, plainly.log, whole=True)
    names = [name for name, _ in twin.log]
    return error > TOLERANCE[case.dtype] and (
        what not in names or its_own not in names or names.index(its_own) <= names.index(what)
    )


def _draws(case: Case, twin: Program) -> bool:
    """Whether a call moves PyTorch's generator: a graph draws from seeds of its own."""
    torch.manual_seed(case.seed + 1)
    before = torch.get_rng_state()
    return any("(call): generator state" in name and not torch.equal(v, before) for name, v in twin.log)


def _is_rounding(case: Case, tried: Program, twin: Program) -> bool:
    """Whether the same case in float64 is right, but for errors that are as large for its finer rounding.

    A rebuilt input carries rounding errors that the twin has not, and they grow from unit to unit.
    """
    if case.dtype not in ("float32", "bfloat16") or tried.error is not None or twin.error is not None:
        return False
    finer = replace(case, dtype="float64")
    found, exact = Program(finer, stored=False).run(), Program(finer, stored=True).run()
    error = difference(finer, found.log, exact.log, whole=True, allowed=math.inf)[1]
    if found.error is not None or exact.error is not None or error > TOLERANCE["float64"]:
        return False
    coarse = difference(case, tried.log, twin.log, whole=True, allowed=math.inf)[1]
    steps = torch.finfo(getattr(torch, case.dtype)).eps / torch.finfo(torch.float64).eps
    return coarse < ROUNDING * steps * error


def _rounds_the_sums_of_autocast(case: Case, twin: Program, tried: Program) -> bool:
    """Whether all that differs are a few roundings to bfloat16, and nothing where autocast keeps no casts."""
    if case.dtype != "float32" or tried.error is not None or twin.error is not None:
        return False
    if difference(case, tried.log, twin.log, whole=True, allowed=AUTOCAST)[1] > AUTOCAST:
        return False
    if not any(event[0] == "call" and "autocast" in str(event[1]) for event in case.events):
        return False
    twin = Program(case, stored=True, cached=False).run()
    tried = Program(case, stored=False, compiled=case.compiled, cached=False).run()
    return difference(case, tried.log, twin.log, whole=True)[1] <= TOLERANCE[case.dtype]


def difference(
    case: Case, found: list[Entry], exact: list[Entry], *, whole: bool, allowed: float | None = None
) -> tuple[str, float]:
    """The first difference beyond what is allowed, or else the largest.

    Args:
        case: gives the tolerance.
        found: of the run under judgement.
        exact: of the twin.
        whole: whether neither run ended early, so that everything must be there.
        allowed: in place of the tolerance for the case's dtype.
    """
    allowed = TOLERANCE[case.dtype] if allowed is None else allowed
    pairs = [(name, value, *rest) for name, value, rest in _aligned(found, exact)]
    scales: dict[str, float] = {}
    for name, _, other in pairs:
        if isinstance(other, Tensor) and (other.is_floating_point() or other.is_complex()):
            kind = _kind(name)
            size = _norm(other)
            scales[kind] = max(scales.get(kind, 0.0), size if math.isfinite(size) else 0.0)
    worst = ("", 0.0)
    for name, value, other in pairs:
        if (case.exact or case.compiled) and "gradient" in name:
            # Rounding to the grid makes a zero of a gradient that is none, where it is differentiated.
            # A compiled graph does so as well, the twin's too.
            value, other = _none_for_zeros(value), _none_for_zeros(other)
        error = _error(value, other, FLOOR[case.dtype] * scales.get(_kind(name), 0.0))
        if error > allowed:
            return name, error
        worst = max(worst, (name, error), key=lambda item: item[1])
    if whole and len(found) != len(exact):
        names = [[n for n, _ in log] for log in (found, exact)]
        odd = next((a or b for a, b in itertools.zip_longest(*names) if a != b), "length of the log")
        return f"only one of both has: {odd}", math.inf
    return worst


def _aligned(found: list[Entry], exact: list[Entry]) -> list[tuple[str, Any, tuple[Any]]]:
    expected: dict[str, list[Any]] = {}
    for name, value in exact:
        expected.setdefault(name, []).append(value)
    aligned = []
    for name, value in found:
        if expected.get(name):
            aligned.append((name, value, (expected[name].pop(0),)))
    return aligned


def _none_for_zeros(value: Any) -> Any:
    return None if isinstance(value, Tensor) and not value.any() else value


def _kind(name: str) -> str:
    return next((k for k in ("gradient", "second derivative", "buffer") if k in name), "value")


def _error(found: Any, exact: Any, floor: float) -> float:
    if not (isinstance(found, Tensor) and isinstance(exact, Tensor)) or type(found) is not type(exact):
        return 0.0 if found is exact or (type(found) is type(exact) and found == exact) else math.inf
    if found.shape != exact.shape or found.dtype != exact.dtype:
        return math.inf
    if not (exact.is_floating_point() or exact.is_complex()):
        return 0.0 if torch.equal(found, exact) else math.inf
    if torch.equal(found, exact) or not exact.isfinite().all():
        return 0.0
    size = max(_norm(exact), floor)
    error = _norm(_wide(found) - _wide(exact)) / size if size else math.inf
    return error if math.isfinite(error) else math.inf


def _wide(x: Tensor) -> Tensor:
    """In the format of the widest range: squares of 1e30 overflow in others."""
    return x.to(torch.complex128 if x.is_complex() else torch.float64)


def _norm(x: Tensor) -> float:
    return _wide(x).norm().item()


def _name(error: Exception) -> str:
    text = " ".join(str(error).split())
    return f"{type(error).__name__}: {text[:90]}"

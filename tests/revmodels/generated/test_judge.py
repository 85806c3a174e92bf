"""The judge finds faults that are planted, and draws cases of every kind."""

from __future__ import annotations

from collections import Counter

import pytest
import torch
from hypothesis import HealthCheck, Phase, given, settings

from revmodels.engine import eager
from tests.revmodels.generated.case import HOOKS, Case, cases
from tests.revmodels.generated.inverse_loss import inverse_loss
from tests.revmodels.generated.judge import EQUAL, RAW, REFUSED, SENSITIVE, WRONG, judge
from tests.revmodels.generated.shrink import shrink, text

DEEP = Case(
    residuals=(("linear", "tanh"), ("wide",)),
    units=((0, 1), (1, 0)),
    order=(0, 1),
    events=(("call", "plain"), ("backward", 0, "weighted", True), ("backward", 0, "square", False)),
)


def test_an_ordinary_case_is_equal():
    verdict = judge(DEEP)
    assert verdict.outcome == EQUAL, verdict
    assert verdict.error < 1e-14


def _planted(monkeypatch: pytest.MonkeyPatch, change) -> None:
    plain = eager._Unit.backward

    def backward(ctx, *d):
        return change(plain(ctx, *d))

    monkeypatch.setattr(eager._Unit, "backward", staticmethod(backward))


def test_a_gradient_that_is_off_by_one_part_in_a_billion_is_found(monkeypatch):
    _planted(monkeypatch, lambda found: (*found[:-1], found[-1] * (1 + 1e-9)))
    verdict = judge(DEEP)
    assert verdict.outcome == WRONG, verdict
    assert "gradient of body.blocks" in verdict.what


def test_a_lost_gradient_is_found(monkeypatch):
    _planted(monkeypatch, lambda found: (*found[:-1], None))
    assert judge(DEEP).outcome == WRONG


def test_a_number_drawn_too_many_is_found(monkeypatch):
    _planted(monkeypatch, lambda found: (torch.rand(1), found)[1])
    verdict = judge(DEEP)
    assert verdict.outcome == WRONG
    assert "generator state" in verdict.what


def test_an_error_of_pytorch_is_found(monkeypatch):
    _planted(monkeypatch, lambda found: found[0].no_such_attribute)
    assert judge(DEEP).outcome == RAW


CAST = Case(
    dtype="float32",
    residuals=(("linear", "linear"),),
    units=((0, 0), (0, 0)),
    order=(0, 1),
    events=(("call", "autocast"), ("backward", 0, "weighted", False)),
)


def test_the_sums_of_autocast_s_casts_may_be_rounded():
    assert judge(CAST).outcome == EQUAL


def test_an_error_of_the_size_of_those_roundings_is_found(monkeypatch):
    _planted(monkeypatch, lambda found: (*found[:-1], found[-1] * 1.01))
    assert judge(CAST).outcome == WRONG


def test_rounding_errors_that_grow_are_told_from_wrong_numbers(monkeypatch):
    case = Case(
        kind="image",
        dtype="bfloat16",
        residuals=((("nested, stored", ("conv",)),),),
        units=((0, 0),) * 4,
        order=(0, 1, 2, 3),
    )
    assert judge(case).outcome == SENSITIVE
    _planted(monkeypatch, lambda found: (*found[:-1], found[-1] * 1e3))
    assert judge(case).outcome == WRONG


ILL_CONDITIONED = Case(kind="tokens", residuals=(("bilinear",), ("GRU",)), order=(0, 0), seed=118)


def test_what_naive_inverses_lose_is_told_from_wrong_numbers(monkeypatch):
    assert judge(ILL_CONDITIONED).outcome == SENSITIVE
    assert 1e-10 < inverse_loss(ILL_CONDITIONED) < 1e-9
    assert inverse_loss(DEEP) < 1e-14
    _planted(monkeypatch, lambda found: (*found[:-1], found[-1] * (1 + 1e-7)))
    assert judge(ILL_CONDITIONED).outcome == WRONG


def test_a_named_error_is_no_finding():
    case = Case(events=(("call", "plain"), ("double", 0, "square", False)))
    assert judge(case).outcome == REFUSED


def test_what_the_twin_cannot_do_is_not_asked():
    case = Case(events=(*DEEP.events, ("backward", 0, "square", False)))
    assert judge(case).outcome == "twin fails"


UNWRITTEN = Case(
    kind="tokens",
    residuals=(("linear",), (("checkpointed", ("random ReLU",)),)),
    units=((0, 1),),
    framed=True,
    events=(("call", "plain"), ("thread", 0, "square", False)),
)


def test_memory_that_the_twin_s_checkpoint_leaves_unwritten_is_no_finding(monkeypatch):
    # What stands in that memory is chance: now and then, what belongs there.
    whats = {judge(UNWRITTEN).what for _ in range(10)}
    assert "a checkpoint of the twin's stops too early" in whats
    assert whats <= {"a checkpoint of the twin's stops too early", ""}
    _planted(monkeypatch, lambda found: (*found[:-1], found[-1] * 1e3))
    assert WRONG in {judge(UNWRITTEN).outcome for _ in range(10)}


def test_a_finding_becomes_plain(monkeypatch):
    _planted(monkeypatch, lambda found: (*found[:-1], None))
    case = Case(
        kind="tokens",
        batch=3,
        layout="strided",
        pair=True,
        residuals=(("linear", ("in a row", ("tanh", "wide"))), ("RMS norm", "linear")),
        units=((0, 1), (1, 0)),
        order=(0, 1),
        events=(("call", "plain"), ("change", "draw", 0), ("backward", 0, "square", False)),
    )
    plain = shrink(case, judge(case))
    assert judge(plain).outcome == WRONG
    assert len(text(plain)) < len(text(case)) / 2, text(plain)
    assert eval(text(plain), {"Case": Case}) == plain


def test_cases_of_every_kind_are_drawn():
    drawn: list[Case] = []

    @settings(
        max_examples=1500,
        derandomize=True,
        database=None,
        phases=[Phase.generate],
        deadline=None,
        suppress_health_check=list(HealthCheck),
    )
    @given(cases())
    def draw(case: Case) -> None:
        drawn.append(case)

    draw()
    count = Counter(value for case in drawn for value in (case.kind, case.dtype, case.layout, case.strategy))
    count.update(name for case in drawn for name, _ in case.hooks)
    count.update(str(event[0]) for case in drawn for event in case.events)
    for name in ("single", "tokens", "map", "complex128", "bfloat16", "same memory", "budget", *HOOKS):
        assert count[name] > 0, name
    for name in ("call", "backward", "grad", "change", "switch", "copy", "thread", "double", "joint"):
        assert count[name] > 10, name

"""What to train within a budget: the lowest loss that fits, where it changes, how far the law is trusted."""

from __future__ import annotations

import numpy as np
import pytest

from analysis.answers.frontier_text import frontier_text
from analysis.figures.frontier_map import figure
from analysis.laws.frontier import Candidate, FrontierError, Known, frontier
from analysis.laws.loss import fit_loss
from tests.analysis.laws.known_law import DATA, SIZES, true_loss

DEAR = {"store": (1.0, 40.0), "reverse": (4 / 3, 1.0), "checkpoint": (4 / 3, 8.0)}
"""Operations over the model's, and bytes of activations for each parameter."""


@pytest.fixture(scope="module")
def known():
    n, d = (x.ravel() for x in np.meshgrid(SIZES, DATA))
    noise = np.random.default_rng(0).normal(0, 0.003, len(n))
    law = fit_loss(n, d, true_loss(n, d) * np.exp(noise), resamples=200)
    return Known(
        law=law,
        parameters=(min(SIZES), max(SIZES)),
        data=(min(DATA), max(DATA)),
        unit="tokens",
        noise=law.residuals,
    )


def candidate(n, strategy):
    times, bytes_each = DEAR[strategy]
    return Candidate(
        model="revgpt_124m",
        depth=12,
        width=1.0,
        context=1024,
        strategy=strategy,
        batch=64,
        accumulate=1,
        compute_dtype="bf16",
        stream_dtype="bf16",
        optimizer="adamw",
        optimizer_state="fp32",
        parameters=n,
        memory_bytes=round(n * (16 + bytes_each)),
        operations=6 * n * times,
    )


@pytest.fixture(scope="module")
def listed():
    return [candidate(n, s) for n in np.geomspace(1e6, 1e9, 31) for s in DEAR]


def test_the_answer_is_the_lowest_loss_of_all_that_fit(known, listed):
    memory, operations = 4e9, 1e19
    found = frontier(known, listed, memory=memory, operations=operations)
    losses = {
        one: float(known.law.predict(one.parameters, operations / one.operations))
        for one in listed
        if one.memory_bytes <= memory
    }
    assert found.best.loss == min(losses.values())
    assert found.best.candidate == min(losses, key=losses.get)
    assert found.best.low <= found.best.loss <= found.best.high
    assert found.best.data * found.best.candidate.operations == pytest.approx(operations)
    others = [loss for one, loss in losses.items() if one.strategy != found.best.candidate.strategy]
    assert found.runner_up.loss == min(others)


def test_plenty_of_memory_stores_and_little_memory_reverses(known, listed):
    operations = 1e19
    rich = frontier(known, listed, memory=1e12, operations=operations)
    poor = frontier(known, listed, memory=1e9, operations=operations)
    assert rich.best.candidate.strategy == "store"  # nothing is computed again
    assert poor.best.candidate.strategy == "reverse"  # more parameters in the same bytes
    assert poor.best.loss > rich.best.loss


def test_the_map_has_the_answer_in_its_middle_and_says_where_it_changes(known, listed):
    found = frontier(known, listed, memory=4e9, operations=1e19)
    middle = len(found.map.memory) // 2
    assert found.map.memory[middle] == pytest.approx(found.memory)
    assert listed[found.map.best[middle, middle]] == found.best.candidate
    assert found.map.loss[middle, middle] == pytest.approx(found.best.loss)
    # More memory and more operations never make it worse.
    loss = np.where(np.isnan(found.map.loss), np.inf, found.map.loss)
    assert (loss[1:] <= loss[:-1]).all()
    assert (loss[:, 1:] <= loss[:, :-1]).all()
    for change in found.changes():
        if change["along"] != "memory_bytes" or change["from"] is None:
            continue
        for at, name in ((change["at"] / 1.2, change["from"]), (change["at"] * 1.2, change["to"])):
            there = frontier(known, listed, memory=at, operations=1e19, extrapolate=True)
            assert there.best.candidate.strategy == name
    assert any(change["along"] == "memory_bytes" for change in found.changes())


def test_a_law_is_not_trusted_far_beyond_its_rows(known, listed):
    with pytest.raises(FrontierError, match="times beyond what the law has seen"):
        frontier(known, listed, memory=1e12, operations=1e24)
    found = frontier(known, listed, memory=1e12, operations=1e24, extrapolate=True)
    assert found.best.beyond > 10
    assert "beyond the rows" in frontier_text(found)


def test_too_little_memory_says_what_would_do(known, listed):
    with pytest.raises(FrontierError, match="the smallest takes 17,000,000"):
        frontier(known, listed, memory=1e6, operations=1e19)
    with pytest.raises(FrontierError, match="above 0"):
        frontier(known, listed, memory=0, operations=1e19)
    with pytest.raises(FrontierError, match="no candidate"):
        frontier(known, [], memory=1e9, operations=1e19)


def test_words_and_plain_values_say_the_same(known, listed):
    found = frontier(known, listed, memory=4e9, operations=1e19)
    values, text = found.to_dict(), frontier_text(found)
    assert f"{values['best']['loss']:.4f}" in text
    assert values["best"]["strategy"] in text
    assert len(values["candidates"]) == len(listed)
    assert values["by_strategy"][1] == values["runner_up"]


def test_the_map_is_drawn_with_a_color_for_each_strategy_and_gaps_where_nothing_fits(known, listed):
    found = frontier(known, listed, memory=2e8, operations=1e19, extrapolate=True)
    drawn = figure(found)
    cells = drawn.data[0].z
    for i in (0, 16, 32):
        for j in (0, 16, 32):
            place = found.map.best[i, j]
            assert (cells[i][j] is None or np.isnan(cells[i][j])) == (place < 0)
            if place >= 0:
                assert found.candidates[place].strategy in drawn.data[0].text[i][j]
    assert any(cell is None or np.isnan(cell) for row in cells for cell in row)
    assert drawn.layout.yaxis.title.text == "memory / GB"

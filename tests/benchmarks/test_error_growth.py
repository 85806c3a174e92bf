"""The errors of LayerNorm-MLP blocks at initialization are those that an earlier prototype measured."""

import statistics

import pytest
import torch

from benchmarks.error_growth import PRECISIONS, PROTOTYPE, SLOW, measured, rebuilt_error, shown

FACTOR = 3
MEASURED = [key for key in PROTOTYPE if key[0] not in SLOW and key[1] in (8, 32)]


@pytest.mark.parametrize(("name", "depth"), [*MEASURED, ("bf16-fp32", 128)])
def test_errors_agree_with_the_prototype_s(name, depth):
    torch.set_num_threads(1)
    seeds = range(3 if depth <= 32 else 1)
    error = statistics.median(rebuilt_error(depth, PRECISIONS[name], seed) for seed in seeds)
    expected = PROTOTYPE[name, depth]
    assert expected / FACTOR <= error <= expected * FACTOR


def test_rows_hold_the_engine_s_own_errors_and_the_table_their_medians():
    torch.set_num_threads(1)
    rows = [measured(name, depth, 0) for name in ("fp32", "bf16-exact") for depth in (2, 4)]
    assert rows[0]["end_to_end_rel_error"] == pytest.approx(rebuilt_error(2, PRECISIONS["fp32"], 0), rel=1e-3)
    assert rows[1]["gradient_rel_error"] > 0
    assert {row["reconstruction_rel_error"] for row in rows[2:]} == {0.0}
    assert {row["gradient_rel_error"] for row in rows[2:]} == {0.0}
    text = shown(rows)
    assert f"{rows[1]['end_to_end_rel_error']:.1e}" in text
    assert "exactly 0" in text.splitlines()[-1]

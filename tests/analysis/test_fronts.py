"""Only trials that ended ok are on a front, whatever the others had reached when they were stopped."""

from __future__ import annotations

import pytest

from analysis.answers.recommend import configurations_of
from analysis.figures import error_tradeoff, parallel, tradeoff
from analysis.queries import run_query
from analysis.schema import OUTCOMES
from analysis.store.store import open_store
from tests.analysis.conftest import demo_trials, trial_row, write_trials


@pytest.mark.parametrize("outcome", ["ok", *sorted({*OUTCOMES} - {"ok"})])
def test_a_trial_that_did_not_end_ok_is_on_no_front_though_it_beats_all(tmp_path, outcome):
    best = trial_row(seed=99, number=99, outcome=outcome, epochs_done=1)
    best.update(accuracy_val=0.9999, memory_peak_bytes=1, reconstruction_rel_error=1e-30)
    store = open_store(write_trials(tmp_path, [*demo_trials(), best]))
    fronts = {
        "query": {row["trial_id"] for row in run_query(store, "pareto").to_pylist()},
        "configurations": {i for c in configurations_of(store) for i in c.ids},
        "tradeoff": tradeoff.info(store).on_front,
        "error": {i for s in error_tradeoff.info(store).series for p in s.points for i in p.ids},
        "parallel": {i for s in parallel.info(store).series for p in s.points for i in p.ids},
    }
    assert all(fronts.values())
    found = {name: best["trial_id"] in ids for name, ids in fronts.items()}
    assert found == dict.fromkeys(fronts, outcome == "ok")

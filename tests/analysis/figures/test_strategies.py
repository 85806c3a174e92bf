from analysis.figures.strategies import figure, info
from analysis.store.store import open_store

SPEED = {"store": (1.0, 100), "reverse": (1.4, 20), "checkpoint": (1.3, 40), "segments": (1.35, 50)}


def _rows(new_trial, family="revnet", depth=38, names=tuple(SPEED)):
    return [
        new_trial(
            family=family,
            depth=depth,
            strategy=name,
            seed=seed,
            step_time_s=SPEED[name][0] + 0.01 * seed,
            memory_peak_bytes=SPEED[name][1] * 1_000_000,
        )
        for name in names
        for seed in range(3)
    ]


def test_each_family_shows_the_network_that_most_strategies_were_tried_on(tmp_path, new_trial, write):
    rows = [*_rows(new_trial), *_rows(new_trial, depth=62, names=("store", "reverse"))]
    rows += _rows(new_trial, "resnet", names=("store", "checkpoint"))
    found = info(open_store(write(tmp_path, rows)))
    assert [(family, len(tried)) for family, _, tried in found.families] == [("revnet", 4), ("resnet", 2)]
    tried = {one.label: one for one in found.families[0][2]}
    assert {one.rows[0]["depth"] for one in tried.values()} == {38}
    assert {label: one.beaten_by for label, one in tried.items()} == {
        "store": "",
        "checkpoint": "",
        "segments": "checkpoint",
        "reverse": "",
    }
    assert tried["reverse"].step_s == 1.41 and tried["reverse"].peak_bytes == 20_000_000
    assert "store is the fastest (1.01 s a step, 100 MB), reverse the smallest" in found.notes[0]
    assert "Dominated: segments (by checkpoint)." in found.notes[0]
    drawn = figure(found)
    assert {trace.name: trace.marker.symbol for trace in drawn.data if trace.xaxis == "x"} == {
        "store": "circle",
        "checkpoint": "circle",
        "segments": "circle-open",
        "reverse": "circle",
    }
    names = [mark.text for mark in drawn.layout.annotations]
    assert names.count("store") == 2 and "segments" in names  # each point is named


def test_a_strategy_with_other_settings_is_another_one(tmp_path, new_trial, write):
    rows = [
        *_rows(new_trial, names=("store",)),
        *(
            new_trial(strategy="budget", seed=s, memory_budget_bytes=b)
            for s, b in ((0, 10**7), (1, 2 * 10**7))
        ),
    ]
    ((_, _, tried),) = info(open_store(write(tmp_path, rows))).families
    assert {one.label for one in tried} == {"store", "budget, within 10.0 MB", "budget, within 20.0 MB"}
    assert figure(info(open_store(write(tmp_path / "one", _rows(new_trial, names=("store",)))))) is None

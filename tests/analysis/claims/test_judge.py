"""Verdicts on the paper's claims follow from rows: other rows, other verdicts; no rows, none."""

import pytest

from analysis.claims.judge import FAILS, HOLDS, NOT_MEASURED, all_claims, claims_text, counts, judge
from analysis.report.page import render_report
from analysis.store.store import open_store
from tests.analysis.conftest import block_rows, demo_trials, epoch_rows, trial_row, write_rows, write_trials

SYNTHETIC = {"data": "synthetic:3x32x32x10"}


def verdicts(path):
    return {v.number: v for v in judge(open_store(path))}


def network(name, *, strategy, seed=0, **changes):
    """A row of a preset at its own depth, on color images."""
    family = name[:6]
    row = trial_row(
        family=family, depth=int(name[6:]), strategy=strategy, seed=seed, epochs=changes.pop("epochs", 4)
    )
    changes = {**SYNTHETIC, "model": name, "batch_size": 100, **changes}
    return row | changes | {"trial_id": f"{name}-{strategy}-{seed}-{changes['data'][:9]}"[:40]}


def probed(trial, angles, error=1e-7):
    """Block rows of a trial at epochs 0, 1, ..., whose angle in degrees is the one given."""
    rows = []
    for epoch, angle in enumerate(angles):
        for row in block_rows(trial):
            rows.append(
                row | {"epoch": epoch, "gradient_angle_deg": angle, "reconstruction_rel_error": error}
            )
    return rows


def test_there_are_eighteen_claims_and_an_empty_store_judges_none(tmp_path):
    (tmp_path / "store").mkdir()
    found = judge(open_store(tmp_path / "store"))
    assert [v.number for v in found] == list(range(1, 19))
    assert {v.verdict for v in found} == {NOT_MEASURED}
    assert all(v.figure.startswith("needs ") and v.n == 0 and not v.trials for v in found)
    assert claims_text(found).endswith("18 claims: 0 holds, 0 does not hold, 18 not measured.")


def test_every_claim_names_its_source_and_a_study_that_ships():
    from study.spec.load import builtin_studies

    for claim in all_claims():
        assert claim.study.split()[0] in builtin_studies(), claim.number
        assert claim.source
        assert claim.expected
        assert claim.method


def test_the_demo_store_judges_memory_time_and_accuracy(demo):
    found = {v.number: v for v in judge(demo)}
    assert found[3].verdict == HOLDS  # the fixture's law: reversing is flat, storing grows
    assert found[3].value == 0
    assert "250 kB per layer stored, 0 bytes reversed" in found[3].figure
    assert found[5].verdict == HOLDS
    assert found[5].value == pytest.approx(1.33, abs=0.02)
    assert found[5].low < found[5].value < found[5].high
    assert found[5].hardware == ("test processor",)
    assert found[6].verdict == HOLDS
    assert found[17].verdict == HOLDS
    assert set(found[3].trials) <= {row["trial_id"] for row in demo.rows("trials")}
    assert found[12].verdict in (HOLDS, FAILS)  # noise of four thousandths


@pytest.mark.parametrize(
    ("gaps", "verdict"),
    [
        ([0.3, -0.2, 0.1, -0.3, 0.2, -0.1], HOLDS),
        ([-0.1, -0.2, -0.1, -0.3, -0.2, -0.1], FAILS),  # small, and not by chance
        ([2.5, -1.0, 3.0, -0.5, 2.0, -0.2], FAILS),  # perhaps by chance, but large
        ([-0.1, -0.25, -0.6], NOT_MEASURED),  # one in four times all three have one sign
    ],
)
def test_a_difference_of_twins_must_be_small_and_within_chance(tmp_path, gaps, verdict):
    rows = [
        trial_row(strategy=s, seed=seed, accuracy_test=0.9 + (gap / 100 if s == "reverse" else 0))
        for seed, gap in enumerate(gaps)
        for s in ("store", "reverse")
    ]
    assert verdicts(write_trials(tmp_path, rows))[12].verdict == verdict


@pytest.mark.parametrize(
    ("changes", "verdict"),
    [({}, HOLDS), ({"memory_activation_bytes": 9_000_000}, FAILS), ({"outcome": "failed"}, NOT_MEASURED)],
)
def test_flatness_in_depth_depends_on_the_rows(tmp_path, changes, verdict):
    rows = [trial_row(depth=d, strategy=s) for d in (14, 26) for s in ("store", "reverse")]
    rows[-1] |= changes  # depth 26, reversing
    assert verdicts(write_trials(tmp_path, rows))[3].verdict == verdict


@pytest.mark.parametrize(("factor", "verdict"), [(1.4, HOLDS), (2.2, FAILS), (0.7, NOT_MEASURED)])
def test_a_step_that_rebuilds_cannot_be_faster(tmp_path, factor, verdict):
    rows = [
        trial_row(depth=d, strategy=s, step_time_s=0.01 * d * (factor if s == "reverse" else 1))
        for d in (14, 26, 38)
        for s in ("store", "reverse")
    ]
    assert verdicts(write_trials(tmp_path / "a", rows))[5].verdict == verdict
    for row in rows:
        row["step_time_s"] = 0.01  # whatever the depth
    assert verdicts(write_trials(tmp_path / "b", rows))[6].verdict == NOT_MEASURED


def test_removing_rows_takes_the_verdict_away(tmp_path):
    rows = [trial_row(depth=d, strategy=s) for d in (14, 26) for s in ("store", "reverse")]
    write_trials(tmp_path, rows)
    assert verdicts(tmp_path)[3].verdict == HOLDS
    for file in (tmp_path / "study=demo" / "trials").glob(f"{rows[0]['trial_id']}*"):
        file.unlink()
    assert verdicts(tmp_path)[3].verdict == NOT_MEASURED


@pytest.mark.parametrize(("angle", "verdict"), [(0.1, HOLDS), (1.5, FAILS)])
def test_the_angle_of_the_gradients_is_judged_at_initialization(tmp_path, angle, verdict):
    trial = trial_row()
    write_rows(tmp_path, "trials", [trial])
    write_rows(tmp_path, "blocks", probed(trial, [angle, 50.0]))
    found = verdicts(tmp_path)
    assert (found[1].verdict, found[2].verdict) == (HOLDS, verdict)
    assert found[2].value == angle


@pytest.mark.parametrize(
    ("angles", "verdict"),
    [([1e-4, 1e-3], HOLDS), ([1e-3, 1e-4], FAILS), ([1e-4, 2.0], FAILS), ([1e-4], NOT_MEASURED)],
)
def test_drift_has_to_grow_and_stay_small(tmp_path, angles, verdict):
    trial = trial_row()
    write_rows(tmp_path, "trials", [trial])
    write_rows(tmp_path, "blocks", probed(trial, angles))
    assert verdicts(tmp_path)[11].verdict == verdict


def test_the_paper_s_pairs_are_judged_by_memory_and_parameters(tmp_path):
    sizes = {"memory_activation_bytes": 900, "parameters": 1_727_962}
    rows = [
        network("resnet110", strategy="store", **sizes),
        network("revnet110", strategy="reverse", memory_activation_bytes=80, parameters=1_729_194),
    ]
    found = verdicts(write_trials(tmp_path / "a", rows))
    assert (found[4].verdict, found[4].value) == (HOLDS, 11.25)
    assert (found[7].verdict, found[13].verdict) == (HOLDS, NOT_MEASURED)
    rows[1] |= {
        "memory_activation_bytes": 100,
        "parameters": 1_729_195,
        "memory_saved_bytes": 90_112 * 400 * 2,
    }
    found = verdicts(write_trials(tmp_path / "b", rows))
    assert (found[4].verdict, found[7].verdict, found[13].verdict) == (FAILS, FAILS, FAILS)
    rows[1] |= {"memory_saved_bytes": 90_112 * 400}
    assert verdicts(write_trials(tmp_path / "c", rows))[13].verdict == HOLDS


def cifar(tmp_path, *, gap, seeds=3, epochs=160):
    rows = []
    for seed in range(seeds):
        around = {"data": "cifar10", "examples_train": 45_000, "seed": seed, "epochs": epochs}
        rows.append(network("resnet32", strategy="store", accuracy_test=0.93, **around))
        rows.append(network("revnet38", strategy="reverse", accuracy_test=0.93 - gap / 100, **around))
        for row in rows[-2:]:
            row["epochs_done"] = 4
    return verdicts(write_trials(tmp_path, rows))


def test_parity_takes_the_paper_s_schedule_and_seeds(tmp_path):
    assert cifar(tmp_path / "a", gap=0.1)[8].verdict == HOLDS
    assert cifar(tmp_path / "b", gap=0.9)[8].verdict == FAILS
    assert cifar(tmp_path / "c", gap=0.1, seeds=2)[8].verdict == NOT_MEASURED
    reduced = cifar(tmp_path / "d", gap=0.1, epochs=20)[8]
    assert reduced.verdict == NOT_MEASURED
    assert "at a reduced scale (up to 20 epochs) RevNets differ by -0.10 points" in reduced.figure
    assert cifar(tmp_path / "e", gap=0.1)[10].verdict == HOLDS  # the fixture's curves end at 0.94 and alike


@pytest.mark.parametrize(("loss", "verdict"), [(0.2, HOLDS), (0.2001, FAILS)])
@pytest.mark.parametrize(
    ("number", "family", "column"), [(14, "revnet", "loss_val"), (18, "revvit", "loss_train")]
)
def test_twins_that_compute_the_same(tmp_path, number, family, column, loss, verdict):
    a, b = (trial_row(family=family, compute="fp64", strategy="reverse") for _ in range(2))
    a |= {"trial_id": "a"}
    b |= {"trial_id": "b"} | ({"strategy": "store"} if number == 14 else {})
    a |= {} if number == 14 else {"workers": 2}
    for trial, value in ((a, loss), (b, 0.2)):
        write_rows(tmp_path, "trials", [trial])
        write_rows(tmp_path, "epochs", [row | {column: value} for row in epoch_rows(trial)])
    assert verdicts(tmp_path)[number].verdict == verdict


def test_the_report_has_the_claims_it_can_judge(tmp_path, demo):
    page = render_report(demo)
    assert 'id="claims"' in page
    assert "The activation memory of a RevNet does not grow with its depth." in page
    (tmp_path / "store").mkdir()
    assert 'id="claims"' not in render_report(open_store(tmp_path / "store"))
    assert sum(counts(judge(demo)).values()) == 18


@pytest.mark.parametrize("turn", [1, 7, 23])
def test_the_order_of_the_rows_changes_no_verdict(tmp_path, turn):
    rows = demo_trials(seeds=5)
    rows += [network("revnet38", strategy=s, seed=i) for s in ("store", "reverse") for i in range(4)]
    turned = [*rows[turn:], *rows[:turn]][::-1]
    for name, order in (("a", rows), ("b", turned)):
        for number, row in enumerate(order):
            row = row | {"started_at": rows[number]["started_at"]}
            write_rows(tmp_path / name, "trials", [row])
            if row["accuracy_train"] is not None:
                write_rows(tmp_path / name, "epochs", epoch_rows(row))
            if blocks := probed(row, [1e-4 * (1 + row["seed"]), 3e-4]):
                write_rows(tmp_path / name, "blocks", blocks)
    first, second = (judge(open_store(tmp_path / name)) for name in ("a", "b"))
    assert sum(v.low is not None for v in first) >= 3
    assert second == first

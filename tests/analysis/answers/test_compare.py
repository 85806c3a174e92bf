import pytest

from analysis.answers.compare import compare, open_side
from analysis.answers.compare_text import compare_studies, comparison_text, values_text
from analysis.errors import NotComparableError, StoreError, UnknownStudyError
from analysis.store.store import open_store


def side(new_trial, study, *, seeds=4, **changes):
    return [new_trial(study=study, seed=i, depth=d, **changes) for d in (14, 26) for i in range(seeds)]


@pytest.fixture
def precision(new_trial):
    """Two sides that differ in the precision, each with two depths and four seeds."""
    a, b = side(new_trial, "a"), side(new_trial, "b", compute="bf16")
    for index, (x, y) in enumerate(zip(a, b, strict=True)):
        x |= {"accuracy_test": 0.9 + 0.001 * index, "memory_peak_bytes": 1000}
        y |= {"accuracy_test": 0.9 + 0.001 * index - 0.02, "memory_peak_bytes": 500}
    return a, b


def effects(result):
    return {effect.column: effect for effect in result.effects}


def test_an_effect_is_that_of_the_paired_difference(precision):
    result = compare(*precision)
    assert result.pairs == 8
    assert [c.path for c in result.settings if c.changed] == ["precision.compute", "precision.stream"]
    accuracy, memory = effects(result)["accuracy_test"], effects(result)["memory_peak_bytes"]
    assert accuracy.effect.mean == pytest.approx(-0.02)
    assert (accuracy.effect.low, accuracy.effect.high) == pytest.approx((-0.02, -0.02))
    assert (memory.kind, memory.effect.mean, memory.effect.n) == ("ratio", pytest.approx(0.5), 8)
    assert (memory.a, memory.b) == (1000, 500)


def test_the_sides_change_places_with_the_sign(precision):
    forth, back = effects(compare(*precision)), effects(compare(*reversed(precision)))
    assert forth["accuracy_test"].effect.mean == pytest.approx(-back["accuracy_test"].effect.mean)
    assert forth["memory_peak_bytes"].effect.mean == pytest.approx(1 / back["memory_peak_bytes"].effect.mean)


def test_a_setting_both_sides_share_values_of_must_agree(new_trial, precision):
    a, b = precision
    more = compare(a, [*b, new_trial(study="b", compute="bf16", depth=38)])
    assert more.pairs == 8
    assert more.unpaired_b == 1
    (depth,) = (c for c in more.settings if c.path == "model.depth")
    assert (depth.a, depth.b, depth.changed) == (("14", "26"), ("14", "26", "38"), False)


def test_other_seeds_are_averaged_over(new_trial):
    a = side(new_trial, "a", seeds=2)
    b = [
        {**new_trial(study="b", seed=10 + i, depth=d), "accuracy_test": 0.5} for d in (14, 26) for i in (0, 1)
    ]
    result = compare(a, b)
    assert [c.path for c in result.settings if c.changed] == ["seed"]
    assert result.pairs == 2
    expected = sum(0.5 - (a[i]["accuracy_test"] + a[i + 1]["accuracy_test"]) / 2 for i in (0, 2)) / 2
    assert effects(result)["accuracy_test"].effect.mean == pytest.approx(expected)
    assert effects(result)["accuracy_test"].effect.low is None  # two values say nothing of a spread


def test_what_cannot_be_compared_is_left_out_and_counted(precision):
    a, b = precision
    b[0] |= {"outcome": "diverged"}
    b[1] |= {"memory_source": "cuda_allocator", "device": "another"}
    b[2] |= {"accuracy_test": float("nan"), "reconstruction_rel_error": 0.0}
    result = compare(a, b)
    assert (result.pairs, result.unpaired_a, result.unpaired_b) == (7, 1, 0)
    found = effects(result)
    assert (found["memory_peak_bytes"].effect.n, found["memory_peak_bytes"].left_out) == (6, 1)
    assert (found["step_time_s"].effect.n, found["step_time_s"].left_out) == (6, 1)
    assert (found["accuracy_test"].effect.n, found["accuracy_test"].left_out) == (6, 1)
    assert found["reconstruction_rel_error"].left_out == 1
    assert result.b.outcomes == (("diverged", 1), ("ok", 7))


def test_one_and_the_same_row_is_no_pair(new_trial):
    rows = side(new_trial, "a")
    again = [{**row, "started_at": row["finished_at"], "accuracy_test": 0.5} for row in rows[:3]]
    result = compare(rows, [*again, *rows[3:]])
    assert (result.shared, result.pairs) == (5, 3)
    assert result.settings == ()


def test_nothing_in_common_is_told(new_trial):
    result = compare(side(new_trial, "a"), [new_trial(study="b", depth=50, compute="bf16", epochs=9)] * 0)
    assert (result.pairs, result.effects) == (0, ())
    assert "nothing to compare" in comparison_text(result)
    assert compare([], []).pairs == 0


def test_the_text_tells_sides_changes_and_effects(precision):
    text = comparison_text(compare(*precision, names=("before", "after")))
    assert "A  before: 8 trials (8 ok)" in text
    assert "8 pairs of trials that differ in precision.compute and precision.stream." in text
    assert "* precision.compute: fp32  →  bf16" in text
    assert "-2.00 points (95 % interval -2.00 to -2.00, n = 8)" in text
    assert "0.50× (95 % interval 0.50× to 0.50×, n = 8)" in text


def test_text_of_a_store_cannot_steer_the_terminal(new_trial):
    a = [new_trial(study="a", seed=i) for i in range(3)]
    b = [{**row, "study": "b", "device": "x\x1b[31m\ny", "trial_id": f"b{i}"} for i, row in enumerate(a)]
    text = comparison_text(compare(a, b, names=("a\x1b[2J", "b")))
    assert "\x1b" not in text


def test_a_side_is_a_study_or_a_store(tmp_path, new_trial, write):
    store, other = tmp_path / "store", tmp_path / "other"
    write(store, [new_trial(study="one"), new_trial(study="two", seed=1)])
    write(other, [new_trial(study="three", seed=2)])
    assert [r["seed"] for r in open_side("two", store)[1]] == [1]
    assert [r["seed"] for r in open_side(str(other), store)[1]] == [2]
    assert [r["seed"] for r in open_side(str(store / "study=one"), store)[1]] == [0]
    with pytest.raises(UnknownStudyError, match="did you mean 'three'"):
        open_side("thre", other)
    with pytest.raises(UnknownStudyError, match="folder of another store, got 'one'"):
        open_side("one", tmp_path / "nowhere")
    assert UnknownStudyError.exit_code == 2 and StoreError.exit_code == 3


def test_values_are_short_enough_to_read():
    values = ("0.02073193041363065", "0.1", "12345678", "bf16 on fp32 stream", "x" * 50)
    assert values_text(values) == f"0.02073, 0.1, 12345678, bf16 on fp32 stream, {'x' * 39}…"


@pytest.mark.parametrize(
    ("column", "word"), [("data", "data set"), ("task", "task")], ids=["data sets", "tasks"]
)
def test_what_learnt_something_else_is_not_compared(new_trial, write, tmp_path, column, word):
    a = side(new_trial, "a")
    b = [{**row, "study": "b", column: "another"} for row in side(new_trial, "b", compute="bf16")]
    with pytest.raises(
        NotComparableError, match=f"two sides must share a {word}, got .* in A and another in B"
    ):
        compare(a, b)
    assert compare(a, [*b, *side(new_trial, "b", compute="bf16")]).pairs == 8
    assert compare_studies(open_store(write(tmp_path, [*a, *b]))) == []


def test_an_older_row_without_a_task_is_one_of_classification(new_trial):
    a, b = side(new_trial, "a"), side(new_trial, "b", compute="bf16", task="classification")
    assert compare(a, b).pairs == 8


def test_of_several_settings_none_is_said_to_act_alone(new_trial):
    a = side(new_trial, "a")
    text = comparison_text(compare(a, side(new_trial, "b", width=2.0)))
    assert "that differ in model.width alone." in text
    text = comparison_text(compare(a, side(new_trial, "b", width=2.0, compute="bf16", strategy="store")))
    assert "alone" not in text
    assert "differ in 4 settings at once (memory.strategy, model.width, precision.compute and" in text
    assert "so that no effect can be put down to one of them." in text

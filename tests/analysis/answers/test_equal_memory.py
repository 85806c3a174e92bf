from analysis.answers.equal_memory import in_words, within_each_budget
from analysis.answers.recommend import configurations


def _rows(new_trial, strategy, peak, accuracies, depth=38, **changes):
    return [
        new_trial(
            strategy=strategy, depth=depth, seed=seed, memory_peak_bytes=peak, accuracy_val=value, **changes
        )
        for seed, value in enumerate(accuracies)
    ]


def test_the_best_of_each_kind_at_every_budget_where_one_changes(new_trial):
    rows = [
        *_rows(new_trial, "store", 10, (0.90, 0.91, 0.92), depth=14),
        *_rows(new_trial, "store", 40, (0.95, 0.95, 0.95)),
        *_rows(new_trial, "checkpoint", 20, (0.93, 0.93, 0.93), depth=26),
        *_rows(new_trial, "reverse", 10, (0.92, 0.93, 0.94), depth=26),
        *_rows(new_trial, "reverse", 30, (0.91, 0.91, 0.91), depth=14),  # larger, and no better
    ]
    ((data, steps),) = within_each_budget(configurations(rows))
    assert data == "digits"
    assert [step.budget_bytes for step in steps] == [10, 20, 40]
    first, second, last = (
        {best.kind: best.choice and best.choice.rows[0]["depth"] for best in step.best} for step in steps
    )
    assert first == {"stored": 14, "recomputed or moved": None, "reversed": 26}
    assert second["recomputed or moved"] == 26
    assert last == {"stored": 38, "recomputed or moved": 26, "reversed": 26}
    gap = next(best.difference for best in steps[0].best if best.kind == "reversed")
    assert abs(gap.mean - 0.02) < 1e-12 and gap.n == 3  # over the seeds that both have
    text = in_words([(data, steps)], {row["trial_id"]: n for n, row in enumerate(rows)})
    lines = {line["kind"]: line for line in text[0]["steps"][0]["lines"]}
    assert "+2.00 points" in lines["reversed"]["difference"]
    assert lines["recomputed or moved"]["what"] == "none fits"
    assert lines["stored"]["rows"] == [0, 1, 2]


def test_what_is_not_faithful_is_not_named_and_one_kind_alone_is_no_comparison(new_trial):
    stored = _rows(new_trial, "store", 10, (0.9, 0.9))
    assert within_each_budget(configurations(stored)) == []
    wrong = _rows(new_trial, "reverse", 5, (0.99, 0.99), gradient_rel_error=0.5)
    assert within_each_budget(configurations([*stored, *wrong])) == []


def test_the_slower_seeds_of_the_other_do_not_count(new_trial):
    rows = [
        *_rows(new_trial, "store", 10, (0.9, 0.9, 0.9, 0.9)),
        *_rows(new_trial, "reverse", 5, (0.8, 0.8)),
    ]
    ((_, steps),) = within_each_budget(configurations(rows))
    gap = next(best.difference for best in steps[-1].best if best.kind == "reversed")
    assert gap.n == 2

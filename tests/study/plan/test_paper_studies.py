"""The paper's studies run whole at their scale `smoke`, and their rows carry verdicts."""

import numpy as np
import pytest
from PIL import Image

from analysis.claims.judge import HOLDS, NOT_MEASURED, judge
from analysis.store.store import open_store
from study.plan.expand import make_plan
from study.spec.load import load_study
from study.store.writer import write_result
from study.train.trial import train_trial

STUDIES = ("paper-memory", "paper-cost", "paper-numerics", "paper-cifar", "ladder")


def run(name, store):
    """Every trial of a study at scale smoke, trained in this process; each must end well."""
    for trial in make_plan(load_study(name, "smoke")).trials:
        result = train_trial(trial)
        assert result.trial["outcome"] == "ok", result.trial["error_message"]
        write_result(store, result)


def judged(store):
    """Numbers of the claims with a verdict."""
    return {v.number for v in judge(open_store(store)) if v.verdict != NOT_MEASURED}


@pytest.mark.timeout(900)
def test_their_rows_give_verdicts_and_none_without_them(tmp_path):
    for name in STUDIES:
        run(name, tmp_path)
    found = {v.number: v for v in judge(open_store(tmp_path))}
    for number in (1, 2, 3, 14, 15, 17):
        assert found[number].verdict == HOLDS, found[number]
        assert found[number].trials
        assert found[number].hardware
    assert {10, 11} <= judged(tmp_path)
    for studies, lost in (
        (("paper-memory", "paper-cost"), {3}),
        (("paper-numerics", "ladder"), {1, 2, 11, 14, 15}),
        (("paper-cifar",), {10}),
    ):
        for study in studies:
            for file in (tmp_path / f"study={study}-smoke" / "trials").iterdir():
                file.unlink()
        assert not lost & judged(tmp_path)
    assert not judged(tmp_path)


def test_imagenet_s_recipe_runs_on_a_folder_of_generated_images(tmp_path, monkeypatch):
    noise = np.random.default_rng(0)
    for split, count in (("train", 6), ("val", 2)):
        for label in ("cat", "dog"):
            (tmp_path / "data" / split / label).mkdir(parents=True)
            for i in range(count):
                pixels = noise.integers(0, 256, (120, 140, 3), dtype=np.uint8)
                Image.fromarray(pixels).save(tmp_path / "data" / split / label / f"{i}.jpg")
    monkeypatch.setenv("REVSTUDY_DATA", str(tmp_path / "data"))
    run("paper-imagenet", tmp_path / "store")
    rows = {row["model"]: row for row in open_store(tmp_path / "store").rows("trials")}
    assert set(rows) == {"resnet101", "revnet104"}
    assert rows["revnet104"]["strategy"] == "reverse"
    assert all(row["accuracy_test"] is not None and row["num_classes"] == 2 for row in rows.values())
    assert rows["revnet104"]["reconstruction_rel_error"] < 1e-4

"""docs/findings.md is what the committed rows give, and changes when they do."""

import re
import shutil

import pyarrow as pa
import pyarrow.parquet as pq

from analysis.claims.judge import NOT_MEASURED, judge
from benchmarks import prediction
from benchmarks.findings import summary
from benchmarks.findings.__main__ import FIGURES, PAGE, README, page
from benchmarks.findings.rows import Rows
from benchmarks.results_file import FOLDER
from revmodels import list_models


def test_the_page_is_what_the_rows_give_and_its_figures_are_there():
    text = PAGE.read_text()
    assert page(Rows()) == text, "rows have changed: python -m benchmarks.findings --figures"
    readme = README.read_text()
    assert summary.placed(readme, Rows()) == readme, "rows have changed: python -m benchmarks.findings"
    figures = re.findall(r"\]\(findings/(.*?)\)", text)
    assert figures
    assert {FIGURES / name for name in figures} <= set(FIGURES.iterdir())


def test_other_rows_give_another_page(tmp_path):
    shutil.copytree(FOLDER, tmp_path / "results")
    file = tmp_path / "results" / "largest.parquet"
    rows = pq.read_table(file).to_pylist()
    rows[-1] |= {"deepest": 12_345}
    pq.write_table(pa.Table.from_pylist(rows), file)
    assert "12,345" in page(Rows(tmp_path / "results"))
    assert "12,345" not in page(Rows())
    shutil.rmtree(tmp_path / "results" / "store" / "study=paper-memory")
    found = {v.number: v.verdict for v in judge(Rows(tmp_path / "results").store)}
    assert found[4] == NOT_MEASURED != found[2]
    for folder in (tmp_path / "results" / "store").glob("study=*"):
        shutil.rmtree(folder)
    assert {v.verdict for v in judge(Rows(tmp_path / "results").store)} == {NOT_MEASURED}


def test_the_committed_depth_is_twenty_times_that_of_storing_and_its_step_fits():
    rows = Rows().of("largest")
    stored, reversing = rows[0], rows[-1]
    assert (stored["model"], stored["deepest"], stored["batch"]) == ("resnet110", 110, 128)
    assert reversing["deepest"] >= 20 * stored["deepest"]
    assert reversing["measured_bytes"] == reversing["predicted_bytes"] <= reversing["budget_bytes"]
    assert reversing["gradient_norm"] > 0


def test_recorded_predictions_are_right_and_some_are_made_again(tmp_path):
    rows = Rows().of("prediction")
    assert {row["model"] for row in rows} <= set(list_models())
    assert all(map(prediction.equal, rows))
    out = tmp_path / "prediction.parquet"
    assert prediction.main(["--models", "re[sv]net3*", "--batch", "2", "--output", str(out)]) == 0
    made = pq.read_table(out).to_pylist()
    assert {(r["model"], r["strategy"]) for r in made} >= {("revnet38", "reverse"), ("resnet32", "store")}
    made[0]["measured_bytes"] += 1
    assert not prediction.equal(made[0])

"""The notebook of the documentation does what it says, in a Ray that runs already."""

import json
from pathlib import Path

import pytest

import analysis
from analysis.errors import AnalysisError

NOTEBOOK = Path(__file__).parents[2] / "docs" / "notebook.ipynb"


def test_every_cell_runs_and_the_rows_are_there(ray_cluster, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    names: dict = {}
    for cell in json.loads(NOTEBOOK.read_text())["cells"]:
        if cell["cell_type"] == "code":
            exec(compile("".join(cell["source"]), str(NOTEBOOK), "exec"), names)
    assert names["summary"].exit_code == 0
    assert names["rows"].num_rows == len(names["plan"].trials) == 4
    peaks = names["frame"].groupby("strategy")["memory_peak_bytes"].mean()
    assert peaks["reverse"] < peaks["store"]
    assert len(names["drawn"].data) > 0
    with pytest.raises(AnalysisError, match="did you mean 'tradeoff'"):
        analysis.figure(names["store"], "tradeof")

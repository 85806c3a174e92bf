"""Verbs that read a store start fast: they import no package that they do not use."""

import subprocess
import sys

import pytest

from benchmarks.plan_scale import write
from study.cli.imports import leave_out_pandas
from tests.analysis.conftest import demo_trials, write_trials

IMPORTED = (
    "import sys; from study.cli.main import main\n"
    "sys.argv = ['revstudy', *sys.argv[1:]]\n"
    "try: main()\n"
    "except SystemExit as end: assert not end.code, end.code\n"
    "print(*sys.modules, file=sys.stderr)"
)


def imported(*arguments, whole=False):
    """The packages in memory at the end of a command, or all modules under their whole names."""
    command = [sys.executable, "-c", IMPORTED, *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    names = set(done.stderr.splitlines()[-1].split())
    return names if whole else {name.partition(".")[0] for name in names}


@pytest.fixture(scope="module")
def rows(tmp_path_factory):
    """A store of trials that readers may read."""
    return write_trials(tmp_path_factory.mktemp("imports") / "store", demo_trials(seeds=1))


def test_a_plan_of_a_study_that_is_done_imports_neither_torch_nor_ray(tmp_path):
    study = write(tmp_path / "store", 500)
    found = imported("plan", study, "--store", tmp_path / "store", "--json")
    assert not found & {"torch", "ray", "optuna", "pandas", "scipy"}
    assert {"pyarrow", "pydantic"} <= found  # the same test sees what is imported


@pytest.mark.parametrize("verb", ["status", "claims", "query pareto"])
def test_a_verb_that_reads_a_store_imports_no_package_that_it_does_not_use(rows, verb):
    found = imported(*verb.split(), "--store", rows)
    assert not found & {"torch", "ray", "optuna", "pandas", "plotly", "scipy", "sklearn"}
    assert {"pyarrow", "duckdb"} <= found


def test_a_report_imports_no_pandas_torch_or_ray(rows, tmp_path):
    found = imported("report", "--store", rows, "-o", tmp_path / "report.html")
    assert not found & {"torch", "ray", "optuna", "pandas", "sklearn"}
    assert {"plotly", "jinja2"} <= found


def test_pandas_can_be_imported_after_it_was_left_out():
    code = (
        "import sys; from study.cli.imports import leave_out_pandas; leave_out_pandas()\n"
        "import pyarrow as pa; pa.array([1]); assert 'pandas' not in sys.modules\n"
        "import pandas; assert pandas.Series([1]).sum() == 1"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)
    before = list(sys.meta_path)
    leave_out_pandas()
    assert sys.meta_path == before


def test_the_doctor_imports_neither_ray_nor_the_compiler_of_pytorch(tmp_path):
    found = imported("doctor", "--store", tmp_path, whole=True)
    assert "torch" in found
    assert not found & {"ray", "torch._dynamo", "torch._inductor"}

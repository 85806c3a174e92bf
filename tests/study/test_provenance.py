import subprocess
import sys

import torch

from analysis.schema import TRIALS
from study.provenance import provenance


def test_columns_are_those_of_the_schema():
    names = [column.name for column in TRIALS.columns]
    expected = names[names.index("device") : names.index("started_at")]
    assert list(provenance("cpu")) == expected


def test_values():
    found = provenance("cpu")
    assert found["torch_version"] == torch.__version__.partition("+")[0] or found["torch_version"]
    assert found["cpu_threads"] == torch.get_num_threads()
    assert found["python_version"].startswith(f"{sys.version_info.major}.{sys.version_info.minor}")
    assert "cores" in found["device"]
    assert len(found["hostname_hash"]) == 12


def test_a_process_that_trained_nothing_has_no_device():
    found = provenance()
    assert found["device"] is None and found["cpu_threads"] is None


def test_ray_counts_only_if_the_trial_ran_with_it():
    code = "from study.provenance import provenance; print(provenance()['ray_version'])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "None"

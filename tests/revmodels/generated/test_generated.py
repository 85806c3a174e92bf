"""Generated networks and uses: equal to the stored twin, or refused by name. `make soak` draws other ones."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from tests.revmodels.generated.judge import EQUAL, REFUSED, TWIN_FAILS
from tests.s3_server import ROOT


@pytest.mark.timeout(900)
def test_generated_networks_equal_their_stored_twins():
    """In a process of its own: what it draws and compiles depends on nothing that ran before."""
    command = [sys.executable, "-m", "tests.revmodels.generated.fixed"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr[-2000:]
    outcomes = json.loads(done.stdout.splitlines()[-1])
    # An engine that refused everything would pass what stands above.
    asked = sum(outcomes.values()) - outcomes.get(TWIN_FAILS, 0)
    assert outcomes[EQUAL] > 0.6 * asked, outcomes
    assert outcomes[REFUSED] > 0.02 * asked, outcomes

"""Generated networks and uses: equal to the stored twin, or refused by name. `make soak` draws other ones."""

from __future__ import annotations

from collections import Counter

import pytest
import torch
from hypothesis import HealthCheck, Phase, given, settings

from tests.revmodels.generated.case import Case, cases
from tests.revmodels.generated.judge import EQUAL, REFUSED, TWIN_FAILS, judge
from tests.revmodels.generated.shrink import shrink, text

CASES = 250


@pytest.mark.timeout(900)
def test_generated_networks_equal_their_stored_twins():
    outcomes: Counter[str] = Counter()
    findings: list[str] = []

    # The same cases in every run; a finding is made plain by `shrink`, which keeps it the same finding.
    @settings(
        max_examples=CASES,
        derandomize=True,
        database=None,
        phases=[Phase.generate],
        deadline=None,
        suppress_health_check=list(HealthCheck),
    )
    @given(cases())
    def draw(case: Case) -> None:
        verdict = judge(case)
        outcomes[verdict.outcome] += 1
        if verdict.is_finding and len(findings) < 5:
            findings.append(f"{verdict.outcome}: {verdict.what}\n  {text(shrink(case, verdict))}")

    draw()
    torch.compiler.reset()
    assert not findings, "\n".join(findings)
    # An engine that refused everything would pass what stands above.
    asked = outcomes.total() - outcomes[TWIN_FAILS]
    assert outcomes[EQUAL] > 0.6 * asked, outcomes
    assert outcomes[REFUSED] > 0.02 * asked, outcomes

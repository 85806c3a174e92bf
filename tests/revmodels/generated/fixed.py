"""A fixed number of generated networks and uses, the same in every run, each judged against its stored twin.

    python -m tests.revmodels.generated.fixed

It prints the findings and the tally, and ends with exit code 1 if there is a finding.
"""

from __future__ import annotations

import json
from collections import Counter

from hypothesis import HealthCheck, Phase, given, settings

from tests.revmodels.generated.case import Case, cases
from tests.revmodels.generated.judge import judge
from tests.revmodels.generated.shrink import shrink, text

CASES = 250


def main() -> int:
    """Judge the cases."""
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
    print(*findings, json.dumps(outcomes), sep="\n")
    return bool(findings)


if __name__ == "__main__":
    raise SystemExit(main())

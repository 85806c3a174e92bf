"""What `status` says of a study: within 80 columns, without cutting what matters."""

from __future__ import annotations

from datetime import UTC, datetime

from study.cli.status import WIDE, _lines
from study.status import StudyStatus


def status_of(**changes):
    """The lines of a study of a long name, with large counts."""
    known = {
        "study": "a-study-whose-name-is-rather-long-but-still-allowed-by-the-rules",
        "planned": 10_000, "trials": 9_876, "ok": 9_000, "pruned": 321, "failed": 555, "interrupted": 12,
        "retried": 77, "running": 16, "rate_per_hour": 1234.5, "time_left_s": 86_399.0,
        "best_accuracy_val": 0.98765, "best_accuracy_test": 0.97654,
        "last_row_at": datetime(2026, 11, 24, 23, 15, 32, tzinfo=UTC),
    }  # fmt: skip
    lines = _lines(StudyStatus(**{**known, **changes}))
    assert all(len(line) <= WIDE == 80 for line in lines)
    return " ".join(line.strip() for line in lines)


def test_status_fits_80_columns_and_cuts_nothing():
    text = status_of()
    assert "9864/10000 done (9000 ok, 555 failed, 321 pruned)" in text
    assert "16 running, 12 interrupted, 77 retried" in text
    assert "1,234 trials an hour" in text
    assert "best 98.8 % in validation (97.7 % in test)" in text
    assert "last row 2026-11-24 23:15:32 UTC" in text


def test_status_leaves_out_what_is_nought_and_names_the_metric_of_the_task():
    nought = dict.fromkeys(("pruned", "failed", "interrupted", "retried", "running"), 0)
    unknown = dict.fromkeys(("rate_per_hour", "time_left_s", "best_accuracy_val", "best_accuracy_test"))
    text = status_of(**nought, **unknown, best_bits_per_byte_val=2.5, study="s", trials=3, planned=3, ok=3)
    assert text.startswith("s: 3/3 done (3 ok) best 2.5000 bits per byte in validation; last row")

"""How far a study is, in the words of the live page: rows and leases as `study.status` counts them."""

from __future__ import annotations

from analysis.report.progress import Progress, RunningTrial, parsed_curve
from analysis.store.store import Store
from study.status import status_of


def progress_of(store: Store) -> Progress:
    """Answer how far the studies of an open store are; leases are read as they are now."""
    found = status_of(store, check_files=False)
    known = [study for study in found.studies if study.planned is not None]
    left = [study.left for study in known if study.left is not None]
    times = [study.time_left_s for study in found.studies if study.time_left_s is not None]
    rates = [study.rate_per_hour for study in found.studies if study.rate_per_hour is not None]
    return Progress(
        planned=sum(study.planned or 0 for study in known) if len(known) == len(found.studies) else None,
        done=sum(study.trials - study.interrupted for study in found.studies),
        failed=sum(study.failed for study in found.studies),
        retried=sum(study.retried for study in found.studies),
        left=sum(left) if left and len(left) == len(found.studies) else None,
        rate_per_hour=sum(rates) if rates else None,
        time_left_s=max(times) if times else None,
        running=tuple(
            RunningTrial(
                what=lease.what or lease.trial_id,
                host=lease.host,
                share=min(1.0, lease.epoch / lease.epochs) if lease.epochs else 0.0,
                memory_bytes=lease.memory_bytes,
                curve=parsed_curve(lease.curve),
            )
            for lease in found.running
        ),
    )

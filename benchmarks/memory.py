"""Memory of a training step: reversing against memcnn, RevTorch, checkpointing and storing.

    python benchmarks/memory.py [--subjects revnet110 revnet164 mlp64] [--batch 100]

One forward and backward pass each, on the same weights and the same batch, followed storage by storage at the
level of PyTorch's dispatcher. Gradients are compared with the stored twin's first. The figure is the peak of
activations and temporaries: parameters, gradients and inputs are left out, being the same for all.
"""

from __future__ import annotations

import argparse
import gc
import sys
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

if __package__ in (None, ""):
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.contenders import EAGER, Entry, backward, check, enter
from benchmarks.results_file import FOLDER, table, write
from benchmarks.subjects import SUBJECTS, Subject
from revmodels.memory.tracker import Tracker as StorageTracker

DEFAULT_SUBJECTS = ("revnet110", "revnet164", "mlp64")


class Tracker(StorageTracker):
    """The tracker of this package, also for storages that change size, as memcnn makes its inputs do."""

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.look()
        return super().__torch_dispatch__(func, types, args, kwargs)

    def look(self) -> None:
        """Take over the present size of every storage that is alive."""
        for key, (reference, size, category) in list(self._live.items()):
            storage = reference()
            if storage is not None and storage.nbytes() != size:
                self._live[key] = (reference, storage.nbytes(), category)
                self.held[category] += storage.nbytes() - size
        self.peak = max(self.peak, sum(self.held.values()))
        self.peak_activation = max(self.peak_activation, self.held.get("activation", 0))


def activation_bytes(entry: Entry, batch: tuple[Tensor, Tensor]) -> tuple[int, int]:
    """Bytes of one forward and backward pass: (peak of activations and temporaries, peak of all)."""
    tracker = Tracker()
    for p in entry.parameters:
        p.grad = None
        tracker.follow(p, "parameter")
    for b in entry.model.buffers():
        tracker.follow(b, "buffer")
    for t in batch:
        tracker.follow(t, "input")

    def on_gradient(p: Tensor) -> None:
        if p.grad is not None:
            tracker.follow(p.grad, "gradient")

    handles = [p.register_post_accumulate_grad_hook(on_gradient) for p in entry.parameters]
    gc.collect()
    try:
        with tracker:
            backward(entry, batch)
            tracker.look()
    finally:
        for handle in handles:
            handle.remove()
    for p in entry.parameters:
        p.grad = None
    return tracker.peak_activation, tracker.peak


def measure(subject: Subject, names: Sequence[str], batch_size: int | None) -> list[dict[str, Any]]:
    """Rows of one subject, one for each contender."""
    size = batch_size or subject.batch
    errors = check(subject, names, min(size, 8))
    batch = subject.data(size)
    rows = []
    for name in names:
        (entry,) = enter(subject, [name])
        activations, total = activation_bytes(entry, batch)
        rows.append(
            {
                "subject": subject.name,
                "contender": name,
                "batch": size,
                "activation_bytes": activations,
                "total_bytes": total,
                "gradient_rel_error": errors[name],
            }
        )
    return rows


def summary(rows: Sequence[dict[str, Any]]) -> list[list[str]]:
    """Lines of the printed table."""
    by_name = {row["contender"]: row["activation_bytes"] for row in rows}
    lines = []
    for row in rows:
        share = ""
        if row["contender"] != "reverse" and "reverse" in by_name:
            share = f"{by_name['reverse'] / row['activation_bytes']:.3f}"
        megabytes = f"{row['activation_bytes'] / 1e6:,.1f}", f"{row['total_bytes'] / 1e6:,.1f}"
        subject = f"{row['subject']}, batch {row['batch']}"
        lines.append([subject, row["contender"], *megabytes, share, f"{row['gradient_rel_error']:.1e}"])
    return lines


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, print and write."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--subjects", nargs="+", choices=list(SUBJECTS), default=list(DEFAULT_SUBJECTS))
    parser.add_argument("--contenders", nargs="+", choices=EAGER, default=list(EAGER))
    parser.add_argument("--batch", type=int, help="instead of each subject's own")
    parser.add_argument("--output", type=Path, default=FOLDER / "memory.parquet")
    chosen = parser.parse_args(arguments)
    warnings.simplefilter("ignore")
    names = list(dict.fromkeys(["store", *chosen.contenders]))
    rows, lines = [], []
    for name in chosen.subjects:
        found = measure(SUBJECTS[name], names, chosen.batch)
        rows += found
        lines += summary(found)
        print(f"{name}: done", file=sys.stderr)
    header = ["subject", "contender", "activations, MB", "everything, MB", "reverse / it", "gradient error"]
    print(table(lines, header))
    print(f"Figures: {write(chosen.output, rows)}")
    return 0


if __name__ == "__main__":
    torch.manual_seed(0)
    sys.exit(main())

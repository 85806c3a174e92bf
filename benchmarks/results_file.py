"""Where figures were measured, and one Parquet file of them, written whole or not at all."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

FOLDER = Path(__file__).resolve().parent / "results"


def circumstances(device: str = "cpu") -> dict[str, Any]:
    """Device, threads, versions, commit and time: the columns that every row of a benchmark carries."""
    from study.provenance import provenance

    columns = provenance(device)
    kept = ("device", "cpu_threads", "git_commit", "git_dirty", "torch_version", "python_version", "platform")
    peers = {f"{peer}_version": _version(peer) for peer in ("memcnn", "revtorch")}
    return {name: columns[name] for name in kept} | peers | {"measured_at": datetime.now(UTC).isoformat()}


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def write(path: Path, rows: Sequence[dict[str, Any]], *, device: str = "cpu") -> Path:
    """One Parquet file of `rows`, each with the circumstances."""
    around = circumstances(device)
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".{path.name}")
    pq.write_table(pa.Table.from_pylist([{**row, **around} for row in rows]), part)
    return part.replace(path)


def table(rows: Sequence[Sequence[str]], header: Sequence[str]) -> str:
    """A Markdown table with aligned columns."""
    lines = [list(header), ["-" * len(h) for h in header], *map(list, rows)]
    widths = [max(len(line[i]) for line in lines) for i in range(len(header))]
    return "\n".join(
        "| " + " | ".join(c.ljust(w) for c, w in zip(line, widths, strict=True)) + " |" for line in lines
    )

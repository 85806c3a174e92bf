"""How the error of rebuilding grows with depth, at initialization, on blocks that others have measured too.

    python benchmarks/error_growth.py [--depths 8 32 128] [--seeds 3] [--precisions bf16-fp32 fp32 ...]

The blocks: F and G are LayerNorm, Linear, GELU, Linear; 256 features per stream, 1,024 hidden, PyTorch's own
initialization, normal inputs. For each precision and depth one stored and one reversing backward pass are
compared (`revmodels.measure.fidelity`); every figure is a row of the Parquet file, and the table adds the
power of the depth that the error grows with (`analysis.laws.growth`).

How many numbers there are matters under bf16 arithmetic on a wider stream. An error of 1e-7 of the stream
does nothing unless it moves a number across a rounding boundary of bf16 inside F; then it does 1e-3. With few
numbers and blocks that does not happen in every seed, and the error stays at 3e-8; with 64 examples of 256
features it happened within 8 blocks in every one.

Gradients are compared in memory, three times the parameters and more: at 256 blocks, 270 million of them, the
program was killed on a machine of 24 GB that others used too.
"""

from __future__ import annotations

import argparse
import statistics
import sys
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

if __package__ in (None, ""):
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from analysis.laws.growth import fit_power
from benchmarks.results_file import FOLDER, table, write
from revmodels import Precision, ReversibleBlock, ReversibleSequence
from revmodels.measure import fidelity

WIDTH, HIDDEN, EXAMPLES = 256, 1024, 64

PRECISIONS = {
    "fp64": Precision(compute="fp64", stream="fp64"),
    "fp32": Precision(),
    "bf16": Precision(compute="bf16", stream="bf16"),
    "fp16": Precision(compute="fp16", stream="fp16"),
    "bf16-fp32": Precision(compute="bf16"),
    "fp16-fp32": Precision(compute="fp16"),
    "bf16-fp64": Precision(compute="bf16", stream="fp64"),
    "fp32-exact": Precision(coupling="exact"),
    "bf16-exact": Precision(compute="bf16", coupling="exact"),
    "bf16-exact-16": Precision(compute="bf16", coupling="exact", grid_bits=16),
}
SLOW = ("fp16", "fp16-fp32")
"""Left out unless asked for: a CPU without fp16 instructions takes a hundred times as long."""

PROTOTYPE = {
    ("bf16-fp32", 8): 1.9e-4,
    ("bf16-fp32", 32): 1.1e-3,
    ("bf16-fp32", 128): 6.5e-3,
    ("bf16-fp32", 256): 1.6e-2,
    ("fp32", 8): 2.2e-7,
    ("fp32", 256): 4.9e-6,
    ("bf16", 8): 6.5e-3,
    ("bf16", 256): 0.20,
    ("fp64", 8): 3e-16,
    ("fp64", 256): 8e-15,
    ("fp16", 8): 8e-4,
    ("fp16", 256): 2.5e-2,
    ("fp16-fp32", 8): 6.6e-5,
    ("fp16-fp32", 256): 3.5e-3,
    ("bf16-fp64", 256): 0.0,
    ("bf16-exact-16", 256): 0.0,
}
"""Relative errors of the rebuilt input by an earlier prototype, written on RevTorch's blocks."""


def residual() -> nn.Module:
    """F or G, of (N, `WIDTH`)."""
    return nn.Sequential(nn.LayerNorm(WIDTH), nn.Linear(WIDTH, HIDDEN), nn.GELU(), nn.Linear(HIDDEN, WIDTH))


def network(depth: int, precision: Precision, seed: int) -> tuple[ReversibleSequence, Tensor]:
    """`depth` blocks at initialization, and a normal input of shape (`EXAMPLES`, 2 `WIDTH`)."""
    torch.manual_seed(seed)
    net = ReversibleSequence([ReversibleBlock(residual(), residual()) for _ in range(depth)])
    net.set_precision(precision)
    x = torch.randn(EXAMPLES, 2 * WIDTH)
    return net.to(precision.parameter_dtype), x.to(precision.stream_dtype)


def rebuilt_error(depth: int, precision: Precision, seed: int) -> float:
    """Relative error of the input, by the public inverse and without gradients."""
    net, x = network(depth, precision, seed)
    if precision.coupling == "exact":
        from revmodels.coupling.grid import to_grid
        from revmodels.grid_bits import check_bits

        x = to_grid(x, check_bits(precision.grid_bits, x.dtype))
    with torch.no_grad():
        rebuilt = net.inverse(net(x)).double()
    return ((rebuilt - x.double()).norm() / x.double().norm()).item()


def measured(name: str, depth: int, seed: int) -> dict[str, Any]:
    """One row: errors of the rebuilt input, of any rebuilt pair, and of the gradients."""
    net, x = network(depth, PRECISIONS[name], seed)
    target = torch.randn(EXAMPLES, 2 * WIDTH)
    found = fidelity(net, (x, target), loss=lambda out, t: (out.double() - t).square().mean())
    return {
        "precision": name,
        "depth": depth,
        "seed": seed,
        "width": WIDTH,
        "hidden": HIDDEN,
        "examples": EXAMPLES,
        "end_to_end_rel_error": found.end_to_end_rel_error,
        "reconstruction_rel_error": found.reconstruction_rel_error,
        "gradient_rel_error": found.gradient_rel_error,
        "gradient_angle_deg": found.gradient_angle_deg,
        "prototype_rel_error": PROTOTYPE.get((name, depth)),
    }


def shown(rows: list[dict[str, Any]]) -> str:
    """A Markdown table of medians over seeds: one line per precision, errors of input and of gradients."""
    depths = sorted({row["depth"] for row in rows})
    lines = []
    for name in dict.fromkeys(row["precision"] for row in rows):
        mine = [row for row in rows if row["precision"] == name]
        cells = []
        for depth in depths:
            here = [row for row in mine if row["depth"] == depth]
            if not here:
                cells.append("")
                continue
            error, gradient = (
                statistics.median(row[column] for row in here)
                for column in ("end_to_end_rel_error", "gradient_rel_error")
            )
            prototype = here[0]["prototype_rel_error"]
            cells.append(f"{error:.1e}{'' if prototype is None else f' ({prototype:.1e})'}; {gradient:.1e}")
        fit = fit_power([r["depth"] for r in mine], [r["end_to_end_rel_error"] for r in mine])
        power = "exactly 0" if fit is None else f"{fit.slope:.2f}"
        if fit is not None and fit.low is not None:
            power += f" ({fit.low:.2f} to {fit.high:.2f})"
        lines.append([name, *cells, power])
    return table(lines, ["precision", *map(str, depths), "power of depth"])


def main() -> None:
    """Measure, print, and write one file."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    usual = [name for name in PRECISIONS if name not in SLOW]
    parser.add_argument("--precisions", nargs="+", choices=PRECISIONS, default=usual)
    parser.add_argument("--depths", nargs="+", type=int, default=[8, 32, 128])
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--out", type=Path, default=FOLDER / "error_growth.parquet")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    rows = []
    for depth in arguments.depths:
        for name in arguments.precisions:
            for seed in range(arguments.seeds):
                rows.append(measured(name, depth, seed))
            print(f"depth {depth}, {name}: {rows[-1]['end_to_end_rel_error']:.1e}", file=sys.stderr)
    print("rebuilt input (prototype); worst gradient: medians of relative errors")
    print(shown(rows))
    print(f"written: {write(arguments.out, rows)}")


if __name__ == "__main__":
    main()

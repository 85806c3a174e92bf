"""How often the intervals of a fitted law of loss cover the law that the rows were drawn from.

    python benchmarks/law_recovery.py --simulations 200

Six sizes times five amounts of data, one run each, on L(N, D) = 1.69 + 406.4/N^0.34 + 410.7/D^0.28 (Hoffmann
et al. 2022); log L has normal noise of 0.5 % and of 2 %. Each law is fitted with 300 resamples and its 90 %
intervals are compared with the truth. The largest size is held out too, and its losses are compared with
their 90 % intervals. Without noise the fit is printed as it is.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from pathlib import Path

import numpy as np

if __package__ in (None, ""):
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from analysis.laws import fit_loss, hold_out
from analysis.laws.loss import NAMES

TRUTH = dict(zip(NAMES, (1.69, 406.4, 410.7, 0.34, 0.28), strict=True))
HELD_OUT = "largest rung"
RESULTS = Path(__file__).parent / "results" / "law_recovery.json"


def main(arguments: list[str] | None = None) -> None:
    """Fit, count, print, and write the counts."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--simulations", type=int, default=200, help="laws fitted for each noise")
    parser.add_argument("--out", type=Path, default=RESULTS, help="where the counts go, as JSON")
    options = parser.parse_args(arguments)
    n, d = (x.ravel() for x in np.meshgrid(np.geomspace(1e6, 1e9, 6), np.geomspace(2e8, 2e10, 5)))
    loss = TRUTH["E"] + TRUTH["A"] / n ** TRUTH["a"] + TRUTH["B"] / d ** TRUTH["b"]
    law = fit_loss(n, d, loss, resamples=0)
    print("without noise:", ", ".join(f"{name} {getattr(law, name):.4g}" for name in NAMES))
    rows = []
    for noise in (0.005, 0.02):
        rng, began = np.random.default_rng(0), time.perf_counter()
        hits = dict.fromkeys((*NAMES, HELD_OUT), 0.0)
        for seed in range(options.simulations):
            drawn = loss * np.exp(rng.normal(0, noise, len(n)))
            noisy = fit_loss(n, d, drawn, resamples=300, seed=seed)
            (rung,) = hold_out(n, d, drawn, resamples=300)
            hits[HELD_OUT] += (rung.inside or 0) / len(rung.measured)
            for name in NAMES:
                low, high = noisy.interval(name)
                hits[name] += low <= TRUTH[name] <= high
        seconds = (time.perf_counter() - began) / options.simulations
        shares = {name: hits[name] / options.simulations for name in hits}
        rows.append({"noise": noise, "simulations": options.simulations, "coverage": shares})
        print(
            f"noise {noise:.1%}: 90 % intervals cover",
            ", ".join(f"{name} {share:.1%}" for name, share in shares.items()),
            f"({options.simulations} simulations, {seconds:.2f} s each)",
        )
    options.out.write_text(json.dumps(rows, indent=1) + "\n")


if __name__ == "__main__":
    main()

"""Study files that nobody would write, drawn from a seed, and what reading each of them comes to.

python -m tests.study.spec.study_files --files 1000 --seed 1
"""

from __future__ import annotations

import argparse
import random
import time
from collections import Counter
from pathlib import Path
from tempfile import TemporaryDirectory

from study.errors import StudyError
from study.plan.expand import make_plan
from study.spec.load import load_study

SEEDS = sorted((Path(__file__).parents[3] / "study" / "studies").glob("*.yaml"))
ODD = (
    *("9" * 5001, "2026-02-30", "2026-01-01", "1e400", ".nan", "-.inf", "0x", "!!python/object:os.system x"),
    *("!!binary x", "!!int x", "!!float []", "!!timestamp 0", "? [a, b] : c", "<<: 3", "&a [*a]", "*none"),
    *("\t", "\x00", "\ud7ff", "{" * 40, "[" * 2000, "'", '"', "|", "- - - - -", "~", "null", "true", "''"),
    *("{grid: [1, 2]}", "{int: [1, 99999999999]}", "{loguniform: [1, 0]}", "-1", "10", "[]", "{}", "é" * 300),
    "!!set {a, b}",
    "!!omap [a: 1]",
    "99:99:99",
    "0b2",
    "12e999999999",
    "%YAML 9.9",
    "--- a\n--- b",
)
SLOW_S = 20.0
"""Longer than any file takes, even on a machine that others use as well."""


def fuzzed(number: random.Random) -> bytes:
    """One study file: a built-in one with some of its lines, words or bytes changed."""
    text = number.choice(SEEDS).read_text()
    for _ in range(number.randint(1, 4)):
        lines = text.split("\n")
        at = number.randrange(len(lines))
        match number.randrange(7):
            case 0:
                key, colon, _ = lines[at].partition(":")
                lines[at] = f"{key}{colon} {number.choice(ODD)}"
            case 1:
                lines.insert(at, lines[number.randrange(len(lines))])
            case 2:
                del lines[at]
            case 3:
                lines[at] = " " * number.randint(0, 9) + lines[at].strip()
            case 4:
                words = lines[at].split(" ")
                words[number.randrange(len(words))] = number.choice(ODD)
                lines[at] = " ".join(words)
            case 5:
                cut = number.randrange(len(lines[at]) + 1)
                lines[at] = lines[at][:cut] + chr(number.randrange(1, 0x2000)) + lines[at][cut:]
            case 6:
                lines[at] += number.choice(ODD)
        text = "\n".join(lines) or "x"
    content = text.encode(errors="replace")
    if number.random() < 0.1:
        at = number.randrange(len(content))
        content = content[:at] + bytes([number.randrange(256)]) + content[at + 1 :]
    return content


def outcome(file: Path) -> str:
    """``read``, ``planned`` or ``refused``.

    Raises:
        AssertionError: The file was refused without a rule, or it took too long.
    """
    began, end = time.process_time(), "read"
    try:
        study = load_study(file)
        make_plan(study, limit=300)
        end = "planned"
    except StudyError as error:
        assert error.exit_code == 2, error
        assert all(problem.rule for problem in error.problems), str(error)[:300]
        end = "refused"
    assert time.process_time() - began < SLOW_S
    return end


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--files", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=1)
    arguments = parser.parse_args()
    tally: Counter[str] = Counter()
    longest: dict[str, float] = {}
    with TemporaryDirectory() as folder:
        file = Path(folder) / "fuzzed.yaml"
        for index in range(arguments.files):
            file.write_bytes(fuzzed(random.Random(f"{arguments.seed}-{index}")))
            began = time.process_time()
            try:
                end = outcome(file)
            except Exception as error:
                end = f"{type(error).__name__} (file {index})"
            tally[end] += 1
            longest[end] = max(longest.get(end, 0.0), time.process_time() - began)
    for end, count in tally.items():
        print(f"{end}: {count}, the slowest took {longest[end]:.2f} s of processor time")
    raise SystemExit(bool(set(tally) - {"planned", "refused"}))


if __name__ == "__main__":
    main()

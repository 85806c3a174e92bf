"""No study file takes long or much memory to read, whatever it holds; each is refused with its rule."""

from __future__ import annotations

import random
import resource
import subprocess
import sys

import pytest

from study.cli import options
from study.errors import StudyError
from study.plan import expand
from study.plan.expand import make_plan
from study.spec.load import load_study, parse_study
from tests.study.spec.study_files import fuzzed, outcome

BOMB = "a: &a [x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"{chr(98 + i)}: &{chr(98 + i)} [{', '.join(['*' + chr(97 + i)] * 9)}]\n" for i in range(9)
)
HOSTILE = {
    "alias bomb": (BOMB, "more than 20,000 values"),
    "digits": ("seeds: [" + "9" * 5001 + "]", "line 1, column 9"),
    "no such day": ("description: 2026-02-30", "day is out of range for month"),
    "deep": ("space: " + "[" * 100_000, "nested deeper than 30"),
    "long": ("# " + "x" * 1_000_000, "at most 250,000 bytes"),
    "many values": ("seeds: [" + "1, " * 80_000 + "1]", "more than 20,000 values"),
    "itself": ("space: &a [*a]", "contains itself"),
    "bytes": ("description: !!binary x", "must be YAML that parses"),
    "a range of a billion": ("space: {train.epochs: {int: [1, 1000000000]}}", "at most 100,000 values"),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_file_is_refused_with_place_and_rule(name, tmp_path):
    text, words = HOSTILE[name]
    file = tmp_path / "s.yaml"
    file.write_text(text)
    with pytest.raises(StudyError) as caught:
        load_study(file)
    assert words in str(caught.value)
    assert str(file) in str(caught.value)
    assert caught.value.exit_code == 2


def test_all_of_them_take_little_time_and_memory(tmp_path):
    code = "import sys\nfrom study.spec import load_study\nfor f in sys.argv[1:]:\n  try: load_study(f)\n"
    code += "  except Exception as e: print(type(e).__name__)\n"
    # The kernel counts the most that this program has held since it began; a parent's is none of it.
    code += "print(next(line.split()[1] for line in open('/proc/self/status') if line.startswith('VmHWM')))"
    for number, (text, _) in enumerate(HOSTILE.values()):
        (tmp_path / f"{number}.yaml").write_text(text)
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    files = sorted(str(file) for file in tmp_path.iterdir())
    done = subprocess.run([sys.executable, "-c", code, *files], capture_output=True, text=True, check=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    *ends, most_kilobytes = done.stdout.split()
    assert ends == ["StudyError"] * len(HOSTILE)
    assert int(most_kilobytes) < 300_000
    # Processor time: other programs on the machine do not count. Two seconds are the limit of a single file.
    assert after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime < 2 * len(HOSTILE)


def test_a_grid_is_counted_before_it_is_made():
    axes = {
        f"train.{name}": {"grid": [i / 100 for i in range(1, 37)]} for name in ("learning_rate", "momentum")
    }
    axes["train.label_smoothing"] = {"grid": [i / 100 for i in range(36)]}
    axes["model.width"] = {"grid": [i / 4 for i in range(1, 37)]}
    axes["train.weight_decay"] = {"grid": [i / 1e4 for i in range(780)]}
    study = parse_study({"name": "s", "space": axes})
    with pytest.raises(
        StudyError, match=r"search: the grids of a study have at most 250,000 trials.*1310100480"
    ):
        make_plan(study)
    small = parse_study({"name": "s", "seeds": [0, 1], "space": {"train.epochs": {"grid": [1, 2]}}})
    assert len(make_plan(small, limit=4).trials) == 4
    with pytest.raises(StudyError, match="at most 3 trials, seeds included; received 4"):
        make_plan(small, limit=3)


@pytest.mark.parametrize("index", range(60))
def test_a_fuzzed_file_is_planned_or_refused_with_a_rule(index, tmp_path):
    file = tmp_path / "fuzzed.yaml"
    file.write_bytes(fuzzed(random.Random(f"suite-{index}")))
    assert outcome(file) in ("planned", "refused")


def test_the_limit_of_the_command_line_is_that_of_a_plan():
    assert options.LIMIT == expand.LIMIT

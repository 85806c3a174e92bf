import json

import pytest
from typer.testing import CliRunner

from study.cli.main import app
from study.coordinates import FLAT, Check, Slopes, coordinate_slopes
from study.errors import StudyError


def test_streams_grow_with_the_depth_in_mup_and_hardly_in_completep():
    check = Check(
        parametrizations=("mup", "completep"), widths=(64, 128), depths=(2, 8), seeds=(0,), context=16
    )
    slopes = {(s.parametrization, s.over): s for s in coordinate_slopes(check)}
    assert list(slopes) == [(name, over) for name in ("mup", "completep") for over in ("width", "depth")]
    assert slopes["mup", "depth"].stream_change > 0.5 > 2 * abs(slopes["completep", "depth"].stream_change)
    assert not slopes["mup", "depth"].flat
    assert slopes["mup", "width"].stream == slopes["completep", "width"].stream  # one network at this depth


def test_the_verb_writes_the_slopes_of_the_sizes_that_it_is_given():
    arguments = ["--scheme", "mup", "--width", "64", "--width", "128", "--depth", "1", "--depth", "2"]
    answer = json.loads(CliRunner().invoke(app, ["coordinates", *arguments, "--steps", "2", "--json"]).stdout)
    assert [(s["over"], s["sizes"]) for s in answer["slopes"]] == [("width", [64, 128]), ("depth", [1, 2])]


def test_flat_means_that_no_slope_is_steeper_than_the_limit():
    slopes = {"family": "gpt", "parametrization": "mup", "over": "width", "sizes": (1, 2)}
    assert Slopes(**slopes, stream=FLAT, stream_change=-FLAT, logits_change=0.0).flat
    assert not Slopes(**slopes, stream=0.0, stream_change=0.0, logits_change=-2 * FLAT).flat


@pytest.mark.parametrize(
    "sizes", [{"widths": (64,)}, {"widths": (100, 200)}, {"depths": (2, 2)}, {"depths": (0, 1)}]
)
def test_sizes_that_give_no_slope_are_refused(sizes):
    with pytest.raises(StudyError, match="a slope needs two or more"):
        next(coordinate_slopes(Check(**sizes)))

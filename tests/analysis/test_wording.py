"""What is not known is left out of a sentence, and not written as None."""

from __future__ import annotations

from analysis.answers.recommend import recommend
from analysis.answers.recommendation_text import answer
from analysis.figures.series import describe
from analysis.score import ACCURACY, BITS_PER_BYTE
from analysis.stats import Estimate
from analysis.wording import joined, shape_text


def test_ones_own_network_has_neither_depth_nor_width_nor_family(new_trial):
    own = new_trial(model_name="x") | {"model": "mine.nets:Net", "depth": None, "width": None, "family": None}
    assert shape_text(own) == ""
    assert joined("reverse", own["family"]) == "reverse"
    assert describe([own]).startswith("mine.nets:Net · reverse · fp32 · seed 0<br>trial ")
    (pick,) = recommend([own])
    told = answer(pick, {own["trial_id"]: 0})
    assert "None" not in " ".join(value for value in told.values() if isinstance(value, str))


def test_a_difference_of_nothing_has_no_sign():
    nothing = Estimate(mean=-3e-7, low=-9e-6, high=0.2, n=4)
    assert BITS_PER_BYTE.difference_text(nothing) == "0.0000 (95 % interval 0.0000 to +0.2000, n = 4)"
    assert ACCURACY.difference_text(nothing).startswith("0.00 points (95 % interval 0.00 to +20.00")

"""Ticks of logarithmic axes."""

from __future__ import annotations

import math

import plotly.graph_objects as go
import pytest
from hypothesis import given
from hypothesis import strategies as st

from analysis.figures.error_depth import set_error_axis
from analysis.theme import log_ticks

POSITIVE = st.floats(1e-9, 1e12)


@given(POSITIVE, st.floats(1.011, 1e6))
def test_a_log_axis_has_three_ticks_or_more_between_its_values(least, ratio):
    most = least * ratio
    ticks = log_ticks([least, most])["tickvals"]
    between = [tick for tick in ticks if least <= tick <= most]
    assert 3 <= len(between) <= 20
    assert ticks == sorted(set(ticks))


@given(POSITIVE)
def test_one_value_alone_has_ticks_around_it(value):
    ticks = log_ticks([value])["tickvals"]
    assert sum(value / 10 <= tick <= value * 10 for tick in ticks) >= 3


def test_the_words_of_a_narrow_axis_are_round_numbers():
    ticks = log_ticks([2.07, 3.96])
    inside = [t for v, t in zip(ticks["tickvals"], ticks["ticktext"], strict=True) if 2.07 <= v <= 3.96]
    assert inside == ["2.5", "3", "3.5"]


@pytest.mark.parametrize("values", [[2e-7], [1e-7], [2e-7, 8e-7], [1e-9, 1.0]])
@pytest.mark.parametrize("floor", [None, 1e-12])
def test_an_axis_of_errors_has_three_decades_or_more(values, floor):
    figure = go.Figure()
    set_error_axis(figure, "yaxis", values, floor)
    low, high = figure.layout.yaxis.range
    powers = [v for v in figure.layout.yaxis.tickvals if v != floor]
    assert len(powers) >= 3
    assert all(low <= math.log10(v) <= high for v in powers)

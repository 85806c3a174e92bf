"""The shapes of the language models: parameter counts against the published ones, widths, depths, options."""

import re
import time

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from revmodels import create_model, list_models
from revmodels.errors import DepthError, LanguageError, OptionError, WidthError
from revmodels.models.catalog import PRESETS

SIZES = [name.removeprefix("gpt_") for name in list_models("gpt_*")]

LLAMA = {"7b": 6_738_415_616, "1b": 1_235_814_400}
"""Of the published weights."""
GPT2 = {"124m": 124_439_808, "355m": 354_823_168, "774m": 774_030_080, "1.5b": 1_557_611_200}
"""Of the published weights."""
PYTHIA = {
    "70m": (70_426_624, 18_915_328),
    "160m": (162_322_944, 85_056_000),
    "410m": (405_334_016, 302_311_424),
    "1.0b": (1_011_781_632, 805_736_448),
    "1.4b": (1_414_647_808, 1_208_602_624),
    "2.8b": (2_775_208_960, 2_517_652_480),
    "6.9b": (6_857_302_016, 6_444_163_072),
}
"""Biderman et al. 2023, table 1: all parameters, and those that are no embedding."""


def built(name, **options):
    with torch.device("meta"):
        return create_model(name, **options)


def counted(model):
    embeddings = {model.stem.weight, model.head.output.weight}
    total = sum(p.numel() for p in model.parameters())
    return total, total - sum(p.numel() for p in embeddings)


def biases_and_norms(architecture):
    """What GPT-2 and Pythia have besides: biases of four layers and of two norms a block, and the last's."""
    (d,) = architecture.filters
    return architecture.depth * (3 * d + d + 4 * d + d + 2 * d) + d


@pytest.mark.parametrize("size", LLAMA)
def test_llama_s_shapes_have_llama_s_parameters(size):
    assert PRESETS[f"gpt_{size}"].parameters().total == LLAMA[size]


@pytest.mark.parametrize("size", GPT2)
def test_gpt2_s_shapes_differ_by_positions_and_biases(size):
    architecture = PRESETS[f"gpt_{size}"]
    positions = 1_024 * architecture.filters[0]
    assert architecture.parameters().total + positions + biases_and_norms(architecture) == GPT2[size]


@pytest.mark.parametrize("size", PYTHIA)
def test_pythia_s_shapes_differ_by_biases(size):
    architecture = PRESETS[f"gpt_{size}"]
    ours, more = architecture.parameters(), biases_and_norms(architecture)
    assert (ours.total + more, ours.non_embedding + more) == PYTHIA[size]


@pytest.mark.parametrize("size", SIZES)
def test_twins_have_the_parameters_that_the_shape_says(size):
    started = time.process_time()
    gpt, revgpt = built(f"gpt_{size}"), built(f"revgpt_{size}")
    assert time.process_time() - started < 10, "nothing is allocated or drawn"
    said = PRESETS[f"gpt_{size}"].parameters()
    assert counted(gpt) == counted(revgpt) == (said.total, said.non_embedding)
    shapes = [[p.shape for p in model.parameters()] for model in (gpt, revgpt)]
    assert shapes[0] == shapes[1]


def test_the_smallest_are_named_after_the_parameters_of_their_blocks():
    factors = {"k": 1e3, "m": 1e6}
    for size in ("100k", "1m", "3m", "10m", "30m"):
        number, unit = re.fullmatch(r"(\d+)([km])", size).groups()
        found = PRESETS[f"gpt_{size}"].parameters().non_embedding
        assert found == pytest.approx(int(number) * factors[unit], rel=0.06)


@settings(deadline=None, max_examples=40)
@given(
    size=st.sampled_from(SIZES),
    width=st.floats(0.02, 8),
    depth=st.integers(1, 40),
    options=st.fixed_dictionaries(
        {
            "tied": st.sampled_from([None, True, False]),
            "qk_norm": st.booleans(),
            "vocab_size": st.integers(1, 300),
            "activation": st.sampled_from(["swiglu", "gelu"]),
        }
    ),
)
def test_any_width_and_depth_is_built_as_counted(size, width, depth, options):
    model = built(f"revgpt_{size}", width=width, depth=depth, **options)
    said = model.architecture.parameters(width)
    assert counted(model) == (said.total, said.non_embedding)
    at = model.architecture.at_width(width)
    assert at.heads % at.kv_heads == 0
    assert at.heads * at.head_features == at.filters[0]
    assert at.head_features == PRESETS[f"gpt_{size}"].head_features
    assert model.depth == depth


def test_width_one_is_the_preset_itself():
    assert all(a.at_width(1.0) == a for name, a in PRESETS.items() if "gpt" in name)


def test_sizes_are_listed_smallest_first():
    totals = [PRESETS[name].parameters().total for name in list_models("revgpt_*")]
    assert totals == sorted(totals)


@pytest.mark.parametrize(
    ("options", "error", "words"),
    [
        ({"vocab_size": 0}, LanguageError, "vocab_size: a whole number of at least 1; received 0"),
        ({"vocab_size": 2.0}, LanguageError, "vocab_size.*received 2.0"),
        ({"context_length": -1}, LanguageError, "context_length.*received -1"),
        ({"activation": "swigl"}, LanguageError, "activation: 'swigl' is not one of.*Did you mean 'swiglu'?"),
        (
            {"num_classes": 10},
            OptionError,
            "num_classes: gpt_1m takes tokens and has no such option",
        ),
        ({"vocab": 10}, OptionError, "options: 'vocab' is not one of: vocab_size"),
        ({"depth": 0}, DepthError, "any depth from 1; received 0; the nearest legal: 1"),
        ({"width": -1}, WidthError, "received -1"),
    ],
)
def test_bad_options_say_rule_value_and_remedy(options, error, words):
    with pytest.raises(error, match=words):
        create_model("gpt_1m", **options)


def test_options_of_language_models_are_not_those_of_networks_for_images():
    with pytest.raises(
        OptionError, match=r"vocab_size: revnet38 takes images.*Leave it out\. Its options: num"
    ):
        create_model("revnet38", num_classes=10, vocab_size=256)
    with pytest.raises(OptionError, match=r"num_classes: revnet38 classifies images.*has to be given"):
        create_model("revnet38")

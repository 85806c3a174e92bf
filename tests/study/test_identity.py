import json
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from study.errors import StudyError
from study.identity import canonical, canonical_json, resolve, trial_id
from study.settings.data import DataSettings
from study.settings.model import MemorySettings, ModelSettings, PrecisionSettings
from study.settings.run import ProbeSettings, ScalingSettings
from study.settings.setting import Options
from study.settings.train import TrainSettings
from study.settings.trial import TrialSettings, settings_from_dict

BASE = TrialSettings()


@st.composite
def trial_settings(draw):
    return TrialSettings(
        model=ModelSettings(
            name="revnet38", width=draw(st.floats(0.1, 4)), depth=draw(st.sampled_from([None, 26]))
        ),
        memory=MemorySettings(strategy=draw(st.sampled_from([None, "store", "reverse"]))),
        train=TrainSettings(epochs=draw(st.integers(1, 99)), learning_rate=draw(st.floats(1e-6, 10))),
        seed=draw(st.integers(0, 2**31)),
    )


def shuffled(value, draw):
    """The same mapping with its keys in another order, at every level."""
    if not isinstance(value, dict):
        return value
    return {key: shuffled(value[key], draw) for key in draw(st.permutations(list(value)))}


@given(trial_settings(), st.data())
@hypothesis_settings(max_examples=40, deadline=None)
def test_order_of_keys_and_a_trip_through_json_change_nothing(settings, data):
    again = settings_from_dict(json.loads(json.dumps(shuffled(settings.to_dict(), data.draw))))
    assert trial_id(again) == trial_id(settings)
    assert json.loads(canonical_json(settings)) == canonical(settings)


@given(trial_settings(), st.integers(1, 64), st.integers(0, 8), st.sampled_from(["auto", "tune", "train"]))
@hypothesis_settings(max_examples=40, deadline=None)
def test_operational_settings_change_nothing(settings, cpus, gpus, executor):
    scaling = ScalingSettings(cpus_per_worker=cpus, gpus_per_worker=gpus, executor=executor)
    data = replace(settings.data, root="/elsewhere", download=True)
    assert trial_id(replace(settings, scaling=scaling, data=data)) == trial_id(settings)


@pytest.mark.parametrize(
    "changed",
    [
        replace(BASE, seed=1),
        replace(BASE, model=ModelSettings(width=2.0)),
        replace(BASE, model=ModelSettings(depth=26)),
        replace(BASE, memory=MemorySettings(strategy="store")),
        replace(BASE, train=TrainSettings(epochs=11)),
        replace(BASE, train=TrainSettings(momentum=0.8)),
        replace(BASE, data=DataSettings(train_examples=100)),
        replace(BASE, data=DataSettings(name="synthetic")),
        replace(BASE, scaling=ScalingSettings(workers=2)),
        replace(BASE, probe=ProbeSettings(every=1)),
    ],
    ids=str,
)
def test_what_changes_the_result_changes_the_identity(changed):
    assert trial_id(changed) != trial_id(BASE)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (BASE, replace(BASE, model=ModelSettings(depth=38))),
        (BASE, replace(BASE, memory=MemorySettings(strategy="reverse"))),
        (BASE, replace(BASE, model=ModelSettings(width=1))),
        (
            replace(BASE, train=TrainSettings(optimizer="adamw", momentum=0.9)),
            replace(BASE, train=TrainSettings(optimizer="adamw", momentum=0.5)),
        ),
        (
            replace(BASE, memory=MemorySettings(strategy="store")),
            replace(BASE, memory=MemorySettings(strategy="store"), probe=ProbeSettings(every=1)),
        ),
        (
            replace(BASE, data=DataSettings(name="synthetic")),
            replace(BASE, data=DataSettings(name="synthetic:3x32x32x10")),
        ),
    ],
)
def test_equal_trials_written_differently_are_one(one, other):
    assert trial_id(one) == trial_id(other)


def test_couplings_are_part_of_the_identity_with_all_their_numbers():
    def of(name="revgpt_100k", **values):
        model = ModelSettings(name=name, **values)
        return replace(BASE, data=DataSettings(name="markov:1"), model=model)

    found = [
        trial_id(of(coupling=coupling, coupling_numbers=Options(numbers)))
        for coupling, numbers in (
            (None, {}),
            ("midpoint", {}),
            ("momentum", {}),
            ("momentum", {"gamma": 0.5}),
        )
    ]
    assert len(set(found)) == 4
    assert trial_id(of(coupling="additive")) == found[0]
    assert trial_id(of(coupling="momentum", coupling_numbers=Options(gamma=0.9))) == found[2]
    assert canonical(of(coupling="leapfrog"))["model"]["coupling_numbers"] == {"h": 1.0}
    assert resolve(of(coupling="momentum")).model.coupling_text == "momentum(gamma=0.9)"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"name": "resnet32", "coupling": "midpoint"}, "no two streams to couple"),
        ({"coupling": "momentm"}, "'momentm' is not one of: additive.*Did you mean 'momentum'"),
        ({"coupling": "momentum", "coupling_numbers": Options(beta=1)}, r"its numbers are \['gamma'\]"),
        ({"coupling": "scaled", "coupling_numbers": Options(factor=0)}, "the inverse divides by it"),
        ({"coupling_numbers": Options(gamma=1)}, "none is named"),
    ],
)
def test_couplings_that_a_network_cannot_have_are_refused(changes, message):
    with pytest.raises(StudyError, match=message):
        resolve(replace(BASE, model=replace(BASE.model, **changes)))


def test_couplings_that_cannot_be_exact_are_refused_with_the_reason():
    exact = replace(BASE, precision=PrecisionSettings(coupling="exact"))
    assert (
        resolve(replace(exact, model=replace(BASE.model, coupling="leapfrog"))).model.coupling == "leapfrog"
    )
    numbers = Options(factor=2**0.5)
    with pytest.raises(
        StudyError, match=r"cannot be exact, as precision\.coupling says: alpha = 1\.41421 is no ratio"
    ):
        resolve(replace(exact, model=replace(BASE.model, coupling="scaled", coupling_numbers=numbers)))


def test_identity_is_16_hexadecimal_digits_and_stays_what_it_is():
    """A change of this value disowns every store: raise RECIPE on purpose, or do not change it."""
    assert trial_id(BASE) == "bca57182035fc497"


def test_files_count_by_content_and_not_by_path(tmp_path):
    ids = []
    for folder, content in (("a", b"123"), ("b", b"123"), ("c", b"1234")):
        for split in ("train", "test"):
            place = tmp_path / folder / split / "cat"
            place.mkdir(parents=True)
            (place / "1.png").write_bytes(content)
        ids.append(trial_id(replace(BASE, data=DataSettings(name=f"folder:{tmp_path / folder}"))))
    assert ids[0] == ids[1] != ids[2]


def test_a_grid_counts_only_where_there_is_one():
    exact = replace(BASE, precision=PrecisionSettings(coupling="exact"))
    default = replace(BASE, precision=PrecisionSettings(coupling="exact", grid_bits=14))
    other = replace(BASE, precision=PrecisionSettings(coupling="exact", grid_bits=12))
    assert trial_id(exact) == trial_id(default), "the default spelled out is the same trial"
    assert len({trial_id(s) for s in (BASE, exact, other)}) == 3
    assert "grid_bits" not in canonical_json(BASE)
    recording = replace(BASE, precision=PrecisionSettings(coupling="exact", on_overflow="record"))
    assert trial_id(recording) != trial_id(exact)
    assert "on_overflow" not in canonical_json(exact), "trials from before there was a choice stay the same"
    assert trial_id(replace(BASE, precision=PrecisionSettings(on_overflow="record"))) == trial_id(BASE)


def test_anchors_count_only_where_something_is_rebuilt():
    def anchored(strategy):
        return replace(BASE, memory=MemorySettings(strategy=strategy, anchor_every=2))

    assert trial_id(anchored("store")) == trial_id(replace(BASE, memory=MemorySettings(strategy="store")))
    assert trial_id(anchored("reverse")) != trial_id(BASE)
    assert "anchor_every" not in canonical_json(BASE)


@pytest.mark.parametrize(
    ("settings", "path", "words"),
    [
        (
            replace(BASE, precision=PrecisionSettings(coupling="exact", stream="bf16")),
            "precision.stream",
            "8 or 11",
        ),
        (replace(BASE, precision=PrecisionSettings(grid_bits=12)), "precision.grid_bits", "coupling='exact'"),
        (
            replace(
                BASE, model=ModelSettings(name="resnet32"), precision=PrecisionSettings(coupling="exact")
            ),
            "precision.coupling",
            "resnet32 has no coupled streams",
        ),
    ],
)
def test_precisions_that_cannot_be_are_refused_with_their_path(settings, path, words):
    with pytest.raises(StudyError) as caught:
        canonical(settings)
    assert caught.value.problems[0].path == path
    assert words in str(caught.value)


@pytest.mark.parametrize(
    ("model", "strategy"),
    [("revnet38", "reverse"), ("irevnet", "reverse"), ("revvit_small", "reverse"), ("resnet32", "store")],
)
def test_the_default_strategy_is_to_rebuild_whatever_can_be_rebuilt(model, strategy):
    assert resolve(TrialSettings(model=ModelSettings(name=model))).memory.strategy == strategy


def test_a_parametrization_is_part_of_the_identity_where_it_is_not_the_standard_one():
    text, adamw = DataSettings(name="stdlib"), TrainSettings(optimizer="adamw")
    base = replace(BASE, data=text, model=ModelSettings(name="revgpt_100k"), train=adamw)
    other = replace(base, model=replace(base.model, parametrization="mup"))
    assert canonical(base)["model"] == {"depth": 2, "name": "revgpt_100k", "width": 1.0}
    assert trial_id(other) != trial_id(base)
    with pytest.raises(StudyError, match=r"gpt_\* and revgpt_\*, and the network is revnet38"):
        resolve(replace(other, model=ModelSettings(parametrization="mup")))
    with pytest.raises(StudyError, match=r"rates and decay for adamw, and train\.optimizer is sgd"):
        resolve(replace(other, train=TrainSettings()))

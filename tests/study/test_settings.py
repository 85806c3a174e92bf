import json

import pytest

from study.settings import (
    COMPUTE_DTYPES,
    COUPLINGS,
    MATMULS,
    ON_OVERFLOW,
    STRATEGIES,
    STREAM_DTYPES,
    DataSettings,
    Trial,
    TrialSettings,
    settings_from_dict,
    trial_from_dict,
)


def test_settings_survive_json():
    settings = TrialSettings(data=DataSettings(name="synthetic", augment=False), seed=3)
    assert settings_from_dict(json.loads(json.dumps(settings.to_dict()))) == settings


def test_trials_survive_json():
    trial = Trial(trial_id="ab", study="s", settings=TrialSettings(seed=1), origin="tpe")
    assert trial_from_dict(json.loads(json.dumps(trial.to_dict()))) == trial


def test_unknown_field_is_refused():
    with pytest.raises(TypeError, match="DataSettings has no field 'nam'; fields: augment"):
        settings_from_dict({"data": {"nam": "digits"}})


def test_choices_are_those_of_revmodels():
    import revmodels
    from revmodels import precision

    assert set(STRATEGIES) == {*revmodels.STRATEGIES, "recursive", "compile"}
    assert set(COMPUTE_DTYPES) == set(STREAM_DTYPES) == set(precision.DTYPES)
    assert set(COUPLINGS) == set(precision.COUPLINGS)
    assert set(MATMULS) == set(precision.MATMULS)
    assert set(ON_OVERFLOW) == set(precision.ON_OVERFLOW)

import json
from typing import get_args, get_type_hints

import pytest

from analysis.schema import TRIALS
from study.code import is_path
from study.settings.data import DATASETS, TEXTS, DataSettings, is_text
from study.settings.model import (
    COMPUTE_DTYPES,
    COUPLINGS,
    MATMULS,
    ON_OVERFLOW,
    PARAMETRIZATIONS,
    RULES,
    STRATEGIES,
    STREAM_DTYPES,
)
from study.settings.trial import Trial, TrialSettings, columns_of, sections, settings_from_dict, settings_of
from tests.study.trials import trial_from_dict


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
    from revmodels.coupling.linear import COUPLINGS as LINEAR
    from revmodels.models import parametrization

    assert set(RULES) == set(LINEAR)
    assert PARAMETRIZATIONS == parametrization.PARAMETRIZATIONS
    assert STRATEGIES == revmodels.STRATEGIES
    assert set(COMPUTE_DTYPES) == set(STREAM_DTYPES) == set(precision.DTYPES)
    assert set(COUPLINGS) == set(precision.COUPLINGS)
    assert set(MATMULS) == set(precision.MATMULS)
    assert set(ON_OVERFLOW) == set(precision.ON_OVERFLOW)


def test_no_kind_of_data_or_of_tokenizer_is_an_import_path():
    from study.data.text_fingerprint import TOKENIZERS

    for kind in (*DATASETS, *TOKENIZERS):
        before, colon, _ = kind.partition(":")
        assert not (colon and is_path(f"{before}:name"))
    assert {name for name in DATASETS if is_text(name)} == set(TEXTS)


def test_settings_with_a_column_have_it_in_the_schema_with_their_type():
    import pyarrow as pa

    kinds = {int: pa.int64(), float: pa.float64(), str: pa.string(), bool: pa.bool_()}
    columns = {column.name: column for column in TRIALS.columns}
    for section in (*sections().values(), TrialSettings):
        hints = get_type_hints(section)
        for name, setting in settings_of(section).items():
            if setting.column:
                (kind,) = {k for k in kinds if k in (hints[name], *get_args(hints[name]))}
                assert columns[setting.column].type == kinds[kind], setting.column
    found = columns_of(TrialSettings())
    assert (found["data"], found["compute_dtype"], found["gpus_per_worker"]) == ("digits", "fp32", 0.0)
    assert len(found) == 31

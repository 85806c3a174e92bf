import pytest

from study.errors import StudyError
from study.plan.points import check
from study.settings.data import DataSettings
from study.settings.model import ModelSettings
from study.settings.train import EvaluateSettings, TrainSettings
from study.settings.trial import TrialSettings
from study.train.length import Length, evaluations, length_of
from study.train.trial import train_trial


def length(train, evaluate=None, *, examples=100, tokens=None, workers=1):
    settings = TrialSettings(
        train=TrainSettings(batch_size=10, **train), evaluate=EvaluateSettings(**(evaluate or {}))
    )
    return length_of(settings, examples=examples, tokens_per_example=tokens, workers=workers)


@pytest.mark.parametrize(
    ("train", "evaluate", "steps", "every", "count"),
    [
        ({"epochs": 3}, {}, 30, 10, 3),
        ({"epochs": 3}, {"every": 2}, 30, 20, 2),
        ({"epochs": 3}, {"every": 7, "unit": "steps"}, 30, 7, 5),
        ({"steps": 25}, {}, 25, 3, 9),
        ({"steps": 25}, {"every": 10}, 25, 10, 3),
        ({"steps": 25}, {"every": 1, "unit": "epochs"}, 25, 10, 3),
        ({"tokens": 1001}, {"every": 5}, 26, 5, 6),
    ],
)
def test_length_and_evaluations(train, evaluate, steps, every, count):
    found = length(train, evaluate, tokens=4)
    assert found == Length(steps=steps, steps_per_epoch=10, every=every)
    assert found.evaluations == count
    assert [found.until(n) for n in range(count + 1)][-2:] == [every * (count - 1), steps]


def test_workers_share_a_batch():
    assert length({"epochs": 1}, workers=3).steps_per_epoch == 11, "batches of 9"


def test_a_length_in_tokens_is_for_tasks_with_tokens():
    with pytest.raises(StudyError, match="a length for tasks with tokens"):
        length({"tokens": 100})


@pytest.mark.parametrize(
    ("train", "evaluate"),
    [({"epochs": 3}, {"every": 2}), ({"steps": 20}, {}), ({"steps": 20}, {"every": 1, "unit": "epochs"})],
)
def test_the_driver_counts_as_the_trial_does(train, evaluate):
    settings = TrialSettings(
        data=DataSettings(train_examples=100),
        train=TrainSettings(batch_size=10, **train),
        evaluate=EvaluateSettings(**evaluate),
    )
    found = length_of(settings, examples=100, tokens_per_example=None, workers=1)
    assert evaluations(settings) == found.evaluations


def test_a_length_is_said_once():
    train = TrainSettings(steps=10, tokens=100)
    data = DataSettings(name="markov:1", context_length=16)
    with pytest.raises(StudyError, match="said in steps already"):
        check(TrialSettings(data=data, model=ModelSettings(name="gpt_100k"), train=train))


def test_training_ends_when_validation_losses_fall_no_more(make_trial):
    # A rate of almost nothing: the loss is at its lowest once, and never lower by much.
    train = {"epochs": 6, "batch_size": 64, "learning_rate": 1e-30, "patience": 2}
    trial = make_trial(train=train, probe={"examples": 8})
    result = train_trial(trial, device="cpu")
    assert result.trial["outcome"] == "ok"
    losses = [row["loss_val"] for row in result.epochs]
    lowest = losses.index(min(losses))
    assert len(losses) == lowest + 3 < 6
    assert result.trial["epochs_done"] == len(losses)
    assert result.trial["reconstruction_rel_error"] is not None, "the last evaluation is probed"
    assert result.trial["loss_test"] is not None
    patient = make_trial(train={**train, "patience": None}, probe={"examples": 8})
    assert len(train_trial(patient, device="cpu").epochs) == 6

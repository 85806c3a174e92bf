import pytest
import torch

from study.errors import StoreError
from study.store import checkpoints
from study.train.session import Distributed
from study.train.trial import train_trial
from tests.study.train.test_trial import numbers


class KillError(BaseException):
    """Ends a trial as abruptly as an exception can."""


@pytest.fixture
def cut_short(make_trial, tmp_path):
    """A trial of three epochs that ended right after its second checkpoint."""
    trial = make_trial(train={"epochs": 3})

    def save(state, epoch):
        checkpoints.save(tmp_path, state)
        if epoch == 2:
            raise KillError

    with pytest.raises(KillError):
        train_trial(trial, save=save)
    return trial


def test_a_trial_goes_on_from_its_file_to_the_same_bits(cut_short, tmp_path):
    (file,) = (tmp_path / "checkpoints").iterdir()
    assert file.name == f"{cut_short.trial_id}.pt"
    state = checkpoints.load(tmp_path, cut_short.trial_id)
    assert state is not None
    assert state["epoch"] == 2
    trained = []
    resumed = train_trial(cut_short, resume=state, on_epoch=lambda row: trained.append(row["epoch"]))
    assert trained == [3]
    whole = train_trial(cut_short)
    assert numbers(resumed) == numbers(whole)
    assert [row["epoch"] for row in resumed.blocks] == [row["epoch"] for row in whole.blocks]


def test_it_can_be_read_without_trusting_it(cut_short, tmp_path):
    torch.load(tmp_path / "checkpoints" / f"{cut_short.trial_id}.pt", weights_only=True)


@pytest.mark.parametrize("damage", ["torn", "empty", "foreign", "pickle", "other torch", "other trial"])
def test_a_file_that_cannot_be_gone_on_from_counts_for_nothing(cut_short, tmp_path, damage):
    file = tmp_path / "checkpoints" / f"{cut_short.trial_id}.pt"
    whole, saved = file.read_bytes(), torch.load(file, weights_only=True)
    if damage == "torn":
        file.write_bytes(whole[: len(whole) // 2])
    elif damage == "empty":
        file.write_bytes(b"")
    elif damage == "foreign":
        file.write_bytes(b"not a checkpoint")
    elif damage == "pickle":
        torch.save({**saved, "code": Distributed}, file)
    elif damage == "other torch":
        torch.save({**saved, "torch": "0.4.1"}, file)
    else:
        file.rename(file.with_name("0" * 16 + ".pt"))
        assert checkpoints.load(tmp_path, "0" * 16) is None
    assert checkpoints.load(tmp_path, cut_short.trial_id) is None


def test_the_state_before_survives_a_write_that_fails(cut_short, tmp_path, monkeypatch):
    state = checkpoints.load(tmp_path, cut_short.trial_id)

    def full(descriptor):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(StoreError, match="No space left on device") as caught:
        checkpoints.save(tmp_path, {**state, "epoch": 3})
    assert caught.value.exit_code == 3
    assert checkpoints.load(tmp_path, cut_short.trial_id)["epoch"] == 2
    assert len(list((tmp_path / "checkpoints").iterdir())) == 1


def test_removing_one_that_is_not_there_is_no_error(tmp_path):
    checkpoints.remove(tmp_path, "0" * 16)
    assert checkpoints.load(tmp_path, "0" * 16) is None

"""Images that are decoded when they are asked for: those in memory, by any number of processes."""

from dataclasses import replace

import pytest
import torch

from study.data import load
from study.data.lazy import LazyImages
from study.data.load import load_data
from study.errors import DataError
from study.settings.data import DataSettings
from study.settings.model import ModelSettings
from study.settings.train import TrainSettings
from study.settings.trial import Trial, TrialSettings
from study.tasks.registry import task_of
from study.train.trial import train_trial
from tests.study.data.test_load import picture, write_folder, write_parquet

CPU = torch.device("cpu")


@pytest.fixture(autouse=True)
def _cache(tmp_path, monkeypatch):
    monkeypatch.setenv("REVSTUDY_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def lazily(monkeypatch):
    """Nothing but a few bytes is kept decoded."""

    def switch():
        monkeypatch.setattr(load, "DECODED_BYTES", 0)
        load._load.cache_clear()

    yield switch
    load._load.cache_clear()


def trial(data: DataSettings, **train) -> Trial:
    length = {"steps": 3, "batch_size": 8, **train}
    settings = TrialSettings(data=data, model=ModelSettings(name="revnet38", width=0.25))
    settings = replace(settings, train=TrainSettings(**length))
    return Trial(trial_id="t", study="s", settings=settings)


@pytest.mark.parametrize("kind", ["folder", "parquet"])
def test_images_on_disk_are_those_in_memory(tmp_path, lazily, kind):
    settings = write_folder(tmp_path / "a") if kind == "folder" else write_parquet(tmp_path / "a")
    resident = load_data(settings)
    assert resident.in_memory
    lazily()
    lazy = load_data(settings)
    assert not lazy.in_memory
    assert lazy.shape == resident.shape
    assert torch.equal(lazy.mean_C, resident.mean_C) and torch.equal(lazy.std_C, resident.std_C)
    assert lazy.augmentation == resident.augmentation
    for split in ("train", "val", "test"):
        a, b = getattr(resident, split), getattr(lazy, split)
        assert isinstance(b, LazyImages)
        assert torch.equal(a.labels_N, b.labels_N)
        assert torch.equal(a.images_NCHW, b[torch.arange(len(b))])


def batches(settings: TrialSettings):
    """Inputs and targets of two steps with what is drawn for them, and of an evaluation."""
    examples = task_of(settings).open(settings, CPU)
    generator = torch.Generator().manual_seed(7)
    plan = [(torch.tensor(index), examples.draw(4, generator)) for index in ([0, 3, 5, 2], [9, 9, 1, 4])]
    state = torch.get_rng_state()
    found = [*examples.training(iter(plan)), *examples.evaluation(examples.test, [torch.arange(4)])]
    assert torch.equal(torch.get_rng_state(), state)  # dropout draws what it would have drawn
    for whole, (index, draws) in zip(found, plan, strict=False):  # the shares of two data-parallel workers
        for share in (slice(0, 2), slice(2, 4)):
            (part,) = examples.training([(index[share], None if draws is None else draws[share])])
            assert torch.equal(part.inputs[0], whole.inputs[0][share])
    return [(batch.inputs[0], batch.targets) for batch in found]


@pytest.mark.parametrize("recipe", ["crop", "imagenet"])
def test_batches_are_equal_whatever_the_number_of_loader_workers(tmp_path, lazily, recipe):
    data = write_folder(tmp_path, sizes=(40, 48))
    data = replace(data, image_size=32, recipe=recipe)
    found = {}
    if recipe == "crop":
        found["in memory"] = batches(TrialSettings(data=data))
    lazily()
    for workers in (0, 1, 2):
        found[workers] = batches(TrialSettings(data=replace(data, loader_workers=workers)))
    for other in found.values():
        for (a, b), (c, d) in zip(found[0], other, strict=True):
            assert torch.equal(a, c) and torch.equal(b, d)


def test_the_recipe_of_imagenet_varies_each_image_by_its_seed(tmp_path):
    data = replace(write_folder(tmp_path, train=4), image_size=28, recipe="imagenet")
    ramp = torch.arange(64, dtype=torch.uint8).repeat(64, 1)
    from PIL import Image

    for file in tmp_path.rglob("*.png"):
        Image.fromarray(ramp.numpy()).convert("RGB").save(file)
    images = load_data(data).train
    positions = torch.zeros(3, dtype=torch.long)
    (one,) = images.read([(positions, torch.tensor([1, 2, 1]))])
    assert one.shape == (3, 3, 28, 28) and one.dtype == torch.uint8
    assert torch.equal(one[0], one[2]) and not torch.equal(one[0], one[1])
    (plain,) = images.read([(positions, None)])
    assert torch.equal(plain[0], plain[1])
    # The middle 87.5 % of a ramp from 0 to 63.
    assert plain[0, 0, 0, 0].item() == pytest.approx(64 * 0.0625 + 0.5, abs=1)
    assert plain[0, 0, 0, -1].item() == pytest.approx(63 - 64 * 0.0625 - 0.5, abs=1)


@pytest.mark.parametrize("workers", [0, 2])
def test_a_trial_ends_with_the_same_numbers_from_disk(tmp_path, lazily, workers):
    data = write_folder(tmp_path, train=20, sizes=(32,))
    resident = train_trial(trial(data), device="cpu")
    assert resident.trial["outcome"] == "ok", resident.trial["error_message"]
    lazily()
    lazy = train_trial(trial(replace(data, loader_workers=workers)), device="cpu")
    for column in ("loss_train", "loss_val", "loss_test", "accuracy_test", "examples_train"):
        assert lazy.trial[column] == resident.trial[column], column


@pytest.mark.parametrize("workers", [0, 1])
@pytest.mark.parametrize("kind", ["folder", "parquet"])
def test_a_corrupt_image_in_the_middle_fails_the_trial_and_is_named(tmp_path, lazily, kind, workers):
    lazily()
    if kind == "folder":
        settings = write_folder(tmp_path, train=20)
        bad = tmp_path / "train" / "dog" / "13.png"
        bad.write_bytes(bad.read_bytes()[:40])
        place = str(bad)
    else:
        import pyarrow as pa
        import pyarrow.parquet as pq

        settings = write_parquet(tmp_path)
        bad = tmp_path / "train-00001-of-00002.parquet"
        cells = pq.read_table(bad).to_pydict()
        cells["img"][11] = {"bytes": picture(1)[:40], "path": ""}
        pq.write_table(pa.table(cells), bad)
        place = f"{bad} row 11"
    settings = replace(settings, loader_workers=workers)
    result = train_trial(trial(settings, steps=None, epochs=1, batch_size=2), device="cpu")
    assert result.trial["outcome"] == "failed"
    assert f"{place} must be an image that decodes" in result.trial["error_message"]


def test_images_without_a_size_and_gray_ones(tmp_path, lazily):
    lazily()
    data = write_folder(tmp_path, sizes=(12, 20))
    file = tmp_path / "train" / "cat" / "01.png"
    file.write_bytes(picture(9, mode="L"))
    loaded = load_data(data)
    assert loaded.shape.in_channels == 3 and loaded.shape.image_size == 12
    pixels = loaded.train[torch.arange(len(loaded.train))]
    assert pixels.shape[1:] == (3, 12, 12)


def test_a_data_set_that_datasets_has_saved(tmp_path):
    datasets = pytest.importorskip("datasets")
    write_parquet(tmp_path / "p")
    files = {s: [str(f) for f in sorted((tmp_path / "p").glob(f"{s}-*"))] for s in ("train", "test")}
    saved = datasets.load_dataset("parquet", data_files=files, cache_dir=str(tmp_path / "c"))
    saved.save_to_disk(str(tmp_path / "saved"))
    settings = DataSettings(name=f"hf:{tmp_path / 'saved'}", validation_fraction=0.2)
    found, same = load_data(settings), load_data(write_parquet(tmp_path / "q"))
    for split in ("train", "val", "test"):
        index = torch.arange(len(getattr(same, split)))
        assert torch.equal(getattr(found, split)[index], getattr(same, split)[index])
        assert torch.equal(getattr(found, split).labels_N, getattr(same, split).labels_N)
    with pytest.raises(DataError, match="must be a data set that Hugging Face's datasets can load"):
        (tmp_path / "empty").mkdir()
        load_data(DataSettings(name=f"hf:{tmp_path / 'empty'}"))


def test_synthetic_images_have_no_recipe():
    with pytest.raises(DataError, match="holds no encoded images"):
        load_data(DataSettings(recipe="imagenet"))

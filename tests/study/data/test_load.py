import io

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image

from study.data.augment import Augmentation, Draws, augment, draw
from study.data.fingerprint import fingerprint
from study.data.load import data_shape, load_data
from study.errors import DataError
from study.settings.data import DataSettings


def picture(number: int, *, size: int = 12, mode: str = "RGB") -> bytes:
    """A PNG whose every pixel says which image it is."""
    shape = (size, size, 3) if mode == "RGB" else (size, size)
    stream = io.BytesIO()
    Image.fromarray(np.full(shape, number, dtype=np.uint8), mode).save(stream, "PNG")
    return stream.getvalue()


def write_parquet(folder, *, train=40, test=20, classes=4, image="img", label="label", row_group_size=7):
    """Image i of a split has pixels i, and label i modulo the classes."""
    folder.mkdir(parents=True, exist_ok=True)
    for split, count in (("train", train), ("test", test)):
        cells = [{"bytes": picture(i), "path": f"{i}.png"} for i in range(count)]
        table = pa.table({image: cells, label: [i % classes for i in range(count)]})
        half = count // 2
        for part, rows in enumerate((table.slice(0, half), table.slice(half))):
            name = f"{split}-{part:05d}-of-00002.parquet"
            pq.write_table(rows, folder / name, row_group_size=row_group_size)
    return DataSettings(name=f"parquet:{folder}", validation_fraction=0.2)


def write_folder(root, *, train=10, test=4, sizes=(12,), held_out="test", classes=("cat", "dog")):
    for split, count in (("train", train), (held_out, test)):
        for label in classes:
            place = root / split / label
            place.mkdir(parents=True)
            for i in range(count):
                (place / f"{i:02d}.png").write_bytes(picture(i, size=sizes[i % len(sizes)]))
    return DataSettings(name=f"folder:{root}")


def images_of(split):
    return {image.numpy().tobytes() for image in split.images_NCHW}


def test_digits_are_the_real_ones_in_three_disjoint_stratified_parts():
    data = load_data(DataSettings())
    assert (len(data.train), len(data.val), len(data.test)) == (1290, 143, 364)
    assert data.train.images_NCHW.shape == (1290, 1, 8, 8)
    assert data.train.images_NCHW.max() == 16
    for split in (data.train, data.val, data.test):
        share = torch.bincount(split.labels_N) / len(split)
        assert (share - 0.1).abs().max() < 0.015
    assert len(images_of(data.train) & images_of(data.test)) == 0
    assert len(images_of(data.train) & images_of(data.val)) == 0
    assert data.augmentation is None


def test_data_are_read_once_per_process():
    assert load_data(DataSettings()) is load_data(DataSettings())


def test_subsets_are_nested_and_share_the_test_set():
    large, small = (load_data(DataSettings(train_examples=n)) for n in (800, 200))
    assert (len(large.train), len(small.train)) == (800, 200)
    assert images_of(small.train) < images_of(large.train)
    assert images_of(small.val) < images_of(large.val)
    assert not images_of(large.train) & images_of(large.val)
    assert torch.equal(large.test.images_NCHW, small.test.images_NCHW)
    counts = torch.bincount(small.train.labels_N)
    assert counts.max() - counts.min() <= 2


def test_another_split_seed_gives_another_validation_set():
    assert images_of(load_data(DataSettings()).val) != images_of(load_data(DataSettings(), seed=1).val)


def test_a_share_of_training_labels_is_wrong_and_no_other_label():
    plain = load_data(DataSettings(train_examples=500))
    noisy = load_data(DataSettings(train_examples=500, label_noise=0.2))
    wrong = plain.train.labels_N != noisy.train.labels_N
    assert wrong.sum() == 100
    assert set(noisy.train.labels_N.tolist()) == set(range(10))
    assert torch.equal(plain.train[torch.arange(500)], noisy.train[torch.arange(500)])
    assert torch.equal(plain.val.labels_N, noisy.val.labels_N)
    assert torch.equal(plain.test.labels_N, noisy.test.labels_N)
    again = load_data(DataSettings(train_examples=500, label_noise=0.2, test_examples=50))
    assert torch.equal(again.train.labels_N, noisy.train.labels_N)
    all_wrong = load_data(DataSettings(train_examples=500, label_noise=1.0))
    assert (plain.train.labels_N != all_wrong.train.labels_N).all()


def test_normalized_training_images_have_mean_0_and_deviation_1():
    data = load_data(DataSettings())
    x = data.normalize(data.train.images_NCHW, torch.float64)
    assert x.mean().abs() < 1e-9
    assert abs(x.std(correction=0) - 1) < 1e-9


@pytest.mark.parametrize(
    ("changes", "path", "words"),
    [
        ({"train_examples": 2000}, "data.train_examples", "digits has 1433 training images"),
        ({"test_examples": 2000}, "data.test_examples", "the split has 364 images"),
        ({"validation_fraction": 1e-6}, "data.validation_fraction", "at least one validation image of 1433"),
    ],
)
def test_wishes_beyond_the_data_set(changes, path, words):
    with pytest.raises(DataError) as caught:
        load_data(DataSettings(**changes))
    assert caught.value.path == path
    assert words in str(caught.value)
    assert caught.value.remedy


def test_synthetic_of_any_size():
    settings = DataSettings(name="synthetic:1x20x20x7", train_examples=50, test_examples=30)
    data = load_data(settings)
    assert data.train.images_NCHW.shape == (50, 1, 20, 20)
    assert (len(data.test), data.num_classes, data.has_labels) == (30, 7, False)
    again = load_data(DataSettings(name=settings.name, train_examples=50, test_examples=31))
    assert torch.equal(data.train.images_NCHW, again.train.images_NCHW)


@pytest.mark.parametrize(("image", "label"), [("img", "label"), ("image", "labels")])
def test_parquet_rows_keep_their_labels(tmp_path, image, label):
    data = load_data(write_parquet(tmp_path, image=image, label=label))
    assert (len(data.train), len(data.val), len(data.test), data.num_classes) == (32, 8, 20, 4)
    numbers = []
    for split in (data.train, data.val):
        number_N = split.images_NCHW[:, 0, 0, 0].long()
        assert torch.equal(number_N % 4, split.labels_N)
        numbers += number_N.tolist()
    assert sorted(numbers) == list(range(40))
    assert data.test.images_NCHW[:, 0, 0, 0].tolist() == list(range(20))


def test_parquet_subset_decodes_nothing_else(tmp_path):
    settings = write_parquet(tmp_path)
    few = {"name": settings.name, "train_examples": 8, "validation_fraction": 0.2}
    data = load_data(DataSettings(**few, test_examples=4))
    assert (len(data.train), len(data.val), len(data.test)) == (8, 2, 4)
    assert torch.bincount(data.train.labels_N).tolist() == [2, 2, 2, 2]
    wanted = {int(n) for split in (data.train, data.val) for n in split.images_NCHW[:, 0, 0, 0]}
    for file in tmp_path.glob("train-*"):  # every other image is broken, and nobody notices
        table = pq.read_table(file)
        cells = [
            c if picture_number(c["bytes"]) in wanted else {"bytes": b"broken", "path": ""}
            for c in table["img"].to_pylist()
        ]
        pq.write_table(table.set_column(0, "img", [cells]), file, row_group_size=7)
    again = load_data(DataSettings(**few, test_examples=5))
    assert torch.equal(again.train.images_NCHW, data.train.images_NCHW)
    with pytest.raises(DataError, match="must be an image that decodes"):
        load_data(DataSettings(name=settings.name, validation_fraction=0.2, test_examples=6))


def picture_number(content: bytes) -> int:
    return Image.open(io.BytesIO(content)).getpixel((0, 0))[0]


def test_parquet_identity_is_its_content(tmp_path):
    prints = {
        fingerprint(write_parquet(tmp_path / name, train=n)) for name, n in (("a", 40), ("b", 40), ("c", 44))
    }
    assert len(prints) == 2


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (lambda d: [f.unlink() for f in d.glob("test-*")], "must hold train-*.parquet and test-*.parquet"),
        (lambda d: next(iter(d.glob("train-*"))).write_bytes(b"PAR1"), "must be a whole Parquet file"),
        (
            lambda d: pq.write_table(pa.table({"label": [0], "x": [1]}), d / "train-00000-of-00002.parquet"),
            "must have a column img or image",
        ),
        (
            lambda d: pq.write_table(pa.table({"img": [0]}), d / "train-00000-of-00002.parquet"),
            "must have a column label or labels",
        ),
    ],
)
def test_parquet_of_another_layout(tmp_path, spoil, words):
    settings = write_parquet(tmp_path)
    spoil(tmp_path)
    with pytest.raises(DataError) as caught:
        load_data(settings)
    assert caught.value.path == "data.name"
    assert words in str(caught.value)


def test_folder_of_classes(tmp_path):
    data = load_data(write_folder(tmp_path))
    assert (len(data.train), len(data.val), len(data.test), data.num_classes) == (18, 2, 8, 2)
    assert data.train.images_NCHW.shape[1:] == (3, 12, 12)
    assert sorted(data.test.labels_N.tolist()) == [0] * 4 + [1] * 4


def test_folder_with_val_alone_and_with_all_three(tmp_path):
    assert len(load_data(write_folder(tmp_path / "a", held_out="val")).test) == 8
    settings = write_folder(tmp_path / "b")
    place = tmp_path / "b" / "val" / "cat"
    place.mkdir(parents=True)
    (place / "1.png").write_bytes(picture(7))
    data = load_data(settings)
    assert (len(data.train), len(data.val), len(data.test)) == (20, 1, 8)
    assert data.val.images_NCHW.unique().tolist() == [7]


def test_folder_images_are_resized_to_a_common_square(tmp_path):
    settings = write_folder(tmp_path, sizes=(12, 20))
    assert data_shape(settings).image_size == 12
    resized = DataSettings(name=settings.name, image_size=30)
    data = load_data(resized)
    assert data.train.images_NCHW.shape[2:] == (30, 30)
    assert data.augmentation == Augmentation(pad=3, flip=True)


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (lambda d: (d / "test").rename(d / "tset"), "must hold train/ and test/"),
        (lambda d: (d / "test" / "dgo").mkdir(), "must be a training class too; received 'test/dgo'"),
        (lambda d: [f.unlink() for f in (d / "test").rglob("*.png")], "test/ holds no images"),
        (lambda d: (d / "train" / "cat" / "00.png").write_bytes(b"no"), "must be an image that decodes"),
    ],
)
def test_folder_of_another_layout(tmp_path, spoil, words):
    settings = write_folder(tmp_path)
    spoil(tmp_path)
    with pytest.raises(DataError) as caught:
        load_data(settings)
    assert words in str(caught.value)


@pytest.mark.parametrize("name", ["cifar10", "cifar100", "imagenet"])
def test_missing_downloads_name_the_fix(tmp_path, monkeypatch, name):
    monkeypatch.setenv("REVSTUDY_DATA", str(tmp_path))
    with pytest.raises(DataError) as caught:
        load_data(DataSettings(name=name))
    message = str(caught.value)
    assert str(tmp_path) in message
    assert "REVSTUDY_DATA" in message
    assert ("data.download: true" in message) == (name != "imagenet")
    assert list(tmp_path.iterdir()) == []


def test_stem_follows_the_image_size():
    assert data_shape(DataSettings(name="synthetic:3x64x64x10")).stem == "cifar"
    assert data_shape(DataSettings(name="synthetic:3x224x224x10")).stem == "imagenet"


def test_augmentation_is_on_from_28_pixels_for_real_images():
    def augmentation(**changes):
        return load_data(DataSettings(train_examples=20, test_examples=10, **changes)).augmentation

    assert augmentation(name="digits", augment=True) == Augmentation(pad=1, flip=False)
    assert augmentation(name="synthetic") is None


def test_crops_and_flips_are_those_of_a_loop():
    generator = torch.Generator().manual_seed(0)
    x_NCHW = torch.randn(16, 3, 9, 9, generator=generator)
    kind = Augmentation(pad=2, flip=True)
    draws = draw(kind, 16, generator)
    assert draws.flipped_N.any() and not draws.flipped_N.all()
    assert draws.corners_N2.min() == 0 and draws.corners_N2.max() == 4
    y_NCHW = augment(x_NCHW, kind, draws)
    for i, (top, left) in enumerate(draws.corners_N2.tolist()):
        window = torch.nn.functional.pad(x_NCHW[i], (2, 2, 2, 2))[:, top : top + 9, left : left + 9]
        assert torch.equal(y_NCHW[i], window.flip(2) if draws.flipped_N[i] else window)


def test_the_middle_crop_is_the_image_itself():
    x_NCHW = torch.randn(4, 1, 8, 8)
    kind = Augmentation(pad=1, flip=False)
    draws = Draws(corners_N2=torch.ones(4, 2, dtype=torch.long), flipped_N=torch.zeros(4, dtype=torch.bool))
    assert torch.equal(augment(x_NCHW, kind, draws), x_NCHW)


def test_images_of_several_sizes_need_one_and_gray_ones_among_colored_are_colored(tmp_path):
    settings = write_parquet(tmp_path, row_group_size=50)
    file = tmp_path / "train-00000-of-00002.parquet"
    cells = pq.read_table(file).to_pydict()
    cells["img"][:3] = [{"bytes": picture(i, mode="L"), "path": ""} for i in range(3)]
    pq.write_table(pa.table(cells), file)
    data = load_data(settings)
    images = torch.cat([data.train.images_NCHW, data.val.images_NCHW])
    assert images.shape == (40, 3, 12, 12)
    assert sorted(images[:, :, 0, 0].flatten().tolist()) == sorted(3 * list(range(40)))
    cells["img"][7] = {"bytes": picture(7, size=13), "path": ""}
    pq.write_table(pa.table(cells), file)
    resized = DataSettings(name=settings.name, image_size=12, validation_fraction=0.2)
    assert load_data(resized).train.image_shape == (3, 12, 12)

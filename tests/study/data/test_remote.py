"""Data on an object store: the same as on this machine, with the same identity."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from pyarrow import fs

from study.data.fingerprint import fingerprint
from study.data.load import load_data
from study.data.text import load_text
from study.data.text_fingerprint import text_fingerprint
from study.errors import DataError
from study.settings.data import DataSettings
from tests.s3_server import s3_server
from tests.study.data.test_load import write_folder, write_parquet

COPIES = "cache"


@pytest.fixture
def store(tmp_path, monkeypatch):
    monkeypatch.setenv("REVSTUDY_CACHE", str(tmp_path / COPIES))
    with s3_server() as uri:
        yield uri


def upload(folder: Path, uri: str) -> str:
    """The URI of the folder there."""
    address, _, query = uri.partition("?")
    there = f"{address}/{folder.name}?{query}"
    target, path = fs.FileSystem.from_uri(there)
    fs.copy_files(str(folder), path, fs.LocalFileSystem(), target)
    return there


@pytest.mark.parametrize("kind", ["folder", "parquet"])
def test_images_of_an_object_store_are_those_of_a_folder(tmp_path, store, kind):
    here = write_folder(tmp_path / "a") if kind == "folder" else write_parquet(tmp_path / "a")
    there = replace(here, name=f"{kind}:{upload(tmp_path / 'a', store)}")
    assert fingerprint(there) == fingerprint(here)
    a, b = load_data(here), load_data(there)
    for split in ("train", "val", "test"):
        assert torch.equal(getattr(a, split).images_NCHW, getattr(b, split).images_NCHW)
        assert torch.equal(getattr(a, split).labels_N, getattr(b, split).labels_N)
    assert len(list((tmp_path / COPIES).iterdir())) == 1


def test_text_of_an_object_store_is_that_of_a_folder(tmp_path, store):
    folder = tmp_path / "text"
    folder.mkdir()
    for i in range(40):
        (folder / f"{i}.txt").write_text(f"text {i}\n" * i)
    uri = upload(folder, store)
    assert text_fingerprint(f"text:{uri}") == text_fingerprint(f"text:{folder}")
    a, b = (load_text(f"text:{place}", context_length=8) for place in (folder, uri))
    assert torch.equal(a.val.batch(torch.arange(9)).tokens_BT, b.val.batch(torch.arange(9)).tokens_BT)
    first = text_fingerprint(f"text:{uri}")
    (folder / "1.txt").write_text("text 2\n")
    upload(folder, store)
    assert text_fingerprint(f"text:{uri}") == text_fingerprint(f"text:{folder}") != first


def test_an_address_without_files_is_named(store):
    with pytest.raises(DataError, match="must hold files that can be read"):
        fingerprint(DataSettings(name=f"folder:{store.replace('store', 'nowhere')}"))

"""Packed text: every token is a target once, bytes are counted, splits are apart, and bad input is named."""

import json
import math
from itertools import chain, pairwise
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from study.data.text import TextData, check_model_takes, load_text
from study.data.text_files import SPLITS, text_files
from study.data.text_fingerprint import text_fingerprint
from study.data.tokens import IGNORED
from study.errors import DataError

LINES = [f"row {i}: räksmörgås {i * i}\n" for i in range(400)]


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("REVSTUDY_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def everything(split):
    return split.batch(torch.arange(len(split)))


def documents(data: TextData, name: str) -> list[bytes]:
    """The documents of a split of bytes, put together from targets alone."""
    batch = everything(getattr(data, name))
    stream = batch.targets_BT[batch.targets_BT != IGNORED].tolist()
    text: list[list[int]] = [[]]
    for token in stream:
        if token == data.document_id:
            text.append([])
        else:
            text[-1].append(token)
    assert text.pop() == []  # the last document ends too
    return [bytes(part) for part in text]


def write_folder(folder: Path, count: int = 40) -> dict[str, bytes]:
    contents = {f"{i % 3}/{i:02d}.txt": "".join(LINES[i : i + 1 + i % 7]).encode() for i in range(count)}
    for name, content in contents.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)
    return contents


@pytest.mark.parametrize("context_length", [1, 7, 64])
def test_every_token_is_a_target_once_and_no_document_is_in_two_splits(tmp_path, context_length):
    contents = write_folder(tmp_path / "text")
    data = load_text(f"text:{tmp_path / 'text'}", context_length=context_length)
    found = {split: documents(data, split) for split in SPLITS}
    assert sorted(chain(*found.values())) == sorted(contents.values())
    assert len(found["train"]) > len(found["val"]) > 0 < len(found["test"])
    for split in SPLITS:
        batch = everything(getattr(data, split))
        assert batch.tokens_BT.shape == batch.targets_BT.shape == (len(batch.bytes_B), context_length)
        assert batch.tokens_BT.dtype == batch.targets_BT.dtype == batch.bytes_B.dtype == torch.int64
        assert int(batch.bytes_B.sum()) == sum(map(len, found[split]))
        # What is predicted is what comes next.
        assert torch.equal(batch.targets_BT[:-1, :-1], batch.tokens_BT[:-1, 1:])
        assert torch.equal(batch.targets_BT[:-1, -1], batch.tokens_BT[1:, 0])
        assert batch.tokens_BT[0, 0] == data.document_id


def test_batches_follow_from_their_numbers_alone(tmp_path):
    write_folder(tmp_path / "text")
    train = load_text(f"text:{tmp_path / 'text'}", context_length=16).train
    order = torch.randperm(len(train), generator=torch.Generator().manual_seed(0))
    whole, one = train.batch(order), [train.batch(order[i : i + 1]) for i in range(len(order))]
    for name in ("tokens_BT", "targets_BT", "bytes_B"):
        assert torch.equal(getattr(whole, name), torch.cat([getattr(part, name) for part in one]))
    for wrong in (-1, len(train)):
        with pytest.raises(IndexError, match=f"from 0 to {len(train) - 1}"):
            train.batch(torch.tensor([wrong]))


def test_segments_count_the_documents_of_a_sequence(tmp_path):
    write_folder(tmp_path / "text")
    data = load_text(f"text:{tmp_path / 'text'}", context_length=64)
    batch = everything(data.train)
    for tokens, segments in zip(batch.tokens_BT.tolist(), batch.segments_BT.tolist(), strict=True):
        number = 0
        for place, token in enumerate(tokens):
            number += place > 0 and token == data.document_id
            assert segments[place] == number


def test_the_library_of_python_is_split_by_file():
    data = load_text("stdlib", context_length=1024)
    sizes = {file.key: file.path.read_bytes() for file in text_files("stdlib", None)}
    assert "argparse.py" in sizes and not [k for k in sizes if "test" in k.split("/")]
    found = {split: documents(data, split) for split in SPLITS}
    assert sorted(chain(*found.values())) == sorted(c for c in sizes.values() if c)
    total = sum(map(len, sizes.values()))
    assert total > 8e6
    assert sum(map(len, found["train"])) > 0.7 * total
    assert 2 < data.bigram_bits_per_byte < 5
    assert load_text("stdlib", context_length=1024) is data


def test_a_single_file_is_cut_at_ends_of_lines(tmp_path):
    text = "".join(LINES).encode()
    (tmp_path / "all.txt").write_bytes(text)
    data = load_text(f"text:{tmp_path / 'all.txt'}", context_length=32, validation_fraction=0.2)
    (train,), (val,), (test,) = (documents(data, split) for split in SPLITS)
    assert train + val + test == text
    assert train.endswith(b"\n") and val.endswith(b"\n")
    assert abs(len(val) / len(text) - 0.2) < 0.01
    assert abs(len(test) / len(text) - 0.1) < 0.01


@pytest.mark.parametrize("suffix", ["parquet", "jsonl"])
def test_every_row_is_a_document(tmp_path, suffix):
    if suffix == "parquet":
        pq.write_table(
            pa.table({"id": range(400), "text": LINES}), tmp_path / "all.parquet", row_group_size=90
        )
    else:
        (tmp_path / "all.jsonl").write_text("\n".join(json.dumps({"text": line}) for line in LINES))
    data = load_text(f"text:{tmp_path / f'all.{suffix}'}", context_length=32)
    found = {split: documents(data, split) for split in SPLITS}
    assert sorted(chain(*found.values())) == sorted(line.encode() for line in LINES)
    assert 10 < len(found["val"]) < 100


def test_named_splits_are_kept(tmp_path):
    for name in ("train", "valid", "test"):
        (tmp_path / f"wiki.{name}.raw").write_text(f"{name}\n" * 50)
    (tmp_path / "README.rst").write_text("about")
    data = load_text(f"text:{tmp_path}", context_length=8)
    for split, name in zip(SPLITS, ("train", "valid", "test"), strict=True):
        assert documents(data, split) == [f"{name}\n".encode() * 50]


def test_validation_is_cut_from_training_where_only_one_split_is_held_out(tmp_path):
    for name, count in (("train", 100), ("val", 20)):
        (tmp_path / f"{name}.txt").write_text(f"{name}\n" * count)
    data = load_text(f"text:{tmp_path}", context_length=8)
    assert documents(data, "test") == [b"val\n" * 20]
    assert documents(data, "train") == [b"train\n" * 91]  # the cut is moved to the end of a line
    assert documents(data, "val") == [b"train\n" * 9]


def test_long_documents_come_in_pieces_that_change_nothing(tmp_path, monkeypatch):
    monkeypatch.setattr("study.data.documents.PIECE_BYTES", 16)
    contents = write_folder(tmp_path / "text")
    (tmp_path / "text" / "long.txt").write_text("ö" * 100)
    data = load_text(f"text:{tmp_path / 'text'}", context_length=16)
    expected = sorted([*contents.values(), "ö".encode() * 100])
    assert sorted(chain(*(documents(data, split) for split in SPLITS))) == expected
    words = load_text(f"text:{tmp_path / 'text'}", context_length=16, tokenizer="bpe:300")
    total = sum(int(everything(getattr(words, split)).bytes_B.sum()) for split in SPLITS)
    assert total == sum(map(len, expected))


def naive_bigram(train: list[bytes], held_out: list[bytes]) -> float:
    """Witten and Bell's estimate, symbol by symbol."""
    pairs: dict[tuple[int, int], int] = {}
    for text in train:
        symbols = [256, *text, 256]
        for pair in pairwise(symbols):
            pairs[pair] = pairs.get(pair, 0) + 1
    total = sum(pairs.values())
    bits = 0.0
    for text in held_out:
        symbols = [256, *text, 256]
        for a, b in pairwise(symbols):
            prior = (1 + sum(n for (_, y), n in pairs.items() if y == b)) / (total + 257)
            after = {y: n for (x, y), n in pairs.items() if x == a}
            n, kinds = sum(after.values()), len(after)
            probability = (after.get(b, 0) + kinds * prior) / (n + kinds) if n else prior
            bits -= math.log2(probability)
    return bits / sum(map(len, held_out))


def test_the_bigram_model_is_that_of_a_loop(tmp_path):
    write_folder(tmp_path / "text")
    (tmp_path / "text" / "other.txt").write_bytes(b"\x01\x02 never seen before" * 3)
    data = load_text(f"text:{tmp_path / 'text'}", context_length=16, validation_fraction=0.3)
    expected = naive_bigram(documents(data, "train"), documents(data, "val"))
    assert data.bigram_bits_per_byte == pytest.approx(expected, rel=1e-12)
    words = load_text(
        f"text:{tmp_path / 'text'}", context_length=16, validation_fraction=0.3, tokenizer="bpe:300"
    )
    assert words.bigram_bits_per_byte == data.bigram_bits_per_byte


def test_identity_follows_contents_and_not_the_path(tmp_path):
    for place in ("a", "b"):
        write_folder(tmp_path / place)
    first = text_fingerprint(f"text:{tmp_path / 'a'}")
    assert first == text_fingerprint("text:b", root=str(tmp_path))
    assert first != text_fingerprint(f"text:{tmp_path / 'a'}", tokenizer="bpe:300")
    (tmp_path / "a" / "0" / "00.txt").write_bytes(LINES[1].encode())  # as long as before
    assert len(LINES[0]) == len(LINES[1])
    assert first != text_fingerprint(f"text:{tmp_path / 'a'}")
    assert load_text(f"text:{tmp_path / 'b'}", context_length=8).fingerprint == first


def refused(name: str, **options) -> DataError:
    with pytest.raises(DataError) as caught:
        load_text(name, **{"context_length": 8, **options})
    assert caught.value.remedy
    assert caught.value.exit_code == 2
    return caught.value


def test_bad_files_are_named_with_their_rows(tmp_path):
    (tmp_path / "empty").mkdir()
    assert "holds no files" in str(refused(f"text:{tmp_path / 'empty'}"))
    assert "existing file or folder" in str(refused(f"text:{tmp_path / 'emty'}"))
    rows = tmp_path / "bad.jsonl"
    rows.write_text('{"text": "a"}\n{"txt": "b"}\n')
    assert "bad.jsonl row 1 must have a string under text" in str(refused(f"text:{rows}"))
    rows.write_text('{"text": "a"}\n{"text": \n')
    assert "bad.jsonl row 1" in str(refused(f"text:{rows}"))
    rows.write_bytes(b'{"text": "a"}\n{"text": "\xff"}\n')
    assert "bad.jsonl row 1" in str(refused(f"text:{rows}"))
    table = tmp_path / "bad.parquet"
    pq.write_table(pa.table({"text": ["a", "b", None]}), table)
    assert "bad.parquet row 2 must have a string" in str(refused(f"text:{table}"))
    pq.write_table(pa.table({"content": ["a"]}), table)
    assert "must have a column text" in str(refused(f"text:{table}"))
    pq.write_table(pa.table({"text": [1]}), table)
    assert "must hold strings; received 'int64'" in str(refused(f"text:{table}"))
    table.write_bytes(b"PAR1")
    assert "whole Parquet file" in str(refused(f"text:{table}"))
    (tmp_path / "utf16.txt").write_text("hello\n", encoding="utf-16")
    assert "a zero byte after 3 bytes" in str(refused(f"text:{tmp_path / 'utf16.txt'}"))


def test_text_that_is_not_utf8_is_bytes_and_nothing_else(tmp_path):
    contents = write_folder(tmp_path / "text")
    (tmp_path / "text" / "latin.txt").write_bytes("räksmörgås".encode("latin-1"))
    data = load_text(f"text:{tmp_path / 'text'}", context_length=8)
    assert sum(len(documents(data, split)) for split in SPLITS) == len(contents) + 1
    error = refused(f"text:{tmp_path / 'text'}", tokenizer="bpe:300")
    assert "latin.txt must be UTF-8" in str(error)
    assert "after 1 bytes" in str(error)


@pytest.mark.parametrize("held", [["train"], ["train", "valid", "test"]])
def test_a_missing_or_empty_split_is_named(tmp_path, held):
    for name in held:
        (tmp_path / f"{name}.txt").write_text("" if name == "valid" else "some text\n" * 9)
    error = refused(f"text:{tmp_path}")
    assert ("must name val or test too" if len(held) == 1 else "none is for val") in str(error)


def test_wishes_that_cannot_be_met(tmp_path):
    write_folder(tmp_path / "text")
    name = f"text:{tmp_path / 'text'}"
    error = refused(name, context_length=100_000)
    assert error.path == "data.context_length"
    assert "less than one sequence" in str(error)
    assert refused(name, context_length=0).path == "data.context_length"
    assert refused(name, validation_fraction=0.95).path == "data.validation_fraction"
    assert "at least 257" in str(refused(name, tokenizer="bpe:100"))
    assert "must be a known tokenizer" in str(refused(name, tokenizer="byte"))
    assert "must name an existing file" in str(refused(name, tokenizer=f"file:{tmp_path / 'x.json'}"))
    (tmp_path / "x.json").write_text("{}")
    assert "must be a tokenizer.json" in str(refused(name, tokenizer=f"file:{tmp_path / 'x.json'}"))
    assert "must be the name of a text" in str(refused("digits"))
    data = load_text(name, context_length=8)
    check_model_takes(data, vocabulary_size=257, longest_context=8)
    with pytest.raises(DataError, match="no more ids than the model, which has 256"):
        check_model_takes(data, vocabulary_size=256)
    with pytest.raises(DataError, match="no longer than the model takes; received 8; at most 4"):
        check_model_takes(data, vocabulary_size=257, longest_context=4)


def write_tokens(folder: Path, kind: str = "uint16", **meta) -> dict[str, np.ndarray]:
    folder.mkdir(parents=True, exist_ok=True)
    generator = np.random.default_rng(0)
    arrays = {split: generator.integers(0, 300, 1000 + i).astype(kind) for i, split in enumerate(SPLITS)}
    for split, array in arrays.items():
        array.tofile(folder / f"{split}.bin")
    if meta:
        (folder / "meta.json").write_text(json.dumps(meta))
    return arrays


@pytest.mark.parametrize("kind", ["uint16", "uint32"])
def test_token_files_are_read_as_they_are(tmp_path, kind):
    arrays = write_tokens(tmp_path, kind, dtype=kind, vocabulary_size=512, document_id=7)
    data = load_text(f"tokens:{tmp_path}", context_length=30)
    assert (data.vocabulary_size, data.document_id, data.knows_bytes) == (512, 7, False)
    assert data.bigram_bits_per_byte is None
    for split in SPLITS:
        batch = everything(getattr(data, split))
        assert batch.targets_BT[batch.targets_BT >= 0].tolist() == arrays[split][1:].tolist()
        assert batch.bytes_B.sum() == 0


def test_a_single_token_file_is_cut(tmp_path):
    array = np.arange(1000, dtype=np.uint16) % 257
    np.save(tmp_path / "all.npy", array)
    (tmp_path / "meta.json").write_text(json.dumps({"tokenizer": "bytes"}))
    data = load_text(f"tokens:{tmp_path / 'all.npy'}", context_length=10)
    assert [getattr(data, split).tokens for split in SPLITS] == [799, 99, 99]
    assert (data.knows_bytes, data.document_id, data.vocabulary_size) == (True, 256, 257)
    batch = everything(data.val)
    assert int(batch.bytes_B.sum()) == np.count_nonzero(array[801:900] != 256)
    assert data.bigram_bits_per_byte > 0


def test_token_files_with_the_header_of_llm_c(tmp_path):
    header = np.zeros(256, dtype=np.int32)
    header[:3] = 20240520, 1, 1000
    tokens = np.arange(1000, dtype=np.uint16)
    (tmp_path / "all.bin").write_bytes(header.tobytes() + tokens.tobytes())
    data = load_text(f"tokens:{tmp_path / 'all.bin'}", context_length=10)
    assert everything(data.train).targets_BT[0].tolist() == list(range(1, 11))


def test_bad_token_files(tmp_path):
    write_tokens(tmp_path / "a")
    (tmp_path / "a" / "val.bin").unlink()
    assert "val is missing" in str(refused(f"tokens:{tmp_path / 'a'}"))
    write_tokens(tmp_path / "b", vocabulary_size=256)
    assert "must be above the highest id, 299" in str(refused(f"tokens:{tmp_path / 'b'}"))
    write_tokens(tmp_path / "c", tokenizer="bytes")
    assert "must have the ids of the files, which are 300" in str(refused(f"tokens:{tmp_path / 'c'}"))
    write_tokens(tmp_path / "d")
    (tmp_path / "d" / "val.bin").write_bytes(b"abc")
    assert "no multiple of 2 bytes" in str(refused(f"tokens:{tmp_path / 'd'}"))
    np.save(tmp_path / "e.npy", np.zeros((3, 4)))
    assert "whole numbers in one dimension" in str(refused(f"tokens:{tmp_path / 'e.npy'}"))
    write_tokens(tmp_path / "f", dtype="float32")
    assert "must be uint16 or uint32" in str(refused(f"tokens:{tmp_path / 'f'}"))

"""Byte-pair encodings: they lose no byte, are trained the same each time, and are kept safely."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch

from study.data.cache import cached
from study.data.documents import Piece
from study.data.text import load_text
from study.data.text_files import SPLITS
from study.data.tokenizer import DOCUMENT_TOKEN, WordTokenizer, train_tokenizer
from study.errors import DataError

TEXTS = ["def räksmörgås(x):\n    return x + 1\n" * 20, "for i in range(10): print(i)\n" * 30]
TEXTS += [f"line {i} <|document|> 日本語 {i}\n" for i in range(60)]


def pieces():
    return [Piece(split="train", content=t.encode(), starts=True, where=str(i)) for i, t in enumerate(TEXTS)]


def decoded(words: WordTokenizer, ids) -> str:
    return words._tokenizer.decode(ids.tolist(), skip_special_tokens=False)


def test_no_byte_is_lost_and_training_ends_the_same(tmp_path):
    first, second = (train_tokenizer(400, pieces(), cache=tmp_path / k, key="k") for k in "ab")
    assert (tmp_path / "a/k/tokenizer.json").read_bytes() == (tmp_path / "b/k/tokenizer.json").read_bytes()
    assert first.vocabulary_size == 400
    for piece, (ids, lengths) in zip(pieces(), first.encode(pieces()), strict=True):
        assert lengths is None
        assert first.length_V[ids].sum() == len(piece.content)
        assert decoded(first, ids) == piece.content.decode()
        assert first.document_id not in ids  # even where the text spells it
    assert second.document_id == first.document_id
    assert first.length_V[first.document_id] == 0


def test_words_without_bytes_of_their_own_are_counted_by_the_text_around_them(tmp_path):
    from tokenizers import Tokenizer, models, pre_tokenizers, trainers

    tokenizer = Tokenizer(models.WordLevel(unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer.train_from_iterator(TEXTS, trainers.WordLevelTrainer(special_tokens=["<unk>"]))
    tokenizer.save(str(tmp_path / "words.json"))
    for split in SPLITS:
        (tmp_path / "text" / split).mkdir(parents=True)
        (tmp_path / "text" / split / "a.txt").write_text("".join(TEXTS))
    data = load_text(
        f"text:{tmp_path / 'text'}", context_length=16, tokenizer=f"file:{tmp_path / 'words.json'}"
    )
    batch = data.val.batch(torch.arange(len(data.val)))
    assert int(batch.bytes_B.sum()) == len("".join(TEXTS).encode())
    assert data.document_id == tokenizer.get_vocab_size()
    assert data.vocabulary_size == tokenizer.get_vocab_size() + 1


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REVSTUDY_CACHE", str(tmp_path / "cache"))


PROGRAM = """
import sys, torch
from study.data.text import load_text
data = load_text(f"text:{sys.argv[1]}", context_length=16, tokenizer="bpe:300")
batch = data.train.batch(torch.arange(len(data.train)))
print(data.fingerprint, int((batch.targets_BT * torch.arange(1, 17)).sum()))
"""


def test_two_processes_at_once_make_one_entry(tmp_path):
    folder = tmp_path / "text"
    folder.mkdir()
    for i in range(60):
        (folder / f"{i}.txt").write_text(TEXTS[i % len(TEXTS)] * 20)
    command = [sys.executable, "-c", PROGRAM, str(folder)]
    running = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(3)]
    answers = {process.communicate()[0] for process in running}
    assert [process.returncode for process in running] == [0, 0, 0]
    assert len(answers) == 1
    assert len(list((tmp_path / "cache").iterdir())) == 2  # the tokenizer and the tokens, and nothing else


def test_an_entry_is_whole_or_not_there(tmp_path):
    def fail(folder: Path) -> None:
        (folder / "half").write_text("half")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        cached(tmp_path / "c", "key", fail)
    assert not (tmp_path / "c" / "key").exists()
    assert list((tmp_path / "c").glob("*.part")) == []
    entry = cached(tmp_path / "c", "key", lambda folder: (folder / "whole").write_text("whole"))
    assert [f.name for f in entry.iterdir()] == ["whole"]
    cached(tmp_path / "c", "key", fail)  # is there, and not written again


def test_a_cache_that_cannot_be_written_to_is_named(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(DataError, match="set REVSTUDY_CACHE to another folder"):
        cached(tmp_path / "file" / "c", "key", lambda folder: None)


def test_the_document_token_is_the_tokenizer_s_own(tmp_path):
    train_tokenizer(300, pieces(), cache=tmp_path, key="k")
    content = (tmp_path / "k/tokenizer.json").read_text()
    assert WordTokenizer(content, "here").document_id == 0
    other = content.replace(DOCUMENT_TOKEN, "<|endoftext|>")
    assert WordTokenizer(other, "here").document_id == 0

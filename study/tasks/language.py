"""Language: the next token of a text, in nats per token and bits per byte.

Shapes: B sequences of a batch, T tokens each, V tokens of the vocabulary.
"""

from __future__ import annotations

import inspect
import math
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from revmodels.models.cross_entropy import TokenLoss
from study.code import is_own
from study.data.text import TextData, load_text
from study.data.tokens import IGNORED, TokenSplit
from study.errors import DataError
from study.settings.train import TrainSettings
from study.settings.trial import TrialSettings
from study.tasks.metrics import BITS_PER_BYTE, LOSS, METRICS
from study.tasks.naming import CONTEXT_LENGTH
from study.tasks.own_data import OwnSplit, own_splits, said_of
from study.tasks.task import Batch, Examples, Task, evenly

TOKENS_AT_ONCE = 8_192
"""Tokens that are evaluated at once."""

_BYTES = "bytes"


@dataclass(frozen=True, kw_only=True)
class TextShape:
    """What a language model has to fit: token ids below `vocabulary_size`, `context_length` in a row."""

    vocabulary_size: int
    context_length: int

    @property
    def preset_options(self) -> dict[str, Any]:
        """Arguments of `revmodels.create_model`."""
        return {"vocab_size": self.vocabulary_size, "context_length": self.context_length}

    @property
    def tokens_per_example(self) -> int | None:
        """Tokens of a sequence."""
        return self.context_length


@dataclass(frozen=True, kw_only=True, eq=False)
class TextSplit:
    """A split of a text, or some sequences of it at equal distances."""

    sequences: TokenSplit
    device: torch.device
    most: int | None = None

    def __len__(self) -> int:
        return len(self.sequences) if self.most is None else min(self.most, len(self.sequences))

    def batch(self, index_N: Tensor) -> Batch:
        """Tokens and targets (B, T); the network is given both, and answers with its loss."""
        if self.most is not None:
            index_N = evenly(len(self.sequences), self.most)[index_N]
        found = self.sequences.batch(index_N)
        tokens_BT, targets_BT = (t.to(self.device) for t in (found.tokens_BT, found.targets_BT))
        return Batch(inputs=(tokens_BT, targets_BT), targets=targets_BT, extras={_BYTES: found.bytes_B})


@dataclass(frozen=True, eq=False)
class OwnSequences:
    """A split that the study brings along: items (tokens, targets), int64 of shape (T,) each."""

    split: OwnSplit

    def __len__(self) -> int:
        return len(self.split)

    def batch(self, index_N: Tensor) -> Batch:
        """Tokens and targets (B, T); how much text they are is not known."""
        found = self.split.batch(index_N)
        return Batch(
            inputs=(found.inputs[0], found.targets),
            targets=found.targets,
            extras={_BYTES: torch.zeros(len(found))},
        )


class Answering(nn.Module):
    """A network that maps tokens to logits, as one that maps tokens and targets to its loss.

    Args:
        model: Returns logits of shape (B, T, V), or an object with such ``logits``.
    """

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, tokens_BT: Tensor, targets_BT: Tensor) -> TokenLoss:
        """The loss of what comes next."""
        outputs = self.model(tokens_BT)
        logits_BTV: Tensor = getattr(outputs, "logits", outputs)
        flat_N = targets_BT.flatten()
        total = F.cross_entropy(
            logits_BTV.flatten(0, -2).float(), flat_N, reduction="sum", ignore_index=IGNORED
        )
        return TokenLoss(total, (flat_N != IGNORED).sum())


class Language(Task):
    """The next token of a text."""

    name = "language"
    metrics = METRICS["language"]
    score = BITS_PER_BYTE.name

    def shape(self, settings: TrialSettings) -> TextShape:
        """Vocabulary and context."""
        if is_own("data.name", settings.data.name):
            return _own_shape(settings)
        return _shape_of(_text(settings))

    def training_examples(self, settings: TrialSettings) -> int:
        """Sequences that a trial trains on."""
        if is_own("data.name", settings.data.name):
            return len(own_splits(settings, torch.device("cpu"), torch.float32)["train"])
        return len(_split(settings, _text(settings), "train", torch.device("cpu")))

    def open(self, settings: TrialSettings, device: torch.device) -> Examples:
        """The text, in packed sequences."""
        if is_own("data.name", settings.data.name):
            own: dict[str, Any] = {
                name: OwnSequences(split)
                for name, split in own_splits(settings, device, torch.float32).items()
            }
            shape = _own_shape(settings)
            return Examples(
                **own,
                shape=shape,
                evaluation_batch=max(1, TOKENS_AT_ONCE // shape.context_length),
                columns={"context_length": shape.context_length},
                without=frozenset({BITS_PER_BYTE.name}),
            )
        text = _text(settings)
        shape = _shape_of(text)
        train, val, test = (_split(settings, text, split, device) for split in ("train", "val", "test"))
        entropy = text.entropy_nats_per_token
        return Examples(
            train=train,
            val=val,
            test=test,
            shape=shape,
            evaluation_batch=max(1, TOKENS_AT_ONCE // shape.context_length),
            columns={
                "num_classes": shape.vocabulary_size,
                "context_length": shape.context_length,
                "bigram_bits_per_byte": text.bigram_bits_per_byte,
                "entropy_bits_per_byte": None if entropy is None else entropy / math.log(2),
            },
            without=frozenset() if text.knows_bytes else frozenset({BITS_PER_BYTE.name}),
        )

    def blank(self, shape: TextShape, count: int, settings: TrialSettings) -> Batch:
        """Sequences without content."""
        tokens_BT = torch.empty(count, shape.context_length, dtype=torch.long)
        targets_BT = torch.empty_like(tokens_BT)
        return Batch(inputs=(tokens_BT, targets_BT), targets=targets_BT)

    def loss(self, outputs: Any, batch: Batch, train: TrainSettings) -> Tensor:
        """Nats per token."""
        return outputs.total / outputs.tokens

    def weight(self, batch: Batch) -> int:
        """Targets that count."""
        return int((batch.targets != IGNORED).sum())

    def sums(self, outputs: Any, batch: Batch, loss: float | None = None) -> Tensor:
        """Nats, tokens that count, and the bytes of text that they stand for."""
        tokens = int(outputs.tokens)
        nats = outputs.total.item() if loss is None else loss * tokens
        return torch.tensor([nats, tokens, int(batch.extras[_BYTES].sum())], dtype=torch.float64)

    def values(self, sums: Tensor) -> dict[str, float]:
        """Nats per token, and bits per byte."""
        nats, tokens, size = sums.tolist()
        return {
            LOSS.name: nats / tokens,
            BITS_PER_BYTE.name: nats / math.log(2) / size if size else math.nan,
        }

    def adapted(self, model: nn.Module) -> nn.Module:
        """The network itself if it takes targets, else with its loss behind its logits."""
        if "targets" in inspect.signature(model.forward).parameters:
            return model
        return Answering(model)


def _shape_of(text: TextData) -> TextShape:
    return TextShape(vocabulary_size=text.vocabulary_size, context_length=text.context_length)


def _own_shape(settings: TrialSettings) -> TextShape:
    vocabulary = said_of(settings, "vocabulary_size")
    if vocabulary is None:
        raise DataError(
            "data.name",
            value=settings.data.name,
            rule="a training set of tokens must say its vocabulary_size",
            remedy="give the data set such an attribute",
        )
    split = own_splits(settings, torch.device("cpu"), torch.float32)["train"]
    tokens = split.batch(torch.zeros(1, dtype=torch.long)).inputs[0]
    return TextShape(vocabulary_size=int(vocabulary), context_length=tokens.shape[1])


def _text(settings: TrialSettings) -> TextData:
    data = settings.data
    return load_text(
        data.name,
        context_length=data.context_length or CONTEXT_LENGTH,
        tokenizer=data.tokenizer,
        root=data.root,
        validation_fraction=data.validation_fraction,
    )


def _split(settings: TrialSettings, text: TextData, split: str, device: torch.device) -> TextSplit:
    data = settings.data
    most = {"train": data.train_examples, "test": data.test_examples}.get(split)
    return TextSplit(sequences=getattr(text, split), device=device, most=most)

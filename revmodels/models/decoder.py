"""The shapes of the language models ``gpt_*`` and ``revgpt_*`` as plain numbers, and their parameter counts.

Both are decoder-only transformers: token embedding, blocks of attention and MLP, a last norm and an output
layer. All norms are RMSNorm, positions are rotary, and no layer has a bias. So where the presets take their
shapes from networks with biases, LayerNorm or learned positions, the counts differ by those:

- Llama's agree to the parameter: 6,738,415,616 (`_7b`, Touvron et al. 2023) and 1,235,814,400 (`_1b`, that
  of Llama 3.2).
- GPT-2's (Radford et al. 2019) have ``11 d`` more a block, ``d`` more in the last norm, and ``1024 d``
  learned positions.
- Pythia's (Biderman et al. 2023) have ``11 d`` more a block and ``d`` more in the last norm. They also add
  attention and MLP to the same input, which takes no parameters.

A `revgpt` has the parameters of its `gpt` twin, one by one: what differs is what their results are added to.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from revmodels.errors import DepthError, LanguageError, one_of
from revmodels.models.architecture import Architecture, check_width
from revmodels.models.parametrization import Scales, check_parametrization, scales

ACTIVATIONS = ("swiglu", "gelu")
"""Of the MLP: two matrices in, multiplied after a SiLU (Shazeer 2020); or one, and GELU."""

MULTIPLE = 8
"""Hidden features of an MLP at another width are rounded to a multiple of this."""


@dataclass(frozen=True, kw_only=True)
class Parameters:
    """Numbers of parameters.

    Args:
        total: all of them; a matrix that is both embedding and output layer counts once.
        non_embedding: without the embedding of tokens and the output layer.
    """

    total: int
    non_embedding: int


@dataclass(frozen=True, kw_only=True)
class LanguageArchitecture(Architecture):
    """A decoder-only transformer: the only entry of `units` counts blocks, that of `filters` gives d.

    Args:
        heads: attention heads, of d / heads features each, at every width.
        kv_heads: heads of keys and values, each of which serves equally many heads of queries.
        hidden: features inside the MLP.
        activation: ``swiglu`` or ``gelu``.
        vocabulary: tokens.
        context: the longest row of tokens.
        tied: whether the output layer is the embedding.
        qk_norm: whether queries and keys are normalized, each head by itself.
        parametrization: how starts and factors depend on width and depth, see
            `revmodels.models.parametrization`.
    """

    heads: int
    kv_heads: int
    hidden: int
    activation: str
    vocabulary: int
    context: int
    tied: bool
    qk_norm: bool = False
    parametrization: str = "standard"

    @property
    def is_reversible(self) -> bool:
        """Whether its blocks have two coupled streams."""
        return self.family == "revgpt"

    @property
    def depth(self) -> int:
        """Blocks, as language models are counted."""
        return self.units[0]

    @property
    def depths(self) -> tuple[int, int]:
        """Any depth from 1."""
        return 1, 1

    @property
    def head_features(self) -> int:
        """Features of an attention head, at every width."""
        return self.filters[0] // self.heads

    @property
    def scales(self) -> Scales:
        """Starts, factors and rates of a network of this width and depth."""
        head = self.head_features
        return scales(self.parametrization, width=self.filters[0], depth=self.depth, head=head)

    def channels(self, width: float) -> tuple[int, ...]:
        """Return features of a stream before and after the blocks, in whole heads.

        Raises:
            WidthError: `width` is not a positive finite number.
        """
        check_width(width)
        d = self.head_features * max(1, round(self.heads * width))
        return d, d

    def at_width(self, width: float) -> LanguageArchitecture:
        """Return the same design with the features that a multiplier gives it, as its own numbers.

        Heads keep their size, so there are more or fewer of them. A head of keys and values serves as many
        heads of queries as before where that divides them, and else fewer. The MLP keeps its ratio to d.

        Raises:
            WidthError: `width` is not a positive finite number.
        """
        d = self.channels(width)[0]
        heads = d // self.head_features
        wanted = max(1, heads * self.kv_heads // self.heads)
        hidden = self.hidden * d / self.filters[0]
        return replace(
            self,
            filters=(d,),
            heads=heads,
            kv_heads=next(k for k in range(wanted, heads + 1) if heads % k == 0),
            hidden=self.hidden if d == self.filters[0] else max(1, round(hidden / MULTIPLE)) * MULTIPLE,
        )

    def with_depth(self, depth: int) -> LanguageArchitecture:
        """Return the same design with another number of blocks.

        Raises:
            DepthError: `depth` is not a whole number of at least 1.
        """
        if isinstance(depth, bool) or not isinstance(depth, int) or depth < 1:
            raise DepthError(
                f"depth: {self.name} has any depth from 1; received {depth!r}; the nearest legal: 1."
            )
        size, _, _ = self.name.partition("-")
        return replace(self, name=self.name if depth == self.depth else f"{size}-{depth}", units=(depth,))

    def with_options(
        self,
        *,
        vocab_size: int | None = None,
        context_length: int | None = None,
        activation: str | None = None,
        tied: bool | None = None,
        qk_norm: bool | None = None,
        parametrization: str | None = None,
    ) -> LanguageArchitecture:
        """Return the same design with what is given in place of the preset's.

        Args:
            vocab_size: tokens.
            context_length: the longest row of tokens.
            activation: ``swiglu`` or ``gelu``. The MLP keeps its hidden features, so parameters change.
            tied: whether the output layer is the embedding.
            qk_norm: whether queries and keys are normalized.
            parametrization: ``standard``, ``mup`` or ``completep``.

        Raises:
            LanguageError: a number is no whole one of at least 1, or there is no such activation or
                parametrization.
        """
        counts = (("vocab_size", vocab_size), ("context_length", context_length))
        for name, count in counts:
            if count is not None and (isinstance(count, bool) or not isinstance(count, int) or count < 1):
                raise LanguageError(f"{name}: a whole number of at least 1; received {count!r}.")
        if activation is not None and activation not in ACTIVATIONS:
            raise LanguageError(f"activation: {one_of(activation, ACTIVATIONS)}")
        if parametrization is not None:
            check_parametrization(parametrization)
        given = {
            "vocabulary": vocab_size,
            "context": context_length,
            "activation": activation,
            "tied": tied,
            "qk_norm": qk_norm,
            "parametrization": parametrization,
        }
        changes = {name: value for name, value in given.items() if value is not None}
        return replace(self, **changes)  # type: ignore[arg-type]

    def parameters(self, width: float = 1.0) -> Parameters:
        """Return the numbers of parameters at a width, from the shapes alone.

        Raises:
            WidthError: `width` is not a positive finite number.
        """
        at = self.at_width(width)
        d, head = at.filters[0], at.head_features
        attention = d * (2 * at.heads + 2 * at.kv_heads) * head + (2 * head if at.qk_norm else 0)
        mlp = (3 if at.activation == "swiglu" else 2) * d * at.hidden
        blocks = at.depth * (attention + mlp + 2 * d) + d
        return Parameters(total=blocks + at.vocabulary * d * (1 if at.tied else 2), non_embedding=blocks)


@dataclass(frozen=True, kw_only=True)
class _Shape:
    size: str
    depth: int
    d: int
    heads: int
    hidden: int
    kv_heads: int | None = None
    vocabulary: int = 256
    context: int = 256
    activation: str = "swiglu"
    tied: bool = False


def _gpt2(size: str, depth: int, d: int, heads: int) -> _Shape:
    return _Shape(
        size=size, depth=depth, d=d, heads=heads, hidden=4 * d, activation="gelu", tied=True,
        vocabulary=50_257, context=1_024,
    )  # fmt: skip


def _pythia(size: str, depth: int, d: int, heads: int, vocabulary: int = 50_304) -> _Shape:
    return _Shape(
        size=size, depth=depth, d=d, heads=heads, hidden=4 * d, activation="gelu", vocabulary=vocabulary,
        context=2_048,
    )  # fmt: skip


_SHAPES = (
    # Ours, for bytes: their names count the parameters of the blocks.
    _Shape(size="100k", depth=2, d=64, heads=2, hidden=168),
    _Shape(size="1m", depth=5, d=128, heads=4, hidden=344),
    _Shape(size="3m", depth=7, d=192, heads=6, hidden=512),
    _Shape(size="10m", depth=8, d=320, heads=5, hidden=856),
    _Shape(size="30m", depth=10, d=512, heads=8, hidden=1_368),
    # Radford et al. 2019, table 2; the names count the parameters as they were corrected later.
    _gpt2("124m", 12, 768, 12),
    _gpt2("355m", 24, 1_024, 16),
    _gpt2("774m", 36, 1_280, 20),
    _gpt2("1.5b", 48, 1_600, 25),
    # Biderman et al. 2023, table 1; the vocabularies as the published weights have them.
    _pythia("70m", 6, 512, 8),
    _pythia("160m", 12, 768, 12),
    _pythia("410m", 24, 1_024, 16),
    _pythia("1.0b", 16, 2_048, 8),
    _pythia("1.4b", 24, 2_048, 16),
    _pythia("2.8b", 32, 2_560, 32),
    _pythia("6.9b", 32, 4_096, 32, 50_432),
    # Llama 3.2 1B, and LLaMA 7B of Touvron et al. 2023, table 2.
    _Shape(
        size="1b",
        depth=16,
        d=2_048,
        heads=32,
        kv_heads=8,
        hidden=8_192,
        vocabulary=128_256,
        context=131_072,
        tied=True,
    ),
    _Shape(size="7b", depth=32, d=4_096, heads=32, hidden=11_008, vocabulary=32_000, context=2_048),
)


def _preset(family: str, shape: _Shape) -> LanguageArchitecture:
    return LanguageArchitecture(
        name=f"{family}_{shape.size}",
        family=family,
        block="transformer",
        stem="tokens",
        units=(shape.depth,),
        filters=(shape.d,),
        heads=shape.heads,
        kv_heads=shape.kv_heads or shape.heads,
        hidden=shape.hidden,
        activation=shape.activation,
        vocabulary=shape.vocabulary,
        context=shape.context,
        tied=shape.tied,
    )


DECODERS = tuple(_preset(family, shape) for family in ("gpt", "revgpt") for shape in _SHAPES)
"""The presets: each shape as a conventional network and as a reversible one."""

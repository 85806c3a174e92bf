"""Settings of the network: its size, its number formats, and how it gets its activations back."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from study.settings.setting import IF_CHANGED, NO_OPTIONS, Options, Setting
from study.settings.strict import Strict

STRATEGIES = (
    *("store", "reverse", "checkpoint", "segments", "recursive", "selective", "offload", "quantized"),
    *("compile", "budget"),
)
SAVED_FORMATS = ("int8", "float8_e4m3fn")
COMPUTE_DTYPES = ("fp64", "fp32", "bf16", "fp16")
STREAM_DTYPES = ("fp64", "fp32", "bf16", "fp16")
COUPLINGS = ("additive", "exact")
RULES = ("additive", "midpoint", "leapfrog", "damped_midpoint", "momentum", "bdia", "revdeq", "scaled")
"""Names of the rules of three numbers that join two streams."""
MATMULS = ("ieee", "tf32")
ON_OVERFLOW = ("raise", "record")


PARAMETRIZATIONS = ("standard", "mup", "completep")


_COUPLING = {
    "anyOf": [
        {"type": "string", "enum": list(RULES)},
        {
            "type": "object",
            "properties": {
                "name": {"type": "string", "enum": list(RULES), "description": "The name of the coupling."}
            },
            "required": ["name"],
            "additionalProperties": {"type": "number"},
        },
        {"type": "null"},
    ]
}
"""The name of a coupling, or its name and its numbers, which `study.spec.fields` takes apart."""


@dataclass(frozen=True, kw_only=True)
class ModelSettings(Strict):
    """The network: a preset of `revmodels`, its width, and another legal depth if not its own; or a network
    of your own, with its options.
    """

    name: Annotated[
        str,
        Setting(
            "The preset, such as revnet110; `revstudy models` lists them. Or a function of your own that "
            "builds the network, as module:function.",
            column="model",
        ),
    ] = "revnet38"
    options: Annotated[Options, Setting("What a network of your own is built with.", identity=IF_CHANGED)] = (
        NO_OPTIONS
    )
    width: Annotated[
        float, Setting("What the channels of the preset are multiplied by.", above=0, column="width")
    ] = 1.0
    depth: Annotated[
        int | None,
        Setting(
            "Another depth of the same design; without it, the preset's.",
            "layers",
            at_least=1,
            column="depth",
        ),
    ] = None
    parametrization: Annotated[
        str,
        Setting(
            "How starts, factors and learning rates of a language model follow from its width and depth. "
            "With mup the best rate holds over widths, with completep over depths too; adamw trains them.",
            choices=PARAMETRIZATIONS,
            identity=IF_CHANGED,
            column="parametrization",
        ),
    ] = "standard"
    coupling: Annotated[
        str | None,
        Setting(
            "The rule that joins the two streams of a reversible network, or {name: ..., gamma: ...} with "
            "its numbers; without it, additive, and in a network of your own what the builder chose.",
            choices=RULES,
            identity=IF_CHANGED,
            column="coupling_rule",
            written=_COUPLING,
        ),
    ] = None
    coupling_numbers: Annotated[
        Options,
        Setting("The numbers of the coupling by name; without one, its default.", identity=IF_CHANGED),
    ] = NO_OPTIONS

    @property
    def coupling_text(self) -> str | None:
        """The coupling as one word, such as ``momentum(gamma=0.9)``; None where none is named."""
        if self.coupling is None:
            return None
        numbers = ", ".join(f"{key}={value:g}" for key, value in sorted(self.coupling_numbers.items()))
        return f"{self.coupling}({numbers})" if numbers else self.coupling


@dataclass(frozen=True, kw_only=True)
class PrecisionSettings(Strict):
    """The fields of `revmodels.Precision`: arithmetic of F and G, type of the streams, coupling, matmul."""

    compute: Annotated[
        str,
        Setting(
            "The arithmetic of F and G, and with fp64 of all else.",
            choices=COMPUTE_DTYPES,
            column="compute_dtype",
        ),
    ] = "fp32"
    stream: Annotated[
        str, Setting("The type that carries the two streams.", choices=STREAM_DTYPES, column="stream_dtype")
    ] = "fp32"
    coupling: Annotated[
        str,
        Setting(
            "Whether streams are added in floating point (additive) or on a grid, without any rounding "
            "(exact).",
            choices=COUPLINGS,
            column="coupling",
        ),
    ] = "additive"
    matmul: Annotated[
        str,
        Setting(
            "Whether CUDA multiplies float32 in full (ieee) or shortened (tf32).",
            choices=MATMULS,
            column="matmul",
        ),
    ] = "ieee"
    grid_bits: Annotated[
        int | None,
        Setting(
            "The k of an exact coupling's multiples of 2^-k; without it, the stream's default.",
            "bits",
            at_least=0,
            only_with=("coupling", "exact"),
            column="grid_bits",
        ),
    ] = None
    on_overflow: Annotated[
        str,
        Setting(
            "What an exact stream beyond its range does: end the trial (raise), or be counted (record).",
            choices=ON_OVERFLOW,
            identity=IF_CHANGED,
            only_with=("coupling", "exact"),
        ),
    ] = "raise"


@dataclass(frozen=True, kw_only=True)
class MemorySettings(Strict):
    """How the backward pass gets its activations.

    ``store`` keeps them, ``reverse`` rebuilds them from the block's output. ``checkpoint`` keeps the input of
    every unit, ``segments`` and ``recursive`` those of √L and O(log L) of L units, and ``selective`` some
    results within each unit besides. ``offload`` keeps all of them in host memory, ``quantized`` in 8 bits.
    ``compile`` has PyTorch's compiler choose what is kept, and ``budget`` does so unit by unit within a
    number of bytes.
    """

    strategy: Annotated[
        str | None,
        Setting(
            "How activations are kept or rebuilt; without it, store for ResNets, else reverse.",
            choices=STRATEGIES,
            column="strategy",
        ),
    ] = None
    anchor_every: Annotated[
        int | None,
        Setting(
            "With reverse, every so many units of a stage one keeps its input too; without it, none.",
            "units",
            at_least=1,
            identity=IF_CHANGED,
            column="anchor_every",
        ),
    ] = None
    activation_budget: Annotated[
        float | None,
        Setting(
            "With compile, the share that is kept of what the compiler would keep otherwise.",
            above=0,
            at_most=1,
            identity=IF_CHANGED,
            column="activation_budget",
        ),
    ] = None
    memory_budget_bytes: Annotated[
        int | None,
        Setting(
            "With budget, the most that activations may take at once; without it, what reverse takes.",
            "bytes",
            at_least=1,
            identity=IF_CHANGED,
            column="memory_budget_bytes",
        ),
    ] = None
    saved_format: Annotated[
        str | None,
        Setting(
            "With quantized, the 8 bits in which activations are kept; without it, int8.",
            choices=SAVED_FORMATS,
            identity=IF_CHANGED,
        ),
    ] = None

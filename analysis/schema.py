"""The tables of the results store: every column with its type, unit and meaning.

This file is the one contract between those who write rows (`study`) and those who read them (`analysis`).
Changes are additive only: a new column is nullable and old files stay readable. Bump `SCHEMA_VERSION`
when a reader of the previous version could misread a new file.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import pyarrow as pa

SCHEMA_VERSION = 1
VERSION_KEY = b"revstudy.schema_version"

OUTCOMES = ("ok", "diverged", "oom", "pruned", "unfit", "timeout", "failed")
"""How a trial can end. Only ``ok`` trials enter fronts and fits; every other one is shown, never dropped.
``unfit`` was predicted not to fit the memory of its machine, and never started."""


FINAL = ("ok", "diverged", "oom", "pruned")
"""Endings that the same settings would meet again, so that a run does not train such a trial once more."""


@dataclass(frozen=True, kw_only=True)
class Column:
    """One column of a table. `unit` is empty for labels and pure numbers."""

    name: str
    type: pa.DataType
    unit: str = ""
    meaning: str


@dataclass(frozen=True, kw_only=True)
class Table:
    """One table of the store, kept in the folder of the same name."""

    name: str
    meaning: str
    columns: tuple[Column, ...]

    @cached_property
    def types(self) -> dict[str, pa.DataType]:
        """The type of each column, by name, in order."""
        return {column.name: column.type for column in self.columns}

    @cached_property
    def arrow(self) -> pa.Schema:
        """The Arrow schema, every field nullable, with the schema version in its metadata."""
        fields = [pa.field(c.name, c.type, nullable=True) for c in self.columns]
        return pa.schema(fields, metadata={VERSION_KEY: str(SCHEMA_VERSION).encode()})


def _text(name: str, meaning: str) -> Column:
    return Column(name=name, type=pa.string(), meaning=meaning)


def _int(name: str, meaning: str, unit: str = "") -> Column:
    return Column(name=name, type=pa.int64(), unit=unit, meaning=meaning)


def _real(name: str, meaning: str, unit: str = "") -> Column:
    return Column(name=name, type=pa.float64(), unit=unit, meaning=meaning)


def _flag(name: str, meaning: str) -> Column:
    return Column(name=name, type=pa.bool_(), meaning=meaning)


def _time(name: str, meaning: str) -> Column:
    return Column(name=name, type=pa.timestamp("us", tz="UTC"), unit="UTC", meaning=meaning)


_KEY = (
    _text("trial_id", "hash of every setting that changes the result"),
    _text("study", "name of the study that ran the trial"),
    _int("attempt", "0 for the first try, one more for each retry after an infrastructure failure"),
)

TRIALS = Table(
    name="trials",
    meaning="one row per trial: settings, outcome, accuracy, memory, time, fidelity, provenance",
    columns=(
        *_KEY,
        _text("outcome", "one of " + ", ".join(OUTCOMES)),
        _text("error_class", "exception class of a trial that did not end ok"),
        _text("error_message", "its message, shortened to 2,000 characters"),
        # settings
        _text("task", "what is learnt: classification, language, or an import path; null in older rows"),
        _text("data", "data set name, or import path, as the study file gives it"),
        _int("examples_train", "training examples used", "examples"),
        _int("num_classes", "classes of the data set; of a text, tokens of the vocabulary"),
        _real("label_noise", "share of training examples with a wrong label; null in rows from before"),
        _int("context_length", "tokens of a sequence; null for tasks without tokens", "tokens"),
        _text("model", "preset, such as revnet110, or import path"),
        _text("family", "revnet, irevnet, revvit, resnet, revgpt or gpt; null for a network of one's own"),
        _text("block", "basic, bottleneck or transformer"),
        _int(
            "depth", "weighted layers, as the paper counts them: 2 + convolutions of the residual functions"
        ),
        _real("width", "multiplier on the preset's channels"),
        _int("parameters", "trainable parameters", "numbers"),
        _int(
            "parameters_non_embedding",
            "of those, without embeddings and the output layer; null for networks without embeddings",
            "numbers",
        ),
        _text(
            "parametrization",
            "how starts, factors and rates follow from width and depth: standard, mup or completep; null in "
            "rows from before there was a choice",
        ),
        _text(
            "coupling_rule",
            "rule that joins the two streams, such as momentum(gamma=0.9); null for additive and without two "
            "streams",
        ),
        _text("strategy", "how the backward pass comes by its activations: store, reverse, checkpoint, ..."),
        _text("compute_dtype", "arithmetic of F and G: fp64, fp32, bf16 or fp16"),
        _text("stream_dtype", "type that carries x1 and x2: fp64, fp32, bf16 or fp16"),
        _text("coupling", "additive or exact"),
        _text("matmul", "ieee or tf32; not_applicable on a CPU"),
        _int("grid_bits", "k of the grid of multiples of 2^-k of exact coupling; null if additive", "bits"),
        _int("anchor_every", "distance of units of a stage that keep their input; null if none do", "units"),
        _real("activation_budget", "share of activations that the compiler may keep; null if not compiled"),
        _int("memory_budget_bytes", "the most that activations may take; null without a budget", "bytes"),
        _int("batch_size", "examples per optimizer step, over all workers", "examples"),
        _int("epochs", "epochs asked for, where steps or tokens do not say how long training is"),
        _int("steps", "optimizer steps asked for; null if the length is in epochs or tokens", "steps"),
        _int("accumulate", "parts in which the batch of a step goes through the network"),
        _text("optimizer", "sgd, adamw, ..."),
        _real("learning_rate", "peak learning rate"),
        _real("weight_decay", "decay of convolution and linear weights"),
        _text("schedule", "learning-rate schedule"),
        _int("workers", "data-parallel workers, at most"),
        _int("workers_min", "at least; null where their number is fixed"),
        _text("parallel", "what workers hold: ddp the whole network, fsdp2 a share; null for one worker"),
        _real("gpus_per_worker", "GPUs of each worker; below 1, several trials shared one", "GPUs"),
        _int("seed", "seed of weights, data order and dropout"),
        _text("origin", "what proposed the trial: grid, or the sampler's name"),
        _text("config_json", "canonical JSON of the settings behind trial_id"),
        # results
        _real("accuracy_train", "training accuracy in the last epoch", "fraction"),
        _real("accuracy_val", "validation accuracy after the last epoch", "fraction"),
        _real("accuracy_test", "test accuracy, read once at the end; null for synthetic data", "fraction"),
        _real("loss_train", "mean training cross-entropy in the last epoch", "nats"),
        _real("loss_val", "validation cross-entropy after the last epoch", "nats"),
        _real("loss_test", "test cross-entropy", "nats"),
        _real(
            "bits_per_byte_train", "bits per byte of training text since the evaluation before", "bits/byte"
        ),
        _real("bits_per_byte_val", "bits per byte of validation text at the end", "bits/byte"),
        _real("bits_per_byte_test", "bits per byte of test text, read once at the end", "bits/byte"),
        _real(
            "bigram_bits_per_byte",
            "bits per byte of validation text under a bigram count model of the training text",
            "bits/byte",
        ),
        _real("entropy_bits_per_byte", "the least there can be, of a source of known entropy", "bits/byte"),
        _text("metrics_json", "JSON of the metrics that have no column, by name and split; null if none"),
        _int("epochs_done", "evaluations finished: epochs, unless the study file says otherwise"),
        _int("steps_done", "optimizer steps finished"),
        _int("examples_seen", "training examples seen, each as often as it was seen", "examples"),
        _int("tokens_seen", "training tokens seen; null for tasks without tokens", "tokens"),
        _int("steps_skipped", "of those, steps whose fp16 gradients overflowed; null if not fp16"),
        _int(
            "steps_out_of_range",
            "of those, steps whose exact streams left the grid's range; null if additive",
        ),
        _real("stream_max", "largest magnitude of an exact stream in any training step; null if additive"),
        _real("stream_limit", "the magnitude below which exact streams are exact; null if additive"),
        # memory of one training step
        _int("memory_peak_bytes", "peak of all categories together in one training step", "bytes"),
        _int("memory_activation_bytes", "peak of activations and temporaries in that step", "bytes"),
        _int("memory_parameter_bytes", "parameters", "bytes"),
        _int("memory_gradient_bytes", "gradients", "bytes"),
        _int("memory_optimizer_bytes", "optimizer state", "bytes"),
        _int("memory_buffer_bytes", "buffers, such as running statistics", "bytes"),
        _int("memory_saved_bytes", "activations held when the forward pass ends; null on CUDA", "bytes"),
        _int(
            "memory_side_bytes",
            "of the saved activations, side information with which an exact coupling is inverted",
            "bytes",
        ),
        _int("memory_predicted_bytes", "peak predicted on fake tensors before the trial", "bytes"),
        _text(
            "memory_source",
            "tracker (CPU, dispatch level), cpu_allocator (CPU, compiled) or cuda_allocator",
        ),
        # time
        _real("step_time_s", "median time of a training step after warm-up", "s"),
        _real("examples_per_s", "training examples per second at the median step", "examples/s"),
        _real(
            "tokens_per_s", "training tokens per second at the median step; null without tokens", "tokens/s"
        ),
        _int("flops_model", "operations of a step over all workers, nothing computed twice", "operations"),
        _int(
            "flops_hardware",
            "operations of a step as the memory strategy makes them; null if a compiler decides",
            "operations",
        ),
        _real(
            "mfu",
            "the model's operations a second over the most that the devices can do in this arithmetic; null "
            "where that is not known",
            "fraction",
        ),
        _real("train_s", "time in training steps", "s"),
        _real("wall_s", "time of the trial, from settings to row", "s"),
        _int("concurrent_trials", "trials that may have shared the machine while this one was timed"),
        # fidelity of the rebuilt activations, at the end of training; null where nothing is rebuilt
        _real(
            "coupling_growth_predicted",
            "how much an error in the last pair grows until the first is rebuilt, by the coupling's numbers "
            "alone",
            "factor",
        ),
        _real("reconstruction_rel_error", "worst relative error of a rebuilt pair over blocks"),
        _real("end_to_end_rel_error", "relative error of the pair that is rebuilt last, the first of all"),
        _real("gradient_rel_error", "worst relative error of a parameter's gradient against stored mode"),
        _real("gradient_angle_deg", "worst angle between a parameter's gradient and stored mode's", "deg"),
        # provenance
        _text("device", "device name"),
        _text("hostname_hash", "which machine, without naming it"),
        _int("cpu_threads", "intra-op threads of the trial's process"),
        _text("git_commit", "commit of the code, if it ran from a checkout"),
        _flag("git_dirty", "the checkout held uncommitted changes"),
        _text("revstudy_version", "version of this package"),
        _text("torch_version", "version of PyTorch"),
        _text("ray_version", "version of Ray; null where the trial ran without it"),
        _text("python_version", "version of Python"),
        _text("platform", "operating system and processor architecture"),
        _time("started_at", "when the trial began"),
        _time("finished_at", "when its row was written"),
    ),
)

EPOCHS = Table(
    name="epochs",
    meaning="one row per evaluation of a trial attempt: after each epoch, or as the study file says",
    columns=(
        *_KEY,
        _int("epoch", "number of the evaluation, 1 for the first; each ends an epoch unless told otherwise"),
        _int("step", "optimizer steps finished by then"),
        _int("examples_seen", "training examples seen by then", "examples"),
        _int("tokens_seen", "training tokens seen by then; null for tasks without tokens", "tokens"),
        _int("workers", "data-parallel workers that trained it"),
        _real("loss_train", "mean training cross-entropy", "nats"),
        _real("accuracy_train", "training accuracy", "fraction"),
        _real("loss_val", "validation cross-entropy", "nats"),
        _real("accuracy_val", "validation accuracy", "fraction"),
        _real("bits_per_byte_train", "bits per byte of training text", "bits/byte"),
        _real("bits_per_byte_val", "bits per byte of validation text", "bits/byte"),
        _text("metrics_json", "JSON of the metrics that have no column, by name and split; null if none"),
        _real("learning_rate", "learning rate of the epoch's last step"),
        _real("gradient_norm", "norm of all gradients at the epoch's last step"),
        _int("steps_skipped", "steps in which fp16 gradients overflowed; null if not fp16"),
        _int("steps_out_of_range", "steps whose exact streams left the grid's range; null if additive"),
        _real("stream_max", "largest magnitude of an exact stream in the epoch; null if additive"),
        _real("epoch_s", "time of its training steps", "s"),
        _real("examples_per_s", "training examples per second", "examples/s"),
        _real("tokens_per_s", "training tokens per second; null for tasks without tokens", "tokens/s"),
        _real("reconstruction_rel_error", "worst over blocks, if this epoch was probed"),
        _real("end_to_end_rel_error", "of the pair that is rebuilt last, if this epoch was probed"),
        _real("gradient_rel_error", "worst over parameters, if this epoch was probed"),
        _real("gradient_angle_deg", "worst over parameters, if this epoch was probed", "deg"),
    ),
)

BLOCKS = Table(
    name="blocks",
    meaning="one row per fidelity probe and reversible block, or other group of parameters (stem, head)",
    columns=(
        *_KEY,
        _int("epoch", "epochs of training before the probe; 0 is at initialisation"),
        _int("block", "position of the block in the network, 0 first; null for stem and head"),
        _text("name", "module path of the block, or of the part of the network"),
        _real("reconstruction_rel_error", "relative error of the block's rebuilt input pair"),
        _real("reconstruction_rel_error_x1", "relative error of its first stream"),
        _real("reconstruction_rel_error_x2", "relative error of its second stream"),
        _real("gradient_rel_error", "worst relative error of the block's parameter gradients"),
        _real("gradient_cosine", "cosine between the block's gradient and stored mode's"),
        _real("gradient_angle_deg", "angle between the block's gradient and stored mode's", "deg"),
        _real("reference_rel_error", "relative error of the block's gradient against a float64 copy"),
        _real("reference_cosine", "cosine between the block's gradient and the float64 copy's"),
        _real("reference_angle_deg", "angle between the block's gradient and the float64 copy's", "deg"),
        _real("stored_reference_rel_error", "relative error of stored mode's gradient against the same copy"),
        _real("stored_reference_cosine", "cosine between stored mode's gradient and the copy's"),
        _real("stored_reference_angle_deg", "angle between stored mode's gradient and the copy's", "deg"),
        _real("lipschitz_f", "spectral norm of F's Jacobian on the probe batch, by power iteration"),
        _real("lipschitz_g", "spectral norm of G's Jacobian on the probe batch, by power iteration"),
    ),
)

TABLES = {table.name: table for table in (TRIALS, EPOCHS, BLOCKS)}

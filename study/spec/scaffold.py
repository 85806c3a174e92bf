"""The text of a first study file, with a comment at every choice: `study_text`."""

from __future__ import annotations

from string import Template

TASKS = ("classification", "language")
NETWORKS = {
    "classification": ("revnet38", "digits"),
    "language": ("revgpt_1m", "stdlib"),
}
"""The network and the data set of each task where the user names none."""

_HEAD = Template("""\
# $name: which memory strategy pays, at which depth?
#   revstudy plan $file     what will be trained, its predicted memory and time; nothing runs
#   revstudy run $file      trains it; the same command goes on after any interruption
#   revstudy report $name   one HTML file of the results
# `revstudy schema --explain train.learning_rate` explains a key; without a key, `revstudy schema` lists all.
name: $name
description: Storing against rebuilding activations, over depth and seeds.

""")

_CLASSIFICATION = Template("""\
# `revstudy datasets` lists the built-in ones. Your own: {name: "folder:images"}, or a function of your own
# code, {name: "sets:load", options: {...}}.
data: {name: "$data"}

# `revstudy models` lists the presets. Your own: {name: "nets:build", options: {...}}.
model: {name: "$model", width: 0.5}

train: {epochs: 6, batch_size: 64, learning_rate: 0.1, schedule: cosine, warmup_epochs: 1}

# Accuracies of one seed say little: differences are compared with the spread over these.
seeds: [0, 1]

# Every combination is one trial.
space:
  model.depth: {grid: [26, 38, 50]}
  memory.strategy: {grid: [store, checkpoint, reverse]}
""")

_LANGUAGE = Template("""\
# Text of your own: {name: "text:corpus"} for files in a folder, or {name: "tokens:corpus"} for token ids.
data: {name: "$data", context_length: 128}

# `revstudy models 'revgpt*'` lists the presets. Your own: {name: "nets:build", options: {...}}.
model: {name: "$model"}

train: {steps: 200, batch_size: 16, optimizer: adamw, learning_rate: 0.003, schedule: cosine}

# Losses of one seed say little: differences are compared with the spread over these.
seeds: [0, 1]

# Every combination is one trial.
space:
  memory.strategy: {grid: [store, checkpoint, reverse]}
""")

_BUDGET = Template("""
# A run ends at the first of these; the same command goes on later.
budget: {time_s: $seconds}
""")


def study_text(
    name: str, *, task: str = "classification", model: str = "", data: str = "", minutes: float | None = None
) -> str:
    """Return a study file, as YAML with comments.

    Args:
        name: The study's name, and that of its file without ``.yaml``.
        task: One of `TASKS`.
        model: A preset, or the import path of a network's builder; empty for a small preset.
        data: A data set, or the import path of a loader; empty for one that comes with the package.
        minutes: Time that one run may take; None for no limit.
    """
    preset, built_in = NETWORKS[task]
    body = _LANGUAGE if task == "language" else _CLASSIFICATION
    text = _HEAD.substitute(name=name, file=f"{name}.yaml")
    text += body.substitute(model=model or preset, data=data or built_in)
    return text + (_BUDGET.substitute(seconds=round(minutes * 60)) if minutes is not None else "")

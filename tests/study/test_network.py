"""Networks, data and tasks that a study brings along."""

from dataclasses import replace

import pytest
import torch

from study import code
from study.code import files_hash
from study.errors import StudyError
from study.identity import canonical, trial_id
from study.network import own_network
from study.plan.cost import trial_cost
from study.plan.expand import make_plan
from study.spec.load import load_study
from study.tasks.registry import task_of
from study.train.trial import train_trial

NETS = """
import torch
from torch import nn
import revmodels
from layers import Block

def build(task, *, depth=3, width=16, dropout=0.0):
    (features,) = task.input_shape
    blocks = [Block(width, dropout) for _ in range(depth)]
    head = nn.Linear(width, task.num_classes)
    return nn.Sequential(nn.Linear(features, width), nn.Sequential(*blocks), head)

class Listed(nn.Module):
    def __init__(self, task, depth):
        super().__init__()
        self.start = nn.Linear(task.input_shape[0], 16)
        self.blocks = nn.ModuleList(Block(16, 0.5) for _ in range(depth))
        self.head = nn.Linear(16, task.num_classes)

    def forward(self, x):
        x = self.start(x)
        for block in self.blocks:
            x = block(x, scale=0.5)
        return self.head(x)

def listed(task, *, depth=3):
    return Listed(task, depth)

class Coupled(nn.Module):
    def __init__(self, task):
        super().__init__()
        self.start = nn.Linear(task.input_shape[0], 32)
        blocks = [revmodels.ReversibleBlock(Block(16, 0.0), Block(16, 0.0)) for _ in range(4)]
        self.body = revmodels.ReversibleSequence(blocks)
        self.head = nn.Linear(32, task.num_classes)

    def forward(self, x):
        return self.head(self.body(self.start(x)))

def coupled(task):
    return Coupled(task)

def wrong(task):
    return "no module"

def failing(task):
    raise RuntimeError("no such luck")

def counting(task):
    rates = [rate.item() for rate in torch.linspace(0, 0.1, 3)]  # as stochastic depth is often written
    blocks = [Block(16, rate) for rate in rates]
    start, head = nn.Linear(task.input_shape[0], 16), nn.Linear(16, task.num_classes)
    return nn.Sequential(start, nn.Sequential(*blocks), head)

def plain(task):
    return nn.Linear(task.input_shape[0], task.num_classes)

_count = [0]

def growing(task):
    _count[0] += 1
    return nn.Linear(task.input_shape[0] , task.num_classes, bias=_count[0] % 2 == 0)
"""
LAYERS = """
import torch
from torch import nn

class Block(nn.Module):
    def __init__(self, width, dropout):
        super().__init__()
        self.norm = nn.BatchNorm1d(width)
        self.linear = nn.Linear(width, width)
        self.drop = nn.Dropout(dropout)

    def forward(self, x, scale=1.0):
        return x + scale * self.drop(torch.tanh(self.linear(self.norm(x))))
"""
SETS = """
import torch
from torch.utils.data import TensorDataset

def load(*, count=96, bad=None, flaw="label"):
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(count, 5, generator=generator)
    y = (x.sum(1) > 0).long() + (x[:, 0] > 0).long()
    train = [(a, b) for a, b in zip(x, y)]
    if bad is not None:
        flaws = {"label": (x[bad], torch.tensor(-1)), "shape": (x[bad][:3], y[bad]), "triple": (1, 2, 3)}
        train[bad] = flaws[flaw]
    return {"train": train, "test": TensorDataset(x[:32], y[:32])}

def split(): return {"train": [1]}
def empty(): return {"train": [], "test": []}
"""
STUDY = """
name: own
data: {name: "sets:load"}
model: {name: "nets:build"}
train: {epochs: 2, batch_size: 16, optimizer: adamw, learning_rate: 0.01}
probe: {examples: 8}
"""


@pytest.fixture
def folder(tmp_path):
    for name, content in (("nets", NETS), ("layers", LAYERS), ("sets", SETS)):
        (tmp_path / f"{name}.py").write_text(content)
    return tmp_path


@pytest.fixture
def plan_of(folder):
    def plan(more=""):
        file = folder / "own.yaml"
        file.write_text(STUDY + more)
        return make_plan(load_study(file))

    return plan


def train(trial):
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        result = train_trial(trial, device="cpu")
    finally:
        torch.set_num_threads(threads)
    assert result.trial["outcome"] == "ok", result.trial["error_message"]
    return result


def test_options_are_swept_and_part_of_the_identity(plan_of):
    trials = plan_of("space: {model.options.depth: {grid: [2, 3]}, data.options.count: {grid: [96]}}").trials
    assert [t.settings.model.options for t in trials] == [{"depth": 2}, {"depth": 3}]
    assert len({t.trial_id for t in trials}) == 2
    row = train(trials[0]).trial
    assert (row["model"], row["data"], row["task"]) == ("nets:build", "sets:load", "classification")
    assert (row["strategy"], row["family"], row["num_classes"]) == ("store", None, 3)
    assert '"depth":2' in row["config_json"]


@pytest.mark.parametrize("strategy", ["checkpoint", "recursive"])
def test_a_plain_network_takes_strategies_without_inverse(plan_of, strategy):
    grid = (
        f"space: {{memory.strategy: {{grid: [store, {strategy}]}}, model.options.dropout: {{grid: [0.5]}}}}"
    )
    trials = plan_of(grid).trials
    stored, other = (train(trial) for trial in trials)
    for a, b in zip(stored.epochs, other.epochs, strict=True):
        assert (a["loss_train"], a["loss_val"]) == (b["loss_train"], b["loss_val"])
    assert other.trial["memory_activation_bytes"] < stored.trial["memory_activation_bytes"]
    assert trial_cost(trials[1].settings).memory_bytes == other.trial["memory_peak_bytes"]


def test_units_in_a_list_are_checkpointed_with_what_they_are_given(plan_of):
    space = 'space: {model.name: {grid: ["nets:listed"]}, memory.strategy: {grid: [store, checkpoint]}}'
    stored, other = (train(trial) for trial in plan_of(space).trials)
    assert [e["loss_val"] for e in stored.epochs] == [e["loss_val"] for e in other.epochs]
    assert other.trial["memory_activation_bytes"] < stored.trial["memory_activation_bytes"]


def test_a_network_that_holds_a_sequence_reverses(plan_of):
    space = 'space: {model.name: {grid: ["nets:coupled"]}, memory.strategy: {grid: [store, reverse, null]}}'
    plan = plan_of(space)
    assert len(plan.trials) == 2  # null is reverse
    stored, rebuilt = (train(trial) for trial in plan.trials)
    assert rebuilt.trial["strategy"] == "reverse"
    assert 0 < rebuilt.trial["reconstruction_rel_error"] < 1e-3
    assert rebuilt.trial["memory_activation_bytes"] < stored.trial["memory_activation_bytes"]
    assert rebuilt.epochs[-1]["loss_val"] == pytest.approx(stored.epochs[-1]["loss_val"], rel=1e-3)


@pytest.mark.parametrize("compute", ["fp64", "bf16"])
def test_a_plain_network_is_run_in_the_arithmetic_that_is_asked_for(plan_of, compute):
    row = train(plan_of(f"precision: {{compute: {compute}}}").trials[0]).trial
    assert row["compute_dtype"] == compute
    assert row["memory_parameter_bytes"] == (8 if compute == "fp64" else 4) * row["parameters"]


def test_the_source_is_part_of_the_identity_and_the_place_is_not(plan_of, folder, tmp_path_factory):
    (trial,) = plan_of().trials
    elsewhere = tmp_path_factory.mktemp("elsewhere")
    for file in folder.glob("*.py"):
        (elsewhere / file.name).write_text(file.read_text())
    assert trial_id(replace(trial.settings, code=str(elsewhere))) == trial.trial_id
    before = files_hash(folder / "nets.py", "nets")
    (folder / "layers.py").write_text(LAYERS.replace("tanh", "sin"))
    assert files_hash(folder / "nets.py", "nets") != before
    assert canonical(trial.settings)["model"]["source"] != before


OTHERS = """
from torch import nn
import torchvision

def resnet18(task):
    network = torchvision.models.resnet18(num_classes=task.num_classes)
    network.conv1 = nn.Conv2d(task.input_shape[0], 64, 3, padding=1, bias=False)
    return network

def gpt2(task, *, layers=2):
    import transformers
    config = transformers.GPT2Config(
        vocab_size=task.vocabulary_size, n_positions=task.context_length, n_embd=32, n_layer=layers, n_head=2,
        use_cache=False, bos_token_id=0, eos_token_id=0,
    )
    return transformers.GPT2LMHeadModel(config)
"""
WITH_OTHERS = """
name: others
data: {test_examples: 16}
train: {steps: 4, batch_size: 8, optimizer: adamw, learning_rate: 0.001}
evaluate: {every: 2, examples: 16}
space:
  - model.name: {grid: ["others:resnet18"]}
    data.name: {grid: [digits]}
    memory.strategy: {grid: [store, checkpoint]}
  - model.name: {grid: ["others:gpt2"]}
    data.name: {grid: ["markov:1"]}
    data.context_length: {grid: [32]}
    memory.strategy: {grid: [store, checkpoint]}
"""


def test_networks_of_torchvision_and_of_transformers_are_checkpointed_as_they_are(tmp_path):
    pytest.importorskip("transformers")
    (tmp_path / "others.py").write_text(OTHERS)
    (tmp_path / "others.yaml").write_text(WITH_OTHERS)
    plan = make_plan(load_study(tmp_path / "others.yaml"))
    found = [train(trial) for trial in plan.trials]
    assert [r.trial["task"] for r in found] == ["classification"] * 2 + ["language"] * 2
    for stored, other in (found[:2], found[2:]):
        # With dropout and running statistics: what is computed again changes nothing.
        assert [e["loss_val"] for e in stored.epochs] == [e["loss_val"] for e in other.epochs]
        assert other.trial["memory_activation_bytes"] < stored.trial["memory_activation_bytes"]
        assert other.trial["flops_hardware"] > 1.25 * stored.trial["flops_hardware"]
        assert other.trial["flops_model"] == stored.trial["flops_model"]


def test_a_builder_may_compute_with_numbers(plan_of):
    (trial,) = plan_of('space: {model.name: {grid: ["nets:counting"]}}').trials
    row = train(trial).trial
    assert trial_cost(trial.settings).memory_bytes == row["memory_peak_bytes"]
    assert row["flops_model"] > 0


OPTIMIZERS = """
import torch
def make(groups, learning_rate, *, beta=0.9):
    return torch.optim.RMSprop(groups, lr=learning_rate, alpha=beta)
def nothing(groups, learning_rate):
    return groups
"""


def test_an_optimizer_of_ones_own(plan_of, folder):
    (folder / "steps.py").write_text(OPTIMIZERS)
    axes = 'train.optimizer: {grid: ["steps:make"]}, train.optimizer_options.beta: {grid: [0.9, 0.99]}'
    first, second = plan_of(f"space: {{{axes}}}").trials
    assert first.trial_id != second.trial_id
    rows = [train(trial) for trial in (first, second)]
    assert rows[0].trial["optimizer"] == "steps:make"
    assert rows[0].epochs[1]["loss_train"] != rows[1].epochs[1]["loss_train"]
    assert trial_cost(first.settings).memory_bytes == rows[0].trial["memory_peak_bytes"]
    assert canonical(first.settings)["train"]["source"] == files_hash(folder / "steps.py", "steps")
    for axes, path, words in (
        (
            'train.optimizer: {grid: ["steps:nothing"]}',
            "space.train.optimizer.grid[0]",
            "must return a torch",
        ),
        (
            'train.optimizer: {grid: ["steps:make"]}, train.optimizer_options.gamma: {grid: [1]}',
            "train.optimizer_options",
            "unexpected keyword argument 'gamma'",
        ),
        ("train.optimizer_options.gamma: {grid: [1]}", "train.optimizer_options", "has no options"),
    ):
        with pytest.raises(StudyError) as caught:
            plan_of(f"space: {{{axes}}}")
        assert caught.value.path == path
        assert words in str(caught.value)


def test_divergence_of_a_network_of_ones_own_is_an_outcome(plan_of):
    names = '["nets:build", "nets:listed", "nets:plain", "nets:coupled"]'
    more = "train.learning_rate: {grid: [1.0e+30]}, train.optimizer: {grid: [sgd]}"
    for trial in plan_of(f"space: {{model.name: {{grid: {names}}}, {more}}}").trials:
        row = train_trial(trial, device="cpu").trial
        assert row["outcome"] == "diverged", row["error_message"]


def test_a_package_announces_its_names(plan_of, folder, monkeypatch):
    """By entry points, as an installed package has them."""
    package = folder / "site"
    (package / "ours-1.0.dist-info").mkdir(parents=True)
    (package / "ours-1.0.dist-info" / "METADATA").write_text(
        "Metadata-Version: 2.1\nName: ours\nVersion: 1.0\n"
    )
    points = "[revstudy.models]\nournet = nets:build\n[revstudy.data]\nourdata = sets:load\n"
    (package / "ours-1.0.dist-info" / "entry_points.txt").write_text(points)
    monkeypatch.syspath_prepend(str(package))
    monkeypatch.syspath_prepend(str(folder))
    code._announced.cache_clear()
    try:
        (trial,) = plan_of("space: {model.name: {grid: [ournet]}, data.name: {grid: [ourdata]}}").trials
        row = train(trial).trial
        assert (row["model"], row["data"], row["num_classes"]) == ("ournet", "ourdata", 3)
    finally:
        code._announced.cache_clear()


def test_a_declared_version_stands_for_the_source(plan_of, folder):
    (folder / "nets.py").write_text(NETS + "\nbuild.version = 3\n")
    (trial,) = plan_of().trials
    assert canonical(trial.settings)["model"]["source"] == "version:3"


@pytest.mark.parametrize(
    ("more", "path", "words"),
    [
        ('model: {name: "nowhere:build"}', "model.name", "must name a module that"),
        ('model: {name: "nets:biuld"}', "model.name", "did you mean 'build'"),
        (
            'model: {name: "nets:build", options: {dept: 3}}',
            "model.options",
            "unexpected keyword argument 'dept'",
        ),
        ('model: {name: "nets:wrong"}', "model.name", "must return an nn.Module, not str"),
        ('model: {name: "nets:failing"}', "model.name", "no such luck"),
        ('model: {name: "nets:growing"}', "model.name", "the same parameters in each call"),
        ('model: {name: "nets:build", width: 2.0}', "model.width", "is for presets"),
        ("memory: {strategy: reverse}", "memory.strategy", "holds no ReversibleSequence"),
        ('data: {name: "sets:split"}', "data.name", 'must return {"train": data set, "test": data set}'),
        ('data: {name: "sets:empty"}', "data.name", "must not be empty"),
        ('task: {name: "sets:load"}', "task.name", "must be a class that derives"),
        ("task: {name: regression}", "task.name", "must be a known task"),
    ],
)
def test_what_is_wrong_is_said_before_anything_runs(plan_of, folder, more, path, words):
    lines = [line for line in STUDY.splitlines() if not line.startswith(more.partition(":")[0] + ":")]
    (folder / "own.yaml").write_text("\n".join([*lines, more]))
    with pytest.raises(StudyError) as caught:
        make_plan(load_study(folder / "own.yaml"))
    assert caught.value.path == path
    assert words in str(caught.value)
    assert caught.value.exit_code == 2


@pytest.mark.parametrize(
    ("flaw", "words"),
    [
        ("label", "the target of item 40 of train must be from 0 to 2"),
        ("shape", "the input of item 40 of train is not as that of item"),
        ("triple", "item 40 of train must be a pair of input and target"),
    ],
)
def test_a_bad_item_is_named_in_the_row(plan_of, folder, flaw, words):
    # The training set says its classes, so that nothing is read before the trial.
    content = SETS.replace(
        "return {", "train = type('Rows', (list,), {'num_classes': 3})(train)\n    return {", 1
    )
    (folder / "sets.py").write_text(content)
    (trial,) = plan_of(
        f"space: {{data.options.bad: {{grid: [40]}}, data.options.flaw: {{grid: [{flaw}]}}}}"
    ).trials
    row = train_trial(trial, device="cpu").trial
    assert row["outcome"] == "failed"
    assert words in row["error_message"]


def test_strategies_change_no_gradient(plan_of):
    (trial,) = plan_of("precision: {compute: fp64}").trials
    settings, gradients = trial.settings, []
    shape = task_of(settings).shape(settings)
    for strategy in ("store", "checkpoint", "recursive"):
        torch.manual_seed(0)
        network = own_network(replace(settings, memory=replace(settings.memory, strategy=strategy)), shape)
        network(torch.randn(8, 5, dtype=torch.float64)).square().sum().backward()
        gradients.append([p.grad for p in network.parameters()])
    for other in gradients[1:]:
        assert all(torch.equal(a, b) for a, b in zip(gradients[0], other, strict=True))

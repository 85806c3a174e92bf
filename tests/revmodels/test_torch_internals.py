"""What is private in PyTorch stands in one file, and each name there does what it is there for."""

import ast
import re
from pathlib import Path

import pytest
import torch
from torch import nn

from revmodels import torch_internals as internals

ROOT = Path(__file__).parents[2] / "revmodels"
HOME = "torch_internals.py"

PRIVATE_ATTRIBUTES = {
    *("_version", "_cdata", "_schema", "_parameters", "_buffers", "_modules", "_use_count"),
    *("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks"),
}
"""Attributes of tensors, storages, operators and modules that PyTorch keeps to itself."""


def private_names(source: str) -> list[str]:
    """``line: name`` for each private name of PyTorch in a file."""
    found = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import | ast.ImportFrom):
            module = getattr(node, "module", None)
            names = [f"{module}.{a.name}" if module else a.name for a in node.names]
        elif isinstance(node, ast.Attribute):
            names = [ast.unparse(node)]
            if node.attr in PRIVATE_ATTRIBUTES and ast.unparse(node.value) != "self":
                found.append(f"{node.lineno}: .{node.attr}")
        else:
            continue
        found += [f"{node.lineno}: {n}" for n in names if re.match(r"torch(\.\w+)*\._[a-zA-Z]", n)]
    return found


def test_no_other_file_names_what_is_private():
    found = [
        f"{path}:{name}"
        for file in sorted(ROOT.rglob("*.py"))
        if (path := file.relative_to(ROOT).as_posix()) != HOME
        for name in private_names(file.read_text())
    ]
    assert found == []


@pytest.mark.parametrize(
    "source",
    [
        "import torch._dynamo",
        "from torch._subclasses.fake_tensor import FakeTensor",
        "from torch.nn.modules.batchnorm import _BatchNorm",
        "import torch\ntorch._C._len_torch_dispatch_stack()",
        "def f(t):\n    return t._version",
        "def f(m):\n    return m.layer._forward_hooks",
    ],
)
def test_a_planted_name_is_found(source):
    assert private_names(source)


@pytest.mark.parametrize(
    "source",
    [
        "import torch\ntorch.compiler.reset()",
        "from torch.utils.checkpoint import checkpoint",
        "class A:\n    def f(self):\n        return self._parameters",
    ],
)
def test_what_is_public_is_left_alone(source):
    assert private_names(source) == []


def test_a_name_that_a_version_lacks_is_named_with_its_purpose():
    with pytest.raises(ImportError, match=r"torch\.nn\._gone to sing, and PyTorch .* constraints\.txt"):
        internals._private("torch.nn", "_gone", "to sing")
    with pytest.raises(ImportError, match=r"torch\._gone\.name"):
        internals._private("torch._gone", "name", "to sing")


def test_fake_tensors_have_shapes_and_devices():
    with internals.FakeTensorMode():
        x = torch.empty(2, 3)
    assert isinstance(x, internals.FakeTensor)
    assert (x.shape, x.device.type) == ((2, 3), "cpu")


def test_a_dispatch_mode_sees_the_backward_pass_unless_it_is_hidden():
    class Seen(internals.TorchDispatchMode):
        names = ()

        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            self.names += (func.name(),)
            return func(*args, **(kwargs or {}))

    x = torch.ones(2, requires_grad=True)
    with Seen() as seen:
        x.exp().sum().backward()
        with internals.without_dispatch_modes():
            x.sin()
    assert "aten::exp" in seen.names
    assert any(name.startswith("aten::mul") for name in seen.names)
    assert "aten::sin" not in seen.names
    with internals.without_dispatch_modes():
        pass


def test_every_batch_norm_is_known():
    for kind in (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d, nn.SyncBatchNorm):
        assert issubclass(kind, internals.BatchNorm)
    assert not issubclass(nn.InstanceNorm2d, internals.BatchNorm)


def test_an_operation_draws_from_a_given_state():
    state = torch.Generator().manual_seed(5).get_state()
    draw = torch.ops.aten.bernoulli.p
    first, second = (internals.run_with_rng_state(state, draw, torch.empty(64), 0.5) for _ in range(2))
    assert torch.equal(first, second)


def test_leaves_of_nested_results():
    assert internals.tree_leaves({"a": [1, (2,)]}) == [1, 2]


@pytest.mark.parametrize("keep", [True, False])
def test_a_backward_pass_knows_whether_its_graph_is_kept(keep):
    seen = []

    class Ask(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x):
            return x.clone()

        @staticmethod
        def backward(ctx, dy):
            seen.append(internals.graph_is_kept())
            return dy

    Ask.apply(torch.ones(1, requires_grad=True)).backward(retain_graph=keep)
    assert seen == [keep]


def test_hooks_of_one_module_and_of_all_are_seen():
    module = nn.Linear(1, 1)
    assert not internals.has_hooks(module)
    assert not internals.has_global_hook()
    assert internals.count_forward_hooks(module) == 0
    for register in (
        module.register_forward_hook,
        module.register_forward_pre_hook,
        module.register_full_backward_hook,
        module.register_full_backward_pre_hook,
    ):
        handle = register(lambda *_: None)
        assert internals.has_hooks(module)
        handle.remove()
    handles = [module.register_forward_hook(lambda *_: None)]
    handles.append(module.register_forward_pre_hook(lambda *_: None))
    assert internals.count_forward_hooks(module) == 2
    handles.append(nn.modules.module.register_module_forward_hook(lambda *_: None))
    assert internals.has_global_hook()
    for handle in handles:
        handle.remove()
    assert not internals.has_global_hook()


def test_hooks_on_a_gradient_are_seen():
    t = torch.ones(1, requires_grad=True)
    assert not internals.has_gradient_hooks(t)
    for register in (t.register_hook, t.register_post_accumulate_grad_hook):
        handle = register(lambda _: None)
        assert internals.has_gradient_hooks(t)
        handle.remove()
    assert not internals.has_gradient_hooks(t)


def test_tables_of_a_module():
    module = nn.BatchNorm1d(2)
    assert list(internals.own_parameters(module)) == ["weight", "bias"]
    assert list(internals.own_buffers(module)) == ["running_mean", "running_var", "num_batches_tracked"]
    assert list(internals.own_children(nn.Sequential(module))) == ["0"]


def test_writes_are_counted_and_shared_memory_is_known():
    x = torch.zeros(4)
    before = internals.version(x)
    x.add_(1)
    assert internals.version(x) == before + 1
    assert internals.storage_key(x) == internals.storage_key(x[1:]) != internals.storage_key(x.clone())


def test_what_an_operator_says_of_itself():
    assert internals.writes_in_place(torch.ops.aten.bernoulli_.float)
    assert not internals.writes_in_place(torch.ops.aten.bernoulli.p)
    assert internals.argument_names(torch.ops.aten.bernoulli.p) == [
        ("self", None),
        ("p", None),
        ("generator", None),
    ]


def test_the_backward_pass_without_checks_is_that_with_them():
    x, y = torch.rand(3, requires_grad=True), torch.rand(3, requires_grad=True)
    edge = torch.autograd.graph.get_gradient_edge(x.exp())
    d = torch.rand(3)
    found, nothing = internals.run_backward((edge,), (d,), (x, y))
    assert torch.equal(found, d * x.detach().exp())
    assert nothing is None


def test_compiled_modules_are_known_and_the_budget_of_their_graphs_is_set():
    from torch._functorch import config

    assert not internals.is_compiled(nn.Linear(1, 1))
    assert internals.is_compiled(torch.compile(nn.Linear(1, 1)))
    before = config.activation_memory_budget
    with internals.activation_memory_budget(0.5):
        assert config.activation_memory_budget == 0.5
    assert config.activation_memory_budget == before


def test_a_backward_pass_knows_that_it_runs():
    seen = []
    x = torch.ones(2, requires_grad=True)
    y = x * 2
    y.register_hook(lambda _: seen.append(internals.is_in_backward_pass()))
    assert not internals.is_in_backward_pass()
    y.sum().backward()
    assert seen == [True]
    assert not internals.is_in_backward_pass()


def test_hooks_on_saved_tensors_are_known():
    assert not internals.are_saved_tensors_hooked()
    with torch.autograd.graph.saved_tensors_hooks(lambda t: t, lambda t: t):
        assert internals.are_saved_tensors_hooked()

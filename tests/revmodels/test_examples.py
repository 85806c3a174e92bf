"""What the documentation tells users to run, runs: the example, the conformance table, the table's tests."""

import ast
import re
import runpy
from pathlib import Path

import pytest
import torch

from benchmarks.conformance_peers import IMPLEMENTATIONS, Ours
from benchmarks.conformance_uses import USES, right_or_refused
from revmodels.errors import ReplayError
from revmodels.testing.check import check_reversible
from revmodels.testing.guarantees import GUARANTEES

ROOT = Path(__file__).parents[2]
README = (ROOT / "revmodels/README.md").read_text()


def test_example_prints_a_report_without_a_broken_guarantee(capsys):
    torch.manual_seed(0)
    runpy.run_path(str(ROOT / "examples/wrap_your_network.py"), run_name="__main__")
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[1] for line in lines] == list(GUARANTEES)
    assert {line.split()[0] for line in lines} == {"holds"}


def test_example_fits_in_twenty_lines_of_code():
    tree = ast.parse((ROOT / "examples/wrap_your_network.py").read_text())
    documented = ast.Module | ast.ClassDef | ast.FunctionDef
    for node in ast.walk(tree):
        if isinstance(node, documented) and ast.get_docstring(node) is not None:
            node.body = node.body[1:]
    assert len(ast.unparse(tree).splitlines()) <= 24, "20 lines and the blank ones between definitions"


def test_example_network_trains():
    torch.manual_seed(0)
    wrap = runpy.run_path(str(ROOT / "examples/wrap_your_network.py"))["wrap"]
    model, images, labels = wrap(8, 2), torch.randn(32, 3, 8, 8), torch.arange(32) % 10
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    losses = []
    for _ in range(30):
        optimizer.zero_grad()
        losses.append(torch.nn.functional.cross_entropy(model(images), labels))
        losses[-1].backward()
        optimizer.step()
    assert losses[-1] < losses[0] - 0.1


def test_conformance_finds_nothing_broken_in_this_package(capsys):
    conformance = runpy.run_path(str(ROOT / "benchmarks/conformance.py"), run_name="conformance")
    assert conformance["main"](["--only", "ours"]) == 0
    rows = capsys.readouterr().out.splitlines()[2:]
    assert len(rows) == len(conformance["ROWS"])
    assert all(re.fullmatch(r"\| .+ \| (yes|refused) \|", row) for row in rows)


def test_conformance_notices_a_broken_implementation(capsys, monkeypatch):
    conformance = runpy.run_path(str(ROOT / "benchmarks/conformance.py"), run_name="conformance")

    class Lossy(Ours):
        def forward(self, x):
            return super().forward(x.detach())

    monkeypatch.setitem(IMPLEMENTATIONS, "ours", Lossy)
    assert conformance["main"](["--only", "ours", "--details"]) == 1
    out = capsys.readouterr().out
    assert "| gradients, even depth | **no**: none |" in out
    assert "ours: gradients, even depth: relative error of the gradient of input 0: inf" in out


def test_a_raw_error_is_no_answer_and_an_error_by_name_is():
    def stumble(make, tolerance):
        return {}["nothing"]

    def refuse(make, tolerance):
        raise ReplayError("it cannot be repeated")

    assert right_or_refused(refuse)(None, 0)[0].holds
    with pytest.raises(KeyError):
        right_or_refused(stumble)(None, 0)


def test_readme_names_every_use_with_an_answer_of_ours():
    table = [line.split(" | ") for line in README.splitlines() if line.endswith("` |") and line[2] != "`"]
    found = {cells[0].removeprefix("| "): cells[1] for cells in table}
    assert list(found) == [name for name, _, _ in USES]
    assert set(found.values()) == {"yes", "refused"}


def test_readme_names_every_guarantee_and_tests_that_exist():
    table = [line for line in README.splitlines() if line.startswith("| `")]
    assert {line.split("`")[1] for line in table} >= set(GUARANTEES)
    for module, test in re.findall(r"`([\w/]+)\.py::(test_\w+)`", README):
        source = (ROOT / f"tests/revmodels/{module}.py").read_text()
        assert f"def {test}(" in source, f"{module}::{test}"


def test_readme_code_runs():
    code = "\n".join(re.findall(r"```python\n(.*?)```", README, flags=re.DOTALL))
    torch.manual_seed(0)
    names: dict = {}
    exec(compile(code, "README.md", "exec"), names)
    assert not names["report"].broken
    assert names["check_reversible"] is check_reversible


@pytest.mark.parametrize("path", ["examples/wrap_your_network.py", "benchmarks/conformance.py"])
def test_readme_links_to(path):
    assert f"(../{path})" in README
    assert (ROOT / path).exists()

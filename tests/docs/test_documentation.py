"""What the documentation says is there: its links, files, tests, commands and options; its examples run."""

from __future__ import annotations

import doctest
import re
from pathlib import Path

import pytest
import typer

from docs.reference_pages import ELSEWHERE
from study.cli.main import app
from tests.cli.conftest import revstudy

__all__ = ["revstudy"]

ROOT = Path(__file__).parents[2]
GENERATED = {f"docs/reference/{name}.md" for name in ("settings", "columns", "commands", *ELSEWHERE)}
DATED = {"docs/log.md", "CHANGELOG.md"}  # They speak of the code as it was.
PAGES = sorted(
    path.relative_to(ROOT).as_posix()
    for pattern in ("*.md", "docs/*.md", "docs/decisions/*.md", "revmodels/*.md", "benchmarks/*.md")
    for path in ROOT.glob(pattern)
)
NOW = [page for page in PAGES if page not in DATED]
FENCE = re.compile(r"^```.*?^```", re.MULTILINE | re.DOTALL)


def text_of(page: str) -> str:
    return (ROOT / page).read_text()


def anchors(page: str) -> set[str]:
    """The addresses of a page's headings, as GitHub and MyST make them."""
    heads = re.findall(r"^#+ (.*)$", FENCE.sub("", text_of(page)), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", head.lower()).replace(" ", "-") for head in heads}


def broken_links(page: str, text: str) -> list[str]:
    """Links that lead to no file, or to no heading of one."""
    broken = []
    for link in re.findall(r"\]\(([^)\s]+)\)", FENCE.sub("", text)):
        target, _, heading = link.partition("#")
        if re.match(r"[a-z]+:", target):
            continue
        path = (ROOT / page).parent.joinpath(target).resolve() if target else ROOT / page
        inside = path.relative_to(ROOT).as_posix()
        if inside in GENERATED:
            continue
        if not path.exists() or (heading and heading not in anchors(inside)):
            broken.append(link)
    return broken


def missing_files(text: str) -> list[str]:
    """Paths in code marks that lead nowhere, and tests in them that do not exist."""
    missing = []
    for name in re.findall(r"`([\w./*<>=,{}:-]+)`", text):
        path, _, test = name.partition("::")
        if not re.match(r"(revmodels|study|analysis|tests|benchmarks|docs|examples)/", path):
            continue
        found = list(ROOT.glob(path.rstrip("/")))
        if not found or (test and f"def {test}(" not in found[0].read_text()):
            missing.append(name)
    return missing


def commands(text: str) -> list[list[str]]:
    """Every `revstudy` command in a text, as words; what follows a pipe or a comment is left out."""
    found = re.findall(r"(?:^|`|\$\(BIN\)/| )revstudy ([a-z][^`\n|>#;]*)", text, re.MULTILINE)
    return [command.replace("\\", " ").split() for command in found]


def unknown(command: list[str]) -> list[str]:
    """What a command says that the command line does not know: the verb, or options."""
    verbs = typer.main.get_command(app).commands  # type: ignore[attr-defined]
    if command[0] not in verbs:
        return [command[0]]
    known = {name for option in verbs[command[0]].params for name in [*option.opts, *option.secondary_opts]}
    options = (word.partition("=")[0].strip("().,") for word in command[1:] if word.startswith("-"))
    return [option for option in options if option not in known | {"--help"} and option != "-"]


@pytest.mark.parametrize("page", PAGES)
def test_links_lead_somewhere(page):
    assert broken_links(page, text_of(page)) == []


@pytest.mark.parametrize("page", NOW)
def test_files_and_tests_that_are_named_exist(page):
    assert missing_files(text_of(page)) == []


@pytest.mark.parametrize("page", [*NOW, "Makefile"])
def test_commands_have_the_verbs_and_options_that_they_are_shown_with(page):
    assert [(command, wrong) for command in commands(text_of(page)) if (wrong := unknown(command))] == []


@pytest.mark.parametrize("page", NOW)
def test_make_targets_and_programs_exist(page):
    makefile = text_of("Makefile")
    for target in re.findall(r"`make ([a-z-]+)`|^make ([a-z-]+)", text_of(page), re.MULTILINE):
        assert re.search(rf"^{''.join(target)}:", makefile, re.MULTILINE), target
    for module in re.findall(r"python -m ((?:benchmarks|study|tests)[\w.]*)", text_of(page)):
        path = ROOT / module.replace(".", "/")
        assert path.with_suffix(".py").exists() or (path / "__main__.py").exists(), module
    for program in re.findall(r"python ([\w/]+\.py)", text_of(page)):
        assert (ROOT / program).exists(), program


@pytest.mark.parametrize(
    "command",
    [
        "query --list",
        "describe",
        "describe trials",
        "datasets",
        "schema",
        "schema trials",
        "--help",
        "-h",
        "--version",
    ],
)
def test_commands_that_need_no_store_run(revstudy, command):
    answer = revstudy(*command.split())
    assert answer.code == 0, answer.err
    assert answer.out.strip()


def test_examples_of_the_python_api_give_what_they_say(monkeypatch):
    monkeypatch.chdir(ROOT)
    blocks = re.findall(r"^```python\n(.*?)^```", text_of("docs/api.md"), re.MULTILINE | re.DOTALL)
    examples = doctest.DocTestParser().get_doctest("\n".join(blocks), {}, "api", "docs/api.md", 0)
    result = doctest.DocTestRunner().run(examples)
    assert result.attempted > 30
    assert result.failed == 0


def test_every_page_of_docs_is_in_the_table_of_contents():
    listed = set(re.findall(r"^([\w/-]+)$", text_of("docs/index.md"), re.MULTILINE))
    pages = {page.removeprefix("docs/").removesuffix(".md") for page in PAGES if page.startswith("docs/")}
    generated = {page.removeprefix("docs/").removesuffix(".md") for page in GENERATED}
    assert listed == (pages | generated) - {"index"}


def test_the_glossary_gives_a_file_for_each_word():
    entries = re.findall(
        r"^\*\*([^*]+)\*\*: (.*?)(?=\n\n|\Z)", text_of("docs/glossary.md"), re.MULTILINE | re.DOTALL
    )
    assert {word for word, _ in entries} >= {
        "Stream", "Unit", "Stage entry", "Anchor", "Replay", "Probe", "Rung", "Lease", "Strategy", "Trial",
    }  # fmt: skip
    for word, meaning in entries:
        assert re.search(r"`[a-z]+/[\w/]+\.py`$", meaning), word


@pytest.mark.parametrize(
    ("text", "found"),
    [("[a](nowhere.md)", "nowhere.md"), ("[a](README.md#no-such-heading)", "README.md#no-such-heading")],
)
def test_a_broken_link_is_found(text, found):
    assert broken_links("README.md", text) == [found]


def test_a_missing_file_a_missing_test_and_an_unknown_option_are_found():
    text = "`study/no_such.py` `tests/docs/test_documentation.py::test_nothing` `study/run.py`"
    assert missing_files(text) == ["study/no_such.py", "tests/docs/test_documentation.py::test_nothing"]
    assert [unknown(command) for command in commands("`revstudy trian x` `revstudy run x --stroe y`")] == [
        ["trian"],
        ["--stroe"],
    ]

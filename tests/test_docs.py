"""The blocks of README and docs: every posenc command names verbs and options that exist, every import resolves."""

import ast
import importlib
import importlib.util
import re
import runpy
import shlex
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]


def blocks(kind: str) -> list[Any]:
    """The fenced blocks of a kind, each with its page and number as its id."""
    found = []
    for page in PAGES:
        for at, block in enumerate(re.findall(rf"```{kind}[^\n]*\n(.*?)```", page.read_text(encoding="utf-8"), re.S)):
            found.append(pytest.param(block, id=f"{page.relative_to(ROOT)}:{at + 1}"))
    return found


def commands(block: str) -> Iterator[list[str]]:
    """The words of each posenc command of a console block, without what a comment says."""
    for line in re.findall(r"^\$ posenc (.*(?:\\\n.*)*)", block, re.M):
        yield shlex.split(line.replace("\\\n", " "), comments=True)


@pytest.mark.parametrize("block", blocks("console"))
def test_a_command_has_verbs_and_options_that_exist(block: str, tmp_path: Path, monkeypatch: Any) -> None:
    from typer.main import get_command

    from posenc.lab.cli import app

    monkeypatch.chdir(tmp_path)
    for name in ("a.txt", "b.txt", "book.txt"):
        (tmp_path / name).write_text("text")
    group: Any = get_command(app)
    for words in commands(block):
        if words[0].startswith("-"):
            continue
        verb = group.commands[words[0]]
        context = verb.make_context(words[0], list(words[1:]), resilient_parsing=False)
        assert context.params or words[0] == "bench"


@pytest.mark.parametrize("block", blocks("python"))
def test_a_python_block_parses_and_its_imports_resolve(block: str) -> None:
    tree = ast.parse(block)
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("posenc"):
            module = importlib.import_module(node.module or "")
            for alias in node.names:
                assert hasattr(module, alias.name) or importlib.util.find_spec(f"{node.module}.{alias.name}")
        elif isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "posenc":
            import posenc

            assert hasattr(posenc, node.attr) or importlib.util.find_spec(f"posenc.{node.attr}"), node.attr


@pytest.fixture
def to_markdown() -> Callable[[str], str]:
    pytest.importorskip("griffe")
    convert: Callable[[str], str] = runpy.run_path(str(ROOT / "docs" / "docstrings.py"))["to_markdown"]
    return convert


def test_a_table_of_a_docstring_becomes_one_of_markdown(to_markdown: Callable[[str], str]) -> None:
    text = "Before.\n\n==== =====\nname what\n==== =====\na    ``b`` or\n     |c|\nd    e\n==== =====\n\nAfter.\n"
    expected = "| name | what |\n| --- | --- |\n| a | `b` or &#124;c&#124; |\n| d | e |"
    assert to_markdown(text) == f"Before.\n\n{expected}\n\nAfter.\n"


def test_no_colons_stand_above_code(to_markdown: Callable[[str], str]) -> None:
    assert to_markdown("Shifted.\n\n::\n\n    0 1 -> 3 4\n") == "Shifted.\n\n\n    0 1 -> 3 4\n"


@pytest.fixture
def hooks(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    pytest.importorskip("latex2mathml")
    pytest.importorskip("mkdocs")
    monkeypatch.syspath_prepend(ROOT / "docs")  # where mkdocs finds what the hooks import
    return runpy.run_path(str(ROOT / "docs" / "hooks.py"))


@pytest.mark.parametrize("tag", ["span", "div"])
def test_a_formula_has_no_class_that_the_theme_styles(tag: str, hooks: dict[str, Any]) -> None:
    """The theme floats whatever has the class "inline": the sentences around such a formula were torn apart."""
    material = pytest.importorskip("material")
    found = re.fullmatch(r'<(span|div) class="arithmatex">(.*?)</\1>', rf'<{tag} class="arithmatex">\(x_1\)</{tag}>')
    assert found is not None
    (classes,) = re.findall(r'class="([^"]*)"', hooks["_formula"](found))
    styles = "".join(sheet.read_text() for sheet in Path(material.__file__).parent.rglob("stylesheets/*.css"))
    assert ".inline" in styles
    assert not [name for name in classes.split() if re.search(rf"\.{name}\b(?!-)", styles)]
    assert f".{classes} {{" in (ROOT / "docs" / "assets" / "site.css").read_text()


def test_everyday_words_of_the_glossary_are_links_only_where_they_mean_the_term(hooks: dict[str, Any]) -> None:
    page = "<p>written in place, a window of text; a sliding window, the second place and place 3; some pairs</p>"
    linked = re.findall(r'#([\w-]+)"[^>]*>([^<]*)</a>', hooks["_linked"](page, "howto/fast/"))
    assert linked == [("window", "sliding window"), ("place", "second place"), ("pair", "pairs")]


def test_a_name_in_a_table_may_break_after_an_underscore_and_nowhere_else(hooks: dict[str, Any]) -> None:
    page = "<p><code>rope_theta</code></p><table><td><code>rope.freq_base</code> a_b</td></table>"
    assert hooks["_breakable"](page) == (
        "<p><code>rope_theta</code></p><table><td><code>rope.<wbr>freq_<wbr>base</code> a_b</td></table>"
    )

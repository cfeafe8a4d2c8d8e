"""The tutorials as notebooks, made from the pages: ``python docs/notebooks.py`` writes them, ``--run`` runs them too.

A page's blocks of Python become cells; what a page hides becomes a cell whose output is shown as Markdown or HTML. A
notebook is stored without outputs: they are made where it runs.
"""

import argparse
import re
from collections.abc import Iterator
from pathlib import Path

import nbformat

DOCS = Path(__file__).parent
ROOT = DOCS.parent
NOTEBOOKS = ROOT / "examples" / "notebooks"
PAGES = ("from_integer_to_rope", "from_rope_to_a_million_tokens", "one_patch_in_an_image", "exercises")
SITE = "https://posenc.readthedocs.io/en/latest"

#: In a page: a block that is run, with its options and its code, or what the library draws there.
_PARTS = re.compile(
    r'^```python exec="true"(?P<options>[^\n]*)\n(?P<code>.*?)^```$'
    r"|^<!-- (?P<drawn>explore|pictures): (?P<what>.+?) -->$",
    re.M | re.S,
)
_START = """\
# Runs in a checkout of the repository, with: pip install -e ".[lab,docs]"
import os
from pathlib import Path

from IPython import get_ipython
from IPython.core.magic import register_cell_magic
from IPython.display import HTML, Markdown, display
from IPython.utils.capture import capture_output

os.chdir(next(folder for folder in [Path.cwd(), *Path.cwd().parents] if (folder / "mkdocs.yml").exists()))


@register_cell_magic
def as_markdown(line, cell):
    with capture_output() as said:
        get_ipython().run_cell(cell).raise_error()
    display((HTML if said.stdout.startswith("<") else Markdown)(said.stdout))"""
_EXPLORER = """\
from IPython.display import IFrame
from posenc.lab.explore.job import explore

explore("rope", Path("examples/notebooks/explorer.html"))
IFrame("explorer.html?view={}", "100%", 700)"""
_PICTURES = """\
from posenc.lab.drawing import plots
from posenc.lab.encodings.pictures import pictures_of
from posenc.lab.encodings.spec import parse

shape = {{"dim": 128, "num_heads": 4, "length": 128}}
for picture in pictures_of(parse("{}").build(**shape), **shape):
    display(HTML(f"<p><b>{{picture.title}}</b></p>{{plots.svg(picture)}}<p>{{picture.caption}}</p>"))"""


def notebook(page: Path) -> nbformat.NotebookNode:
    """The notebook of one page of the docs."""
    book = nbformat.v4.new_notebook(metadata={"kernelspec": {"name": "python3", "display_name": "Python 3"}})
    cells = list(_cells(page))
    title = cells[0]
    home = page.relative_to(DOCS).with_suffix("").as_posix()
    title.source += f"\n\nThis notebook is made from a [page of the documentation]({SITE}/{home}/)."
    book.cells = [title, nbformat.v4.new_code_cell(_START), *cells[1:]]
    for number, cell in enumerate(book.cells):
        cell.id = f"{page.stem[:40]}-{number}".replace("_", "-")  # the same in each writing
    nbformat.validate(book)
    return book


def _cells(page: Path) -> Iterator[nbformat.NotebookNode]:
    text, at = page.read_text(encoding="utf-8"), 0
    for part in [*_PARTS.finditer(text), None]:
        prose = _prose(text[at : part.start() if part else None], page)
        if prose:
            yield nbformat.v4.new_markdown_cell(prose)
        if part is None:
            return
        at = part.end()
        if part["drawn"]:
            source = _EXPLORER if part["drawn"] == "explore" else _PICTURES
            yield nbformat.v4.new_code_cell(source.format(part["what"]))
        else:
            hidden = 'source="above"' not in part["options"]
            yield nbformat.v4.new_code_cell(("%%as_markdown\n" if hidden else "") + part["code"].rstrip())


def _prose(text: str, page: Path) -> str:
    """Markdown as a notebook shows it: links lead to the site, and what the site folds stands open."""

    def link(found: re.Match[str]) -> str:
        path, _, anchor = found[1].partition("#")
        if path.startswith("http") or not path.endswith(".md"):
            return found[0]
        home = (page.parent / path).resolve().relative_to(DOCS).with_suffix("").as_posix()
        return f"]({SITE}/{home}/{'#' + anchor if anchor else ''})"

    text = re.sub(r"<details[^>]*><summary>(.*?)</summary>", r"**\1**", text).replace("</details>", "")
    return re.sub(r"\]\(([^)\s]+)\)", link, text).strip()


def main() -> None:
    """Write the notebooks."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--run", action="store_true", help="run each from top to bottom; the first error ends it")
    run = parser.parse_args().run
    NOTEBOOKS.mkdir(parents=True, exist_ok=True)
    for name in PAGES:
        book = notebook(DOCS / "tutorials" / f"{name}.md")
        path = NOTEBOOKS / f"{name}.ipynb"
        path.write_text(nbformat.writes(book) + "\n", encoding="utf-8")
        if run:
            from nbclient import NotebookClient

            NotebookClient(book, timeout=300, resources={"metadata": {"path": str(NOTEBOOKS)}}).execute()
        print(f"{path.relative_to(ROOT)}: {len(book.cells)} cells{', run without an error' if run else ''}")


if __name__ == "__main__":
    main()

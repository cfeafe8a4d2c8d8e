"""The notebooks are the pages of the docs: what is stored is what ``python docs/notebooks.py`` writes."""

import importlib.util
from pathlib import Path
from typing import Any

import nbformat
import pytest

ROOT = Path(__file__).parent.parent


def load() -> Any:
    spec = importlib.util.spec_from_file_location("notebooks_of_the_docs", ROOT / "docs" / "notebooks.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


notebooks = load()


@pytest.mark.parametrize("name", notebooks.PAGES)
def test_the_stored_notebook_is_the_page(name: str) -> None:
    made = notebooks.notebook(ROOT / "docs" / "tutorials" / f"{name}.md")
    stored = nbformat.read(ROOT / "examples" / "notebooks" / f"{name}.ipynb", as_version=4)
    assert stored == made, "the page has changed: python docs/notebooks.py"


def test_every_block_of_a_page_is_a_cell() -> None:
    page = ROOT / "docs" / "tutorials" / "exercises.md"
    text = page.read_text(encoding="utf-8")
    cells = [cell for cell in notebooks.notebook(page).cells if cell.cell_type == "code"]
    assert len(cells) == 1 + text.count("```python exec=")  # and one that sets things up
    assert not any("```python exec" in cell.source for cell in notebooks.notebook(page).cells)


@pytest.mark.slow
@pytest.mark.parametrize("name", notebooks.PAGES)
def test_a_notebook_runs(name: str) -> None:
    nbclient = pytest.importorskip("nbclient")
    pytest.importorskip("ipykernel")
    path = notebooks.NOTEBOOKS / f"{name}.ipynb"
    book = nbformat.read(path, as_version=4)
    nbclient.NotebookClient(book, timeout=300, resources={"metadata": {"path": str(path.parent)}}).execute()
    outputs = [output for cell in book.cells if cell.cell_type == "code" for output in cell.outputs]
    assert len(outputs) > 5

"""The plan of the house, as far as a test can hold it: paths, arrows, public names, lazy imports, docstrings."""

import ast
import importlib
import inspect
import re
import runpy
import subprocess
import sys
from pathlib import Path

import pytest

import posenc
from posenc.catalogue import CATALOGUE, Row

ROOT = Path(__file__).parent.parent
SRC = ROOT / "src" / "posenc"
CODE = (".py", ".cpp", ".cc", ".h", ".js", ".html", ".css")
OWN = {"lab": ("posenc.lab.",), "integrations": ("posenc.integrations.",)}
PLACES = ("embeddings", "queries_keys", "scores")


# Concepts that belong to none of the three places.
ELSEWHERE = ("none", "ssmax", "temperature")


def within(path: Path) -> tuple[str, ...]:
    """The folders of the package that a file is in, and its name: those around a checkout may have any name."""
    return path.relative_to(SRC).parts


def modules(folder: str = "") -> list[Path]:
    return sorted(path for path in (SRC / folder).rglob("*.py") if path.name != "__init__.py")


def imports(path: Path) -> set[str]:
    """What a file imports, anywhere in it: names as written, relative ones are not used in this house."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: a relative import"
            found |= {node.module or ""} | {f"{node.module}.{alias.name}" for alias in node.names}
    return found


def imports_any(path: Path, *packages: str) -> set[str]:
    return {name for name in imports(path) if any(name == p or name.startswith(p + ".") for p in packages)}


ORACLE = modules("oracle")

# One concept, one path


def concepts() -> list[str]:
    files = [path for place in PLACES for path in modules(place) if not path.name.startswith("_")]
    return [str(path.relative_to(SRC).with_suffix("")) for path in files]


@pytest.mark.parametrize("concept", [*concepts(), *ELSEWHERE])
def test_a_concept_has_the_same_path_in_every_tree(concept: str) -> None:
    name = Path(concept)
    assert (SRC / "oracle" / f"{concept}.py").exists()
    assert (ROOT / "tests" / name.parent / f"test_{name.name}.py").exists()
    assert (ROOT / "tests" / "oracle" / name.parent / f"test_{name.name}.py").exists()
    assert (ROOT / "docs" / "encodings" / f"{concept}.md").exists()


@pytest.mark.parametrize("entry", CATALOGUE, ids=lambda row: row.name)
def test_a_row_of_the_catalogue_is_true(entry: Row) -> None:
    cls = entry.load()
    assert entry.home == f"{cls.__module__.removeprefix('posenc.')}:{cls.__name__}"
    assert cls.places == (() if entry.place == "none" else (entry.place,))
    assert (
        getattr(posenc, cls.__name__, None) is cls
        or getattr(importlib.import_module(f"posenc.{entry.place}"), cls.__name__) is cls
    )
    assert entry.home.split(":")[0] in {*(concept.replace("/", ".") for concept in concepts()), *ELSEWHERE}


def test_every_file_at_a_place_is_in_the_catalogue() -> None:
    homes = {row.home.split(":")[0].replace(".", "/") for row in CATALOGUE}
    assert set(concepts()) <= homes


# Import arrows


@pytest.mark.parametrize("path", ORACLE, ids=str)
def test_the_oracle_imports_numpy_alone(path: Path) -> None:
    assert {name.split(".")[0] for name in imports(path)} <= {"numpy"}


@pytest.mark.parametrize(
    "path",
    # Golden vectors are for code of others, which they must not share a line with.
    [p for p in SRC.rglob("*.py") if "oracle" not in within(p) and p != SRC / "lab" / "vectors.py"],
    ids=str,
)
def test_nothing_in_the_library_imports_the_oracle(path: Path) -> None:
    assert not imports_any(path, "posenc.oracle")


@pytest.mark.parametrize("path", modules("frequencies"), ids=str)
def test_frequencies_import_numpy_and_themselves(path: Path) -> None:
    assert not imports_any(path, "torch")
    assert {n for n in imports(path) if n.startswith("posenc.")} <= {
        n for n in imports(path) if n.startswith("posenc.frequencies")
    }


@pytest.mark.parametrize("path", [p for place in PLACES for p in modules(place)], ids=str)
def test_the_three_places_import_only_what_is_below_them(path: Path) -> None:
    allowed = (
        "posenc.encoding",
        "posenc.frequencies",
        "posenc.positions",
        "posenc.kernels",
        f"posenc.{path.parts[-2]}",
    )
    below = {name for name in imports(path) if name.startswith("posenc")}
    assert all(name.startswith(allowed) for name in below), below


@pytest.mark.parametrize("path", [p for p in modules() if "lab" not in within(p) and p != SRC / "__main__.py"], ids=str)
def test_nothing_imports_the_lab_or_the_integrations(path: Path) -> None:
    assert not imports_any(path, "posenc.lab")
    if "integrations" not in within(path):
        assert not imports_any(path, "posenc.integrations", "transformers")


@pytest.mark.parametrize("path", modules("kernels"), ids=str)
def test_kernels_know_nothing_above_them(path: Path) -> None:
    assert all(name.startswith("posenc.kernels") for name in imports(path) if name.startswith("posenc"))


# Floors: the lists of docs/architecture.md are the ones that are tested

ARCHITECTURE = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")


def floors(name: str) -> dict[str, int]:
    """The floor of each folder, counted from the ground."""
    block = ARCHITECTURE.split(f"```{name}\n")[1].split("```")[0].strip().splitlines()
    return {folder: floor for floor, line in enumerate(reversed(block)) for folder in line.split()}


MODULES = {
    ".".join(path.relative_to(SRC.parent).with_suffix("").parts).removesuffix(".__init__"): path
    for path in SRC.rglob("*.py")
}


def runtime_imports(path: Path) -> set[str]:
    """All imports of a file, those inside functions and by name too, but not those that only a type checker sees."""
    tree = ast.parse(path.read_text())
    hidden = {
        id(inner)
        for node in ast.walk(tree)
        if isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING"
        for inner in ast.walk(node)
    }
    found = loaded_by_name(path, tree)
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and id(node) not in hidden:
            found |= {node.module or ""} | {f"{node.module}.{alias.name}" for alias in node.names}
        elif isinstance(node, ast.Import) and id(node) not in hidden:
            found |= {alias.name for alias in node.names}
    return found


def loaded_by_name(path: Path, tree: ast.Module) -> set[str]:
    """What a file loads by ``import_module``: all modules whose name begins as the file says."""
    if path == SRC / "catalogue.py":
        return {f"posenc.{entry.home.split(':')[0]}" for entry in CATALOGUE}
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and ast.unparse(node.func).endswith("import_module"):
            (name,) = node.args
            text = name.values[0] if isinstance(name, ast.JoinedStr) else name
            if isinstance(text, ast.Constant) and isinstance(text.value, str):
                found |= {module for module in MODULES if module.startswith(text.value)}
    return found


def rises(name: str, folder: Path, package: str) -> list[str]:
    """The arrows from a folder to a higher floor, or to a neighbour on its own."""
    floor = floors(name)
    arrows = []
    for path in sorted(folder.rglob("*.py")):
        home = path.relative_to(folder).parts[0].removesuffix(".py")
        if home not in floor:
            continue
        for target in runtime_imports(path):
            room = target.removeprefix(package).split(".")[0]
            if target.startswith(package) and room in floor and room != home and floor[room] >= floor[home]:
                arrows.append(f"{path.relative_to(folder)} imports {target}")
    return arrows


def test_no_arrow_of_the_library_goes_up() -> None:
    assert rises("floors", SRC, "posenc.") == []


def test_no_arrow_of_the_lab_goes_up() -> None:
    assert rises("lab-floors", SRC / "lab", "posenc.lab.") == []


@pytest.mark.parametrize(("plan", "folder"), [("floors", SRC), ("lab-floors", SRC / "lab")])
def test_every_room_is_on_the_plan(plan: str, folder: Path) -> None:
    rooms = {p.stem for p in folder.iterdir() if p.suffix == ".py" or any(p.glob("*.py"))}
    assert rooms - {"__init__", "__main__"} == set(floors(plan))


@pytest.mark.parametrize("plan", ["floors", "lab-floors"])
def test_the_picture_of_the_house_shows_every_room_and_lines_that_go_down(plan: str) -> None:
    drawn = runpy.run_path(str(ROOT / "docs" / "house.py"))
    floor = floors(plan)
    assert {room for line in drawn["floors"](plan) for room in line} == set(floor)
    arrows, picture = drawn["arrows"](plan), drawn["picture"](plan)  # each reads all of src
    assert arrows
    assert all(floor[home] > floor[room] for home, room in arrows)
    assert all(f">{room}</text>" in picture for room in floor)


def test_no_imports_go_in_a_circle() -> None:
    """Between files, those inside functions and by import_module counted; a package's __init__ is one of its own."""
    graph = {name: {t for t in runtime_imports(path) if t in MODULES and t != name} for name, path in MODULES.items()}
    # "from posenc import X" asks the root for a name that it loads from elsewhere: no arrow from the root is followed.
    graph["posenc"] = set()
    done: set[str] = set()

    def walk(name: str, above: tuple[str, ...]) -> None:
        assert name not in above, " -> ".join([*above[above.index(name) :], name])
        if name not in done:
            for target in sorted(graph[name]):
                if not name.startswith(f"{target}."):
                    walk(target, (*above, name))
            done.add(name)

    for name in graph:
        walk(name, ())


@pytest.mark.parametrize("path", [p for p in SRC.rglob("*") if p.suffix in CODE], ids=str)
def test_no_file_is_longer_than_400_lines(path: Path) -> None:
    assert len(path.read_text(encoding="utf-8").splitlines()) <= 400


@pytest.mark.parametrize("path", [*modules("lab"), *modules("integrations")], ids=str)
def test_lab_and_integrations_use_public_names(path: Path) -> None:
    """No name of the library with an underscore; and no kernels in the lab, except to compile them ahead."""
    outside = {name for name in imports_any(path, "posenc") if not name.startswith(OWN[within(path)[0]])}
    assert not [
        name for name in outside if any(part.startswith("_") and part != "__version__" for part in name.split("."))
    ]
    if "lab" in within(path) and path != SRC / "lab" / "build.py":
        assert not [name for name in outside if name.startswith("posenc.kernels")]


# Names and imports


def test_the_public_names_are_few_and_all_resolve() -> None:
    assert len(posenc.__all__) <= 45
    for name in posenc.__all__:
        assert getattr(posenc, name) is not None
    assert set(posenc.__all__) <= set(dir(posenc))
    with pytest.raises(AttributeError, match="no attribute 'ROPE'"):
        posenc.ROPE  # noqa: B018


def test_no_public_name_is_also_a_file() -> None:
    """Importing posenc.x would hide the function x behind the module."""
    functions = {name for name in posenc.__all__ if not inspect.ismodule(getattr(posenc, name))}
    assert not functions & {path.stem for path in SRC.iterdir()}


def test_type_checkers_and_the_interpreter_see_the_same_names() -> None:
    source = ast.parse((SRC / "__init__.py").read_text())
    (block,) = (node for node in source.body if isinstance(node, ast.If))
    imported = [alias.name for node in block.body if isinstance(node, ast.ImportFrom) for alias in node.names]
    assert sorted(imported) == sorted(posenc.__all__)


def fresh(code: str) -> str:
    return subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout.strip()


def test_import_posenc_is_light() -> None:
    """In a fresh process, after torch: the library itself and jaxtyping, and no other package."""
    code = (
        "import sys, torch; before = set(sys.modules); import posenc;"
        "print(*{name.partition('.')[0] for name in set(sys.modules) - before} - sys.stdlib_module_names)"
    )
    assert set(fresh(code).split()) <= {"posenc", "jaxtyping"}


def test_using_the_library_loads_none_of_the_heavy_packages() -> None:
    code = (
        "import sys, torch; torch_brings = set(sys.modules); import posenc;"
        "[getattr(posenc, n) for n in posenc.__all__];"
        "q = torch.randn(1, 4, 3, 8); e = posenc.make('rope', dim=32, num_heads=4);"
        "posenc.attention(*e.on_queries_keys(q, q), q, e, causal=True);"
        "print(*(m for m in ('transformers', 'matplotlib', 'triton', 'rich', 'typer')"
        " if m in sys.modules and m not in torch_brings))"
    )
    assert fresh(code) == ""


def test_the_oracle_needs_no_torch() -> None:
    files = ", ".join(f"posenc.oracle.{'.'.join(p.relative_to(SRC / 'oracle').with_suffix('').parts)}" for p in ORACLE)
    assert fresh(f"import sys, {files}; print('torch' in sys.modules)") == "False"


def test_the_command_line_answers_at_once() -> None:
    """The help of the command imports nothing that takes long to import."""
    said = fresh(
        "import runpy, sys; sys.argv = ['posenc', '--help']\n"
        "try: runpy.run_module('posenc', run_name='__main__')\n"
        "except SystemExit as done: assert not done.code\n"
        "print(*sorted({name.partition('.')[0] for name in sys.modules}))"
    )
    help_text, _, imported = said.rpartition("\n")
    assert "compare" in help_text
    assert "typer" in imported.split()
    assert not {"torch", "numpy", "transformers", "matplotlib", "joblib", "jinja2", "tokenizers"} & set(
        imported.split()
    )


# Words


@pytest.mark.parametrize("entry", CATALOGUE, ids=lambda row: row.name)
def test_a_docstring_has_its_headings_in_order(entry: Row) -> None:
    doc = inspect.getdoc(entry.load()) or ""
    headings = ["Place: ", "Learned: ", "Relative: ", "Keys may be cached: "]
    if entry.place != "none":
        headings += [".. math::", "Args:", "Shape:", "Precision:", "Raises:"]
    headings += ["Example:", ">>> ", "References:"]
    found = [doc.find(heading) for heading in headings]
    assert -1 not in found, dict(zip(headings, found, strict=True))
    assert found == sorted(found)
    assert f"Place: {entry.place}." in doc


def test_a_heading_with_text_behind_it_goes_on_below_it() -> None:
    """The site shows text that is indented there as a box, with the first line as its title."""
    found = [
        (str(path), match[0])
        for path in SRC.rglob("*.py")
        for match in re.finditer(r"^( +)Precision: \S.*\n\1 +\S.*", path.read_text(encoding="utf-8"), re.M)
    ]
    assert not found


@pytest.mark.parametrize("name", [n for n in posenc.__all__ if n != "testing"])
def test_every_public_name_has_a_docstring(name: str) -> None:
    assert len((inspect.getdoc(getattr(posenc, name)) or "").splitlines()) >= 1


@pytest.mark.parametrize("path", [p for p in SRC.rglob("*.py") if "testing" not in within(p)], ids=str)
def test_a_users_mistake_is_never_an_assert(path: Path) -> None:
    assert not [node.lineno for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Assert)]


@pytest.mark.parametrize("name", sorted({row.load().__name__ for row in CATALOGUE} | {"Compose"}))
def test_every_encoding_is_marked_final(name: str) -> None:
    classes = {row.load().__name__: row.load() for row in CATALOGUE} | {"Compose": posenc.Compose}
    assert getattr(classes[name], "__final__", False)


@pytest.mark.parametrize("name", ["posenc.scores.Content", "posenc.scores.ScoreMod", "posenc.explanation.Choice"])
def test_what_users_subclass_with_has_a_public_home(name: str) -> None:
    home, _, attribute = name.rpartition(".")
    assert hasattr(importlib.import_module(home), attribute)

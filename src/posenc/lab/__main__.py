"""The entry point of the ``posenc`` command. It turns an error into one message on stderr and a nonzero exit code."""

import codecs
import errno
import io
import linecache
import os
import sys
from pathlib import Path
from types import TracebackType

from posenc.lab.run.errors import number_of
from posenc.lab.run.signals import ended_as_by_ctrl_c

LAB_EXTRA = frozenset(
    {"filelock", "jinja2", "joblib", "matplotlib", "msgspec", "rich", "safetensors", "tokenizers", "typer"}
)
EXTEND_EXTRA = frozenset(["accelerate", "gguf", "peft", "transformers"])
BUG = 70
"""The exit code of a fault of posenc, which sysexits.h calls EX_SOFTWARE."""
STOPPED = 128
"""The exit code of a signal is this and its number: 130 for Ctrl-C."""


#: What is printed where the encoding of a terminal or a pipe lacks a character, such as ASCII or Windows' cp1252.
PLAIN = {
    **dict(zip("\u00d7±…→\u00a0“”\u2013", ("x", "+-", "...", "->", " ", '"', '"', "-"), strict=True)),
    **dict(zip("░▒▓█▁▂▃▄▅▆▇", ".+%#_.:-=+*", strict=True)),
}


def main() -> None:
    """Run the command line."""
    _print_in_any_encoding()
    debug = "--debug" in sys.argv  # taken out here, so that it works before the verb and after it
    sys.argv[1:] = [argument for argument in sys.argv[1:] if argument != "--debug"]
    verb = next((word for word in sys.argv[1:] if not word.startswith("-")), "")
    try:
        with ended_as_by_ctrl_c():
            from posenc.lab.cli import app

            app(prog_name="posenc")
    except KeyboardInterrupt as stop:  # while the command is imported: a verb says it itself
        print(f"posenc {verb}: stopped." if verb else "posenc: stopped.", file=sys.stderr)
        sys.exit(STOPPED + number_of(stop))
    except SystemExit as end:
        lost = _let_go_of_stdout()
        if lost is None or end.code not in (0, None):
            raise
        sys.exit(1 if isinstance(lost, BrokenPipeError) else _explain(lost, verb))  # head has read what it wants
    except Exception as error:
        if debug:
            raise
        code = _explain(error, verb)
        _let_go_of_stdout()
        sys.exit(code)


def _print_in_any_encoding() -> None:
    """Make stdout and stderr print a plain character in place of one that they cannot encode, unless the user said what
    to do (``PYTHONIOENCODING``)."""
    codecs.register_error("posenc", _plain)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper) and stream.errors in ("strict", "surrogateescape"):
            stream.reconfigure(errors="posenc")


def _plain(error: UnicodeError) -> tuple[str | bytes, int]:
    """The replacement of one character; a byte of a file's name that is no text stays that byte."""
    if not isinstance(error, UnicodeEncodeError):
        raise error
    character = error.object[error.start]
    if "\udc80" <= character <= "\udcff":
        return bytes([ord(character) - 0xDC00]), error.start + 1
    return PLAIN.get(character, ascii(character)[1:-1]), error.start + 1


def _let_go_of_stdout() -> OSError | None:
    """Write what waits for it; why that was not possible. Python would try once more at its end, and say so."""
    try:
        if sys.stdout is not None:
            sys.stdout.flush()
    except OSError as error:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return error
    return None


def _explain(error: Exception, verb: str = "") -> int:
    """Print what went wrong; the exit code."""
    from posenc.lab.run.errors import RunError

    code = 1
    if isinstance(error, RunError):
        message, code = str(error), error.exit_code
    elif isinstance(error, ModuleNotFoundError) and (package := str(error.name).partition(".")[0]) in LAB_EXTRA:
        message = f'this command needs {package}; install the lab extra: pip install "posenc[lab]"'
    elif isinstance(error, ModuleNotFoundError) and (package := str(error.name).partition(".")[0]) in EXTEND_EXTRA:
        message = f'the command needs {package}; install two extras: pip install "posenc[lab,extend]"'
    elif _is_of_memory(error):
        message = "there is not enough memory for this; use a shorter length, fewer channels or a smaller batch."
    elif isinstance(error, OSError):
        named = "" if error.filename is None else f"{error.filename}: "
        message = f"{named}{error.strerror}{_advice(error)}" if error.strerror else str(error)
    elif isinstance(error, (ValueError, TypeError, ImportError)) and _is_ours(error.__traceback__):
        message = str(error)
    else:
        what = f"{type(error).__name__}: {error}".strip().splitlines()[0]
        message, code = f"internal error, a bug in posenc; --debug shows where: {what}", BUG
    for prefix in ("posenc: ", f"posenc {verb}: ", f"{verb}: ", "describe: "):
        message = message.removeprefix(prefix) if verb else message.removeprefix("posenc: ")
    print(_printable(f"posenc {verb}: {message}" if verb else f"posenc: {message}"), file=sys.stderr)
    return code


def _is_of_memory(error: Exception) -> bool:
    """Whether memory ran out. PyTorch is not imported for its error class; on CPUs it has none for this."""
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":
        return True
    return isinstance(error, RuntimeError) and "can't allocate memory" in str(error)


def _advice(error: OSError) -> str:
    """What a user can do about a file that cannot be read or written."""
    said = {
        errno.ENOENT: "check the spelling of the path",
        errno.EISDIR: "name a file in it",
        errno.ENOTDIR: "a part of the path is a file, expected a folder; name another path",
        errno.EEXIST: "there is a file where a new folder is needed; name another path",
        errno.ENOSPC: "free some space, or name a place on another disk",
    }
    no_right = "you have no permission to read or write it; name another path"
    said |= dict.fromkeys((errno.EACCES, errno.EPERM, errno.EROFS), no_right)
    advice = said.get(error.errno or 0)
    return f"; {advice}." if advice else ""


def _is_ours(trace: TracebackType | None) -> bool:
    """Whether posenc raised the error on purpose, as it does for errors that a user can correct."""
    if trace is None:
        return False
    while trace.tb_next is not None:
        trace = trace.tb_next
    file = Path(trace.tb_frame.f_code.co_filename)
    line = linecache.getline(str(file), trace.tb_lineno).strip()
    return line.startswith("raise ") and Path(__file__).parents[1] in file.parents


def _printable(message: str) -> str:
    """Escape control characters: a message may quote a file. Without the lab extra no verb reads files."""
    try:
        from posenc.lab.run.printable import printable
    except ModuleNotFoundError:
        return message
    return printable(message)


if __name__ == "__main__":
    main()

"""The one door of the ``posenc`` command: every known error leaves through it as one message."""

import sys

LAB_EXTRA = frozenset({"filelock", "joblib", "matplotlib", "rich", "safetensors", "tokenizers", "typer"})

EXTEND_EXTRA = frozenset({"accelerate", "gguf", "peft", "transformers"})


def main() -> None:
    """Run the command line, and turn every known error into one line on stderr and an exit code that is not zero."""
    debug = "--debug" in sys.argv  # taken out here, so that it works before the verb and after it
    sys.argv[1:] = [argument for argument in sys.argv[1:] if argument != "--debug"]
    try:
        from posenc.lab.cli import app

        app(prog_name="posenc")
    except Exception as error:
        if debug:
            raise
        sys.exit(_explain(error))


def _explain(error: Exception) -> int:
    """Print what went wrong; the exit code."""
    from posenc.lab.run.errors import RunError

    if isinstance(error, RunError):
        message, code = str(error), error.exit_code
    elif isinstance(error, ModuleNotFoundError) and (package := str(error.name).partition(".")[0]) in LAB_EXTRA:
        message, code = f'the command needs {package}; install the lab extra: pip install "posenc[lab]"', 1
    elif isinstance(error, ModuleNotFoundError) and (package := str(error.name).partition(".")[0]) in EXTEND_EXTRA:
        message, code = f'the command needs {package}; install two extras: pip install "posenc[lab,extend]"', 1
    elif isinstance(error, OSError) and error.filename is not None:
        message, code = f"{error.filename}: {error.strerror}", 1
    elif isinstance(error, (ValueError, TypeError, OSError)):
        message, code = str(error), 1
    else:
        raise error
    print(f"posenc: {_printable(message.removeprefix('posenc: '))}", file=sys.stderr)
    return code


def _printable(message: str) -> str:
    """A message may quote what a file says; without the lab extra there is nothing that reads files."""
    try:
        from posenc.lab.run.printable import printable
    except ModuleNotFoundError:
        return message
    return printable(message)


if __name__ == "__main__":
    main()

"""Errors of a run that a user can do something about."""

import contextlib
import shlex
import signal
from collections.abc import Iterator, Sequence


class RunError(Exception):
    """A run cannot start or continue; the message says what to do."""

    exit_code = 1


class Interrupted(RunError):
    """A signal stopped the run; the finished work is kept."""

    def __init__(self, message: str, signal_number: int) -> None:
        super().__init__(message)
        self.signal_number = signal_number
        self.exit_code = 128 + signal_number


class Stopped(KeyboardInterrupt):
    """SIGTERM or SIGHUP, which unwinds a process as Ctrl-C does: files are closed, and other processes ended."""

    def __init__(self, signal_number: int) -> None:
        super().__init__()
        self.signal_number = signal_number


def number_of(stop: KeyboardInterrupt) -> int:
    """The signal that stopped this process."""
    return stop.signal_number if isinstance(stop, Stopped) else int(signal.SIGINT)


@contextlib.contextmanager
def resumable(again: Sequence[str]) -> Iterator[None]:
    """Add to the error of a stopped or failed run the command that continues the run."""
    command = shlex.join(again)
    try:
        yield
    except KeyboardInterrupt as stop:
        text = f"stopped; the finished work is kept; continue with: {command}"
        raise Interrupted(text, number_of(stop)) from None
    except Interrupted as error:
        raise Interrupted(f"{error}; continue with: {command}", error.signal_number) from None
    except SystemExit:  # rich's, where nobody reads what it prints (posenc compare | head)
        raise RunError(f"stdout was closed; the finished work is kept; continue with: {command}") from None
    except RunError as error:
        raise RunError(
            f"{error}\nThe finished work is kept; after you have corrected the cause, continue with: {command}"
        ) from error

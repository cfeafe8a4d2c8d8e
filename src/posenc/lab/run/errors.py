"""Errors of a run that a user can do something about."""

import contextlib
import shlex
import signal
from collections.abc import Iterator, Sequence


class RunError(Exception):
    """A run cannot start or go on; the message says what to do."""

    exit_code = 1


class Interrupted(RunError):
    """A signal stopped the run, and what was done is kept."""

    def __init__(self, message: str, signal_number: int) -> None:
        super().__init__(message)
        self.signal_number = signal_number
        self.exit_code = 128 + signal_number


@contextlib.contextmanager
def resumable(again: Sequence[str]) -> Iterator[None]:
    """Work that can go on after a stop or a failure: the message says by which command."""
    command = shlex.join(again)
    try:
        yield
    except KeyboardInterrupt:
        raise Interrupted(f"stopped; what is done is kept; go on with: {command}", signal.SIGINT) from None
    except Interrupted as error:
        raise Interrupted(f"{error}; go on with: {command}", error.signal_number) from None
    except RunError as error:
        raise RunError(f"{error}\nWhat was done is kept; when mended, go on with: {command}") from error

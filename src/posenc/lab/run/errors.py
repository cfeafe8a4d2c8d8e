"""Errors of a run that a user can do something about."""


class RunError(Exception):
    """A run cannot start or go on; the message says what to do."""

    exit_code = 1


class Interrupted(RunError):
    """A signal stopped the run, and what was done is kept."""

    def __init__(self, message: str, signal_number: int) -> None:
        super().__init__(message)
        self.signal_number = signal_number
        self.exit_code = 128 + signal_number

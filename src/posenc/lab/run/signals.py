"""The cores of this machine, and Ctrl-C as a request to stop in good order."""

import contextlib
import os
import signal
from collections.abc import Callable, Iterator
from types import FrameType


def cores() -> int:
    """Cores that this process may use."""
    import joblib  # here: the verbs are declared without it

    return int(joblib.cpu_count())


@contextlib.contextmanager
def listening(act: Callable[[int], object]) -> Iterator[list[int]]:
    """Let the first Ctrl-C or SIGTERM ``act``, and the second end this process at once.

    The numbers of the signals that came are in the list.
    """
    received: list[int] = []

    def handle(number: int, frame: FrameType | None) -> None:
        if received:
            os._exit(128 + number)  # workers see that their parent is gone
        received.append(number)
        act(number)

    previous = {number: signal.signal(number, handle) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield received
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)

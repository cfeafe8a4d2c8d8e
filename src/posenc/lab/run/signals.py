"""The cores of this machine, and the handling of Ctrl-C as a request to stop cleanly."""

import contextlib
import os
import signal
from collections.abc import Callable, Iterator
from types import FrameType


def cores() -> int:
    """The number of cores that this process may use."""
    import joblib  # imported here because declaring the verbs does not need it

    return int(joblib.cpu_count())


@contextlib.contextmanager
def listening(act: Callable[[int], object]) -> Iterator[list[int]]:
    """Call ``act`` at the first Ctrl-C or SIGTERM, and end this process at the second.

    The list receives the numbers of the signals.
    """
    received: list[int] = []

    def handle(number: int, frame: FrameType | None) -> None:
        if received:
            os._exit(128 + number)  # workers notice that their parent is gone
        received.append(number)
        act(number)

    previous = {number: signal.signal(number, handle) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield received
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)

"""The cores of this machine, and the handling of Ctrl-C, SIGTERM and SIGHUP as a request to stop cleanly."""

import contextlib
import os
import signal
import threading
from collections.abc import Callable, Iterator
from types import FrameType

from posenc.lab.run.errors import Stopped


def cores() -> int:
    """The number of cores that this process may use."""
    import joblib  # imported here because declaring the verbs does not need it

    return int(joblib.cpu_count())


def _ending() -> list[signal.Signals]:
    """SIGTERM, and SIGHUP of a terminal that is closed, if the system has it; not what nohup or a parent ignores."""
    named = (getattr(signal, name, None) for name in ("SIGTERM", "SIGHUP"))
    return [number for number in named if number is not None and signal.getsignal(number) is not signal.SIG_IGN]


@contextlib.contextmanager
def ended_as_by_ctrl_c() -> Iterator[None]:
    """Let SIGTERM and SIGHUP unwind this process as Ctrl-C does, by :class:`~posenc.lab.run.errors.Stopped`.

    At their default they leave partial files, and compilers that go on.
    """

    def handle(number: int, frame: FrameType | None) -> None:
        raise Stopped(number)

    with _handled(_ending(), handle):
        yield


@contextlib.contextmanager
def listening(act: Callable[[int], object]) -> Iterator[list[int]]:
    """Call ``act`` at the first Ctrl-C, SIGTERM or SIGHUP, and end this process at the second.

    The list receives the numbers of the signals.
    """
    received: list[int] = []

    def handle(number: int, frame: FrameType | None) -> None:
        if received:
            os._exit(128 + number)  # workers notice that their parent is gone
        received.append(number)
        act(number)

    with _handled([signal.SIGINT, *_ending()], handle):
        yield received


@contextlib.contextmanager
def _handled(numbers: list[signal.Signals], handle: Callable[[int, FrameType | None], None]) -> Iterator[None]:
    """Handle these signals, afterwards as before; in a thread, which can set no handlers, as before throughout."""
    here = threading.current_thread() is threading.main_thread()
    previous = {number: signal.signal(number, handle) for number in numbers if here}
    try:
        yield
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)

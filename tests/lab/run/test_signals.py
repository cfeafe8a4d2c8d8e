"""Signals end a job cleanly, where they can be handled."""

import signal
import threading

from posenc.lab.run.signals import ended_as_by_ctrl_c, listening


def test_a_job_in_a_thread_leaves_the_handlers_alone() -> None:
    """Python sets handlers in the main thread only; a job that a notebook starts in another one failed."""
    before = signal.getsignal(signal.SIGINT)
    seen: list[object] = []

    def work() -> None:
        with ended_as_by_ctrl_c(), listening(seen.append) as received:
            seen.append((received, signal.getsignal(signal.SIGINT)))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert seen == [([], before)]

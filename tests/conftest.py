"""What holds for every test."""

import os
import signal

import pytest
import torch

# A shell starts a command with "&" or "nohup" so that it ignores these; what a test stops would inherit that.
for _signal, _handler in ((signal.SIGINT, signal.default_int_handler), (signal.SIGHUP, signal.SIG_DFL)):
    if signal.getsignal(_signal) is signal.SIG_IGN:
        signal.signal(_signal, _handler)


@pytest.fixture(autouse=True)
def _seed() -> None:
    """A test draws the same numbers, whichever tests ran before it; POSENC_TEST_SEED=1 tries other numbers."""
    torch.manual_seed(int(os.environ.get("POSENC_TEST_SEED", "0")))

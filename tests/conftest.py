"""What holds for every test."""

import os

import pytest
import torch


@pytest.fixture(autouse=True)
def _seed() -> None:
    """A test draws the same numbers, whichever tests ran before it; POSENC_TEST_SEED=1 tries other numbers."""
    torch.manual_seed(int(os.environ.get("POSENC_TEST_SEED", "0")))

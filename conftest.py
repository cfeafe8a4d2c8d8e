"""For all tests and doctests: without a GPU, Triton kernels run in its interpreter, which it asks for on import."""

import importlib.util
import os

import torch

if importlib.util.find_spec("triton") is not None and not torch.cuda.is_available():
    os.environ.setdefault("TRITON_INTERPRET", "1")

"""For all tests and doctests: without a GPU, Triton kernels run in its interpreter, which it asks for on import."""

import importlib.util
import os

import torch

collect_ignore = []
if importlib.util.find_spec("triton") is None:
    collect_ignore += ["src/posenc/kernels/rotate/triton.py"]  # which has doctests collected, and so is imported
elif not torch.cuda.is_available():
    os.environ.setdefault("TRITON_INTERPRET", "1")

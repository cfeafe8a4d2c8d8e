"""Tensors that are spread over several processes: PyTorch's DTensor."""

import torch
from torch import Tensor


def is_distributed(x: object) -> bool:
    """Whether x is a DTensor. Nothing of torch.distributed is imported to find out."""
    return type(x) is not Tensor and type(x).__name__ == "DTensor"


def check_replicates(name: str, *tensors: object) -> None:
    """Refuse DTensors where plain tensors, such as positions and masks, do not count as the same in all processes.

    Raises:
        ValueError: a DTensor outside of ``implicit_replication``.
    """
    if not any(is_distributed(x) for x in tensors):
        return
    from torch.distributed.tensor import DTensor

    dispatcher = getattr(DTensor, "_op_dispatcher", None)
    if not getattr(dispatcher, "_allow_implicit_replication", True) and not torch.compiler.is_compiling():
        raise ValueError(
            f"{name}: got a DTensor, expected it to be within torch.distributed.tensor.experimental."
            "implicit_replication(), so that positions and masks, which are plain tensors, count as the same in all "
            "processes; put the forward and the backward in it."
        )

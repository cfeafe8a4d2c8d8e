"""One job in several processes, as `torchrun` and `accelerate launch` start them."""

import contextlib
import datetime
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

#: The first process may measure for hours while the others wait for what it finds.
PATIENCE = datetime.timedelta(days=2)


@dataclass(frozen=True)
class Processes:
    """The processes that do one job together. Alone, each call is the identity.

    Attributes:
        rank: which one this is.
        size: how many there are.
    """

    rank: int = 0
    size: int = 1

    @property
    def is_first(self) -> bool:
        """Whether this is the one that writes and prints."""
        return self.rank == 0

    def share(self, value: Any) -> Any:
        """What the first process has, small and plain data, in all of them. They wait for each other here."""
        if self.size == 1:
            return value
        box = [value]
        torch.distributed.broadcast_object_list(box)
        return box[0]

    def sum(self, tensors: Sequence[Tensor]) -> None:
        """Replace tensors by their sums over all processes."""
        if self.size == 1:
            return
        for tensor in tensors:
            whole = tensor.contiguous()
            torch.distributed.all_reduce(whole)
            tensor.copy_(whole)


@contextlib.contextmanager
def joined(device: torch.device) -> Iterator[Processes]:
    """Join the others, if a launcher started several of these processes.

    Both launchers say so by the same environment (``WORLD_SIZE``, ``RANK``, ``MASTER_ADDR``). A process group that
    exists is used, and left as it is.
    """
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        yield Processes(torch.distributed.get_rank(), torch.distributed.get_world_size())
    elif int(os.environ.get("WORLD_SIZE", "1")) > 1:
        if device.type == "cuda":
            torch.cuda.set_device(device)
        torch.distributed.init_process_group("nccl" if device.type == "cuda" else "gloo", timeout=PATIENCE)
        try:
            yield Processes(torch.distributed.get_rank(), torch.distributed.get_world_size())
        finally:
            torch.distributed.destroy_process_group()
    else:
        yield Processes()


def local_device(kind: str) -> str:
    """The device of this process: "cuda" is the one of its number on this machine."""
    return f"cuda:{os.environ.get('LOCAL_RANK', '0')}" if kind == "cuda" else kind

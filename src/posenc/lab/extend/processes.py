"""Runs one job in several processes that `torchrun` or `accelerate launch` started."""

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
    """The processes of one job. With a single process, each call returns its argument.

    Attributes:
        rank: the number of this process.
        size: the number of processes.
    """

    rank: int = 0
    size: int = 1

    @property
    def is_first(self) -> bool:
        """Whether this process writes files and prints."""
        return self.rank == 0

    def share(self, value: Any) -> Any:
        """Return the first process's value (small, plain data) in all processes. They wait for each other here."""
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
    """Join the other processes, if a launcher started several.

    Both launchers set the same environment variables (``WORLD_SIZE``, ``RANK``, ``MASTER_ADDR``). A process group that
    exists already is used and kept.
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
    """The device of this process: "cuda" means the GPU with the process's local rank."""
    return f"cuda:{os.environ.get('LOCAL_RANK', '0')}" if kind == "cuda" else kind

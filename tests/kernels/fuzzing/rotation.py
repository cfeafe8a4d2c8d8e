"""Random calls of the compiled rotation."""

import random
from typing import Any

import torch
from tests.kernels.fuzzing.tensors import DTYPES, HUGE, spoiled, strided

from posenc.kernels.rotate import choosing, eager
from posenc.kernels.rotate import op as op  # registers the operators

SOURCE, LEVELS, SET_LEVEL = choosing.SOURCE, len(choosing.LEVELS), "posenc_rotate_set_level"


def good_call() -> tuple[Any, list[Any]]:
    """An operator and arguments that it must take."""
    names = ("_rotate", "_rotate_", "rotate", "rotate_")
    return getattr(torch.ops.posenc, random.choice(names)), good_arguments()


def may_refuse(operator: Any, error: Exception) -> bool:
    """In place, random strides may share memory."""
    return operator._qualified_op_name.endswith("_") and "memory" in str(error)


def difference(operator: Any, arguments: list[Any], result: Any) -> str | None:
    """What is wrong with the result of a good call: it is that of plain torch, bit for bit."""
    if result is None:
        return None
    for got, want in zip(result, eager.rotate_queries_keys(*arguments), strict=True):
        if not torch.equal(got.nan_to_num(7.0), want.nan_to_num(7.0)):
            return "the result is not that of plain torch"
    return None


def good_arguments() -> list[Any]:
    dtype = random.choice(DTYPES)
    batch, tokens, pairs = random.choice((0, 1, 1, 2, 3)), random.choice((0, 1, 1, 2, 5, 33)), random.randrange(0, 40)
    start = random.choice((0, 0, 0, 1, 5))
    head_dim = start + 2 * pairs + random.choice((0, 0, 0, 1, 4))
    if random.random() < 0.02:
        tokens, pairs, start, head_dim = 600, 32, 0, 64  # enough work for several threads
    token_dim = random.choice((1, 2))
    rows = tokens + random.randrange(0, 5)
    arithmetic = torch.float64 if dtype == torch.float64 else torch.float32
    table_batch = random.choice(((), (), (), (1,), (batch,)))
    table = torch.randn(*table_batch, rows, pairs + random.choice((0, 3)), dtype=arithmetic)[..., :pairs]
    positions, offset = None, 0
    if random.random() < 0.5 and rows:
        shape = random.choice(((tokens,), (1, tokens), (batch, tokens)))
        positions = strided(torch.randint(rows, shape, dtype=random.choice((torch.int32, torch.int64))))
    else:
        offset = random.randrange(rows - tokens + 1)
    tensors = []
    for _ in range(2):
        sizes = [batch, random.choice((0, 1, 1, 2, 4)), tokens, head_dim]
        if token_dim == 1:
            sizes[1], sizes[2] = sizes[2], sizes[1]
        scale = random.choice((1.0, 1.0, 1.0, 2.0**-126))  # the last makes subnormal numbers
        tensors.append(strided((torch.randn(sizes) * scale).to(dtype)))
    return [
        *tensors,
        table,
        table.clone(),
        positions,
        offset,
        start,
        token_dim,
        random.random() < 0.5,
        random.random() < 0.5,
    ]


def spoil(good: list[Any]) -> list[Any]:
    """The arguments with one or two that are wrong."""
    bad = list(good)
    for _ in range(random.choice((1, 1, 2))):
        which = random.randrange(10)
        if which in (8, 9):
            bad[which] = random.choice((2, None, "half", 1.5))
        elif which in (5, 6, 7):
            bad[which] = random.choice((*HUGE, random.randrange(-3, 60), None, 0.5, True))
        elif which == 4:
            bad[which] = random.choice(
                (
                    torch.tensor([random.choice(HUGE)] * random.randrange(5)),
                    torch.randint(-3, 99, (random.randrange(1, 4), random.randrange(1, 6))),
                    torch.rand(random.randrange(6)),
                    torch.tensor(3),
                    torch.empty(5, dtype=torch.int64, device="meta"),
                    torch.ones(1, 1, 1, dtype=torch.int64),
                    torch.ones(3, dtype=torch.uint8),
                )
            )
        else:
            bad[which] = spoiled(bad[which])
    return bad

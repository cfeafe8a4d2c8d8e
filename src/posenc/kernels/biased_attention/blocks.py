"""Attention over blocks of queries: the bias of a block is made when it is needed, and made again in the backward."""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from posenc.kernels.biased_attention import toeplitz
from posenc.kernels.biased_attention.problem import Block, Problem, attend, cut
from posenc.kernels.precision import without_autocast

_BLOCK_BYTES = 32 * 2**20  # of scores: small enough to stay near the cores, large enough for the matrix products


def run(problem: Problem) -> Tensor:
    """Attention in memory linear in the length, forward and backward."""
    table = distances(problem)
    learned: list[Tensor] = []
    if problem.encoding is not None and table is None:
        learned = [parameter for parameter in problem.encoding.parameters() if parameter.requires_grad]
    q, k, v, sinks, state = problem.q, problem.k, problem.v, problem.sinks, problem.state
    y: Tensor = _Blocks.apply(problem, q, k, v, table, sinks, state, *learned)
    return y


def knows_distances(problem: Problem) -> bool:
    """Whether distance in the sequence decides all: a relative bias, consecutive positions, no other mask."""
    if problem.encoding is None or problem.contextual or not problem.encoding.relative:
        return False
    if problem.mask is not None or problem.documents is not None:
        return False
    return all(toeplitz.consecutive(positions) for positions in problem.positions)


def distances(problem: Problem) -> Tensor | None:
    """The bias by distance, causal and window mask included, where distance decides all; else None."""
    if not knows_distances(problem):
        return None
    table = toeplitz.by_distance(
        lambda i, j: toeplitz.of_heads(problem.encoding.bias(i, j), problem.q.shape[1]),
        *problem.positions,
        offset=problem.offset,
        causal=problem.causal,
        window=problem.window,
    )
    return table.to(problem.q.dtype)


@dataclass(frozen=True)
class _Layout:
    """The order in which queries are computed, and the blocks of that order.

    With a table of distances the last query comes first, because then a block of the bias is a view of the table.
    """

    problem: Problem
    table: Tensor | None

    def order(self, x: Tensor) -> Tensor:
        return x if self.table is None else x.flip(2)

    def blocks(self, height: int) -> list[tuple[slice, slice]]:
        """Rows, and the keys that any of them may see; rows that may see none are left out."""
        length = self.problem.q_len
        pairs = []
        for start in range(0, length, height):
            rows = slice(start, min(start + height, length))
            queries = rows if self.table is None else slice(length - rows.stop, length - rows.start)
            keys = self.problem.keys_for(queries)
            if keys.stop > keys.start:
                pairs.append((rows, keys))
        return pairs

    def block(self, rows: slice, keys: slice) -> Block:
        if self.table is None:
            return self.problem.block(rows, keys)
        return Block.of(rows, keys, toeplitz.view(self.table, rows, keys), None)


class _Blocks(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        problem: Problem,
        q: Tensor,
        k: Tensor,
        v: Tensor,
        table: Tensor | None,
        sinks: Tensor | None,
        state: Tensor | None,
        *learned: Tensor,
    ) -> Tensor:
        ctx.save_for_backward(q, k, v, table, sinks, state, *learned)
        ctx.problem, ctx.learned = problem, learned
        ctx.seed = int(torch.randint(2**31, ()).item()) if problem.dropout_p else 0
        layout = _Layout(problem, table)
        fused = _fused(problem)
        ordered = layout.order(q)
        y = q.new_zeros(*q.shape[:-1], v.shape[-1])
        for rows, keys in layout.blocks(_height(problem, explicit=not fused or table is None)):
            parts = (ordered[:, :, rows], k[:, :, keys], v[:, :, keys])
            block = layout.block(rows, keys)
            if fused:
                y[:, :, rows] = _fused_block(problem, block, *parts)
            else:
                generator = _generator(ctx.seed, rows, q)
                y[:, :, rows] = attend(problem, block, *parts, sinks=sinks, state=state, generator=generator)
        return layout.order(y)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        if torch.is_grad_enabled():
            raise RuntimeError(
                'attention: implementation="blocks" has no second derivative, which create_graph=True asks for; use '
                'implementation="dense".'
            )
        problem: Problem = ctx.problem
        q, k, v, table, sinks, state, *_ = ctx.saved_tensors
        learned: tuple[Tensor, ...] = ctx.learned
        _check_unchanged(problem, learned)
        wanted = ctx.needs_input_grad[1:]
        layout = _Layout(problem, table)
        q, gradient = layout.order(q), layout.order(gradient)
        sums = [
            torch.zeros_like(x) if x is not None and needed else None
            for x, needed in zip((q, k, v, table, sinks, state, *learned), wanted, strict=True)
        ]
        for rows, keys in layout.blocks(_height(problem, explicit=True)):
            leaves: list[Any] = [
                _leaf(x, needed)
                for x, needed in zip((q[:, :, rows], k[:, :, keys], v[:, :, keys]), wanted[:3], strict=True)
            ]
            bias = None if table is None else _leaf(toeplitz.view(table, rows, keys), wanted[3])
            extra = [_leaf(x, needed) for x, needed in zip((sinks, state), wanted[4:6], strict=True)]
            with torch.enable_grad(), without_autocast(q.device.type):
                block = layout.block(rows, keys) if table is None else Block.of(rows, keys, bias, None)
                y = attend(
                    problem, block, *leaves, sinks=extra[0], state=extra[1], generator=_generator(ctx.seed, rows, q)
                )
            inputs = [*leaves, bias, *extra, *learned]
            chosen = [x for x, needed in zip(inputs, wanted, strict=True) if needed]
            grads = iter(torch.autograd.grad(y, chosen, gradient[:, :, rows], allow_unused=True))
            places = (rows, keys, keys, None, None, None, *[None] * len(learned))
            for index, (total, place) in enumerate(zip(sums, places, strict=True)):
                if total is None or (part := next(grads)) is None:
                    continue
                if index == 3:
                    toeplitz.add_gradient(total, part, rows, keys)
                elif place is None:
                    total += part
                else:
                    total[:, :, place] += part
        if sums[0] is not None:
            sums[0] = layout.order(sums[0])
        return (None, *sums)


def _fused(problem: Problem) -> bool:
    """Whether PyTorch's own kernel takes a block: there is a bias or a mask, and nothing else."""
    return problem.sinks is None and not problem.contextual and not problem.dropout_p and problem.q.device.type == "cpu"


def _fused_block(problem: Problem, block: Block, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    bias = block.bias
    if bias is None:
        bias = q.new_zeros(1, 1, q.shape[-2], k.shape[-2])
    if block.hidden is not None:
        bias = bias.masked_fill(block.hidden, float("-inf"))
    if problem.mask is not None and problem.mask.dtype != torch.bool:
        bias = bias + cut(problem.mask, block.rows, block.keys).to(bias.dtype)
    bias = bias.reshape((1,) * (4 - bias.ndim) + bias.shape) if bias.ndim < 4 else bias
    gqa = q.shape[1] != k.shape[1]
    return F.scaled_dot_product_attention(q, k, v, attn_mask=bias, scale=problem.scale, enable_gqa=gqa)


def _height(problem: Problem, *, explicit: bool) -> int:
    """Queries in a block. Where nothing of the block's size is made, it may be tall."""
    if not explicit:
        # 256 to 512 cost the same on an idle machine; the taller ones wait less often for each other on a busy one.
        return 512 if problem.window is None else max(128, min(512, problem.window))
    seen = problem.k_len if problem.window is None else min(problem.k_len, 2 * problem.window + 128)
    row = problem.q.shape[0] * problem.q.shape[1] * seen * problem.q.element_size()
    wanted = max(16, min(128, _BLOCK_BYTES // max(row, 1)))
    return 1 << (wanted.bit_length() - 1)


def _generator(seed: int, rows: slice, q: Tensor) -> torch.Generator:
    """The same random numbers for a block in forward and backward."""
    return torch.Generator(device=q.device).manual_seed(seed + rows.start)


def _leaf(x: Tensor | None, needed: bool) -> Tensor | None:
    return None if x is None else x.detach().requires_grad_(needed)


def _check_unchanged(problem: Problem, learned: tuple[Tensor, ...]) -> None:
    if not learned:
        return
    now = {id(parameter) for parameter in problem.encoding.parameters()}
    if any(id(parameter) not in now for parameter in learned):
        raise RuntimeError(
            f"attention: the parameters of {problem.name} were replaced between the forward and the backward pass, "
            "expected the same parameters in both; under torch.func.functional_call, which replaces parameters, use "
            'implementation="dense".'
        )

"""Context parallelism on two processes: sharded positions give what the whole sequence gives."""

import itertools
import subprocess
import sys
from pathlib import Path

import torch
from torch import distributed

import posenc
from posenc import positions

TOKENS, RANKS = 16, 2
SCHEMES = ("contiguous", "zigzag")


def test_two_ranks_give_the_unsharded_result(tmp_path: Path) -> None:
    command = [sys.executable, "-W", "ignore", __file__, str(tmp_path / "store")]
    ranks = [subprocess.Popen([*command, str(rank)], stderr=subprocess.PIPE, text=True) for rank in range(RANKS)]
    for rank in ranks:
        _, errors = rank.communicate(timeout=600)
        assert rank.returncode == 0, errors


def run(rank: int, scheme: positions.Scheme, packed: bool) -> None:
    """Each rank rotates its own tokens, gathers all keys and values, and attends with its own queries."""
    rope = posenc.RoPE(head_dim=8)
    q, k, v = torch.randn(3, 1, 2, TOKENS, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    ids = positions.from_lengths(torch.tensor([0, 7, TOKENS])) if packed else positions.sequential(TOKENS)

    def mine(x: torch.Tensor, dim: int = -1) -> torch.Tensor:
        return positions.shard(x, rank=rank, ranks=RANKS, scheme=scheme, dim=dim)

    def everyones(part: torch.Tensor) -> torch.Tensor:
        parts = [torch.empty_like(part) for _ in range(RANKS)]
        distributed.all_gather(parts, part.contiguous())
        return positions.unshard(parts, scheme=scheme, dim=2)

    my_q, my_k = rope.on_queries_keys(mine(q, 2), mine(k, 2), mine(ids))
    causal = torch.ones(TOKENS, TOKENS, dtype=torch.bool).tril()
    y = posenc.attention(my_q, everyones(my_k), everyones(mine(v, 2)), rope, mask=mine(causal, 0))
    expected = posenc.attention(*rope.on_queries_keys(q, k, ids), v, rope, causal=True)
    torch.testing.assert_close(everyones(y), expected, rtol=0, atol=1e-12)


if __name__ == "__main__":
    store, me = sys.argv[1], int(sys.argv[2])
    distributed.init_process_group("gloo", init_method=f"file://{store}", rank=me, world_size=RANKS)
    for scheme, packed in itertools.product(SCHEMES, (False, True)):
        run(me, scheme, packed)  # type: ignore[arg-type]
    distributed.destroy_process_group()

"""What a block of Flux and of Wan gains: diffusers' own rotation and posenc's, by turns, on the same weights.

The sizes are those of the released models: Flux's single block (3072 channels, 24 heads of 128) on an image of 512 by
512 and 512 tokens of text, and a block of Wan 2.1's 1.3B (1536 channels, 12 heads of 128) on one latent frame of 480 by
832. The weights are random numbers.
"""

import copy
import importlib.util
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from benchmarks import timing

NEEDS = ("diffusers",)
NAMES = tuple(f"{block} {dtype}" for dtype in ("float32", "bfloat16") for block in ("flux", "wan"))


@dataclass(frozen=True)
class Gain:
    """Seconds of the rotation of queries and keys, and of a whole block, with either rotation."""

    block: str
    dtype: str
    tokens: int
    heads: int
    rotation_theirs: float
    rotation_ours: float
    rotation_ratio: float
    block_theirs: float
    block_ours: float
    block_ratio: float
    largest_difference: float


@dataclass(frozen=True)
class Contestants:
    """A block with either rotation, and the rotation that it calls."""

    theirs: Callable[[], Tensor]
    ours: Callable[[], Tensor]
    rotate_theirs: Callable[[], Any]
    rotate_ours: Callable[[], Any]
    tokens: int
    heads: int


def missing() -> list[str]:
    """What is not installed of what this needs."""
    return [name for name in NEEDS if importlib.util.find_spec(name) is None]


def measure(*, rounds: int = 15, small: bool = False, only: str = "") -> Iterator[Gain]:
    """Both blocks in both dtypes, one after the other; ``small`` takes narrow ones.

    Raises:
        ValueError: the outputs differ by more than rounding: no figure is shown then.
    """
    makers = {"flux": _flux, "wan": _wan}
    for name in (name for name in NAMES if only in name):
        block, dtype = name.split()
        with torch.no_grad():
            found = makers[block](getattr(torch, dtype), small)
            gain = _gain(block, getattr(torch, dtype), found, rounds)
        yield gain


def _gain(name: str, dtype: torch.dtype, found: Contestants, rounds: int) -> Gain:
    before = found.theirs()
    found.ours()  # which compares every kind of call
    after = found.ours()
    far = float((before.float() - after.float()).abs().max() / before.float().abs().max())
    if far > 8 * torch.finfo(dtype).eps:
        raise ValueError(
            f"bench blocks: {name} in {dtype} differs by {far:.2g} of its largest output; nothing is timed."
        )
    rotations = {"rotation theirs": found.rotate_theirs, "rotation ours": found.rotate_ours}
    blocks = {"block theirs": found.theirs, "block ours": found.ours}
    times = timing.in_turn(rotations, rounds=rounds) | timing.in_turn(blocks, rounds=max(2, rounds // 3))
    return Gain(
        block=name,
        dtype=str(dtype).removeprefix("torch."),
        tokens=found.tokens,
        heads=found.heads,
        rotation_theirs=times["rotation theirs"].median,
        rotation_ours=times["rotation ours"].median,
        rotation_ratio=times["rotation theirs"].ratio(times["rotation ours"]),
        block_theirs=times["block theirs"].median,
        block_ours=times["block ours"].median,
        block_ratio=times["block theirs"].ratio(times["block ours"]),
        largest_difference=far,
    )


def _twin(model: Any) -> Any:
    """The same weights in another model."""
    twin = copy.deepcopy(model)
    twin.load_state_dict(model.state_dict(), assign=True)
    return twin


def _rotation(processor: Any) -> Any:
    """What an accelerated processor calls to rotate."""
    from posenc.integrations.diffusers.live.rotation import Rotation

    names = type(processor).__call__.__globals__
    return next(value for value in names.values() if isinstance(value, Rotation))


def _flux(dtype: torch.dtype, small: bool) -> Contestants:
    from diffusers import FluxTransformer2DModel

    from posenc.integrations.diffusers import accelerate

    heads, side, text = (2, 4, 5) if small else (24, 32, 512)
    model = FluxTransformer2DModel(
        num_layers=0, num_single_layers=1, num_attention_heads=heads, joint_attention_dim=8, pooled_projection_dim=8
    )
    model = model.to(dtype).eval()
    twin = _twin(model)
    accelerate(twin)
    grid = torch.cartesian_prod(torch.zeros(1), torch.arange(side).float(), torch.arange(side).float())
    tables = model.pos_embed(torch.cat([torch.zeros(text, 3), grid]))
    x, y, time = (torch.randn(1, n, heads * 128).to(dtype) for n in (side * side, text, 1))

    def run(which: Any) -> Callable[[], Tensor]:
        block = which.single_transformer_blocks[0]
        return lambda: block(x, y, time[:, 0], image_rotary_emb=tables)[1]

    q, k = (torch.randn(1, side * side + text, heads, 128).to(dtype) for _ in range(2))
    rotate = _rotation(twin.single_transformer_blocks[0].attn.processor)
    return Contestants(
        theirs=run(model),
        ours=run(twin),
        rotate_theirs=lambda: [rotate.theirs(part, tables, sequence_dim=1) for part in (q, k)],
        rotate_ours=lambda: [rotate(part, tables, sequence_dim=1) for part in (q, k)],
        tokens=side * side + text,
        heads=heads,
    )


def _wan(dtype: torch.dtype, small: bool) -> Contestants:
    from diffusers import WanTransformer3DModel

    from posenc.integrations.diffusers import accelerate

    heads, sides = (2, (4, 5)) if small else (12, (30, 52))
    model = WanTransformer3DModel(
        num_layers=1, num_attention_heads=heads, text_dim=8, freq_dim=8, ffn_dim=heads * 128 * 35 // 6
    ).eval()
    tables = model.rope(torch.zeros(1, 16, 1, 2 * sides[0], 2 * sides[1]))  # in float32, as from_pretrained keeps them
    model = model.to(dtype)
    twin = _twin(model)
    accelerate(twin)
    tokens = sides[0] * sides[1]
    x, text = (torch.randn(1, n, heads * 128).to(dtype) for n in (tokens, 512))
    time = torch.randn(1, 6, heads * 128)

    def run(which: Any) -> Callable[[], Tensor]:
        block = which.blocks[0]
        return lambda: block(x, text, time, tables)  # type: ignore[no-any-return]

    q, k = (torch.randn(1, tokens, heads, 128).to(dtype) for _ in range(2))
    rotate = _rotation(twin.blocks[0].attn1.processor)
    return Contestants(
        theirs=run(model),
        ours=run(twin),
        rotate_theirs=lambda: [rotate.theirs(part, *tables) for part in (q, k)],
        rotate_ours=lambda: [rotate(part, *tables) for part in (q, k)],
        tokens=tokens,
        heads=heads,
    )

"""Positions of texts with images and videos in them, as the Qwen models number them."""

from collections.abc import Iterator, Sequence
from typing import Literal, get_args

import torch
from torch import Tensor

from posenc.positions._arrays import A, Array, check_at_least, like, tensor

Frames = Literal["together", "apart"]
Next = Literal["after_all", "after_space"]
_KINDS = {1: "image", 2: "video"}


def multimodal(
    kinds: A,
    *,
    image_grids: Array | None = None,
    video_grids: Array | None = None,
    merge: int = 1,
    mask: Array | None = None,
    frames: Frames = "together",
    time_steps: float | Sequence[float] = 1.0,
    text_goes_on: Next = "after_all",
) -> A:
    """Time, height and width of each token: a text counts on all three at once, an image spans two, a video three.

    ::

        text      image of 2 x 3                text
        0  1      2  2  2  2  2  2              5  6        time
        0  1      2  2  2  3  3  3              5  6        height
        0  1      2  3  4  2  3  4              5  6        width

    Args:
        kinds: ``(batch, seq)`` or ``(seq,)``: 0 for text, 1 for image, 2 for video (``mm_token_type_ids``).
        image_grids: ``(count, 3)``: frames, rows and columns of patches, in the order in which the images stand in the
            batch (``image_grid_thw``).
        video_grids: the same of the videos (``video_grid_thw``).
        merge: how many patches along height and along width become one token (``spatial_merge_size``): 2 in the Qwen
            models.
        mask: as kinds: 1 for tokens, 0 for padding, which gets 0. In a pack, the number of each token's document, from
            1 on: positions start from 0 in each.
        frames: "together", one block of t x h x w for each video (Qwen2-VL, Qwen2.5-VL), or "apart", one block of h x w
            for each frame, with a text such as its time before each (Qwen3-VL).
        time_steps: how far apart frames are, for all videos or for each; the product with the frame is rounded down.
            Qwen2.5-VL has tokens_per_second x seconds per grid.
        text_goes_on: at the largest of all three coordinates plus 1 ("after_all": the paper and Qwen's own code), or of
            height and width alone ("after_space": transformers from version 5 on). They differ after videos with more
            frames than rows and columns.

    Returns:
        ``(batch, seq, 3)`` or ``(seq, 3)``, int64, for ``posenc.MRoPE``. Generation goes on at ``positions.amax() +
        1``.

    Raises:
        ValueError: a mask of another shape; grids that are missing, left over, or do not fill the tokens that are
            there for them.

    Example:
        >>> import torch
        >>> multimodal(torch.tensor([0, 0, 1, 1, 1, 1, 1, 1, 0]), image_grids=torch.tensor([[1, 2, 3]])).T
        tensor([[0, 1, 2, 2, 2, 2, 2, 2, 5],
                [0, 1, 2, 2, 2, 3, 3, 3, 5],
                [0, 1, 2, 3, 4, 2, 3, 4, 5]])

    References:
        Wang et al. Qwen2-VL. 2024. arXiv:2409.12191, section 2.1; transformers, models/qwen2_vl, qwen2_5_vl and
        qwen3_vl, get_rope_index.
    """
    check_at_least("multimodal", merge=(merge, 1))
    for name, value, allowed in (("frames", frames, Frames), ("text_goes_on", text_goes_on, Next)):
        if value not in get_args(allowed):
            raise ValueError(f"multimodal: got {name} {value!r}, expected one of {get_args(allowed)}.")
    of_token = tensor("multimodal", kinds, ndim=(1, 2))
    rows = of_token.view(-1, of_token.shape[-1])
    real = torch.ones_like(rows) if mask is None else tensor("multimodal", mask, ndim=(1, 2)).to(rows.device)
    if real.numel() != rows.numel():
        raise ValueError(f"multimodal: got a mask of {tuple(real.shape)} for kinds of {tuple(of_token.shape)}.")
    real = real.reshape(rows.shape)
    blocks = {
        1: _blocks(image_grids, merge, "together", 1.0),
        2: _blocks(video_grids, merge, frames, time_steps),
    }
    positions = torch.zeros(*rows.shape, 3, dtype=torch.int64, device=rows.device)
    for row, documents, out in zip(rows, real, positions, strict=True):
        for number in dict.fromkeys(documents[documents != 0].tolist()):
            own = documents == number
            out[own] = _row(row[own].tolist(), blocks, text_goes_on).to(out.device)
    for kind, left in blocks.items():
        if (surplus := sum(1 for _ in left)) > 0:
            raise ValueError(f"multimodal: got {surplus} {_KINDS[kind]} blocks more than there are tokens for.")
    return like(positions.view(*of_token.shape, 3), kinds)


def _blocks(grids: Array | None, merge: int, frames: Frames, time_steps: float | Sequence[float]) -> Iterator[Tensor]:
    """The coordinates of each block of patches, from (0, 0, 0), as (tokens, 3)."""
    if grids is None:
        return
    sizes = tensor("multimodal", grids, ndim=(2,)).tolist()
    steps = list(time_steps) if isinstance(time_steps, Sequence) else [time_steps] * len(sizes)
    if len(steps) != len(sizes):
        raise ValueError(f"multimodal: got {len(steps)} time_steps for {len(sizes)} videos; give one for each.")
    for (time, height, width), step in zip(sizes, steps, strict=True):
        times = (torch.arange(time) * step).long()
        groups = times.split(1) if frames == "apart" else (times,)
        for group in groups:
            group = torch.zeros_like(group) if frames == "apart" else group
            axes = (group, torch.arange(height // merge), torch.arange(width // merge))
            yield torch.stack(torch.meshgrid(*axes, indexing="ij"), dim=-1).view(-1, 3)


def _row(kinds: list[int], blocks: dict[int, Iterator[Tensor]], text_goes_on: Next) -> Tensor:
    parts: list[Tensor] = []
    at, place = 0, 0
    while at < len(kinds):
        kind = kinds[at]
        end = next((i for i in range(at, len(kinds)) if kinds[i] != kind), len(kinds))
        if kind == 0:
            block = torch.arange(end - at)[:, None].expand(-1, 3)
        elif kind in blocks:
            block = next(blocks[kind], torch.empty(0, 3, dtype=torch.int64))
            if not 0 < len(block) <= end - at:
                raise ValueError(
                    f"multimodal: got {end - at} {_KINDS[kind]} tokens at token {at} of a row, and its grid has "
                    f"{len(block) or 'no'} places; check the grids, their order and merge."
                )
        else:
            raise ValueError(f"multimodal: got kind {kind}, expected 0 (text), 1 (image) or 2 (video).")
        parts.append(block + place)
        at += len(block)
        place += int((block[:, 1:] if text_goes_on == "after_space" else block).max()) + 1
    return torch.cat(parts) if parts else torch.empty(0, 3, dtype=torch.int64)

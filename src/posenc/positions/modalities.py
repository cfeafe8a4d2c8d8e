"""Positions of texts with images, videos and sounds in them, as the models that read them number them."""

from collections.abc import Callable, Iterator, Sequence
from typing import Literal, get_args

import torch
from torch import Tensor

from posenc.kernels.precision import float64_device
from posenc.positions._arrays import A, Array, check_at_least, like, tensor

Frames = Literal["together", "apart"]
Next = Literal["after_all", "after_space"]
Times = Literal["whole", "exact"]
Marks = Literal["apart", "shared"]
_KINDS = {1: "image", 2: "video"}
_TEXT, _VIDEO, _AUDIO = 0, 2, 3


def multimodal(
    kinds: A,
    *,
    image_grids: Array | None = None,
    video_grids: Array | None = None,
    merge: int = 1,
    mask: Array | None = None,
    documents: Array | None = None,
    frames: Frames = "together",
    time_merge: int = 1,
    time_steps: float | Sequence[float] = 1.0,
    positions_per_second: float = 1.0,
    times: Times = "whole",
    marks: Marks = "apart",
    text_goes_on: Next = "after_all",
) -> A:
    """Time, height and width of each token: equal in a text; an image varies two of them, a video three.

    A sound is numbered like a text. A video that is interleaved with its sound starts at the position where the sound
    starts.

    ::

        text      image of 2 x 3                text
        0  1      2  2  2  2  2  2              5  6        time
        0  1      2  2  2  3  3  3              5  6        height
        0  1      2  3  4  2  3  4              5  6        width

    =========================== =======================================================================
    model                       arguments, besides merge=spatial_merge_size
    =========================== =======================================================================
    Qwen2-VL, PaddleOCR-VL      none
    Qwen2.5-VL                  time_steps=second_per_grid_ts, positions_per_second=tokens_per_second
    Qwen3-VL, Qwen3.5, GLM-4V,  frames="apart"
    GLM-4.6V, GLM-OCR, Cosmos 3
    GLM-Image                   merge=1; the grids of images to generate come last, in reverse order
    Ernie 4.5 VL                time_merge=temporal_merge_size
    Qwen2.5-Omni                time_steps=second_per_grids, positions_per_second=position_id_per_seconds,
                                marks="shared"
    Qwen3-Omni                  time_steps=second_per_grids, positions_per_second=position_id_per_seconds,
                                times="exact"
    Hunyuan-VL                  :func:`hunyuan_vl`
    =========================== =======================================================================

    MiniCPM-V 4.7 is not supported: marks between the crops of its images set the coordinates. Compute them with the
    model's own ``get_rope_index``, and pass the result to :class:`posenc.MRoPE` as ``(batch, seq, 3)``.

    From version 5 on, transformers uses text_goes_on="after_space" for all but the Omni models. The names on the right
    are those of the configs and processors.

    Args:
        kinds: ``(batch, seq)`` or ``(seq,)``: 0 for text, 1 for image, 2 for video, 3 for sound
            (``mm_token_type_ids``).
        image_grids: ``(count, 3)``: frames, rows and columns of patches, in the order of the images in the
            batch (``image_grid_thw``).
        video_grids: the same of the videos (``video_grid_thw``).
        merge: how many patches along height and along width become one token (``spatial_merge_size``): 2 in the Qwen
            models.
        mask: as kinds: 1 for tokens, 0 for padding, which gets position 0. In a pack, the number of each token's
            document, from 1 on: positions start from 0 in each.
        documents: as kinds: to which document of a pack each token belongs, any numbers, as for
            :func:`from_documents`; positions start from 0 in each. Padding of the mask belongs to none.
        frames: "together", one block of t x h x w for each video (Qwen2-VL, Qwen2.5-VL), or "apart", one block of h x w
            for each frame, with a text such as its time before each (Qwen3-VL, GLM-4V).
        time_merge: the number of frames of a video that become one (``temporal_merge_size`` of Ernie 4.5 VL).
        time_steps: the time between frames, for all videos or for each: in seconds (``second_per_grids``) if
            ``positions_per_second`` is given, otherwise in positions.
        positions_per_second: how many positions a second has.
        times: "whole", times are rounded down to whole positions, or "exact" (Qwen3-Omni), and the result is float64.
        marks: whether the two tokens before a video that is mixed with its sound (start of vision, start of audio),
            and the two after it, count as two ("apart") or stand at one position ("shared", Qwen2.5-Omni).
        text_goes_on: where the text after an image or a video continues: at the largest of all three coordinates plus 1
            ("after_all": the paper and Qwen's own code), or at the largest of height and width plus 1 ("after_space":
            transformers from version 5 on). They differ after videos with more frames than rows and columns.

    Returns:
        ``(batch, seq, 3)`` or ``(seq, 3)``, int64 (float64 with exact times), for ``posenc.MRoPE``. Generation
        continues at ``positions.amax() + 1``.

    Raises:
        ValueError: a mask or documents of another shape; grids that are missing, left over, or of another size than
            their tokens; an unknown kind.

    Differs from transformers: where the grid of a video with sound is larger than its times, the Omni models of
    transformers continue after the last piece, the sound or the video, and so may use a position twice. Here a text
    continues after both.

    Example:
        >>> import torch
        >>> multimodal(torch.tensor([0, 0, 1, 1, 1, 1, 1, 1, 0]), image_grids=torch.tensor([[1, 2, 3]])).T
        tensor([[0, 1, 2, 2, 2, 2, 2, 2, 5],
                [0, 1, 2, 2, 2, 3, 3, 3, 5],
                [0, 1, 2, 3, 4, 2, 3, 4, 5]])

    References:
        Wang et al. Qwen2-VL. 2024. arXiv:2409.12191, section 2.1; Xu et al. Qwen2.5-Omni. 2025. arXiv:2503.20215,
        section 2.2 (TMRoPE); transformers, models/qwen2_vl, qwen2_5_vl, qwen3_vl, glm4v, ernie4_5_vl_moe,
        qwen2_5_omni and qwen3_omni_moe, get_rope_index.
    """
    check_at_least("multimodal", merge=(merge, 1), time_merge=(time_merge, 1))
    for name, value, allowed in (
        ("frames", frames, Frames),
        ("text_goes_on", text_goes_on, Next),
        ("times", times, Times),
        ("marks", marks, Marks),
    ):
        if value not in get_args(allowed):
            raise ValueError(f"multimodal: got {name} {value!r}, expected one of {get_args(allowed)}.")
    of_token = tensor("multimodal", kinds, ndim=(1, 2))
    of_token = of_token.to(float64_device(of_token.device))
    rows = of_token.view(-1, of_token.shape[-1])
    numbers = _documents("multimodal", of_token, mask, documents).reshape(rows.shape)
    dtype = torch.float64 if times == "exact" else torch.int64
    blocks = {
        1: _blocks(_grids("multimodal", image_grids, merge), "together", None),
        2: _blocks(
            _grids("multimodal", video_grids, merge, time_merge),
            frames,
            _steps(video_grids, time_steps, positions_per_second, times),
        ),
    }
    positions = torch.zeros(*rows.shape, 3, dtype=dtype, device=rows.device)
    for row, own_numbers, out in zip(rows, numbers, positions, strict=True):
        for number in dict.fromkeys(own_numbers[own_numbers != 0].tolist()):
            own = own_numbers == number
            out[own] = _row(row[own].tolist(), blocks, text_goes_on, marks).to(out)
    for kind, left in blocks.items():
        if (surplus := sum(1 for _ in left)) > 0:
            raise ValueError(
                f"multimodal: got {surplus} {_KINDS[kind]} blocks without tokens; give one grid, or one length, for "
                "each block of such tokens."
            )
    return like(positions.view(*of_token.shape, 3), kinds)


def hunyuan_vl(
    kinds: A,
    *,
    image_grids: Array | None = None,
    merge: int = 1,
    mask: Array | None = None,
    documents: Array | None = None,
    axes: Literal[3, 4] = 4,
) -> A:
    """Position, column, row and image of each token, as Hunyuan-VL numbers them.

    ::

        text      image of 2 x 2, a line break after each row     text
        0  1      2  3  4  5  6  7                                8  9        position
        0  1      0  1  2  0  1  2                                8  9        column
        0  1      0  0  0  1  1  1                                8  9        row
        0  1      0  0  0  0  0  0                                8  9        image

    Args:
        kinds: ``(batch, seq)`` or ``(seq,)``: 0 for text, 1 for image (``mm_token_type_ids``). The tokens of an image
            are those of its grid with a line break after each row, and may have a start and an end around them.
        image_grids: ``(count, 3)``: 1, rows and columns of patches, in the order of the batch (``image_grid_thw``).
        merge: how many patches along height and along width become one token (``spatial_merge_size``).
        mask: as kinds: 1 for tokens, 0 for padding, which gets 0.
        documents: as kinds: the document of each token in a pack, as for :func:`multimodal`.
        axes: 4, or 3 without the position.

    Returns:
        ``(batch, seq, axes)`` or ``(seq, axes)``, int64. Images are counted through the whole batch, as in
        transformers, so that the same row gives other numbers elsewhere in a batch.

    Raises:
        ValueError: a mask or documents of another shape; grids that are missing, left over, or of another size than
            their tokens; an unknown kind.

    Example:
        >>> import torch
        >>> hunyuan_vl(torch.tensor([0, 1, 1, 1, 0]), image_grids=torch.tensor([[1, 1, 2]])).T
        tensor([[0, 1, 2, 3, 4],
                [0, 0, 1, 2, 4],
                [0, 0, 0, 0, 4],
                [0, 0, 0, 0, 4]])

    References:
        Tencent. HunyuanOCR. 2025. arXiv:2511.19575 (XD-RoPE); transformers, models/hunyuan_vl, get_rope_index.
    """
    check_at_least("hunyuan_vl", merge=(merge, 1))
    if axes not in (3, 4):
        raise ValueError(f"hunyuan_vl: got axes {axes!r}, expected 3 or 4.")
    of_token = tensor("hunyuan_vl", kinds, ndim=(1, 2))
    rows = of_token.view(-1, of_token.shape[-1])
    numbers = _documents("hunyuan_vl", of_token, mask, documents).reshape(rows.shape)
    images = iter(enumerate(_grids("hunyuan_vl", image_grids, merge)))
    positions = torch.zeros(*rows.shape, 4, dtype=torch.int64, device=rows.device)
    for row, own_numbers, out in zip(rows, numbers, positions, strict=True):
        for number in dict.fromkeys(own_numbers[own_numbers != 0].tolist()):
            own = own_numbers == number
            counted = torch.arange(int(own.sum()))[:, None].repeat(1, 4)
            for kind, start, end in _runs(row[own].tolist()):
                if kind == _TEXT:
                    continue
                if kind != 1:
                    raise ValueError(f"hunyuan_vl: got kind {kind}, expected 0 (text) or 1 (image).")
                image, (_, height, width) = next(images, (0, (0, 0, 0)))
                inside = height * (width + 1)
                if not inside or end - start not in (inside, inside + 2):
                    expected = f"{inside} or {inside + 2} for its grid" if inside else "a grid for them in image_grids"
                    raise ValueError(
                        f"hunyuan_vl: got {end - start} image tokens from token {start} of a row on, expected "
                        f"{expected}; check the grids, their order, and merge."
                    )
                first = start + (end - start - inside) // 2
                grid = torch.cartesian_prod(torch.arange(height), torch.arange(width + 1)).flip(-1)
                counted[first : first + inside, 1:3] = grid
                counted[first : first + inside, 3] = image
            out[own] = counted.to(out)
    if (surplus := sum(1 for _ in images)) > 0:
        raise ValueError(
            f"hunyuan_vl: got {surplus} image grids without tokens; give one grid for each image among the tokens."
        )
    return like(positions[..., 4 - axes :].reshape(*of_token.shape, axes), kinds)


def _documents(who: str, kinds: Tensor, mask: Array | None, documents: Array | None) -> Tensor:
    """The number of each token's document, from 1 on, and 0 for padding."""
    numbers = torch.ones_like(kinds, dtype=torch.int64)
    for name, given in (("a mask", mask), ("documents", documents)):
        if given is None:
            continue
        array = tensor(who, given, ndim=(1, 2)).to(kinds.device)
        if array.numel() != kinds.numel():
            raise ValueError(
                f"{who}: got {name} of shape {tuple(array.shape)} for kinds of shape {tuple(kinds.shape)}, "
                "expected one number for each token."
            )
        if name == "a mask":
            numbers = array.reshape(kinds.shape).long()
            continue
        for ids, out in zip(array.reshape(-1, kinds.shape[-1]), numbers.view(-1, kinds.shape[-1]), strict=True):
            real = out != 0
            own = ids[real]
            starts = torch.ones_like(own, dtype=torch.int64)
            starts[1:] = own[1:] != own[:-1]
            out[real] = starts.cumsum(0)
    return numbers


def _grids(who: str, grids: Array | None, merge: int, time_merge: int = 1) -> list[tuple[int, int, int]]:
    """Frames, rows and columns of each image or video, in tokens."""
    if grids is None:
        return []
    return [(t // time_merge, h // merge, w // merge) for t, h, w in tensor(who, grids, ndim=(2,)).tolist()]


def _steps(
    grids: Array | None, time_steps: float | Sequence[float], per_second: float, times: Times
) -> Callable[[Tensor, int], Tensor]:
    """What makes of the frames of a video, by its number, their times."""
    count = 0 if grids is None else len(grids)
    steps = list(time_steps) if isinstance(time_steps, Sequence) else [time_steps] * count
    if len(steps) != count:
        raise ValueError(f"multimodal: got {len(steps)} time_steps for {count} videos; give one for each.")

    def timed(frames: Tensor, video: int) -> Tensor:
        if times == "exact":
            return frames.double() * steps[video] * per_second
        # In float32, as the models do it: a product that is whole or not is then rounded down as theirs is.
        return (frames * torch.tensor(steps[video], dtype=torch.float32) * per_second).long()

    return timed


def _blocks(
    grids: list[tuple[int, int, int]], frames: Frames, timed: Callable[[Tensor, int], Tensor] | None
) -> Iterator[Tensor]:
    """The coordinates of each block of patches, from (0, 0, 0), as (tokens, 3)."""
    for number, (time, height, width) in enumerate(grids):
        steps = torch.arange(time)
        steps = steps if timed is None else timed(steps, number)
        for group in steps.split(1) if frames == "apart" else (steps,):
            first = torch.zeros_like(group) if frames == "apart" else group
            axes = (first, torch.arange(height).to(first), torch.arange(width).to(first))
            yield torch.stack(torch.meshgrid(*axes, indexing="ij"), dim=-1).view(-1, 3)


def _runs(kinds: list[int]) -> Iterator[tuple[int, int, int]]:
    """Kind, start and end of each run of tokens of one kind; a video with its sound is one run of kind 2."""
    start = 0
    while start < len(kinds):
        same = {_VIDEO, _AUDIO} if kinds[start] in (_VIDEO, _AUDIO) else {kinds[start]}
        end = next((i for i in range(start, len(kinds)) if kinds[i] not in same), len(kinds))
        yield _VIDEO if {*kinds[start:end]} == {_VIDEO, _AUDIO} else kinds[start], start, end
        start = end


def _row(kinds: list[int], blocks: dict[int, Iterator[Tensor]], text_goes_on: Next, marks: Marks) -> Tensor:
    parts: list[Tensor] = []
    place: int | float = 0

    def put(block: Tensor) -> None:
        nonlocal place
        parts.append(block.double() + place)
        place += (block[:, 1:] if text_goes_on == "after_space" else block).max().item() + 1

    after_sound = False  # whether a video with its sound came last
    for kind, start, end in _runs(kinds):
        mixed = _AUDIO in kinds[start:end] and kind == _VIDEO
        if kind in (_TEXT, _AUDIO):
            steps = torch.ones(end - start, dtype=torch.int64)
            if marks == "shared" and kind == _TEXT:
                steps[1:2] -= int(after_sound)
                steps[1:][-1:] -= int(kinds[end : end + 1] != [] and _sounds(kinds, end))
            put((steps.cumsum(0) - 1)[:, None].expand(-1, 3))
        elif mixed:
            is_sound = torch.tensor([each == _AUDIO for each in kinds[start:end]])
            block = _next(blocks, kind, int((~is_sound).sum()), start, whole=True)
            both = torch.zeros(end - start, 3, dtype=block.dtype)
            both[~is_sound] = block
            both[is_sound] = torch.arange(int(is_sound.sum()))[:, None].to(block)
            put(both)
        elif kind in blocks:
            at = start
            while at < end:
                block = _next(blocks, kind, end - at, at)
                put(block)
                at += len(block)
        else:
            raise ValueError(f"multimodal: got kind {kind}, expected 0 (text), 1 (image), 2 (video) or 3 (sound).")
        after_sound = mixed
    return torch.cat(parts) if parts else torch.empty(0, 3, dtype=torch.float64)


def _sounds(kinds: list[int], start: int) -> bool:
    """Whether a video with its sound starts here."""
    _, first, end = next(_runs(kinds[start:]))
    return {*kinds[start + first : start + end]} == {_VIDEO, _AUDIO}


def _next(blocks: dict[int, Iterator[Tensor]], kind: int, tokens: int, at: int, *, whole: bool = False) -> Tensor:
    """The next block of this kind, which must fit into this many tokens, or fill them."""
    block = next(blocks[kind], torch.empty(0, 3, dtype=torch.int64))
    if not 0 < len(block) <= tokens or (whole and len(block) != tokens):
        grid = f"a grid of {len(block)} tokens" if len(block) else "no grid"
        raise ValueError(
            f"multimodal: got {tokens} {_KINDS[kind]} tokens from token {at} of a row on, and {grid} for them; check "
            "the grids, their order, and merge."
        )
    return block

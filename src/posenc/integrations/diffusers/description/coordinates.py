"""Where a token is: coordinates as the modules of diffusers count them, from the arguments of a call."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from posenc.integrations.diffusers.description.tables import Call, product, steps
from posenc.kernels.precision import as_float64, float64_device


def from_ids(module: Any, call: Call) -> list[Tensor]:
    """The ids that the pipeline gives; an axis of width 0 is left out."""
    widths = module.axes_dim if hasattr(module, "axes_dim") else module.axes_dims
    used = [axis for axis, width in enumerate(widths) if width]
    return [as_float64(call["ids"])[..., used]]


def some_ids(module: Any) -> Call:
    """A few of them."""
    axes = len(module.axes_dim)
    return {"ids": torch.stack([torch.arange(7) * (axis + 1) for axis in range(axes)], dim=-1).float()}


def sides(patch: Any, axes: int) -> tuple[int, ...]:
    """The sides of a patch, on every axis."""
    return tuple(patch) if isinstance(patch, (tuple, list)) else (patch,) * axes


def patches(module: Any, hidden: Tensor) -> list[int]:
    """How many patches the latents have, on each axis."""
    patch = sides(module.patch_size, hidden.ndim - 2)
    if hasattr(module, "patch_size_t"):
        patch = (module.patch_size_t, *patch[1:])
    return [size // side for size, side in zip(hidden.shape[2:], patch, strict=True)]


def in_latents(module: Any, call: Call) -> list[Tensor]:
    """Counted in patches of the latents."""
    hidden = call["hidden_states"]
    return [product(*(steps(count, hidden) for count in patches(module, hidden)))]


def small_video(module: Any) -> Call:
    """Latents of 3 frames of 4 by 5 patches."""
    patch = sides(module.patch_size, 3)
    return {"hidden_states": torch.zeros(1, 2, 3 * getattr(module, "patch_size_t", 1), 4 * patch[1], 5 * patch[2])}


def small_image(module: Any) -> Call:
    """Latents of 4 by 5 patches."""
    height, width = sides(module.patch_size, 2)[-2:]
    return {"hidden_states": torch.zeros(1, 2, 4 * height, 5 * width)}


def chronoedit(module: Any, call: Call) -> list[Tensor]:
    """Of two frames the second one is far away."""
    frames, height, width = patches(module, call["hidden_states"])
    like = call["hidden_states"]
    times = steps(frames, like) if frames != 2 else (module.temporal_skip_len - 1) * steps(2, like)
    return [product(times, steps(height, like), steps(width, like))]


def cogview4(module: Any, call: Call) -> list[Tensor]:
    """Spread over the sides of the table."""
    hidden = call["hidden_states"]
    sides = patches(module, hidden)
    return [product(*((steps(n, hidden) * end // n) for n, end in zip(sides, module.rope_axes_dim, strict=True)))]


def cosmos(module: Any, call: Call) -> list[Tensor]:
    """The time in frames of the base rate."""
    frames, height, width = patches(module, call["hidden_states"])
    like, fps = call["hidden_states"], call.get("fps")
    times = steps(frames, like) * (1.0 if fps is None else module.base_fps / fps)
    return [product(times, steps(height, like), steps(width, like))]


def framepack(module: Any, call: Call) -> list[Tensor]:
    """The frames have indices of their own."""
    frames, device = call["frame_indices"], call.get("device")
    sides = (steps(call[side] // module.patch_size, device) for side in ("height", "width"))
    return [product(as_float64(frames).to(float64_device(device)), *sides)]


def centred(frame: int, height: int, width: int, first: int, device: Any, scaled: bool) -> Tensor:
    """A block whose rows and columns are counted from its middle."""
    rows, columns = steps(height, device), steps(width, device)
    if scaled:
        rows, columns = rows - (height - height // 2), columns - (width - width // 2)
    return product(steps(frame, device) + first, rows, columns)


def qwen(module: Any, call: Call, *, condition: bool = False) -> list[Tensor]:
    """Images about their middle, and text after the largest of them."""
    shapes, device = call["video_fhw"], call.get("device")
    shapes = shapes[0] if isinstance(shapes, list) else shapes
    shapes = shapes if isinstance(shapes, list) else [shapes]
    last = len(shapes) - 1 if condition else -1
    grids = [
        centred(t, h, w, -1 if index == last else index, device, module.scale_rope)
        for index, (t, h, w) in enumerate(shapes)
    ]
    start = max(max(h // 2, w // 2) if module.scale_rope else max(h, w) for _, h, w in shapes)
    start = max(start, last)
    text = start + steps(int(call["max_txt_seq_len"]), device)
    return [torch.cat(grids), text[:, None].expand(-1, 3)]


def qwen21(module: Any, call: Call) -> list[Tensor]:
    """Text in line, and between it images that are one place of it."""
    image = call["image_pad_mask"]
    shapes, device, parts, at, place = call["img_shapes"], call.get("device"), [], 0, 0
    for _, height, width in shapes:
        text = image.tolist().index(True, at) - at
        parts.append((place + steps(text, device))[:, None].expand(-1, 3))
        place += text
        block = centred(1, height, width, place, device, True)
        parts.append(block)
        at, place = at + text + len(block), place + max(height, width)
    parts.append((place + steps(image.shape[-1] - at, device))[:, None].expand(-1, 3))
    return [torch.cat(parts)]


def ltx(module: Any, call: Call) -> list[Tensor]:
    """From -1 to 1 over the base, or what the pipeline gives."""
    bases = (module.base_num_frames, module.base_height, module.base_width)
    if call.get("video_coords") is not None:
        given = as_float64(call["video_coords"])
        return [torch.stack([2 * given[:, axis] / base - 1 for axis, base in enumerate(bases)], dim=-1)]
    hidden, scales = call["hidden_states"], call.get("rope_interpolation_scale")
    axes = [steps(call[name], hidden) for name in ("num_frames", "height", "width")]
    if scales is not None:
        patches = (module.patch_size_t, module.patch_size, module.patch_size)
        axes = [
            axis * float(scale) * patch / base
            for axis, scale, patch, base in zip(axes, scales, patches, bases, strict=True)
        ]
    return [2 * product(*axes)[None].expand(hidden.shape[0], -1, -1) - 1]


def ltx2(module: Any, call: Call) -> list[Tensor]:
    """The middle of each patch in seconds and pixels, from -1 to 1 over the base."""
    given = as_float64(call["coords"])
    middle = given.mean(dim=-1) if given.ndim == 4 else given
    bases = (module.base_num_frames, module.base_height, module.base_width)
    parts = [2 * middle[:, axis] / bases[axis] - 1 for axis in range(middle.shape[1])]
    return [torch.stack(parts, dim=-1).to(float64_device(call.get("device") or given.device))]


def mochi(module: Any, call: Call) -> list[Tensor]:
    """The frame, and the middle of each patch counted from that of the image, in an image of the trained area."""
    device = call.get("device")
    height, width = call["height"], call["width"]
    scale = (module.target_area / (height * width)) ** 0.5
    sides = [scale * (steps(side, device) + 0.5 - side / 2) for side in (height, width)]
    return [product(steps(call["num_frames"], device), *sides)]


def cogvideox(model: Any, call: Call) -> list[Tensor]:
    """Of version 1.0 a part of the trained grid, of 1.5 patches."""
    from diffusers.pipelines.cogvideo.pipeline_cogvideox import get_resize_crop_region_for_grid

    hidden, config = call["hidden_states"], model.config
    frames = hidden.shape[1]
    height, width = (size // config.patch_size for size in hidden.shape[3:])
    if getattr(config, "patch_size_t", None) is not None:
        frames = (frames + config.patch_size_t - 1) // config.patch_size_t
        return [product(steps(frames, hidden), steps(height, hidden), steps(width, hidden))]
    base = config.sample_height // config.patch_size, config.sample_width // config.patch_size
    first, last = get_resize_crop_region_for_grid((height, width), base[1], base[0])
    return [product(steps(frames, hidden), *cropped(first, last, (height, width), hidden))]


def hunyuandit(model: Any, call: Call) -> list[Tensor]:
    """A part of a grid of 32 by 32."""
    from diffusers.pipelines.hunyuandit.pipeline_hunyuandit import get_resize_crop_region_for_grid

    hidden, side = call["hidden_states"], model.config.patch_size
    sides = [size // side for size in hidden.shape[2:]]
    first, last = get_resize_crop_region_for_grid(tuple(sides), 512 // 8 // side)
    return [product(*cropped(first, last, sides, hidden))]


def cropped(first: Sequence[int], last: Sequence[int], sides: Sequence[int], like: Tensor) -> list[Tensor]:
    """Rows and columns of a grid that is stretched to a part of the trained one."""
    spans = [b * (n - 1) / n - a for a, b, n in zip(first, last, sides, strict=True)]
    return [a + span * steps(n, like) / max(n - 1, 1) for a, span, n in zip(first, spans, sides, strict=True)]


def easyanimate(module: Any, call: Call) -> list[Tensor]:
    """A part of a grid of 60 by 90."""
    hidden, side = call["hidden_states"], module.patch_size
    sides = [size // side for size in hidden.shape[3:]]
    first, last = module.get_resize_crop_region_for_grid(tuple(sides), 90 // side, 60 // side)
    return [product(steps(hidden.shape[2], hidden), *cropped(first, last, sides, hidden))]


def kandinsky(module: Any, call: Call) -> list[Tensor]:
    """Indices from the pipeline, over its scale."""
    scales = call.get("scale_factor", (1.0, 1.0, 1.0))
    axes = [as_float64(pos) / scale for pos, scale in zip(call["pos"], scales, strict=True)]
    grid = torch.stack(torch.meshgrid(*axes, indexing="ij"), dim=-1)
    return [grid if "shape" not in call else grid.expand(call["shape"][0], -1, -1, -1, -1)]


def small_kandinsky(module: Any) -> Call:
    """A call about 3 frames of 4 by 5."""
    pos = tuple(torch.arange(n) for n in (3, 4, 5))
    return {"pos": pos, "scale_factor": (1.0, 2.0, 2.0)}


def joyimage(module: Any, call: Call) -> list[Tensor]:
    """Counted in patches; text, if it is turned, after the largest of them, the same on all axes."""
    sides = [1] * (3 - len(call["vis_rope_size"])) + list(call["vis_rope_size"])
    grid = product(*(steps(side) for side in sides))
    if call.get("txt_rope_size") is None:
        return [grid]
    text = max(sides) + steps(call["txt_rope_size"])
    return [grid, text[:, None].expand(-1, 3)]


def helios(module: Any, call: Call) -> list[Tensor]:
    """The frames have indices of their own, row by row of the batch."""
    device = call.get("device")
    sides = [steps(call[side], device) for side in ("height", "width")]
    rows = [
        torch.stack(torch.meshgrid(as_float64(frames).to(float64_device(device)), *sides, indexing="ij"), dim=-1)
        for frames in call["frame_indices"]
    ]
    return [torch.stack(rows)]


def in_line(module: Any, call: Call) -> list[Tensor]:
    """0, 1, 2, ..."""
    return [steps(int(call["seq_len"]), call.get("device"))]


def short_line(module: Any) -> Call:
    """7 tokens."""
    return {"seq_len": 7, "device": torch.device("cpu")}

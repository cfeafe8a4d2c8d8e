"""Tables of a live model made in float64."""

from types import MethodType
from typing import Any

import torch
from torch import Tensor, nn

from posenc import MRoPE, RoPE
from posenc.frequencies import LearnedRates
from posenc.integrations.patch import Patch
from posenc.integrations.transformers.description.reader import describe
from posenc.kernels.precision import as_float64


def exact_tables(patch: Patch, model: Any, modules: list[nn.Module]) -> None:
    """Let each of the modules make its tables in float64 and keep them in float32.

    Raises:
        ValueError: a module whose tables are not those of one rule that is known here.
    """
    if not modules:
        raise ValueError(
            "its tables of cos and sin are not computed by a separate module, so posenc cannot compute them exactly"
        )
    for module in modules:
        rotations = _rotations(module)
        forward = _exact(module, rotations)
        patch.assign(module, "forward", MethodType(forward, module))


def _rotations(module: Any) -> dict[str | None, RoPE | MRoPE]:
    """The rotation by kind of layer; None where the module has one for all."""
    if "forward" in vars(module):
        raise ValueError(
            f"the forward of its {type(module).__name__} was replaced already; undo that replacement first"
        )
    name = type(module).__name__
    found: dict[str | None, RoPE | MRoPE] = {}
    for group in describe(module.config) if hasattr(module, "config") else ():
        turning = group.encoding.at("queries_keys")
        if group.part == "" and isinstance(turning, (RoPE, MRoPE)):
            found[group.label or None] = turning
    if not found:
        raise ValueError(f"posenc does not know the rates of its {name}")
    for turning in found.values():
        if turning.frequencies.depends_on_length or isinstance(turning.frequencies, LearnedRates):
            raise ValueError(f'{turning.frequencies} depends on the length or is learned; use numerics="transformers"')
    return found


def _exact(module: Any, rotations: dict[str | None, RoPE | MRoPE]) -> Any:
    """The forward with tables by the rotations, after comparing it with the module's own."""
    name = type(module).__name__
    device, kept = next(module.buffers()).device, next(module.buffers()).dtype
    tolerance = max(1e-5, 32 * torch.finfo(kept).eps)  # rates that .bfloat16() has narrowed are put right

    def tables(turning: RoPE | MRoPE, positions: Tensor) -> tuple[Tensor, Tensor]:
        if isinstance(turning, MRoPE):
            positions = positions.movedim(0, -1) if positions.ndim == 3 else positions[..., None].expand(-1, -1, 3)
        angle, magnitude = turning.phases(positions)
        return angle.cos() * magnitude, angle.sin() * magnitude

    written: dict[str | None, tuple[str, int]] = {}
    for label, turning in rotations.items():
        positions = torch.arange(7, device=device)[None]
        axes = positions * torch.tensor([1, 2, 3], device=device)[:, None, None]
        given = axes if isinstance(turning, MRoPE) else positions
        options = {} if label is None else {"layer_type": label}
        x = torch.zeros(1, 7, 1, device=device)
        try:
            theirs = module(x, given, **options)
        except Exception as error:
            raise ValueError(f"its {name} takes other arguments than positions ({error})") from error
        if not (isinstance(theirs, tuple) and len(theirs) == 2):
            raise ValueError(f"its {name} returns something other than cos and sin")
        forms = {
            (layout, sign): tuple(_written(table * (sign if i else 1), layout) for i, table in enumerate(made))
            for made in [tables(turning, given)]
            for layout in ("halves", "neighbours", "pairs")
            for sign in (1, -1)
        }
        fits = [
            form
            for form, made in forms.items()
            if made[0].shape == theirs[0].shape
            and all(torch.allclose(as_float64(a).to(b), b, atol=tolerance) for a, b in zip(theirs, made, strict=True))
        ]
        if not fits:
            raise ValueError(f"the tables of its {name} are not those of {turning.frequencies}")
        written[label] = fits[0]

    def forward(self: Any, x: Tensor, position_ids: Tensor, layer_type: str | None = None) -> tuple[Tensor, Tensor]:
        label = layer_type if layer_type in rotations else None
        layout, sign = written[label]
        cos, sin = tables(rotations[label], position_ids)
        dtype = torch.float64 if x.dtype is torch.float64 else torch.float32
        # Made on the CPU where the device has no float64.
        return _written(cos, layout).to(dtype).to(x.device), _written(sin * sign, layout).to(dtype).to(x.device)

    return torch.no_grad()(forward)


def _written(table: Tensor, layout: str) -> Tensor:
    if layout == "halves":
        return torch.cat((table, table), dim=-1)
    return table.repeat_interleave(2, dim=-1) if layout == "neighbours" else table

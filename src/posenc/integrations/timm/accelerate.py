"""posenc's fused rotation in a live model of timm."""

import re
import weakref
from collections.abc import Callable
from types import MethodType
from typing import Any

import torch
from torch import Tensor, nn

from posenc.integrations.patch import Patch
from posenc.integrations.timm.library import live_model
from posenc.integrations.timm.tables import grid_of
from posenc.integrations.transformers.live.accelerate import close
from posenc.integrations.transformers.live.sites import Site, find_sites, with_sites
from posenc.kernels.precision import compute_dtype
from posenc.kernels.rotate.op import rotate

_ROTATES = re.compile(r"^apply_rot_embed_cat$")


def accelerate(model: Any, *, inputs: Tensor | None = None) -> Patch:
    """Make a live model of timm use posenc's fused rotation: EVA, DINOv3, RoPE-ViT, the vision tower of Qwen 3.

    posenc runs the model once, with both functions for each rotation, and compares the results. If all agree, it
    replaces the functions, in this model alone. The results are the model's, bit for bit, in float32, and also in
    bfloat16 and float16; but if the model's tables have that dtype and it rounds each product, the results differ
    within that rounding.

    Args:
        model: a model of timm. Call this before ``torch.compile``.
        inputs: images for that run, by default one of the model's size.

    Returns:
        A :class:`Patch`.

    Raises:
        TypeError: no model of timm.
        ValueError: the model has no rotation that posenc knows; it is unchanged.
    """
    inner = live_model(model, "accelerate")
    refuse = f"accelerate: {type(inner).__name__} cannot be accelerated: "
    reached: list[Site] = []
    try:
        sites = find_sites(inner, _ROTATES)
        with with_sites(sites, lambda site, function: _both(function, site, reached)):
            run(inner, inputs)
    except ValueError as error:
        raise ValueError(f"{refuse}{error}; nothing was changed.") from error
    if not reached:
        raise ValueError(f"{refuse}a forward pass calls no rotation; nothing was changed.")
    chosen = list({id(site): site for site in reached}.values())
    count = f"{len(chosen)} attention{'s' if len(chosen) > 1 else ''}"
    patch = Patch(inner, f"accelerate {type(inner).__name__}: {count}")
    ours, rebuilt = rotation(), {}
    for site in chosen:
        if site.code not in rebuilt:
            rebuilt[site.code] = site.rebuilt({name: ours for name, _ in site.functions})
        patch.assign(site.module, site.method, MethodType(rebuilt[site.code], site.module))
    return patch.commit()


class _Tables:
    """cos and sin of the last embedding, one number for each pair, while it lives and is not written to."""

    def __init__(self) -> None:
        self._of: tuple[Any, int, bool, torch.dtype] | None = None
        self._made: tuple[Tensor, Tensor] | None = None

    def get(self, emb: Tensor, half: bool, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
        if torch.compiler.is_compiling() or emb.requires_grad or emb.is_inference():
            return _compact(emb, half, dtype)
        if self._of is not None and self._made is not None:
            of, version, of_half, of_dtype = self._of
            if of() is emb and version == emb._version and of_half is half and of_dtype is dtype:
                return self._made
        self._made = _compact(emb, half, dtype)
        self._of = (weakref.ref(emb), emb._version, half, dtype)
        return self._made

    def __deepcopy__(self, memo: Any) -> "_Tables":
        return _Tables()


def _compact(emb: Tensor, half: bool, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    sin, cos = emb.chunk(2, -1)
    pairs = slice(0, cos.shape[-1] // 2) if half else slice(0, None, 2)
    return cos[..., pairs].to(dtype).contiguous(), sin[..., pairs].to(dtype).contiguous()


def rotation() -> Callable[..., Tensor]:
    """posenc's rotation behind the arguments of timm's ``apply_rot_embed_cat``."""
    tables = _Tables()

    def apply_rot_embed_cat(x: Tensor, emb: Tensor, half: bool = False) -> Tensor:
        cos, sin = tables.get(emb, half, compute_dtype(x.dtype))
        pairing: Any = "half" if half else "interleaved"
        if cos.ndim == 4 and cos.shape[1] == 1:  # one for each image
            cos, sin = cos[:, 0], sin[:, 0]
        elif cos.ndim == 3 and x.ndim == 4:  # one for each head: they are the rows of a batch then
            turned, _ = rotate(x.transpose(0, 1), x.transpose(0, 1)[:, :0], cos, sin, pairing=pairing)
            return turned.transpose(0, 1)
        elif cos.ndim == 4 and cos.shape[:2] == x.shape[:2]:  # one for each head of each image
            each = x.flatten(0, 1)[:, None]
            turned, _ = rotate(each, each[:, :0], cos.flatten(0, 1), sin.flatten(0, 1), pairing=pairing)
            return turned.view_as(x)
        if cos.ndim > 3 or x.ndim != 4:
            raise ValueError(
                f"a rotation of {tuple(x.shape)} by tables of {tuple(emb.shape)}, which posenc does not know"
            )
        return rotate(x, x[:, :0], cos, sin, pairing=pairing)[0]

    return apply_rot_embed_cat


def _both(theirs: Callable[..., Any], site: Site, reached: list[Site]) -> Callable[..., Any]:
    ours = rotation()

    def call(x: Tensor, emb: Tensor, half: bool = False) -> Tensor:
        expected: Tensor = theirs(x, emb, half=half)
        found = ours(x, emb, half=half)
        if found.shape != expected.shape or found.dtype is not expected.dtype or not close(expected, found):
            raise ValueError(f"in {site.name} its function returns something other than a rotation by its tables")
        reached.append(site)
        return expected

    return call


@torch.no_grad()
def run(model: nn.Module, inputs: Tensor | None) -> None:
    """One forward, without dropout or a trace in the generator."""
    training = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        model(images_for(model) if inputs is None else inputs)
    except (RuntimeError, TypeError, AssertionError, IndexError, KeyError, AttributeError) as error:
        said = f"{type(error).__name__}: {str(error)[:200]}"
        raise ValueError(f"the forward pass that posenc compares with failed ({said}); give inputs=...") from error
    finally:
        for module, was in training:
            module.training = was


def images_for(model: Any) -> Tensor:
    """One image of noise, of the size that the model takes."""
    first = next(model.parameters())
    size = getattr(getattr(model, "patch_embed", None), "img_size", None)
    settings = getattr(model, "pretrained_cfg", None) or {}
    channels, *sides = settings.get("input_size") or (3, 224, 224)
    sides = list(size) if size and grid_of(model) else sides
    drawn = torch.randn(1, channels, *sides, generator=torch.Generator().manual_seed(0))
    return drawn.to(first.device, first.dtype)

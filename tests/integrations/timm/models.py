"""Small models of timm with random weights, for tests; skipped by name where timm is not installed."""

import importlib.util
import warnings
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from posenc.lab.checkpoint.timm_library import import_timm

if importlib.util.find_spec("timm") is None:
    pytest.skip("timm is not installed: pip install timm", allow_module_level=True)
with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    timm = import_timm()

PLAIN = {"embed_dim": 64, "depth": 2, "num_heads": 2, "img_size": 64, "patch_size": 16, "num_classes": 5}
WINDOWS = {"embed_dim": 16, "depths": (2, 1), "num_heads": (1, 2), "img_size": 64, "window_size": 4, "num_classes": 5}
SMALL: dict[str, tuple[str, dict[str, Any]]] = {
    "ViT": ("vit_base_patch16_224", PLAIN),
    "DeiT": ("deit_base_distilled_patch16_224", PLAIN),
    "BEiT": ("beitv2_base_patch16_224", PLAIN),
    "EVA-02": ("eva02_base_patch14_224", PLAIN),
    "RoPE-ViT": ("vit_small_patch16_rope_224", PLAIN),
    "RoPE-ViT, mixed": ("vit_small_patch16_rope_mixed_224", PLAIN),
    "RoPE-ViT, mixed and a table": ("vit_small_patch16_rope_mixed_ape_224", PLAIN),
    "Perception Encoder": ("vit_pe_core_base_patch16_224", PLAIN),
    "DINOv3": ("vit_small_patch16_dinov3", PLAIN),
    "Swin": ("swin_tiny_patch4_window7_224", WINDOWS),
    "Swin v2": ("swinv2_tiny_window8_256", WINDOWS),
}
ROTATING = [name for name in SMALL if name.startswith(("EVA", "RoPE", "Perception", "DINO"))]


def build(name: str, **options: Any) -> Any:
    torch.manual_seed(0)
    architecture, given = SMALL[name]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = timm.create_model(architecture, pretrained=False, **{**given, **options}).eval()
    for key, parameter in model.named_parameters():
        if parameter.ndim > 1 and "freqs" not in key:
            nn.init.normal_(parameter, std=0.3 if "pos" in key or "relative" in key else 0.15)
    for module in model.modules():
        if hasattr(module, "gamma_1") and isinstance(module.gamma_1, nn.Parameter):
            nn.init.ones_(module.gamma_1), nn.init.ones_(module.gamma_2)
    return model


def images(height: int = 64, width: int = 64) -> Tensor:
    return torch.randn(2, 3, height, width, generator=torch.Generator().manual_seed(1))


@torch.no_grad()
def read(model: Any, pixels: Tensor) -> Tensor:
    return model.forward_features(pixels)  # type: ignore[no-any-return]

"""The texts of Inkling, Inkling 2 and its looped form: a bias of mixed profiles in every layer, and no rotation."""

from collections.abc import Mapping
from typing import Any

import torch

from posenc import Compose, Temperature
from posenc.encoding import Encoding
from posenc.integrations.transformers.description.config import need, need_key, need_number, need_size, size
from posenc.integrations.transformers.description.found import Found
from posenc.scores import InklingBias


def inkling(config: Mapping[str, Any]) -> list[Found]:
    """Local layers see a window, which is as far as their profiles reach; the scores of global ones grow with i."""
    dim, rank, clip = int(need(config, "hidden_size")), need_size(config, "d_rel"), None
    notes: tuple[str, ...] = ("queries and keys are normalised, and their products are divided by head_dim",)
    if config["model_type"] != "inkling_text":
        clip, notes = need_number(config, "rel_l2_clip_threshold"), ()
    found: list[Found] = []
    for kind, heads_key, extent_key in (
        ("hybrid_sliding", "swa_num_attention_heads", "sliding_window_size"),
        ("hybrid", "num_attention_heads", "rel_extent"),
    ):
        local = kind == "hybrid_sliding"  # as the model asks: every other name is a global layer
        layers = tuple(i for i, of in enumerate(need_key(config, "layer_types")) if (of == "hybrid_sliding") == local)
        with torch.device("meta"):
            bias = InklingBias(
                dim, need_size(config, heads_key), rank=rank, extent=need_size(config, extent_key), clip=clip
            )
        encoding: Encoding = bias
        if not local and config.get("log_scaling_n_floor") is not None:
            start, strength = need_size(config, "log_scaling_n_floor"), need_number(config, "log_scaling_alpha")
            encoding = Compose(bias, Temperature("inkling", length=start, strength=strength))
        found.append((kind, layers, encoding, size(config, "max_positions"), notes))
    return [group for group in found if group[1]]

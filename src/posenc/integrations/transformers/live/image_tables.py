"""The tables of a live model of images: which grid they are for, and other numbers in them."""

from typing import Any

import torch
from torch import nn

from posenc import AxialRoPE, Learned, Sinusoidal
from posenc.embeddings import LearnedGrid
from posenc.encoding import EmbeddingEncoding, Encoding
from posenc.integrations.image_positions import codes_for
from posenc.integrations.patch import Patch
from posenc.integrations.transformers.description.description import Description
from posenc.integrations.transformers.description.images import spectrogram_grid, video_shape
from posenc.integrations.transformers.description.patch_tables import patch_grid


def image_grid(model: Any, described: Description) -> tuple[int, ...] | None:
    """Rows and columns of the patches of a model that reads images alone, and frames before them; None for others."""
    if any(group.part for group in described):
        return None
    config = model.config.to_dict()
    kind = config.get("model_type")
    if kind == "audio-spectrogram-transformer":
        return spectrogram_grid(config)
    if kind in ("videomae", "vivit"):
        return video_shape(config, "tubelet_size" if kind == "vivit" else "")
    seen = any(isinstance(each, (LearnedGrid, AxialRoPE)) for group in described for each in group.encoding.parts)
    if not seen or config.get("image_size") is None or config.get("patch_size") is None:
        return None
    return patch_grid(config)


def take_out_of_grid(patch: Patch, model: Any, described: Description, encoding: Encoding) -> None:
    """Overwrite the tables of patches: with zeros, or the codes of an encoding of the embeddings.

    Raises:
        ValueError: there is something else besides tables, or no table.
    """
    added = [each for each in encoding.parts if isinstance(each, EmbeddingEncoding)]
    present = [each for group in described for each in group.encoding.parts]
    others = [type(each).__name__ for each in present if not isinstance(each, (LearnedGrid, Learned, Sinusoidal))]
    if others:
        raise ValueError(
            f"replace: {type(model).__name__} has {others[0]} within its attention, which posenc cannot remove."
        )
    found = False
    grid = image_grid(model, described) or ()
    for table in present:
        for tensors, key in _tables(model, table):
            old = tensors[key]
            rows = old.numel() // old.shape[-1]
            new = torch.zeros_like(old)
            if added:
                prefix = rows - int(torch.tensor(grid).prod())
                new.view(rows, -1).copy_(codes_for(added[0], grid, prefix, old.shape[-1]))
            learns = bool(added) and any(True for _ in added[0].parameters())
            patch.swap(tensors, key, nn.Parameter(new, learns) if isinstance(old, nn.Parameter) else new)
            found = True
    if not found:
        raise ValueError(f"replace: no table of {type(model).__name__} has as many rows as its config says.")


def _tables(model: nn.Module, encoding: Any) -> list[tuple[dict[str, Any], str]]:
    """(tensors of a module, name) of every table of an encoding's rows and width."""
    rows = encoding.max_positions
    found = []
    for path, module in model.named_modules():
        for tensors in (module._parameters, vars(module)):
            for key, tensor in tensors.items():
                if not isinstance(tensor, torch.Tensor) or "position" not in f"{path}.{key}":
                    continue
                fits = rows is None or tensor.numel() == rows * encoding.dim
                if tensor.shape[-1] == encoding.dim and tensor.ndim > 1 and fits:
                    found.append((tensors, key))
    return found

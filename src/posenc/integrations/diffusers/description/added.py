"""Tables that models of diffusers add to their patches: the name of a class -> what is in it."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from posenc import Sinusoidal
from posenc.embeddings import LearnedGrid, SinusoidalGrid
from posenc.encoding import EmbeddingEncoding
from posenc.integrations.diffusers.description.tables import TIME_HEIGHT_WIDTH


@dataclass(frozen=True)
class Added:
    """A table that the modules of one class add.

    Attributes:
        encoding: the encoding, from the module and its model.
        axes: names of its coordinates.
        positions: what a patch's coordinates are, in words.
        coordinates: the same in numbers, for every row of the table, ``(rows, axes)``; None for a learned table.
        table: the module's own, ``(rows, channels)``.
        ends: the first row and column that it does not have.
        applies: False for a module that adds nothing.
    """

    encoding: Callable[[Any, Any], EmbeddingEncoding]
    axes: tuple[str, ...]
    positions: str
    coordinates: Callable[[Any, Any], Tensor | None]
    table: Callable[[Any, Any], Tensor]
    ends: Callable[[Any, Any], tuple[int | None, ...]]
    applies: Callable[[Any, Any], bool] = lambda module, model: True

    def difference(self, module: Any, model: Any) -> str | None:
        """In which way the module's table is other than the encoding's; None if it is not, or is learned."""
        where = self.coordinates(module, model)
        if where is None:
            return None
        theirs = self.table(module, model)
        far = float((self.encoding(module, model).codes(where) - theirs.cpu().double()).abs().max())
        if far <= 1e-5:
            return None
        was = f": it is kept in {str(theirs.dtype).removeprefix('torch.')}" if theirs.dtype is not torch.float32 else ""
        return f"differs by up to {far:.2g} from what its config says{was}"


def _side(module: Any) -> int:
    """Patches along a side of a square table."""
    return int(module.pos_embed.shape[1] ** 0.5)


def _square(module: Any, model: Any) -> Tensor:
    if module.pos_embed_max_size:
        side, base = _side(module), module.base_size
        return SinusoidalGrid.coordinates_as_in("sd3", side, side, base=base, scale=_scale(module), table=side)[0]
    side = _side(module)
    return SinusoidalGrid.coordinates_as_in("pixart", side, side, base=module.base_size, scale=_scale(module))[0]


def _scale(module: Any) -> float:
    return float(module.interpolation_scale or 1)


def _cropped_ends(module: Any, model: Any) -> tuple[int | None, ...]:
    return (module.pos_embed_max_size or None,) * 2


def _cogvideox_shape(module: Any) -> tuple[int, int, int]:
    frames = (module.sample_frames - 1) // module.temporal_compression_ratio + 1
    return frames, module.sample_height // module.patch_size, module.sample_width // module.patch_size


def _cogvideox(module: Any, model: Any) -> Tensor | None:
    if module.use_learned_positional_embeddings:
        return None
    return SinusoidalGrid.coordinates_as_in(
        "cogvideox",
        *_cogvideox_shape(module),
        scale=module.spatial_interpolation_scale,
        time_scale=module.temporal_interpolation_scale,
    )[0]


#: Class of the module, or of the model that keeps the table itself -> what it adds.
ADDED: dict[str, Added] = {
    "PatchEmbed": Added(
        encoding=lambda module, model: SinusoidalGrid.as_in("sd3", module.pos_embed.shape[-1]),
        axes=("height", "width"),
        positions="row and column of the patch, stretched over the trained grid and over its interpolation_scale; of a "
        "table that is larger than the image the middle is taken",
        coordinates=_square,
        table=lambda module, model: module.pos_embed[0],
        ends=_cropped_ends,
        applies=lambda module, model: getattr(module, "pos_embed", None) is not None,
    ),
    "OmniGenPatchEmbed": Added(
        encoding=lambda module, model: SinusoidalGrid.as_in("sd3", module.pos_embed.shape[-1]),
        axes=("height", "width"),
        positions="row and column of the patch in its image, stretched over the trained 64 by 64; of the table the "
        "middle is taken; text gets nothing",
        coordinates=lambda module, model: SinusoidalGrid.coordinates_as_in(
            "sd3", _side(module), _side(module), base=64, scale=_scale(module), table=_side(module)
        )[0],
        table=lambda module, model: module.pos_embed[0],
        ends=_cropped_ends,
    ),
    "CogView3PlusPatchEmbed": Added(
        encoding=lambda module, model: SinusoidalGrid.as_in("sd3", module.pos_embed.shape[-1]),
        axes=("height", "width"),
        positions="row and column of the patch; text gets nothing",
        coordinates=lambda module, model: SinusoidalGrid.coordinates_as_in("mae", *module.pos_embed.shape[:2])[0],
        table=lambda module, model: module.pos_embed.flatten(0, 1),
        ends=lambda module, model: tuple(module.pos_embed.shape[:2]),
    ),
    "CogVideoXPatchEmbed": Added(
        encoding=lambda module, model: SinusoidalGrid.as_in("cogvideox", module.embed_dim),
        axes=TIME_HEIGHT_WIDTH,
        positions="frame, row and column of the patch, over the interpolation scales; text gets nothing. Learned from "
        "there on where the config says so",
        coordinates=_cogvideox,
        table=lambda module, model: module.pos_embedding[0, module.max_text_seq_length :],
        ends=lambda module, model: _cogvideox_shape(module),
        applies=lambda module, model: hasattr(module, "pos_embedding"),
    ),
    "AuraFlowPatchEmbed": Added(
        encoding=lambda module, model: LearnedGrid(module.pos_embed.shape[-1], grid=(_side(module),) * 2),
        axes=("height", "width"),
        positions="row and column of the patch, in the middle of the table",
        coordinates=lambda module, model: None,
        table=lambda module, model: module.pos_embed[0],
        ends=lambda module, model: (_side(module),) * 2,
    ),
    "SinusoidalPositionalEmbedding": Added(
        encoding=lambda module, model: Sinusoidal(module.pe.shape[-1]),
        axes=("sequence",),
        positions="place in the sequence; of a video the frame",
        coordinates=lambda module, model: torch.arange(module.pe.shape[1]),
        table=lambda module, model: module.pe[0],
        ends=lambda module, model: (module.pe.shape[1],),
    ),
    "LatteTransformer3DModel": Added(
        encoding=lambda module, model: Sinusoidal(model.temp_pos_embed.shape[-1], order="concatenated"),
        axes=("time",),
        positions="the frame, before the first block over time",
        coordinates=lambda module, model: torch.arange(model.temp_pos_embed.shape[1]),
        table=lambda module, model: model.temp_pos_embed[0],
        ends=lambda module, model: (model.temp_pos_embed.shape[1],),
    ),
}

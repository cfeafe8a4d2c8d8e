"""Learned tables with a row for each patch of an image, in the keys of each model type's config."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch

from posenc.embeddings import LearnedGrid
from posenc.integrations.transformers.description.config import need_key, need_size
from posenc.integrations.transformers.description.layers import all_layers
from posenc.integrations.transformers.description.model_types import names

_BY_NEED = "the table is interpolated to the grid of each image"
_AT_FRACTIONS = "an image of another shape takes the rows that lie nearest to its patches' places, as shares of a side"
_NO_ROWS = "the tokens before the patches get no row"


@dataclass(frozen=True)
class Table:
    """Where a config says how large such a table is.

    Attributes:
        prefix: how many rows come before those of the patches, or the keys whose sum says it.
        image: the key of the size of image that the table is for.
        patch: the key of the size of a patch.
        rows: the key of the number of rows, of a square table that no size of image tells.
        sides: the keys of rows and columns, of a table that no size of image tells.
        width: the key of its channels.
        asked: the key that has to be true, of a table that a config may leave out.
        note: what a reader should know besides.
        total: the key of the number of all rows, which the size of image tells too.
    """

    prefix: int | tuple[str, ...] = 0
    image: str = "image_size"
    patch: str = "patch_size"
    rows: str = ""
    sides: tuple[str, str] | None = None
    width: str = "hidden_size"
    asked: str = ""
    note: str = ""
    total: str = ""

    def grid(self, config: Mapping[str, Any]) -> tuple[int, int]:
        """Rows and columns of the patches that it has rows for."""
        if self.sides is not None:
            return sides(config, self.sides[0])[0], sides(config, self.sides[1])[1]
        if not self.rows:
            return patch_grid(config, self.image, self.patch)
        count = need_size(config, self.rows)
        side = round(max(count, 0) ** 0.5)
        if side < 1 or side * side != count:
            raise ValueError(
                f"describe: {self.rows} is {count}, expected a square number, because the table has equal sides."
            )
        return side, side

    def encoding(self, config: Mapping[str, Any]) -> LearnedGrid | None:
        """The table; None if the config leaves it out."""
        if self.asked and not config.get(self.asked):
            return None
        before = self.prefix if isinstance(self.prefix, int) else sum(need_size(config, key) for key in self.prefix)
        grid = self.grid(config)
        total = config.get(self.total) if self.total else None
        if total is not None and total != before + grid[0] * grid[1]:
            raise ValueError(
                f"describe: {self.total} is {total}, and an image of {self.image} {config[self.image]} has {grid[0]} x "
                f"{grid[1]} patches and {before} token before them; correct one of them."
            )
        return learned_grid(need_size(config, self.width), grid, before)

    @property
    def notes(self) -> tuple[str, ...]:
        """The note, if there is one."""
        return (self.note,) if self.note else ()


#: A square of 4096 patches on a side.
MOST_PATCHES = 1 << 24


def learned_grid(dim: int, grid: tuple[int, int], prefix: int = 0) -> LearnedGrid:
    """A table without weights, which a config has none of."""
    if dim < 1:
        raise ValueError(f"describe: hidden_size is {dim}, expected above 0; correct it.")
    if grid[0] * grid[1] > MOST_PATCHES:
        raise ValueError(
            f"describe: the config gives a grid of {grid[0]} x {grid[1]} patches, which no model has; correct its "
            "sizes."
        )
    with torch.device("meta"):
        return LearnedGrid(dim, grid=grid, prefix=prefix)


def sides(config: Mapping[str, Any], key: str) -> tuple[int, int]:
    """(height, width) of a key that is one number or two.

    Raises:
        ValueError: something else.
    """
    value = need_key(config, key)
    pair = tuple(value) if isinstance(value, (list, tuple)) else (value, value)
    if len(pair) != 2 or any(isinstance(n, bool) or not isinstance(n, int) or not 0 < n < 1 << 24 for n in pair):
        raise ValueError(
            f"describe: {key} is {value!r}, expected a size in pixels, one number or [height, width]; correct it."
        )
    return pair[0], pair[1]


def patch_grid(config: Mapping[str, Any], image: str = "image_size", patch: str = "patch_size") -> tuple[int, int]:
    """Rows and columns of patches in an image of the config's size."""
    (height, width), (tall, wide) = sides(config, image), sides(config, patch)
    rows, columns = height // tall, width // wide
    if not rows * columns:
        raise ValueError(
            f"describe: {image} {config[image]} is smaller than {patch} {config[patch]}, so that there are no "
            "patches; correct one of them."
        )
    return rows, columns


def stacked_layers(config: Mapping[str, Any]) -> tuple[int, ...]:
    """All layers, of stages too."""
    depths = config.get("depths")
    if isinstance(depths, (list, tuple)):
        return tuple(range(sum(int(depth) for depth in depths)))
    return all_layers(config)


#: Models whose one encoding is such a table.
TABLES: dict[str, Table] = {
    **dict.fromkeys(
        names("""
            aimv2_vision_model groupvit_vision_model ijepa janus_vision_model minicpmv4_6_vision minicpmv4_7_vision
            minicpm_ocr_vision ovis2_vision siglip_vision_model
        """),
        Table(),
    ),
    **dict.fromkeys(
        names("""
            altclip_vision_model blip_2_vision_model blip_vision_model bridgetower_vision_model
            chinese_clip_vision_model clip_vision_model clipseg_vision_model dinov2 dinov2_with_registers dpt
            flava_image_model git_vision_model instructblip_vision_model instructblipvideo_vision_model intern_vit_6b
            internvl_vision kosmos_2_vision_model metaclip_2_vision_model mgp-str owlv2_vision_model owlvit_vision_model
            qianfan_ocr_vision rf_detr_dinov2 step3_vision_encoder tipsv2_vision_model unlimited_ocr_vision_encoder vit
            vit_msn xclip_vision_model
        """),
        Table(prefix=1),
    ),
    "cogvlm.vision_config": Table(prefix=1, total="num_positions"),
    "deit": Table(prefix=2),
    "pixio": Table(prefix=("n_cls_tokens",)),
    "idefics_vision": Table(prefix=1, width="embed_dim"),
    "hiera": Table(patch="patch_stride", width="embed_dim"),
    "molmo2_vision": Table(rows="num_position_embeddings"),
    "cosmos3_edge_vision": Table(rows="num_patches", note=_BY_NEED),
    "siglip2_vision_model": Table(
        rows="num_patches", note="the table is interpolated to the grid of each image, bilinear with antialias"
    ),
    "glm_image_vision": Table(note=_BY_NEED),
    **dict.fromkeys(
        names("idefics2_vision idefics3_vision phi4_multimodal_vision smolvlm_vision"), Table(note=_AT_FRACTIONS)
    ),
    **dict.fromkeys(names("eomt videomt"), Table(note=_NO_ROWS)),
    "radio": Table(image="max_img_size", note=f"{_NO_ROWS}; a part of the table as large as the image is stretched"),
    "vitpose_backbone": Table(prefix=1, note="the first row is added to every patch, and there is no class token"),
    "lw_detr_vit": Table(
        prefix=1,
        image="pretrain_image_size",
        asked="use_absolute_position_embeddings",
        note=f"{_BY_NEED}; there is no class token for the first row",
    ),
    **dict.fromkeys(
        names("hunyuan_vl_vision hy_v4_vl_vision"),
        Table(prefix=1, image="max_image_size", note=f"{_BY_NEED}; there is no class token for the first row"),
    ),
    "granite_docling_vision": Table(note="its connectors add sinusoids of rows and columns to the pooled patches"),
    "mllama_vision_model": Table(
        prefix=1, note="a share of it is a learned gate's, whose rest are tables by the number of an image's tile"
    ),
}

#: Tables of image models that rotate queries and keys besides.
BESIDE_ROTATION: dict[str, Table] = {
    **dict.fromkeys(names("glm4v_vision glm4v_moe_vision ovis2_5_vision paddleocr_vl_vision"), Table(note=_BY_NEED)),
    **dict.fromkeys(
        names("""
            cohere_compass_vision qwen3_5_moe_vision qwen3_5_vision qwen3_omni_moe_vision_encoder qwen3_vl_moe_vision
            qwen3_vl_vision qwen4_exp_vision
        """),
        Table(rows="num_position_embeddings", note=_BY_NEED),
    ),
    "kimi_k25_vision": Table(
        sides=("pos_emb_height", "pos_emb_width"), note=f"{_BY_NEED}; sinusoids of the frames are also added"
    ),
    **dict.fromkeys(
        names("muse_glimmer_vision muse_spark_vision"), Table(sides=("pos_emb_height", "pos_emb_width"), note=_BY_NEED)
    ),
    "inkling2_vision": Table(
        sides=("posemb_grid_size", "posemb_grid_size"), note=f"{_BY_NEED}; the class token has its own row"
    ),
    "step3p5_vision": Table(note=_BY_NEED),
    "llama4_vision_model": Table(
        prefix=1, note="the row of the class token is the last of the checkpoint's table, and the first here"
    ),
    "sam3_vit_model": Table(image="pretrain_image_size", note="a larger image repeats the table like tiles"),
}

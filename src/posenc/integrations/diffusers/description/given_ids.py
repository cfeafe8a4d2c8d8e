"""Tables made from coordinates that the pipeline gives for each token."""

from dataclasses import replace

import torch

from posenc import AxialRoPE, MRoPE
from posenc.frequencies import Geometric
from posenc.integrations.diffusers.description.coordinates import (
    from_ids,
    some_ids,
)
from posenc.integrations.diffusers.description.tables import (
    TIME_HEIGHT_WIDTH,
    Row,
    axial,
    complex_numbers,
    cos_and_sin,
    halves,
    matrices,
    neighbours,
)

_FLUX = Row(
    encoding=lambda module, model: axial(module.axes_dim, module.theta),
    axes=TIME_HEIGHT_WIDTH,
    positions="ids from the pipeline: image tokens at (0, row, column), text tokens at 0",
    coordinates=from_ids,
    written=cos_and_sin(neighbours),
    probe=some_ids,
    names=lambda encoding: TIME_HEIGHT_WIDTH[-(encoding.coordinates or 0) :],  # a first axis may have no width
)


_FLUX2 = replace(
    _FLUX,
    names=None,
    axes=("time", "height", "width", "text"),
    positions="ids from the pipeline: image tokens at (t, row, column, 0), t 0 for the image that is made and 10, 20, "
    "... for references; text tokens at (0, 0, 0, place)",
)


_MATRICES = replace(
    _FLUX,
    written=lambda module, tables: matrices(tables[0]).unsqueeze(2),
    probe=lambda module: {"ids": some_ids(module)["ids"][None]},
)


#: Class of the module, or of the model where the pipeline makes the tables -> its row.
GIVEN_IDS: dict[str, Row] = {
    **dict.fromkeys(
        (
            "FluxPosEmbed",
            "BriaEmbedND",
            "BriaFiboEmbedND",
            "LongCatImagePosEmbed",
            "OvisImagePosEmbed",
            "Krea2RotaryPosEmbed",
        ),
        _FLUX,
    ),
    **dict.fromkeys(("Flux2PosEmbed", "Flux3PosEmbed"), _FLUX2),
    "HiDreamImageEmbedND": _MATRICES,
    "PRXEmbedND": replace(
        _MATRICES,
        names=None,
        axes=("height", "width"),
        positions="ids of the patches: (row, column); text is not rotated",
        written=lambda module, tables: matrices(tables[0]).unsqueeze(1),
    ),
    "RopeEmbedder": replace(
        _FLUX,
        encoding=lambda module, model: axial(module.axes_dims, module.theta),
        positions="text tokens at (place, 0, 0), counted from 1; image tokens at (place after the text, row, column)",
        written=lambda module, tables: complex_numbers(tables[0]),
        probe=lambda module: {"ids": torch.tensor([[1, 0, 0], [2, 0, 0], [3, 0, 1], [3, 1, 0], [3, 1, 2]])},
        ends=lambda module: tuple(module.axes_lens),
        method="__call__",
    ),
    "Lumina2RotaryPosEmbed": replace(
        _FLUX,
        positions="text tokens at (place, 0, 0); image tokens at (place after the text, row, column)",
        written=lambda module, tables: torch.complex(*tables[0]),
        probe=lambda module: {"ids": torch.tensor([[[0, 0, 0], [1, 0, 0], [2, 0, 1], [2, 1, 0]]]).int()},
        ends=lambda module: tuple(module.axes_lens),
        method="_get_freqs_cis",
    ),
    "Ideogram4MRoPE": Row(
        encoding=lambda module, model: MRoPE(
            module.head_dim,
            sections=module.mrope_section,
            layout="interleaved",
            frequencies=Geometric(float(model.config.rope_theta)),
        ),
        axes=TIME_HEIGHT_WIDTH,
        positions="ids from the pipeline, of text and image tokens in one sequence",
        coordinates=lambda module, call: [call["position_ids"]],
        written=cos_and_sin(halves),
        probe=lambda module: {"position_ids": torch.tensor([[[0, 1, 2], [3, 0, 9], [7, 5, 1]]])},
    ),
    "Cosmos3VLTextRotaryEmbedding": Row(
        encoding=lambda module, model: MRoPE(
            model.config.head_dim,
            sections=module.rope_axes_dim,
            layout="interleaved",
            frequencies=Geometric(float(model.config.rope_theta)),
        ),
        axes=TIME_HEIGHT_WIDTH,
        positions="ids from the pipeline, of text, image and sound tokens in one sequence",
        coordinates=lambda module, call: [call["position_ids"].movedim(0, -1)],
        written=cos_and_sin(halves),
        probe=lambda module: {
            "position_ids": torch.tensor([[[0, 3, 7]], [[1, 0, 5]], [[2, 9, 1]]]),
            "device": torch.device("cpu"),
            "dtype": torch.float32,
        },
    ),
    "MiniMaxH3RotaryPosEmbed": Row(
        encoding=lambda module, model: AxialRoPE(
            model.config.attention_head_dim,
            axes=3,
            frequencies=Geometric(float(model.config.rope_theta)),
            layout="half",
            rotary_dim=6 * module.rope_freq_dim,
        ),
        axes=TIME_HEIGHT_WIDTH,
        positions="ids from the pipeline, of text, video and sound tokens in one sequence",
        coordinates=lambda module, call: [call["position_ids"]],
        written=cos_and_sin(halves),
        probe=lambda module: {"position_ids": torch.tensor([[0, 1, 2], [3, 0, 9], [7, 5, 1]])},
    ),
}

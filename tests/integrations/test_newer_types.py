"""Model types that transformers has since 5.25, read by their keys where the installed one is older.

The answers are read from the modules of 5.25.0, whose tables and rotations agreed with what is described.
"""

from typing import Any

import pytest

from posenc import AxialRoPE, RoPE
from posenc.embeddings import LearnedGrid
from posenc.frequencies import Geometric
from posenc.integrations.transformers import describe

pytest.importorskip("transformers")


@pytest.mark.transformers_as_pinned
def test_a_part_that_only_has_parts_is_not_named_as_unread() -> None:
    """ColPali's and pi0's ``vlm_config``, a PaliGemma, whose two towers were read, was."""
    text = {"model_type": "gemma", "hidden_size": 64, "num_attention_heads": 4, "head_dim": 16, "num_hidden_layers": 2}
    vision = {"model_type": "siglip_vision_model", "hidden_size": 64, "image_size": 32, "patch_size": 8}
    described = describe(
        {
            "model_type": "colpali",
            "vlm_config": {"model_type": "paligemma", "text_config": text, "vision_config": vision},
        }
    )
    assert {group.part for group in described} == {"vlm_config.text_config", "vlm_config.vision_config"}
    assert described.unread == ()


NEWER: list[tuple[dict[str, Any], dict[tuple[int, ...], tuple[str, str]]]] = [
    ({"model_type": "minicpm5_moe", "head_dim": 16}, {(0, 1, 2, 3): ("RoPE", "half")}),
    ({"model_type": "ergo"}, {(0, 1, 2): ("RoPE", "interleaved"), (3,): ("NoPE", "")}),
    (
        {
            "model_type": "kolibri1_1",
            "index_num_heads": 1,
            "layer_types": ["sliding_attention"] * 3 + ["indexed_attention"],
        },
        {(0, 1, 2): ("RoPE", "half"), (3,): ("NoPE", "")},
    ),
]


@pytest.mark.parametrize(("own", "expected"), NEWER, ids=lambda each: each.get("model_type"))
def test_text_models(own: dict[str, Any], expected: dict[tuple[int, ...], Any]) -> None:
    sizes = {"hidden_size": 64, "num_attention_heads": 4, "num_key_value_heads": 2, "num_hidden_layers": 4}
    kinds = {"layer_types": ["sliding_attention"] * 3 + ["full_attention"], "sliding_window": 8}
    rope = {"rope_theta": 1e6, "rope_type": "default"}
    own = own if own["model_type"] == "minicpm5_moe" else {**kinds, **own}
    described = describe({**sizes, "max_position_embeddings": 4096, "rope_parameters": rope, **own})
    found = {g.layers: (type(g.encoding).__name__, getattr(g.encoding, "pairing", "")) for g in described}
    assert found == expected
    assert {g.encoding.frequencies for g in described if isinstance(g.encoding, RoPE)} == {Geometric(1e6)}
    assert described.unread == ()


def test_image_towers() -> None:
    sizes = {"hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4, "image_size": 32, "patch_size": 8}
    rope = {"rope_parameters": {"rope_theta": 1e4, "rope_type": "axial"}}
    turned, table = describe({"model_type": "ovis2_5_vision", **sizes, **rope})
    assert isinstance(turned.encoding, AxialRoPE)
    assert (turned.encoding.layout, turned.encoding.order, turned.encoding.head_dim) == ("half", (0, 1), 16)
    assert isinstance(table.encoding, LearnedGrid)
    assert (table.encoding.grid, table.encoding.dim) == ((4, 4), 64)
    (turned,) = describe({"model_type": "llava_onevision1_5_vision", **sizes, "depth": 2, "num_heads": 4, **rope})
    assert isinstance(turned.encoding, AxialRoPE)
    assert turned.encoding.layout == "half"
    assert "the class token is rotated by learned angles" in turned.notes

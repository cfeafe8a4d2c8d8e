"""Model types of the installed transformers are read as they compute themselves."""

import pytest
from tools.census.census import TOLERANCE, as_markdown, census, rows_of
from tools.census.configs import DIFFERENCES

pytest.importorskip("transformers")

#: One of each family: pairings, slices, kinds of layers, coordinates, temperatures, and what is not rotary.
FAMILIES = (
    *("llama", "gpt_neox", "gptj", "cohere", "deepseek_v3", "deepseek_v4", "gemma3_text", "gemma4_text", "gpt_oss"),
    *("glm4", "nanochat", "smollm3", "llama4_text", "ministral3", "mistral4", "beam", "qwen2_vl_text", "qwen3_vl_text"),
    *("ernie4_5_vl_moe_text", "qwen2_vl_vision", "pixtral", "kimi_k25_vision", "gemma4_vision", "dinov3_vit"),
    *("llama4_vision_model", "roformer", "esmfold2", "bloom", "mpt", "marian", "m2m_100", "whisper"),
    *("bert", "opt", "phi3", "sam_vision_model", "sam_hq_vision_model", "idefics2_vision", "vit_mae"),
)

NOT_COVERED = {
    "musicflamingo": "angles are products of time and position",
    "layoutxlm": "a config of another model, without code of its own",
    "lightglue": "angles are a learned map of two coordinates, one for all heads",
}


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("model_type", FAMILIES)
def test_one_of_each_family_agrees_with_its_own_module(model_type: str) -> None:
    rows = rows_of(model_type)
    assert rows
    for row in rows:
        assert row.status in ("agreed", "not rotated"), row
        assert row.error is not None
        assert row.error <= 1


@pytest.mark.filterwarnings("ignore")
def test_a_known_bug_is_found() -> None:
    (row,) = rows_of("vjepa2")
    assert row.status == "differs"
    assert row.error is not None
    assert row.error * TOLERANCE > 0.1  # a good part of a radian, at positions below 8
    assert "a bug in transformers" in row.note


@pytest.mark.filterwarnings("ignore")
def test_the_parts_of_a_model_have_rows_of_their_own() -> None:
    assert [row.status for row in rows_of("llava")] == ["parts only"]


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_every_model_type_agrees_or_is_accounted_for() -> None:
    rows = list(census())
    differing = {
        (row.model_type, row.label.removesuffix(", full_attention")) for row in rows if row.status == "differs"
    }
    assert differing == set(DIFFERENCES)
    assert {row.model_type for row in rows if row.status == "not covered"} == set(NOT_COVERED)
    assert sum(row.status == "agreed" for row in rows) >= 400
    document = as_markdown(rows)
    assert all(f"| {row.model_type} |" in document for row in rows if row.status in ("agreed", "differs"))

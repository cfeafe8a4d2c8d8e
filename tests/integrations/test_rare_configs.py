"""Configs of rare kinds as they lie in public repositories, with the fields that bear on positions: each is read as the
code that it belongs to reads it, or refused."""

import math
from typing import Any

import pytest
import torch

import posenc
from posenc import ALiBi, Learned, MRoPE, RoPE, Sinusoidal, T5Bias
from posenc.integrations.transformers import describe

transformers = pytest.importorskip("transformers")

#: THUDM/glm-515m, as PaddleNLP has it (paddlenlp/transformers/glm/configuration.py).
GLM_515M: dict[str, Any] = {
    "model_type": "glm",
    "attention_scale": 1.0,
    "block_position_encoding": True,
    "hidden_size": 1152,
    "max_sequence_length": 512,
    "num_attention_heads": 18,
    "num_layers": 30,
    "relative_encoding": False,
}


def test_the_first_glm_has_two_tables_and_not_the_rotation_of_glm_4() -> None:
    """Its code: two ``nn.Embedding(max_sequence_length + 1, hidden_size)``, for the text and for the span."""
    text, span = describe(GLM_515M)
    for group in (text, span):
        assert isinstance(group.encoding, Learned)
        assert (group.encoding.length, group.encoding.dim, len(group.layers)) == (513, 1152, 30)
    (alone,) = describe(GLM_515M | {"block_position_encoding": False})
    assert isinstance(alone.encoding, Learned)
    assert alone.encoding.length == 512
    with pytest.raises(ValueError, match="relative_encoding of the first GLM"):
        describe(GLM_515M | {"relative_encoding": True})
    (later,) = describe({"model_type": "glm", "hidden_size": 256, "num_attention_heads": 4, "num_hidden_layers": 2})
    assert isinstance(later.encoding, RoPE)


def test_of_an_encoder_inside_another_model_the_decoder_is_not_described() -> None:
    """MiniCPM-o 2.6 builds Whisper's encoder alone, Parler-TTS and MusicGen T5's."""
    whisper = {"model_type": "whisper", "d_model": 1024, "encoder_layers": 24, "encoder_attention_heads": 16}
    whisper |= {"max_source_positions": 1500, "decoder_layers": 24, "max_target_positions": 448}
    text = {"hidden_size": 3584, "num_attention_heads": 28, "num_hidden_layers": 28, "num_key_value_heads": 4}
    text |= {"max_position_embeddings": 32768, "rope_theta": 1e6}
    described = describe({"model_type": "minicpmo", **text, "audio_config": whisper})
    assert [(group.part, type(group.encoding)) for group in described] == [("", RoPE), ("audio_config", Sinusoidal)]
    t5 = {"model_type": "t5", "d_model": 1024, "num_heads": 16, "num_layers": 24, "d_kv": 64}
    decoder = {"model_type": "musicgen_decoder", "hidden_size": 64, "num_attention_heads": 4, "num_hidden_layers": 2}
    parts = {"text_encoder": t5, "audio_encoder": {"model_type": "encodec"}, "decoder": decoder}
    described = describe({"model_type": "musicgen", **parts})
    assert [(group.part, type(group.encoding)) for group in described] == [
        ("text_encoder", T5Bias),
        ("decoder", Sinusoidal),
    ]
    assert [group.label for group in describe(t5)] == ["encoder", "decoder"]


def test_florence_2_as_microsoft_wrote_it() -> None:
    """Its text part is BART's under a name of its own; its image part adds learned rows and columns."""
    text = {"model_type": "florence2_language", "d_model": 768, "encoder_layers": 6, "decoder_layers": 6}
    text |= {"encoder_attention_heads": 12, "max_position_embeddings": 1024, "num_hidden_layers": 6}
    image = {"model_type": "davit", "dim_embed": [128, 256, 512, 1024], "depths": [1, 1, 9, 1], "window_size": 12}
    image["image_pos_embed"] = {"type": "learned_abs_2d", "max_pos_embeddings": 50}
    described = describe({"model_type": "florence2", "text_config": text, "vision_config": image})
    (group,) = described
    assert isinstance(group.encoding, Learned)
    assert (group.part, group.encoding.length) == ("text_config", 1024)
    assert any("learned rows for a patch's row and for its column" in each for each in described.unread)


@pytest.mark.parametrize(
    ("model_type", "words"), [("wavlm", "T5's biases by distance"), ("sew-d", "DeBERTa's learned vectors by distance")]
)
def test_speech_models_with_more_than_a_convolution_say_so(model_type: str, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        describe({"model_type": model_type})


def test_sizes_under_a_name_that_the_class_does_not_read() -> None:
    """llm_analysis/model_configs/NousResearch_Llama-2-7b-hf.json of cli99/llm-analysis, and names of other trainers."""
    llama: dict[str, Any] = {"model_type": "llama", "num_layers": 32, "n_head": 32, "hidden_dim": 4096}
    described = describe({**llama, "max_seq_len": 4096, "vocab_size": 32000})
    assert described.unread == ("max_seq_len, 4096: its class reads another key, and uses 2048 instead",)
    for key, value, right in (("d_model", 2048, "hidden_size"), ("kv_channels", 64, "head_dim")):
        with pytest.raises(ValueError, match=rf"{key} is {value}, and LlamaConfig .* rename it to {right}"):
            describe({"model_type": "llama", "num_hidden_layers": 32, "num_attention_heads": 32, key: value})


def test_parts_without_types_in_an_object_without_a_type_are_parts() -> None:
    """NVIDIA-NeMo/Megatron-Bridge, tests of its conversion of Qwen3-ASR: its class has no thinker_config, and took its
    defaults for the whole model."""
    audio = {"encoder_layers": 2, "encoder_attention_heads": 2, "d_model": 64, "max_source_positions": 1500}
    text = {"hidden_size": 256, "num_hidden_layers": 2, "num_attention_heads": 4, "head_dim": 128, "rope_theta": 5e6}
    text |= {"rope_scaling": {"rope_type": "default", "mrope_section": [24, 20, 20]}}
    config = {"model_type": "qwen3_asr", "thinker_config": {"audio_config": audio, "text_config": text}}
    heard, said = describe(config)
    assert isinstance(heard.encoding, Sinusoidal)
    assert (heard.part, heard.layers, heard.encoding.dim) == ("thinker_config.audio_config", (0, 1), 64)
    assert isinstance(said.encoding, MRoPE)
    assert (said.part, said.layers, said.encoding.sections) == ("thinker_config.text_config", (0, 1), (24, 20, 20))
    config["thinker_config"]["audio_config"] = {"d_model": 64, "encoder_layers": 2}
    assert any("no max_source_positions" in each for each in describe(config).unread)


def test_an_architecture_of_another_type_than_the_model_type_is_noted() -> None:
    """pytorch/executorch, examples/mediatek/models/llm_models/weights/gemma3_1b_it/config.json: gemma3, and the class
    of gemma3_text."""
    sizes = {"hidden_size": 1152, "num_attention_heads": 4, "num_hidden_layers": 6, "head_dim": 256}
    gemma = {"model_type": "gemma3", **sizes, "architectures": ["Gemma3ForCausalLM"]}
    for group in describe(gemma):
        assert "which is of gemma3_text: vLLM goes by that" in group.notes[-1]
    for own in ({"model_type": "gemma3_text"}, {"architectures": ["Gemma3ForConditionalGeneration"]}):
        assert not any("goes by" in note for group in describe(gemma | own) for note in group.notes)


#: Configs of other libraries than transformers, which share names of keys with its own.
OTHERS: dict[str, dict[str, Any]] = {
    # state-spaces/mamba, MambaConfig with attention: mamba2attn-2.7b.
    "mamba_ssm": {
        **{"d_model": 2560, "n_layer": 64, "attn_layer_idx": [9, 18, 27, 36, 45, 56]},
        "attn_cfg": {"causal": True, "d_conv": 4, "head_dim": 128, "num_heads": 30, "rotary_emb_dim": 64},
    },
    # Zyphra/Zonos, Zonos-v0.1-transformer.
    "zonos": {
        "backbone": {
            **{"d_model": 2048, "n_layer": 26, "attn_layer_idx": list(range(26))},
            "attn_cfg": {"num_heads": 16, "num_heads_kv": 4, "rotary_emb_dim": 128, "rotary_emb_interleaved": True},
        },
        "prefix_conditioner": {"conditioners": []},
    },
    # openai/gpt-oss, the original files: a rule in words of its own.
    "gpt-oss": {
        **{"num_hidden_layers": 36, "hidden_size": 2880, "head_dim": 64, "num_attention_heads": 64},
        **{"sliding_window": 128, "initial_context_length": 4096, "rope_theta": 150000, "rope_scaling_factor": 32.0},
        **{"rope_ntk_alpha": 1, "rope_ntk_beta": 32},
    },
    # Arguments of Megatron-LM as a trainer writes them down.
    "megatron": {
        **{"num_layers": 20, "hidden_size": 2048, "num_attention_heads": 16, "position_embedding_type": "rope"},
        **{"rotary_base": 600000, "rotary_percent": 0.5, "max_position_embeddings": 4096},
    },
    # mlfoundations/open_lm, model_configs/open_lm_1b.json.
    "open_lm": {"hidden_dim": 2048, "n_layers": 24, "n_heads": 16, "seq_len": 2048, "post_embed_norm": False},
}


@pytest.mark.parametrize("name", OTHERS)
def test_the_config_of_another_library_is_refused_with_and_without_a_pairing(name: str) -> None:
    with pytest.raises(ValueError, match="there is no model_type in the config; add it, or give the pairing"):
        describe(OTHERS[name])
    with pytest.raises(ValueError, match=r"no model_type in the config, and no rope_theta|rope_scaling_factor = 32"):
        describe(OTHERS[name], pairing="half")


def test_clex_whose_rates_are_those_of_an_equation_is_refused() -> None:
    """DAMO-NLP-SG/CLEX: its type is llama, and its rule is a neural ODE over the rates."""
    config = {"model_type": "llama", "hidden_size": 4096, "num_attention_heads": 32, "num_hidden_layers": 32}
    with pytest.raises(ValueError, match="rope_type is 'clex', expected one of"):
        describe({**config, "rope_scaling": {"type": "clex", "max_factor": 16, "param_factor": 1}})


def test_the_config_of_diffusers_says_who_reads_it() -> None:
    """kijai/ComfyUI-WanVideoWrapper, configs/transformer_config_i2v.json: its model_type is a task."""
    wan = {"_class_name": "WanModel", "dim": 5120, "model_type": "i2v", "num_heads": 40, "num_layers": 40}
    with pytest.raises(ValueError, match=r"'WanModel'; read it with posenc.integrations.diffusers.describe"):
        describe(wan)


def test_code_of_another_name_beside_the_weights_is_noted() -> None:
    """NousResearch/Yarn-Llama-2-7b-128k, whose classes have the names of transformers' (jquesnelle/yarn)."""
    llama: dict[str, Any] = {"model_type": "llama", "architectures": ["LlamaForCausalLM"], "hidden_size": 4096}
    llama |= {"num_attention_heads": 32, "num_hidden_layers": 32, "rope_theta": 1e4}
    for module, noted in (
        ("modeling_llama_together_yarn", True),
        ("modeling_llama", False),
        ("a/b--modeling_llama", False),
    ):
        auto_map = {
            "AutoConfig": "configuration_llama.LlamaConfig",
            "AutoModelForCausalLM": f"{module}.LlamaForCausalLM",
        }
        (group,) = describe({**llama, "auto_map": auto_map})
        assert any("auto_map names code" in note and module in note for note in group.notes) == noted


@pytest.mark.transformers_as_pinned
def test_of_deepseek_v4_the_note_names_what_its_attention_also_rotates() -> None:
    """A layer with a window alone: its keys are its values, so the output is turned back before its projection."""
    modeling = pytest.importorskip("transformers.models.deepseek_v4.modeling_deepseek_v4")
    config = transformers.DeepseekV4Config(
        hidden_size=64, num_attention_heads=4, head_dim=32, q_lora_rank=32, o_groups=2, o_lora_rank=16,
        num_hidden_layers=1, layer_types=["sliding_attention"], attn_implementation="eager", sliding_window=8,
    )  # fmt: skip
    (group,) = (each for each in describe(config) if each.layers)
    assert any("values are rotated too, and the output is turned back" in note for note in group.notes)
    yarn = {"model_type": "deepseek_v4", "rope_scaling": {"type": "yarn", "factor": 4.0}}
    notes = describe(yarn).layer(0).notes
    assert any("values are rotated too" in note for note in notes)
    assert any("original_max_position_embeddings is not given" in note for note in notes)
    rope = group.encoding
    assert isinstance(rope, RoPE)
    torch.manual_seed(0)
    layer = modeling.DeepseekV4Attention(config, layer_idx=0).eval()
    for weight in layer.parameters():
        torch.nn.init.normal_(weight, std=0.2)
    x, seen = torch.randn(1, 12, 64), []
    layer.o_a_proj.register_forward_pre_hook(lambda _, args: seen.append(args[0]))
    t = torch.arange(12)
    tables = {"main": modeling.DeepseekV4RotaryEmbedding(config)(x, t[None], layer_type="main")}
    near = (t[:, None] >= t) & (t[:, None] - t < 8)
    with torch.no_grad():
        layer(x, tables, t[None], torch.zeros(1, 1, 12, 12).masked_fill(~near, -torch.inf))
        q = layer.q_b_norm(layer.q_b_proj(layer.q_a_norm(layer.q_a_proj(x))).unflatten(-1, (4, 32)).transpose(1, 2))
        kv = layer.kv_norm(layer.kv_proj(x)).unflatten(-1, (1, 32)).transpose(1, 2)
        q, kv = rope.on_queries_keys(q, kv, t)
        y = rope.inverse(posenc.attention(q, kv, kv, rope, causal=True, window=8, sinks=layer.sinks), t)
    torch.testing.assert_close(y.transpose(1, 2).reshape(seen[0].shape), seen[0], atol=1e-5, rtol=1e-5)


#: xai-org/grok-2, as sgl-project/sglang-jax has it in its tests.
GROK_2: dict[str, Any] = {
    **{"architectures": ["Grok1ForCausalLM"], "model_type": "git", "hidden_size": 8192, "num_hidden_layers": 64},
    **{"num_attention_heads": 64, "num_key_value_heads": 8, "head_dim": 128, "max_position_embeddings": 131072},
    **{"rope_theta": 208533496, "attn_temperature_len": 1024, "rope_type": "original", "scaling_factor": 16.0},
    **{"original_max_position_embeddings": 8192, "extrapolation_factor": 1.0, "attn_factor": 1.0},
    **{"beta_fast": 8, "beta_slow": 1},
}


def test_grok_2_is_not_the_model_whose_name_it_borrowed() -> None:
    """SGLang's models/grok.py: "original" scales nothing, "yarn" leaves the factor of cos and sin out."""
    (group,) = described = describe(GROK_2)
    assert isinstance(group.encoding, RoPE)
    assert (group.encoding.pairing, group.encoding.rotary_dim, len(group.layers)) == ("half", 128, 64)
    assert group.encoding.frequencies == posenc.frequencies.Geometric(208533496.0)
    assert described.unread == ()
    assert any("not read: attn_temperature_len" in note for note in group.notes)
    (scaled,) = describe(GROK_2 | {"rope_type": "yarn"})
    assert isinstance(scaled.encoding, RoPE)
    exponents = torch.arange(0, 128, 2, dtype=torch.float64) / 128
    plain = 208533496.0**-exponents
    low, high = (64 * math.log(8192 / (turns * 2 * math.pi)) / math.log(208533496.0) for turns in (8, 1))
    ramp = ((torch.arange(64) - math.floor(low)) / (math.ceil(high) - math.floor(low))).clamp(0, 1)
    torch.testing.assert_close(
        torch.as_tensor(scaled.encoding.frequencies.inv_freq(128)), plain / 16 * ramp + plain * (1 - ramp)
    )
    assert scaled.encoding.frequencies.attention_factor == 1.0
    assert scaled.trained_length == 8192
    with pytest.raises(ValueError, match="rope_type of a Grok is 'theta_scale'"):
        describe(GROK_2 | {"rope_type": "theta_scale"})
    with pytest.raises(ValueError, match="extrapolation_factor of a Grok"):
        describe(GROK_2 | {"rope_type": "yarn", "extrapolation_factor": 0.5})
    first = {"model_type": "grok-1", "hidden_size": 6144, "num_attention_heads": 48, "num_hidden_layers": 64}
    (group,) = describe(first | {"max_position_embeddings": 8192})  # hpcai-tech/grok-1
    assert isinstance(group.encoding, RoPE)
    assert group.encoding.frequencies == posenc.frequencies.Geometric(10_000.0)
    captions = {
        "model_type": "git",
        "rope_theta": 1e4,
        "hidden_size": 768,
        "num_attention_heads": 12,
        "num_hidden_layers": 6,
    }
    assert isinstance(describe(captions).groups[0].encoding, Learned)


def test_slopes_that_a_config_divides() -> None:
    """cerebras/btlm-3b-8k-base, README: n_positions 16384 or 32768 and ``alibi_scaling`` for longer texts. Jais has the
    same code."""
    btlm: dict[str, Any] = {"model_type": "btlm", "n_embd": 2560, "n_head": 32, "n_layer": 32, "n_positions": 32768}
    btlm |= {"position_embedding_type": "alibi"}
    (fixed,) = described = describe(btlm | {"alibi_scaling": {"type": "linear", "factor": 4}})
    assert isinstance(fixed.encoding, ALiBi)
    assert (fixed.encoding.strength, described.unread) == (0.25, ())
    dynamic = {"alibi_scaling": {"type": "linear", "train_seq_len": 8192}}
    (by_length,) = describe(btlm | {"model_type": "jais", "n_positions": 16384} | dynamic)
    assert isinstance(by_length.encoding, ALiBi)
    assert (by_length.encoding.strength, by_length.trained_length) == (1.0, 8192)
    assert "past them the code divides all slopes" in by_length.notes[0]
    for wrong in ({"type": "dynamic", "factor": 2}, {"type": "linear"}, "linear"):
        with pytest.raises(ValueError, match="alibi_scaling"):
            describe(btlm | {"alibi_scaling": wrong})
    with pytest.raises(ValueError, match="factor is 0, of type int"):
        describe(btlm | {"alibi_scaling": {"type": "linear", "factor": 0}})


def test_the_period_of_zamba_starts_at_its_fourth_layer() -> None:
    """Zyphra/Zamba-7B-v1: the note said that its class dropped attn_layer_period, which it reads in its own way."""
    zamba: dict[str, Any] = {"model_type": "zamba", "hidden_size": 3712, "num_attention_heads": 16}
    zamba |= {"num_hidden_layers": 76, "attn_layer_period": 6, "attn_layer_offset": 4}
    (group,) = described = describe(zamba)
    assert group.layers == (2, *range(7, 76, 6))
    assert not any("attn_layer_period" in each for each in described.unread)


@pytest.mark.transformers_as_pinned
@pytest.mark.parametrize(("module", "kind"), [("deepseek_v32", "DeepseekV32"), ("axk2", "AXK2")])
def test_a_note_names_an_indexer_whose_pairs_are_other_ones(
    module: str, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It rotates by halves what the config describes, and the attention neighbouring channels."""
    modeling = pytest.importorskip(f"transformers.models.{module}.modeling_{module}")
    config = getattr(transformers, f"{kind}Config")(
        hidden_size=64, num_attention_heads=4, q_lora_rank=32, kv_lora_rank=16, qk_rope_head_dim=16,
        qk_nope_head_dim=16, index_n_heads=2, index_head_dim=32, num_hidden_layers=1,
    )  # fmt: skip
    (group,) = describe(config)
    rope: Any = group.rotation
    assert rope.pairing == "interleaved"
    assert any("the indexer, which chooses the keys" in note and 'pairing="half"' in note for note in group.notes)
    theirs, calls = modeling.apply_rotary_pos_emb, []

    def recorded(q: torch.Tensor, k: torch.Tensor, *rest: Any, **options: Any) -> Any:
        calls.append((q, theirs(q, k, *rest, **options)[0]))
        return theirs(q, k, *rest, **options)

    monkeypatch.setattr(modeling, "apply_rotary_pos_emb", recorded)
    torch.manual_seed(0)
    x, t = torch.randn(1, 6, 64), torch.arange(6)
    tables = getattr(modeling, f"{kind}RotaryEmbedding")(config)(x, t[None])
    getattr(modeling, f"{kind}Indexer")(config, 0)(x, torch.randn(1, 6, 32), tables, torch.zeros(1, 6, 6), t[None])
    ((given, turned),) = calls
    halves = posenc.RoPE(16, frequencies=rope.frequencies, pairing="half", seq_dim=-3)
    torch.testing.assert_close(turned, halves.rotate(given, t), atol=1e-5, rtol=1e-5)
    assert not torch.allclose(turned, posenc.RoPE(16, pairing="interleaved", seq_dim=-3).rotate(given, t), atol=1e-2)

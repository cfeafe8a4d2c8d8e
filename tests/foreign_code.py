"""A tiny model with code of its own, as owners wrote it for transformers 4: what its rotary module does varies."""

import json
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

CONFIGURATION = """
from transformers import PretrainedConfig

class MineConfig(PretrainedConfig):
    model_type = "mine"

    def __init__(self, vocab_size=300, hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=4,
                 num_key_value_heads=2, max_position_embeddings=64, rope_theta=1000.0, **kwargs):
        self.vocab_size, self.hidden_size, self.intermediate_size = vocab_size, hidden_size, intermediate_size
        self.num_hidden_layers, self.num_attention_heads = num_hidden_layers, num_attention_heads
        self.num_key_value_heads, self.max_position_embeddings = num_key_value_heads, max_position_embeddings
        self.head_dim, self.hidden_act, self.rms_norm_eps = hidden_size // num_attention_heads, "silu", 1e-6
        self.attention_bias = self.mlp_bias = False
        self.attention_dropout, self.initializer_range, self.pretraining_tp = 0.0, 0.3, 1
        self.rope_theta, self.pad_token_id, self.use_cache = rope_theta, None, True
        self.rope_scaling = kwargs.pop("rope_scaling", None)
        super().__init__(**kwargs)
"""

MODELLING = """
import torch
from torch import nn
from transformers import LlamaForCausalLM, LlamaModel
from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS, dynamic_rope_update

from .configuration_mine import MineConfig

def plain(base, dim):
    return 1.0 / (base ** (torch.arange(0, dim, 2, dtype=torch.int64).float() / dim))
{rotary}
class MineModel(LlamaModel):
    config_class = MineConfig

    def __init__(self, config):
        super().__init__(config)
        self.rotary_emb = MineRotary{arguments}
        self.post_init()

    def _init_weights(self, module):
        super()._init_weights(module)
        {fill}

class MineForCausalLM(LlamaForCausalLM):
    config_class = MineConfig

    def __init__(self, config):
        super().__init__(config)
        self.model = MineModel(config)
        self.post_init()
"""

_FORWARD = """
    @torch.no_grad(){update}
    def forward(self, x, position_ids):
        angles = position_ids[..., None].float() * self.inv_freq.float()
        both = torch.cat((angles, angles), -1)
        return (both.cos() * {scaling}).to(x.dtype), (both.sin() * {scaling}).to(x.dtype)

"""

#: A base, as in the first Llama.
_BASE = """
class MineRotary(nn.Module):
    def __init__(self, dim, base):
        super().__init__()
        self.dim, self.base = dim, base
        self.register_buffer("inv_freq", plain(base, dim), persistent={persistent})
""" + _FORWARD.format(update="", scaling="1")

#: The functions of transformers, as in its own models of 4.45.
_FUNCTIONS = """
class MineRotary(nn.Module):
    def __init__(self, config):
        super().__init__()
        self.rope_type = (config.rope_scaling or {{}}).get("rope_type", "default")
        self.max_seq_len_cached = self.original_max_seq_len = config.max_position_embeddings
        self.config = config
        self.rope_init_fn = ROPE_INIT_FUNCTIONS[self.rope_type] if self.rope_type != "default" else self.default
        inv_freq, self.attention_scaling = self.rope_init_fn(config, None)
        self.register_buffer("inv_freq", inv_freq, persistent={persistent})
        self.register_buffer("original_inv_freq", inv_freq.clone(), persistent=False)

    @staticmethod
    def default(config, device=None):
        return plain(config.rope_theta, config.head_dim), 1.0
""" + _FORWARD.format(update="\n    @dynamic_rope_update", scaling="self.attention_scaling")

#: The rates kept as a plain tensor besides, which loading with transformers 5 leaves on the meta device.
_TENSOR = _FUNCTIONS.replace(
    'self.register_buffer("original_inv_freq", inv_freq.clone(), persistent=False)', "self.original_inv_freq = inv_freq"
)

#: Its own classes for its own rules, and the rates stay.
_CLASSES = (
    _BASE.replace("MineRotary", "Plain")
    + """
class Divided(Plain):
    def forward(self, x, position_ids):
        return super().forward(x, position_ids / 2)

def MineRotary(config):
    kind = Divided if (config.rope_scaling or {{}}).get("rope_type") == "linear" else Plain
    return kind(config.head_dim, config.rope_theta)
"""
)

#: Rates that follow the config, and angles that do not.
_LIES = _FUNCTIONS.replace("self.inv_freq.float()", "plain(1000.0, self.config.head_dim).to(x.device)")

_ROTARY = {
    "base": (_BASE, "(config.head_dim, config.rope_theta)", "plain(module.base, module.dim)"),
    "functions": (_FUNCTIONS, "(config)", "module.rope_init_fn(self.config, None)[0]"),
    "tensor": (_TENSOR, "(config)", "module.rope_init_fn(self.config, None)[0]"),
    "classes": (_CLASSES, "(config)", "plain(module.base, module.dim)"),
    "lies": (_LIES, "(config)", "module.rope_init_fn(self.config, None)[0]"),
}


def keep_apart(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let transformers copy code that it trusts into this folder, and know none from before."""
    monkeypatch.setattr("transformers.dynamic_module_utils.HF_MODULES_CACHE", str(folder))
    monkeypatch.syspath_prepend(str(folder))
    for name in [name for name in sys.modules if name.startswith("transformers_modules")]:
        monkeypatch.delitem(sys.modules, name)


def write(folder: Path, rotary: str, *, fills: bool = True, persistent: bool = False, **config: Any) -> Path:
    """Write the folder of one.

    Args:
        folder: where to.
        rotary: one of ``base``, ``functions``, ``tensor``, ``classes`` and ``lies``.
        fills: whether its ``_init_weights`` fills the rates in, which transformers 5 leaves unset otherwise.
        persistent: whether the rates are among the weights.
        config: changes to its config.
    """
    from safetensors.torch import save_file
    from transformers import LlamaConfig, LlamaForCausalLM

    folder.mkdir()
    code, arguments, rates = _ROTARY[rotary]
    fill = f'if hasattr(module, "inv_freq"): [b.copy_({rates}) for b in module.buffers()]' if fills else "pass"
    text = MODELLING.replace("{rotary}", code.format(persistent=persistent))
    (folder / "modeling_mine.py").write_text(text.replace("{arguments}", arguments).replace("{fill}", fill))
    (folder / "configuration_mine.py").write_text(CONFIGURATION)
    sizes = {"vocab_size": 300, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2}
    sizes |= {"num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": 64}
    code_map = {"AutoConfig": "configuration_mine.MineConfig", "AutoModelForCausalLM": "modeling_mine.MineForCausalLM"}
    said: dict[str, Any] = {"model_type": "mine", "architectures": ["MineForCausalLM"], "auto_map": code_map}
    said |= {**sizes, "rope_theta": 1000.0, "tie_word_embeddings": False, **config}
    (folder / "config.json").write_text(json.dumps(said))
    torch.manual_seed(0)
    model = LlamaForCausalLM(LlamaConfig(**{**sizes, "initializer_range": 0.3, "tie_word_embeddings": False}))  # type: ignore[arg-type]
    weights = {name: tensor.contiguous() for name, tensor in model.state_dict().items()}
    if persistent:
        weights["model.rotary_emb.inv_freq"] = 1.0 / (1000.0 ** (torch.arange(0, 8, 2) / 8))
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    return folder

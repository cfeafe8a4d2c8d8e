"""Tables made from the place of each token in one sequence: text, sound."""

from typing import Any

import torch

from posenc import RoPE
from posenc.frequencies import Frequencies, Geometric, Linear, LongRoPE
from posenc.integrations.diffusers.description.coordinates import (
    in_line,
    short_line,
)
from posenc.integrations.diffusers.description.tables import (
    Row,
    cos_and_sin,
    halves,
    matrices,
    steps,
)


def _omnigen(module: Any, model: Any) -> RoPE:
    rule = LongRoPE(
        module.short_factor,
        module.long_factor,
        trained_length=module.original_max_position_embeddings,
        factor=module.max_position_embeddings / module.original_max_position_embeddings,
        base=float(module.base),
    )
    return RoPE(module.dim, frequencies=rule)


def _scaled(base: float, share: float) -> Frequencies:
    return Geometric(float(base)) if share == 1 else Linear(1 / share, base=float(base))


#: Class of the module, or of the model where the pipeline makes the tables -> its row.
SEQUENCES: dict[str, Row] = {
    "OmniGenSuScaledRotaryEmbedding": Row(
        encoding=_omnigen,
        axes=("sequence",),
        positions="place in the sequence of text and image tokens",
        coordinates=lambda module, call: [call["position_ids"][0]],
        written=cos_and_sin(halves),
        probe=lambda module: {"hidden_states": torch.zeros(1), "position_ids": torch.arange(9)[None]},
    ),
    "AudioDiTRotaryEmbedding": Row(
        encoding=lambda module, model: RoPE(module.dim, frequencies=Geometric(float(module.base))),
        axes=("time",),
        positions="place in the sequence",
        coordinates=lambda module, call: [
            steps(
                call["hidden_states"].shape[1] if call.get("seq_len") is None else call["seq_len"],
                call["hidden_states"],
            )
        ],
        written=cos_and_sin(halves),
        probe=lambda module: {"hidden_states": torch.zeros(1, 7, 4)},
    ),
    "MiniMaxMusic3RotaryEmbedding": Row(
        encoding=lambda module, model: RoPE(
            model.config.attention_head_dim,
            rotary_dim=module.rotary_dim,
            frequencies=Geometric(float(module.theta)),
        ),
        axes=("time",),
        positions="place in the sequence",
        coordinates=in_line,
        written=cos_and_sin(halves),
        probe=short_line,
    ),
    "StableAudioDiTModel": Row(
        encoding=lambda module, model: RoPE(
            model.config.attention_head_dim, rotary_dim=model.config.attention_head_dim // 2
        ),
        axes=("time",),
        positions="place in the sequence, which the token for the length of the sound begins",
        coordinates=lambda model, call: [steps(len(call["rotary_embedding"][0]))],
        written=cos_and_sin(halves),
        argument="rotary_embedding",
        notes=("the pipeline makes the tables and gives them to the model",),
    ),
    "StableAudio3RotaryEmbedding": Row(
        encoding=lambda module, model: RoPE(
            model.config.embed_dim // model.config.num_heads, rotary_dim=2 * len(module.inv_freq)
        ),
        axes=("time",),
        positions="place in the sequence",
        coordinates=in_line,
        written=lambda module, tables: halves(tables[0][0]),
        probe=short_line,
        as_angles=True,
    ),
    **dict.fromkeys(
        ("Kandinsky5RoPE1D", "Kandinsky6RoPE1D"),
        Row(
            encoding=lambda module, model: RoPE(
                module.dim,
                frequencies=_scaled(module.max_period, getattr(module, "freqs_scaling", 1.0)),
                pairing="interleaved",
            ),
            axes=("text",),
            positions="place in the sequence, from the pipeline",
            coordinates=lambda module, call: [call["pos"]],
            written=lambda module, tables: matrices(tables[0]).unsqueeze(-4),
            probe=lambda module: {"pos": torch.arange(7)},
            ends=lambda module: (module.max_pos,),
        ),
    ),
}

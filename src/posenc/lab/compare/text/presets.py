"""The presets of ``posenc compare``: quick, which is the default, and standard."""

from dataclasses import dataclass

from posenc.lab.compare.text.config import EvaluateConfig, ModelConfig, TrainConfig

# The road from no encoding to relative ones.
ROAD = ("none", "integer", "normalized", "binary", "sinusoidal", "learned", "rope", "alibi")


@dataclass(frozen=True)
class Preset:
    """A named set of sizes, and what it is for."""

    model: ModelConfig
    train: TrainConfig
    evaluate: EvaluateConfig
    vocabulary: str
    seeds: int
    encodings: tuple[str, ...]


PRESETS = {
    # Minutes on two cores: large enough that encodings part, small enough to wait for.
    "quick": Preset(
        model=ModelConfig(dim=64, num_layers=2, num_heads=4),
        train=TrainConfig(length=64, batch=16, steps=1400, learning_rate=5e-3),
        evaluate=EvaluateConfig(),
        vocabulary="bytes",
        seeds=1,
        encodings=ROAD,
    ),
    # Up to an hour on two cores: three seeds, so that differences can be told from noise, and more relative biases.
    "standard": Preset(
        model=ModelConfig(dim=128, num_layers=3, num_heads=4),
        train=TrainConfig(length=128, batch=16, steps=1400, learning_rate=3e-3),
        evaluate=EvaluateConfig(tokens=32_768, last=64, last_tokens=8_192),
        vocabulary="bytes",
        seeds=3,
        encodings=(*ROAD, "t5", "kerple", "fire"),
    ),
}

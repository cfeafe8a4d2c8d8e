"""The presets of ``posenc compare``: quick, which is the default, and standard."""

from dataclasses import dataclass

from posenc.lab.compare.text.config import EvaluateConfig, ModelConfig, TrainConfig

# The steps from no encoding to relative encodings.
ROAD = ("none", "integer", "normalized", "binary", "sinusoidal", "learned", "rope", "alibi")


@dataclass(frozen=True)
class Preset:
    """A named set of sizes, with its purpose."""

    model: ModelConfig
    train: TrainConfig
    evaluate: EvaluateConfig
    vocabulary: str
    seeds: int
    encodings: tuple[str, ...]


PRESETS = {
    # Takes minutes on two cores: large enough to show differences between encodings, small enough to wait for.
    "quick": Preset(
        model=ModelConfig(dim=64, num_layers=2, num_heads=4),
        train=TrainConfig(length=64, batch=16, steps=1400, learning_rate=5e-3),
        evaluate=EvaluateConfig(),
        vocabulary="bytes",
        seeds=1,
        encodings=ROAD,
    ),
    # Takes up to an hour on two cores: three seeds, to tell differences from noise, and more relative biases.
    "standard": Preset(
        model=ModelConfig(dim=128, num_layers=3, num_heads=4),
        train=TrainConfig(length=128, batch=16, steps=1400, learning_rate=3e-3),
        evaluate=EvaluateConfig(tokens=32_768, last=64, last_tokens=8_192),
        vocabulary="bytes",
        seeds=3,
        encodings=(*ROAD, "t5", "kerple", "fire"),
    ),
}

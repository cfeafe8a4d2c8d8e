"""Tables, biases and towers at the sizes of released models, against the models' own tensors and functions.

The census asks default configs. These are configs as they were released: other images, patches, windows, heads, depths,
and keys that a default leaves alone.
"""

from typing import Any

import pytest

transformers = pytest.importorskip("transformers")
transformers.logging.set_verbosity_error()

from tests.integrations.test_every_config import HUB  # noqa: E402
from tools.census.census import rows_of_config  # noqa: E402

from posenc import Temperature  # noqa: E402
from posenc.integrations.transformers import describe  # noqa: E402

STAGES = {"embed_dim": 128, "depths": [2, 2, 18, 2], "num_heads": [4, 8, 16, 32]}
LARGE = {"hidden_size": 1024, "num_hidden_layers": 24, "num_attention_heads": 16}

RELEASED: dict[str, dict[str, Any]] = {
    "google/vit-large-patch32-384": {"model_type": "vit", **LARGE, "image_size": 384, "patch_size": 32},
    "openai/clip-vit-large-patch14-336": {
        "model_type": "clip_vision_model",
        **LARGE,
        "image_size": 336,
        "patch_size": 14,
    },
    "google/siglip-so400m-patch14-384": {
        **{
            "model_type": "siglip_vision_model",
            "hidden_size": 1152,
            "num_hidden_layers": 27,
            "num_attention_heads": 16,
        },
        **{"image_size": 384, "patch_size": 14},
    },
    "facebook/dinov2-base": {"model_type": "dinov2", "image_size": 518, "patch_size": 14},
    "hustvl/yolos-base": {"model_type": "yolos", "image_size": [800, 1344], "num_detection_tokens": 100},
    "hustvl/yolos-tiny": {
        **{"model_type": "yolos", "hidden_size": 192, "num_attention_heads": 3, "image_size": [800, 1333]},
        "use_mid_position_embeddings": False,
    },
    "usyd-community/vitpose-plus-large": {"model_type": "vitpose_backbone", **LARGE, "image_size": [256, 192]},
    "facebook/timesformer-hr": {"model_type": "timesformer", "image_size": 448, "num_frames": 16},
    "microsoft/beit-large-patch16-512": {
        **{"model_type": "beit", **LARGE, "image_size": 512, "use_relative_position_bias": True},
        "num_hidden_layers": 2,
    },
    "microsoft/swin-base-patch4-window12-384": {
        **{"model_type": "swin", **STAGES, "image_size": 384, "patch_size": 4, "window_size": 12},
        "depths": [1, 1, 2, 1],
    },
    "microsoft/swinv2-base-patch4-window12to24-192to384": {
        **{"model_type": "swinv2", **STAGES, "image_size": 384, "window_size": 24, "depths": [1, 1, 1, 1]},
        "pretrained_window_sizes": [12, 12, 12, 6],
    },
    "facebook/sam-vit-large": {
        **{"model_type": "sam_vision_model", **LARGE, "num_hidden_layers": 6, "global_attn_indexes": [2, 5]},
        "mlp_dim": 4096,
    },
    "facebook/hiera-base-plus-224-hf": {
        **{"model_type": "hiera", "embed_dim": 112, "depths": [2, 3, 16, 3], "num_heads": [2, 4, 8, 16]},
    },
    "laion/larger_clap_general": {
        **{"model_type": "clap_audio_model", "patch_embeds_hidden_size": 128, "hidden_size": 1024},
        "depths": [1, 1, 1, 1],
    },
    "MIT/ast-finetuned-speech-commands-v2": {"model_type": "audio-spectrogram-transformer", "max_length": 128},
    "MCG-NJU/videomae-large": {"model_type": "videomae", **LARGE},
    "google/t5-v1_1-large": {"model_type": "t5", "d_model": 1024, "d_kv": 64, "num_heads": 16, "num_layers": 2},
    "microsoft/mpnet-base": {"model_type": "mpnet", "vocab_size": 30527, "max_position_embeddings": 514},
    "facebook/opt-350m": {
        **{"model_type": "opt", "hidden_size": 1024, "word_embed_proj_dim": 512, "num_hidden_layers": 2},
        **{"num_attention_heads": 16, "ffn_dim": 4096, "max_position_embeddings": 2048},
    },
    "openai/whisper-large-v3": {
        **{"model_type": "whisper", "d_model": 1280, "encoder_layers": 2, "decoder_layers": 2, "num_mel_bins": 128},
        **{"encoder_attention_heads": 20, "decoder_attention_heads": 20},
    },
    "bigscience/bloom-7b1": {"model_type": "bloom", "hidden_size": 4096, "n_head": 32, "n_layer": 2},
    "mosaicml/mpt-30b": {"model_type": "mpt", "d_model": 7168, "n_heads": 64, "n_layers": 2, "max_seq_len": 8192},
    "tiiuae/falcon-rw-1b": {"model_type": "falcon", "hidden_size": 2048, "num_attention_heads": 32, "alibi": True},
    "allenai/longformer-base-4096": {"model_type": "longformer", "max_position_embeddings": 4098, "vocab_size": 50265},
    "albert-xxlarge-v2": {
        "model_type": "albert",
        "hidden_size": 4096,
        "num_attention_heads": 64,
        "embedding_size": 128,
    },
    "facebook/mbart-large-50": {"model_type": "mbart", "d_model": 1024, "vocab_size": 250054},
    "thinkingmachines/Inkling-Small": {  # as a port of it for JAX lists the fields
        **{"model_type": "inkling_text", "model_max_length": 1048576, "hidden_size": 4096, "num_hidden_layers": 42},
        **{"num_attention_heads": 32, "num_key_value_heads": 8, "head_dim": 128, "d_rel": 16, "rel_extent": 1024},
        **{"swa_num_attention_heads": 32, "swa_num_key_value_heads": 8, "swa_head_dim": 128},
        **{"local_layer_ids": [i for i in range(42) if i % 6 != 5], "sliding_window_size": 512},
        **{"log_scaling_n_floor": 128000, "log_scaling_alpha": 0.1, "sconv_kernel_size": 4},
        **{"dense_mlp_idx": 2, "dense_intermediate_size": 16384, "intermediate_size": 2048},
    },
    "BridgeTower/bridgetower-large": {
        "model_type": "bridgetower_vision_model",
        "hidden_size": 1024,
        "image_size": 294,
        "patch_size": 14,
    },
}


def compared(model_type: str, config: Any) -> list[tuple[str, str, str]]:
    return [(row.label, row.status, row.note) for row in rows_of_config(model_type, config) if row.status != "agreed"]


@pytest.mark.transformers_as_pinned("thinkingmachines/Inkling-Small")
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", RELEASED)
def test_a_released_size_is_the_models(name: str) -> None:
    raw = RELEASED[name]
    config = transformers.CONFIG_MAPPING[raw["model_type"]].from_dict(raw)
    assert compared(raw["model_type"], config) == []


@pytest.mark.transformers_as_pinned
def test_local_and_global_layers_of_inkling() -> None:
    """The file as it is published: the kinds of the layers, the profiles' reach and where scores begin to grow."""
    raw = {"model_type": "inkling_mm_model", "text_config": RELEASED["thinkingmachines/Inkling-Small"]}
    local, whole = describe(raw)
    assert (local.part, local.label, len(local.layers)) == ("text_config", "hybrid_sliding", 35)
    assert whole.layers == (5, 11, 17, 23, 29, 35, 41)
    assert whole.trained_length == 1048576
    assert (local.encoding.extent, local.encoding.num_heads, local.encoding.clip) == (512, 32, None)
    assert whole.encoding.at("scores").extent == 1024
    assert whole.encoding.parts[1].to_dict() == Temperature("inkling", length=128000, strength=0.1).to_dict()


@pytest.mark.transformers_as_pinned
def test_a_layer_of_inkling_that_is_not_local_is_global_whatever_its_name() -> None:
    raw = RELEASED["thinkingmachines/Inkling-Small"] | {"num_hidden_layers": 2, "local_layer_ids": None}
    (group,) = describe({**raw, "layer_types": ["hybrid", "full_attention"]})
    assert group.layers == (0, 1)
    assert group.encoding.at("scores").extent == 1024


#: One config for each tower; many released models share one.
TOWERS = {
    str(line["config"]["vision_config"]): line
    for line in HUB
    if isinstance(line["config"].get("vision_config"), dict)
    and line["config"]["model_type"] in transformers.CONFIG_MAPPING
}


@pytest.mark.transformers_as_pinned(
    "Qwen/Qwen3-VL-235B-A22B-Instruct",
    "Qwen/Qwen3-VL-2B-Instruct",
    "Qwen/Qwen3-VL-30B-A3B-Instruct",
    "Qwen/Qwen3-VL-32B-Instruct",
    "Qwen/Qwen3-VL-4B-Instruct",
    "Qwen/Qwen3-VL-8B-Instruct",
    "Qwen/Qwen3.5-122B-A10B",
    "Qwen/Qwen3.5-27B",
    "Qwen/Qwen3.5-35B-A3B",
    "nvidia/Qwen3.5-397B-A17B-NVFP4",
    "nvidia/Qwen3.5-122B-A10B-NVFP4",
    "nvidia/Qwen3.6-27B-NVFP4",
)
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("line", TOWERS.values(), ids=[line["name"] for line in TOWERS.values()])
def test_the_tower_of_a_released_model_is_the_models(line: dict[str, Any]) -> None:
    config = transformers.CONFIG_MAPPING[line["config"]["model_type"]].from_dict(line["config"]).vision_config
    kind = type(config).model_type  # files name it otherwise, or leave it empty
    assert compared(kind, config) == []

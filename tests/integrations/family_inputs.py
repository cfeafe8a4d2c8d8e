"""What a small model of any rotary model type is run on: tokens, and the images, sounds and latents that it takes."""

import inspect
import sys
from collections.abc import Callable
from typing import Any

import torch

ROWS, LENGTH = 2, 12

#: The side of an image in patches.
SIDE = 4


def tokens(rows: int = ROWS, length: int = LENGTH, *, seed: int = 0) -> torch.Tensor:
    return torch.randint(3, 90, (rows, length), generator=torch.Generator().manual_seed(seed))


def drawn(*shape: int, seed: int = 2) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def inputs(model: Any) -> dict[str, Any]:
    """Arguments of the model that reach everything in it that rotates."""
    config, accepted = model.config, inspect.signature(model.forward).parameters
    if config.model_type in ("edgetam_video", "sam2_video", "sam3_tracker_video"):
        return _tracked(model)
    if config.model_type in OWN:
        return OWN[config.model_type](config)
    found: dict[str, Any] = {}
    if "input_ids" in accepted:
        found["input_ids"] = tokens()
    if getattr(config, "is_encoder_decoder", False) and "decoder_input_ids" in accepted:
        found["decoder_input_ids"] = tokens()
    if "image_grid_thw" in accepted or "grid_thw" in accepted:
        found |= _grids(config, accepted)
    elif "pixel_values" in accepted and "input_ids" not in accepted:
        found["pixel_values"] = drawn(ROWS, 3, 32, 32)
    return found


def to_generate(model: Any, given: dict[str, Any]) -> dict[str, Any]:
    """Arguments of generate, where those of the model's forward are not."""
    match model.config.model_type:
        case "kyutai_speech_to_text":
            return {"input_values": drawn(ROWS, 1, 15360), "min_new_tokens": 6}
        case "voxtral_realtime":
            return given | {"input_ids": tokens(length=4), "min_new_tokens": 6}
        case "higgs_audio_v2":
            return given
    return given | {"min_new_tokens": 6}


def only_tokens(given: dict[str, Any]) -> bool:
    return given.keys() <= {"input_ids", "decoder_input_ids"} and all(ids.ndim == 2 for ids in given.values())


def _grids(config: Any, accepted: Any) -> dict[str, Any]:
    """An image for each row, in patches, with its height and width beside it."""
    vision = getattr(config, "vision_config", config)
    grid = torch.tensor([[1, SIDE, SIDE]] * ROWS)
    channels = getattr(vision, "in_channels", 3)
    frames = getattr(vision, "temporal_patch_size", getattr(vision, "patch_temporal", 1))
    patches = drawn(ROWS * SIDE**2, channels * frames * vision.patch_size**2)
    if "input_ids" not in accepted:
        name = "hidden_states" if "hidden_states" in accepted else "pixel_values"
        return {name: patches, next(key for key in accepted if "grid" in key): grid}
    merge = getattr(vision, "spatial_merge_size", getattr(vision, "merge_size", 2))
    ids = with_tokens(
        config.image_token_id, (SIDE // merge) ** 2, before=getattr(config, "vision_start_token_id", None)
    )
    found = {"input_ids": ids, "pixel_values": patches, "image_grid_thw": grid}
    if "mm_token_type_ids" in accepted:
        found["mm_token_type_ids"] = (ids == config.image_token_id).long()
    return found


def with_tokens(token: int, count: int, *, before: int | None = None, length: int = LENGTH) -> torch.Tensor:
    """Tokens of text around those of something else."""
    ids = tokens(length=max(length, count + 4))
    ids[:, 2 : 2 + count] = token
    if before is not None:
        ids[:, 1] = before
    return ids


def _image(config: Any, count: int, **more: Any) -> dict[str, Any]:
    """A square image for each row, of which the text model sees this many tokens."""
    token = getattr(config, "image_token_id", None) or config.image_token_index
    return {"input_ids": with_tokens(token, count), "pixel_values": drawn(ROWS, 3, 32, 32), **more}


def _protein(config: Any) -> dict[str, Any]:
    ids = tokens(seed=5)
    return {"input_ids": tokens(), "protein_input_ids": ids, "protein_attention_mask": torch.ones_like(ids)}


def _speech(config: Any, *shape: int) -> dict[str, Any]:
    return {"input_values": drawn(ROWS, *shape), "decoder_input_ids": tokens()}


def _both(config: Any) -> dict[str, Any]:
    """A wave, and what the semantic model of a codec hears of it."""
    return {"input_values": drawn(ROWS, 1, 3200), "input_features": drawn(ROWS, 10, 160)}


def _wave(config: Any) -> dict[str, Any]:
    return {"input_values": drawn(ROWS, 1, 7680)}


def _clip(config: Any) -> dict[str, Any]:
    """Frames of a video."""
    return {"pixel_values_videos": drawn(ROWS, 4, 3, 32, 32)}


def _mels(config: Any) -> dict[str, Any]:
    """Spectra, frames last."""
    return {"input_features": drawn(ROWS, config.num_mel_bins, 32)}


def _frames(config: Any) -> dict[str, Any]:
    """Spectra, frames first."""
    audio = getattr(config, "encoder_config", getattr(config, "audio_config", config))
    audio = getattr(config, "asr_config", audio)
    return {"input_features": drawn(ROWS, 64, audio.num_mel_bins)}


def _patches(config: Any) -> dict[str, Any]:
    """Patches as small images."""
    vision = getattr(config, "vision_config", config)
    patches = drawn(ROWS * SIDE**2, 3, vision.patch_size, vision.patch_size)
    grid = torch.tensor([[1, SIDE, SIDE]] * ROWS)
    if vision is config:
        return {"pixel_values": patches, "grid_thw": grid}
    ids = with_tokens(config.image_token_id, 4)
    found = {"input_ids": ids, "pixel_values": patches, "image_grid_thw": grid}
    return found | ({"mm_token_type_ids": (ids == 91).long()} if config.model_type == "paddleocr_vl" else {})


def _heard(config: Any, count: int, *shape: int, frames: int) -> dict[str, Any]:
    """A sound for each row, of which the text model hears this many tokens."""
    return {
        "input_ids": with_tokens(config.audio_token_id, count),
        "input_features": drawn(ROWS, *shape),
        "input_features_mask": torch.ones(ROWS, frames, dtype=torch.long),
    }


def _seen_and_heard(config: Any) -> dict[str, Any]:
    found = _grids(config, ("input_ids",))
    found["input_ids"][:, 8:10] = config.audio_token_id
    return found | {"input_features": drawn(ROWS, 128, 16), "chunk_sample_lengths": torch.tensor([2560] * ROWS)}


def _tracked(model: Any) -> dict[str, Any]:
    """The second frame of a video, after a point in the first."""
    module = sys.modules[type(model).__module__]
    session_class = next(value for name, value in vars(module).items() if name.endswith("InferenceSession"))
    side = model.config.prompt_encoder_config.image_size
    session = session_class(drawn(2, 3, side, side), video_height=side, video_width=side, dtype=torch.float32)
    point = {"point_coords": torch.tensor([[[[5.0, 6.0]]]]), "point_labels": torch.tensor([[[1]]])}
    session.add_point_inputs(session.obj_id_to_idx(1), 0, point)
    session.obj_with_new_inputs = [1]
    with torch.no_grad():
        model(session, frame_idx=0)
    return {"inference_session": session, "frame_idx": 1}


def _merged(config: Any) -> dict[str, Any]:
    grid = torch.tensor([[1, SIDE, SIDE]] * ROWS)
    patches, merges = drawn(ROWS * SIDE**2, 3 * 8 * 8), torch.tensor([2] * ROWS)
    if config.model_type.endswith("vision"):
        return {"pixel_values": patches, "grid_thw": grid, "merge_sizes": merges}
    ids = with_tokens(config.image_token_id, 4)
    return {"input_ids": ids, "pixel_values": patches, "image_grid_thw": grid, "image_merge_sizes": merges}


def _placed(config: Any) -> dict[str, Any]:
    """Patches with their places, of which each square of nine is a token."""
    places = torch.cartesian_prod(torch.arange(6), torch.arange(6))[None].expand(ROWS, -1, -1)
    patches = drawn(ROWS, 36, 3 * 8 * 8).abs()
    if config.model_type.endswith("vision"):
        return {"pixel_values": patches, "pixel_position_ids": places}
    ids = with_tokens(config.image_token_id, 4)
    return {
        "input_ids": ids,
        "pixel_values": patches,
        "image_position_ids": places,
        "mm_token_type_ids": (ids == config.image_token_id).long(),
    }


def _squares(config: Any) -> dict[str, Any]:
    """Four patches as one small image, channels last."""
    grid = torch.tensor([[1, 2, 2]] * ROWS)
    found = {"pixel_values": drawn(ROWS * 4, 16, 16, 3), "image_grid_thw": grid}
    return (
        found if config.model_type.endswith("vision") else {"input_ids": with_tokens(config.image_token_id, 4)} | found
    )


def _pairs_of_images(config: Any) -> dict[str, Any]:
    return {"pixel_values": drawn(1, 2, 3, 64, 64).abs()}


def _rows_with_newlines(config: Any) -> dict[str, Any]:
    side = SIDE // config.vision_config.spatial_merge_size
    ids = with_tokens(config.image_token_id, side * (side + 1))
    kinds = (ids == config.image_token_id).long()
    return _grids(config, ("input_ids",)) | {"input_ids": ids, "mm_token_type_ids": kinds}


OWN: dict[str, Callable[[Any], dict[str, Any]]] = {
    "hy_v4_vl": _rows_with_newlines,
    "evolla": _protein,
    "blt": lambda config: {"input_ids": tokens(), "use_cache": False},
    "csm": lambda config: {
        "input_ids": with_tokens(config.audio_token_id, 4),
        "input_values": drawn(ROWS, 1, 7680),
        "input_values_cutoffs": torch.tensor([[7680]] * ROWS),
    },
    "deepseek_ocr2": lambda config: _image(config, 145),
    "dia": lambda config: {"input_ids": tokens(), "decoder_input_ids": tokens(ROWS * LENGTH, 3).view(ROWS, LENGTH, 3)},
    "diffusion_gemma": _placed,
    "dots3_note": _seen_and_heard,
    "efficientloftr": _pairs_of_images,
    "lightglue": _pairs_of_images,
    "gemma4": _placed,
    "gemma4_vision": _placed,
    "glm_image": lambda config: {"input_ids": tokens()},
    "glmasr": lambda config: _heard(config, 4, 128, 32, frames=32),
    "glmasr_encoder": _mels,
    "idefics": lambda config: {
        "input_ids": tokens(),
        "pixel_values": drawn(ROWS, 1, 3, 32, 32),
        "image_attention_mask": torch.ones(ROWS, LENGTH, 1, dtype=torch.long),
    },
    "inkling2": _squares,
    "inkling2_vision": _squares,
    "kimi_k25": _patches,
    "kimi_k25_vision": _patches,
    "kyutai_speech_to_text": lambda config: {"input_ids": tokens(ROWS * LENGTH, 5).view(ROWS, LENGTH, 5)},
    "lasr_ctc": _frames,
    "lasr_encoder": _frames,
    "llama4": lambda config: _image(config, 4),
    "mimi": _wave,
    "mimi_decoder": lambda config: {"latents": drawn(ROWS, 64, 6)},
    "mimi_encoder": _wave,
    "mistral_large4": lambda config: _image(config, 4, image_sizes=torch.tensor([[32, 32]] * ROWS)),
    "moonshine": lambda config: _speech(config, 6400),
    "moonshine_streaming": lambda config: _speech(config, 3200),
    "muse_glimmer_assistant": lambda config: {
        "noise_embeds": drawn(ROWS, 4, 64),
        "context_hidden_states": drawn(ROWS, 5, 64 * len(config.target_layer_ids), seed=3),
    },
    "nemo_speechlm": lambda config: _heard(config, 8, 64, 128, frames=64),
    "nemotron3_5_transcribe_asr_audio": _frames,
    "nemotron3_5_transcribe_audio": _frames,
    "nemotron3_5_transcribe_word_timestamp": lambda config: {"inputs_embeds": drawn(ROWS, LENGTH, 64)},
    "nemotron3_diarization": _frames,
    "nemotron3_diarization_audio": _frames,
    "neucodec": _both,
    "paddleocr_vl": _patches,
    "pe_audio": lambda config: {"input_ids": tokens()} | _wave(config),
    "pe_audio_encoder": _wave,
    "pe_audio_video": lambda config: {"input_ids": tokens()} | _wave(config) | _clip(config),
    "pe_audio_video_encoder": lambda config: _wave(config) | _clip(config),
    "pe_video": lambda config: {"input_ids": tokens()} | _clip(config),
    "pe_video_encoder": _clip,
    "pocket_tts_audio_tokenizer": _wave,
    "pocket_tts_audio_tokenizer_decoder": lambda config: {"latents": drawn(ROWS, 64, 6)},
    "pocket_tts_audio_tokenizer_encoder": _wave,
    "sam3": lambda config: {"input_ids": tokens(), "pixel_values": drawn(ROWS, 3, 32, 32)},
    "step3p7": lambda config: _image(config, 1),
    "timesfm2_5": lambda config: {"past_values": drawn(ROWS, 4 * config.patch_length)},
    "video_llama_3": _merged,
    "video_llama_3_vision": _merged,
    "voxtral_realtime": lambda config: {"input_ids": tokens(), "input_features": drawn(ROWS, 128, 96)},
    "voxtral_realtime_encoder": _mels,
    "xcodec2": _both,
}

"""What accelerate does with each rotary model type of transformers, as the tests found it.

``python -m tests.integrations.outcomes`` writes the lists for docs/howto/accelerate.md.
"""

import re
from collections.abc import Iterable
from pathlib import Path

from posenc.integrations.transformers.description.model_types import names

#: The version whose model types these are: the one that is pinned.
VERSION = re.findall(r"^transformers==(.*)", (Path(__file__).parents[2] / "constraints.txt").read_text(), re.M)[0]

#: Patched, and nothing that a model gives changes.
SUPPORTED = names(
    """
    afmoe apertus apertus1p5 apertus1p5_text arcee aria aria_text axk1 axk2 bailing_hybrid bamba beam bitnet blt
    chameleon codegen cohere cohere2 cohere2_moe cohere_compass cohere_compass_text cohere_compass_vision
    cosmos3_edge cosmos3_edge_text csm cwm dbrx deepseek_ocr2 deepseek_v2 deepseek_v3 deepseek_v32 deepseek_v4 dia
    diffllama diffusion_gemma dinov3_vit doge dory dots1 dots3_note dots3_note_text efficientloftr embedding_gemma2
    embedding_gemma2_text emu3 ernie4_5 ernie4_5_moe ernie4_5_vl_moe esm esmc eurobert evolla exaone4 exaone4_5
    exaone4_5_vision exaone_moe falcon falcon_h1 flex_olmo flint gemma gemma2 gemma3 gemma3_text gemma3n_text gemma4
    gemma4_text gemma4_unified gemma4_unified_text gemma4_vision glm glm4 glm4_moe glm4_moe_lite glm4v glm4v_moe
    glm4v_moe_text glm4v_moe_vision glm4v_text glm4v_vision glm5_next glm5_next_vision glm_image glm_image_text
    glm_moe_dsa glm_ocr glm_ocr_text glm_ocr_vision glmasr glmasr_encoder gpt_neox gpt_neox_japanese gpt_oss gptj
    gradium_phonon_tts granite granite4_vision granite_docling granite_docling_text granite_swa granitemoe
    granitemoe_swa granitemoehybrid granitemoeshared gte helium higgs_audio_v2 hrm_text hunyuan_v1_dense
    hunyuan_v1_moe hy_v3 hy_v4 hy_v4_vl hy_v4_vl_text hyperclovax idefics inkling2 inkling2_vision jais2 jetmoe
    jina_embeddings_v3 kimi_k25 kimi_k25_vision kolibri1 kyutai_speech_to_text laguna lara_mini lasr_ctc
    lasr_encoder lfm2 lfm2_moe lfm3 lfm3_vl lfm3_vl_vision lightglue llama llama4 llama4_text longcat_flash mellum
    mimi mimi_decoder mimi_encoder mimo_v2_flash minicpm3 minimax minimax_m2 minimax_m3_vl minimax_m3_vl_text
    ministral ministral3 mistral mistral4 mistral_large4 mistral_large4_text mixtral mlcd_vision_model mllama
    modernbert modernbert-decoder molmo2 molmo2_text moonshine moonshine_streaming moshi muse_glimmer
    muse_glimmer_assistant muse_glimmer_text muse_glimmer_vision muse_spark muse_spark_text muse_spark_vision
    musicflamingo nanochat nemo_speechlm nemotron nemotron3_5_transcribe_asr_audio nemotron3_5_transcribe_audio
    nemotron3_5_transcribe_word_timestamp nemotron3_diarization nemotron3_diarization_audio neomme neucodec
    nomic_bert olmo olmo2 olmo3 olmo_hybrid olmoe openai_privacy_filter paddleocr_vl pe_audio pe_audio_encoder
    pe_audio_video pe_audio_video_encoder pe_video pe_video_encoder persimmon phi phi3 phi4_multimodal phimoe
    pixtral pocket_tts pocket_tts_audio_tokenizer pocket_tts_audio_tokenizer_decoder
    pocket_tts_audio_tokenizer_encoder qwen2 qwen2_5_omni_thinker qwen2_5_vl qwen2_5_vl_text qwen2_5_vl_vision
    qwen2_moe qwen2_vl qwen2_vl_text qwen3 qwen3_5 qwen3_5_moe qwen3_5_moe_text qwen3_5_moe_vision qwen3_5_text
    qwen3_5_vision qwen3_moe qwen3_next qwen3_omni_moe_thinker qwen3_vl qwen3_vl_moe qwen3_vl_moe_text
    qwen3_vl_moe_vision qwen3_vl_text qwen3_vl_vision qwen4_exp qwen4_exp_text qwen4_exp_vision recurrent_gemma sam3
    sam3_vision_model sam3_vit_model sapiens2 seed_oss smollm3 solar_open stablelm starcoder2 step3p7 t5gemma
    t5gemma2 t5gemma2_encoder timesfm2_5 ultrabert unlimited_ocr vaultgemma video_llama_3 video_llama_3_vision
    voxtral_realtime voxtral_realtime_encoder xcodec2 youtu zamba2 zaya
"""
)

#: Supported, but a part with a rotation stays as it was.
PARTLY = {
    "kyutai_speech_to_text": "its codec, which runs within `generate` alone, is left",
    "musicflamingo": "a function that turns sounds by their time is left; the text is patched",
}

#: Supported, but their own forward fails in the pinned transformers; these tests mend it.
FAULTS = {"llama4": "its forward reads `image_outputs` of its text model's output, which has no such field"}

#: Supported, but equal to rounding alone: complex products, and gradients that reach a weight through other strides.
ROUNDED = names(
    """
    deepseek_v2 diffusion_gemma gemma3n_text gemma4 gemma4_text gemma4_unified gemma4_unified_text gemma4_vision
    lightglue mistral_large4 mistral_large4_text mlcd_vision_model pe_audio_video
"""
)

#: Refused, with words of the message: what they mean -> the types.
REFUSALS = {
    "calls a function that rotates": (
        "no module calls a function that rotates: the rotation is written out in the attention, or there is none",
        names(
            """
            cosmos3_edge_vision gemma3n_audio gemma4_audio glm5_next_text glm_image_vision glm_image_vqmodel
            granite_docling_vision hunyuan_vl_vision hy_v4_vl_vision inkling2_text jamba muse_spark_audio
            nemotron_asr_streaming nemotron_asr_streaming_encoder nemotron_h parakeet_ctc parakeet_encoder
            parakeet_rnnt parakeet_tdt roformer seamless_m4t vjepa2 wav2vec2-bert wav2vec2-conformer
        """
        ),
    ),
    "no form of a rotation": (
        "a function of no form that is known here: it turns values too, or leaves some of the keys out",
        names("clvp edgetam_video sam2_video sam3_tracker_video"),
    ),
    "which is no rotation": (
        "the two channels of a pair may turn by different angles, which is no rotation",
        names("hunyuan_vl hunyuan_vl_text"),
    ),
    "no forward of its own": (
        "the whole has no `forward`; accelerate the models in it, such as `model.thinker`",
        names("qwen2_5_omni qwen3_omni_moe"),
    ),
}
REFUSED = {model_type: words for words, (_, types) in REFUSALS.items() for model_type in types}

#: Not built by these tests, with words of the message.
NOT_BUILT = dict.fromkeys(("gemma3n", "gemma3n_vision"), "requires the timm library")


def markdown() -> str:
    """The lists as the page on accelerate has them."""
    refused = "\n".join(f"| {meaning} | {_listed(types)} |" for meaning, types in REFUSALS.values())
    partly = "; ".join(f"`{model_type}`: {reason}" for model_type, reason in PARTLY.items())
    faults = "; ".join(f"`{model_type}`: {fault}" for model_type, fault in FAULTS.items())
    return f"""The lists are those of transformers {VERSION}.

**Supported ({len(SUPPORTED)})**: {_listed(SUPPORTED)}.

Of these, equal to rounding alone: {_listed(ROUNDED)}. Patched but for a part: {partly}. Broken in
transformers {VERSION} itself, and tested with that mended: {faults}.

**Refused ({len(REFUSED)})**:

| reason | model types |
| --- | --- |
{refused}

**Not tested ({len(NOT_BUILT)})**, because their vision tower is one of timm: {_listed(NOT_BUILT)}.
"""


def _listed(types: Iterable[str]) -> str:
    return ", ".join(f"`{model_type}`" for model_type in sorted(types))


if __name__ == "__main__":
    print(markdown())

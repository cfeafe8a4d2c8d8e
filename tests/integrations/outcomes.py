"""What accelerate does with each rotary model type of transformers 5.23, as the tests found it."""

from posenc.integrations.transformers.models import names

#: Patched, and nothing that a model gives changes.
SUPPORTED = names(
    """
    EvollaModel afmoe apertus arcee aria aria_text axk1 axk2 bamba beam bitnet codegen cohere cohere2
    cohere2_moe cohere_compass cohere_compass_text cosmos3_edge cosmos3_edge_text cwm deepseek_v2 deepseek_v3
    deepseek_v32 deepseek_v4 diffllama doge dots1 embedding_gemma2 embedding_gemma2_text ernie4_5 ernie4_5_moe
    esm esmc eurobert evolla exaone4 exaone_moe falcon flex_olmo flint gemma gemma2 gemma3 gemma3_text
    gemma3n_text gemma4 gemma4_text gemma4_unified gemma4_unified_text glm glm4 glm4_moe glm4_moe_lite
    glm4v_moe_text glm4v_text glm_image glm_image_text glm_moe_dsa glm_ocr_text glmasr gpt_neox
    gpt_neox_japanese gpt_oss gptj granite granite_docling_text granite_swa granitemoe granitemoe_swa
    granitemoehybrid granitemoeshared gte helium higgs_audio_v2 hrm_text hunyuan_v1_dense hunyuan_v1_moe hy_v3
    hy_v4 hyperclovax jais2 jetmoe jina_embeddings_v3 kimi_k25 kolibri1 laguna lfm2 lfm2_moe lfm3 lfm3_vl
    llama llama4_text longcat_flash mellum mimo_v2_flash minicpm3 minimax minimax_m2 minimax_m3_vl
    minimax_m3_vl_text ministral ministral3 mistral mistral_large4 mistral_large4_text mixtral mllama
    modernbert modernbert-decoder molmo2_text moshi muse_glimmer_text muse_spark_text nanochat nemotron neomme
    nomic_bert olmo olmo2 olmo3 olmo_hybrid olmoe openai_privacy_filter paddleocr_vl persimmon phi phi3
    phi4_multimodal phimoe qwen2 qwen2_5_vl qwen2_5_vl_text qwen2_moe qwen2_vl qwen2_vl_text qwen3
    qwen3_5_moe_text qwen3_5_text qwen3_moe qwen3_next qwen3_vl qwen3_vl_moe qwen3_vl_moe_text qwen3_vl_text
    recurrent_gemma seed_oss smollm3 solar_open stablelm starcoder2 t5gemma t5gemma2 ultrabert vaultgemma
    video_llama_3 youtu zaya
"""
)

#: Five tokens do not run them, or not in the small form of these tests: accelerate asks for inputs=....
WITH_INPUTS = names(
    """
    bailing_hybrid cohere_compass_vision dia ernie4_5_vl_moe exaone4_5_vision glmasr_encoder idefics
    kimi_k25_vision lasr_ctc lasr_encoder lfm3_vl_vision lightglue mimi_encoder mistral4 mlcd
    mlcd_vision_model moonshine muse_glimmer_assistant muse_glimmer_vision muse_spark_vision
    nemotron3_5_transcribe_asr_audio nemotron3_diarization_audio pocket_tts_audio_tokenizer_encoder
    pixtral qwen2_5_omni_thinker qwen2_5_vl_vision qwen3_5_moe_vision qwen3_5_vision qwen3_omni_moe_thinker
    qwen3_vl_moe_vision qwen3_vl_vision qwen4_exp_vision sam3_vit_model step3p7 timesfm2_5 unlimited_ocr
    video_llama_3_vision voxtral_realtime voxtral_realtime_encoder zamba2
"""
)

#: Refused, with these words.
REFUSED = {
    "clvp": "no form of a rotation",
    "dinov3_vit": "no form of a rotation",
    "gemma4_vision": "no form of a rotation",
    "sapiens2": "no form of a rotation",
    "cosmos3_edge_vision": "calls a function that rotates",
    "gemma3n_audio": "calls a function that rotates",
    "gemma4_audio": "calls a function that rotates",
    "glm_image_vision": "calls a function that rotates",
    "glm_image_vqmodel": "calls a function that rotates",
    "granite_docling_vision": "calls a function that rotates",
    "hunyuan_vl_vision": "calls a function that rotates",
    "inkling2_text": "calls a function that rotates",
    "jamba": "calls a function that rotates",
    "nemotron_asr_streaming": "calls a function that rotates",
    "nemotron_asr_streaming_encoder": "calls a function that rotates",
    "nemotron_h": "calls a function that rotates",
    "parakeet_ctc": "calls a function that rotates",
    "parakeet_encoder": "calls a function that rotates",
    "parakeet_rnnt": "calls a function that rotates",
    "parakeet_tdt": "calls a function that rotates",
    "roformer": "calls a function that rotates",
    "wav2vec2-bert": "calls a function that rotates",
    "wav2vec2-conformer": "calls a function that rotates",
    "hunyuan_vl": "which is no rotation",
    "hunyuan_vl_text": "which is no rotation",
}

#: Not built in a small form by these tests, so nothing is said of them.
NOT_BUILT = names(
    """
    blt chameleon csm dbrx deepseek_ocr2 diffusion_gemma dots3_note dots3_note_text edgetam_video
    efficientloftr emu3 exaone4_5 falcon_h1 gemma3n gemma3n_vision glm4v glm4v_moe glm4v_moe_vision
    glm4v_vision glm5_next glm5_next_text glm5_next_vision glm_ocr glm_ocr_vision gradium_phonon_tts
    granite4_vision granite_docling inkling2 inkling2_vision kyutai_speech_to_text llama4 mimi mimi_decoder
    molmo2 moonshine_streaming muse_glimmer muse_spark muse_spark_audio musicflamingo nemo_speechlm
    nemotron3_5_transcribe_audio nemotron3_5_transcribe_word_timestamp nemotron3_diarization neucodec pe_audio
    pe_audio_encoder pe_audio_video pe_audio_video_encoder pe_video pe_video_encoder pocket_tts
    pocket_tts_audio_tokenizer pocket_tts_audio_tokenizer_decoder qwen3_5 qwen3_5_moe qwen4_exp qwen4_exp_text
    sam2_video sam3 sam3_tracker_video sam3_vision_model seamless_m4t t5gemma2_encoder vjepa2 xcodec2
"""
)

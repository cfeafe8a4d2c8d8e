"""What the modelling code of each model type does that its config does not say. Read from transformers' code.

A model type whose config has rotary parameters and that is in no list here does what Llama does: it rotates the whole
of each head in pairs (c, c + head_dim / 2), by +angle, and its plain rule takes no notice of partial_rotary_factor.
"""


def names(text: str) -> frozenset[str]:
    """The words of a text."""
    return frozenset(text.split())


#: Pairs (2c, 2c + 1). Those of the second line write their result in the order of halves, which no score sees.
INTERLEAVED = names("""
    blt blt_global_transformer blt_local_decoder blt_local_encoder blt_patcher cohere cohere2 cohere2_moe
    deepseek_v2 deepseek_v4 ernie4_5 ernie4_5_moe ernie4_5_vl_moe_text glm glm4 glm4v_text glm_ocr_text helium
    llama4_text moonshine moonshine_streaming openai_privacy_filter pe_audio_encoder pe_audio_video_encoder
    pe_video_encoder
    axk2 bailing_hybrid deepseek_v32 dots3_note_text glm_moe_dsa hy_v4 hy_v4_vl_text longcat_flash mistral_large4_text
    ergo ernie4_5_moe_vl maincoder
""")

#: Pairs (2c, 2c + 1) if ``rope_interleave`` is true, which it is by default, and halves if not.
ASKS_ROPE_INTERLEAVE = names("axk1 deepseek_v3 gigachat3_5 glm4_moe_lite mistral4 sarvam_mla youtu")

#: Turned by -angle.
NEGATIVE = names("nanochat talkie")

#: The plain rule honours ``partial_rotary_factor``; scaled rules do so in every model.
PARTIAL = names("""
    bamba deepseek_v4 diffusion_gemma_text dots3_note_audio_encoder dots3_note_text glm glm4 glm4_moe glm4_moe_lite
    glm4v_moe_text glm4v_text glm_image_text glm_ocr_text glmasr_encoder gpt_neox gpt_neox_japanese laguna mellum
    mimo_v2_flash minimax_m2 minimax_m3_vl_text moonshine moonshine_streaming nemotron nemotron3_5_transcribe_asr_audio
    nemotron3_5_transcribe_word_timestamp nemotron3_diarization_audio neomme persimmon phi phi3 phi4_multimodal
    qwen3_5_moe_text qwen3_5_text qwen3_next qwen4_exp_text recurrent_gemma sarvam_moe solar_open stablelm step3p5 zaya
    bailing_moe bailing_moe_linear bailing_moe_v2 minimax_m1 minimax_text_01 phi4mm stablelm_epoch
    alice_ai llada llada2_moe param2moe spark2_5 step5
""")

#: Multi-head latent attention: a head is ``qk_nope_head_dim`` plain channels, then ``qk_rope_head_dim`` rotated ones.
LATENT = names("""
    axk1 axk2 bailing_hybrid deepseek_v2 deepseek_v3 deepseek_v32 dots3_note_text gigachat3_5 glm4_moe_lite glm_moe_dsa
    hy_v4 hy_v4_vl_text longcat_flash minicpm3 mistral4 mistral_large4_text sarvam_mla youtu
""")

#: The last channels of each head are rotated, and the rest comes first.
TRAILING = LATENT | names("deepseek_v4")

#: The softmax scale is multiplied by g(mscale_all_dim)^2 under YaRN.
CORRECTS_SCORES = names("""
    axk1 axk2 bailing_hybrid deepseek_v2 deepseek_v3 deepseek_v32 gigachat3_5 glm4_moe_lite glm_moe_dsa hy_v4
    hy_v4_vl_text longcat_flash minicpm3 mistral4 mistral_large4_text sarvam_mla youtu
""")

#: Which layers are rotated, by type and window: those with a sliding window of their own,
ROTATED_IF_WINDOWED = names("cohere2 cohere2_moe flint")
#: those of the type sliding_attention, whatever the window,
ROTATED_IF_SLIDING = names("afmoe ergo kolibri1_1 lara_mini ricursive")
#: or all but those of the type full_attention where others have a window.
NOPE_WHERE_FULL = names("exaone4 exaone4_5_text exaone_moe kolibri1")

#: ``no_rope_layers`` has the numbers of the layers that are not rotated, where others have 0 and 1 for each layer.
NUMBERS_NO_ROPE_LAYERS = names("iquest_q1")

#: Every n-th layer is not rotated (``no_rope_layer_interval``).
NO_ROPE_INTERVAL = names("llama4_text smollm3")

#: What rotary parameters call kinds of layers, where it is not what ``layer_types`` calls them; "" for all others.
LABELS = {"deepseek_v4": {"sliding_attention": "main", "": "compress"}}

#: Types of layers that are no attention.
NO_ATTENTION = names("""
    linear_attention conv mamba mamba2 recurrent rwkv moe mlp short_conv lightning_attention delta kda jet
    gated_delta_net hybrid_mamba
""")

#: Text models whose tokens have several coordinates: the layout of :class:`posenc.MRoPE` and the sections where the
#: config has none. The sections of "time_last" stand as (height, width, time) in a config.
SECTIONS: dict[str, tuple[str, tuple[int, ...]]] = {
    **dict.fromkeys(
        names("qwen2_vl_text qwen2_5_vl_text qwen2_5_omni_text qwen2_5_omni_talker paddleocr_vl_text"),
        ("chunked", (16, 24, 24)),
    ),
    **dict.fromkeys(names("glm4v_text glm_ocr_text glm4v_moe_text glm_image_text"), ("chunked", (8, 12, 12))),
    **dict.fromkeys(
        names("""
            cohere_compass_text cosmos3_edge_text qwen3_asr_text qwen3_omni_moe_talker_text qwen3_omni_moe_text
            qwen3_vl_moe_text qwen3_vl_text
        """),
        ("interleaved", (24, 20, 20)),
    ),
    **dict.fromkeys(names("qwen3_5_moe_text qwen3_5_text qwen4_exp_text"), ("interleaved", (11, 11, 10))),
    "hy_v4_vl_text": ("interleaved", (12, 10, 10)),
    **dict.fromkeys(("ernie4_5_moe_vl", "ernie4_5_vl_moe_text"), ("time_last", (22, 22, 20))),
}

#: Image models: the layout of :class:`posenc.AxialRoPE` and which coordinate of (height, width) comes first.
AXIAL: dict[str, tuple[str, tuple[int, ...]]] = {
    **dict.fromkeys(
        names("""
            cohere_compass_vision dinov3_vit dots3_note_vision_encoder eomt_dinov3 ernie4_5_vl_moe_vision
            exaone4_5_vision glm4v_moe_vision glm4v_vision glm5_next_vision glm_ocr_vision lfm3_vl_vision
            llava_onevision1_5_vision mlcd mlcd_vision_model muse_glimmer_vision muse_spark_vision ovis2_5_vision
            paddleocr_vl_vision qwen2_5_omni_vision_encoder
            qwen2_5_vl_vision qwen2_vl_vision qwen3_5_moe_vision qwen3_5_vision qwen3_omni_moe_vision_encoder
            qwen3_vl_moe_vision qwen3_vl_vision qwen4_exp_vision sapiens2 video_llama_3_vision
        """),
        ("half", (0, 1)),
    ),
    **dict.fromkeys(
        names("edgetam_video sam2_video sam3_tracker_video sam3_vit_model"),
        ("interleaved", (0, 1)),
    ),
    "gemma4_vision": ("half_per_axis", (0, 1)),
    "inkling2_vision": ("interleaved", (1, 0)),
    "kimi_k25_vision": ("half_alternating", (1, 0)),
    "llama4_vision_model": ("interleaved", (1, 0)),
    "minimax_m3_vl_vision": ("half", (0, 1, 2)),
    "neomme": ("dealt_half_alternating", (0, 1)),
    "pixtral": ("dealt_half", (0, 1)),
    "step3p5_vision": ("half", (1, 0)),
}

#: The base of image models whose configs had none in transformers 5.6: the default of their code.
AXIAL_BASES = dict.fromkeys(
    names("""
        ernie4_5_vl_moe_vision glm4v_moe_vision glm4v_vision glm_ocr_vision mlcd mlcd_vision_model paddleocr_vl_vision
        qwen2_5_omni_vision_encoder qwen2_5_vl_vision qwen2_vl_vision qwen3_5_moe_vision qwen3_5_vision
        qwen3_omni_moe_vision_encoder qwen3_vl_moe_vision qwen3_vl_vision video_llama_3_vision
    """),
    10_000.0,
)

#: What a coordinate is, where it is not the number of a row or column.
COORDINATES = {
    **dict.fromkeys(
        names("dinov3_vit eomt_dinov3 sapiens2"),
        "coordinates are the centres of patches on the image's [-1, 1], times 2 pi; tokens before the patches have 0",
    ),
    "llama4_vision_model": "coordinates count from 1; the class token has 0",
}

#: What the code of transformers does otherwise than the checkpoints need, and than is said here.
FAULTS = {
    "hy_v4": (
        "these are the pairs that the released weights are stored for, as vLLM, SGLang and llama.cpp rotate them; the "
        "module of transformers up to 5.24 pairs halves of the same weights"
    ),
}

#: The share of a head that is rotated where the config does not say it.
SHARES = {"mimo_v2_flash": 0.334}

#: Image models whose heads share ``embed_dim``, and not ``hidden_size``.
WIDTH_IS_EMBED_DIM = names("qwen2_vl_vision")

#: Temperatures: of layers without rotation (``attn_scale``, ``floor_scale``; or the length and strength given here), of
#: all layers (``llama_4_scaling_beta``), and learned by head.
LLAMA4_TEMPERATURE = names("llama4_text params.json")
POWER_TEMPERATURE = {"beam": (2048, 0.1)}
MISTRAL_TEMPERATURE = names("ministral3 mistral4 nemotron_labs_diffusion params.json")
SSMAX = names("mistral_large4_text")

#: Rotary parameters of the whole that no code reads: those of the parts count.
PARTS_ALONE = names("blt")

#: An extra learned factor for each rate.
LEARNED_RATES = names("mistral_large4_text")

#: Published code outside of transformers that is the code of one of its model types.
SAME_CODE = {
    "kimi_k2": "deepseek_v3",
    **dict.fromkeys(("deepseek_ref", "deepseek_v41", "deepseek_v41.text_config"), "deepseek_v4"),
    "interns2_mobius_text": "qwen3_5_moe_text",
    **dict.fromkeys(("longcat_flash_ngram", "longcat_flash_sparse"), "longcat_flash"),
    "minimax_m3": "minimax_m3_vl_text",
    "qwen3_asr.thinker_config.audio_config": "qwen3_asr_audio_encoder",
    "qwen3_asr.thinker_config.text_config": "qwen3_asr_text",
    "xing4_0": "deepseek_v3",
    "youtu_llm": "youtu",
}

#: Types that two models have, of which transformers has one: a key of the other one's configs, and what it is called
#: here. (Grok 2 calls itself "git", which is Microsoft's model of images and their captions.)
OTHER_OF_THE_NAME = {"git": ("attn_temperature_len", "grok-1"), "glm": ("block_position_encoding", "glm-block")}

#: Published code outside of transformers by the architecture that its configs name. Some name no model type.
BY_ARCHITECTURE = {
    "JapaneseStableLMAlphaForCausalLM": "japanese_stablelm_alpha",
    **dict.fromkeys(("CogVLMForCausalLM", "CogVLMVideoForCausalLM", "CogAgentForCausalLM"), "cogvlm"),
    "LLaMAForCausalLM": "llama",  # before transformers had it
    **dict.fromkeys(("BaichuanForCausalLM", "BaiChuanForCausalLM"), "baichuan"),
    **dict.fromkeys(("ChatGLMModel", "ChatGLMForConditionalGeneration"), "chatglm"),
    "AquilaForCausalLM": "aquila",
    "BlueLMForCausalLM": "BlueLM",
    "CodeShellForCausalLM": "codeshell",
    "DeepseekForCausalLM": "deepseek",
    **dict.fromkeys(("Grok1ForCausalLM", "Grok1ModelForCausalLM"), "grok-1"),
    "InternLMForCausalLM": "internlm",
    "InternLM2ForCausalLM": "internlm2",
    "MiniCPMForCausalLM": "minicpm",
    "MossForCausalLM": "moss",
    "OrionForCausalLM": "orion",
    "QWenLMHeadModel": "qwen",
    "RWForCausalLM": "RefinedWeb",
    "XverseForCausalLM": "xverse",
    "YiForCausalLM": "Yi",
}

#: Published code outside of transformers that rotates as Llama does; what their layers are, their keys say.
REMOTE_AS_LLAMA = names("""
    BlueLM Dream Klear PanguEmbedded TeleFLM Yi alice_ai aquila bailing_moe bailing_moe_linear bailing_moe_v2 codeshell
    deepseek domyn_edge dots_ocr granite_switch grove_moe hunyuan internlm internlm2 internlmxcomposer2 iquestloopcoder
    jet_nemotron k2_horizon kormo llada llada2_moe llava_llama llava_mistral llava_qwen maincoder mimo minicpm
    minicpm_sala minicpmo minicpmv minimax_m1 minimax_text_01 molmo nanbeige nemotron-nas nemotron_labs_diffusion new
    orion ouro param2moe phi3_v phi3small phi4mm ricursive rnd1 sdar sdar_moe smallthinker solar spark2_5 stablelm_epoch
    step3_text step5 talkie telechat3 xllm xverse
""")
#: Those of them whose config class has the base 10000 where a config leaves it out.
REMOTE_DEFAULT_BASE = names("""
    BlueLM Dream aquila codeshell deepseek granite_switch internlm2 internlmxcomposer2 llava_llama llava_mistral
    llava_qwen minicpm minicpm_sala minicpmo minicpmv orion ouro ricursive sdar sdar_moe solar
""")

#: Of the types whose code is not in transformers, those whose code was not compared with what is said of them here.
CODE_NOT_SEEN = names("""
    RefinedWeb RefinedWebModel Yi btlm hf_olmo internlmxcomposer2 jais maincoder minicpmo minicpmv mixformer-sequential
    new orion phi-msft phi3_v replit_lm solar stablelm_alpha stablelm_epoch
""")
CODE_NOT_SEEN_NOTE = (
    "read as this type is generally known; its own code, which is not in transformers, was not compared: posenc check "
    "does it with a live model"
)

#: Values are the rotated keys, and the output is turned back.
VALUES_ROTATE = names("deepseek_v4")
VALUES_ROTATE_NOTE = "values are rotated too, and the output is turned back by the positions of the queries"

#: The indexer, which chooses the keys that a query sees, has other pairs than the attention.
INDEXER_BY_HALVES = names("axk2 deepseek_v32")
INDEXER_BY_HALVES_NOTE = (
    "the indexer, which chooses the keys that a query sees, rotates the first channels of its heads in pairs of the "
    'half layout (pairing="half")'
)

#: Layers differ, and the pattern may be left to the defaults of the config class. Without the class, a config of these
#: that does not spell the pattern out is not read.
KINDS_BY_CLASS = names("""
    afmoe beam bit cohere2 cohere2_moe cwm deepseek_v4 diffusion_gemma_text domyn_edge dory dots3_note_text
    embedding_gemma2_text ergo exaone4 exaone_moe flint gemma2 gemma3_text gemma3n_text gemma4_text gemma4_unified_text
    gigachat3_5 glm5_next_text gpt_oss granite_swa granitemoe_swa inkling2_loop_text inkling2_text inkling_text
    jamba jet_nemotron kimi_linear kolibri1 kolibri1_1 lara_mini lfm3 lfm3_vl_vision llama4_text mimo_v2_flash minimax
    mistral_large4_text modernbert modernbert-decoder muse_glimmer_text muse_glimmer_vision muse_spark_text
    muse_spark_vision nemotron_h neomme olmo3 olmo_hybrid qwen3_5_moe_text qwen3_5_text qwen3_next qwen4_exp_text
    recurrent_gemma regnet resnet ricursive rt_detr_resnet smollm3 spark2_5 step5 t5_gemma_module t5gemma2_decoder
    t5gemma2_text ultrabert vaultgemma zamba zamba2
""")

#: Nothing of the above: as Llama. (Some of them leave layers out.)
AS_LLAMA = names("""
    EvollaModel EvollaModel.protein_encoder_config afmoe apertus apertus1p5_text arcee aria_text beam bitnet chameleon
    csm csm_depth_decoder_model cwm dbrx deepseek_ocr2_encoder deepseek_ocr2_text dia_decoder dia_encoder diffllama doge
    dory dots1 embedding_gemma2_text emu3_text_model esm esmc eurobert evolla evolla.protein_encoder_config exaone
    exaone4 exaone_moe falcon falcon_h1 flex_olmo flint gemma gemma2 gemma3_text gemma3n_text gemma4_text
    gemma4_unified_text gpt_oss gradium_phonon_tts granite granite4_vision_text granite_docling_text granite_swa
    granitemoe granitemoe_swa granitemoehybrid granitemoeshared gte higgs_audio_v2 hrm_text hunyuan_v1_dense
    hunyuan_v1_moe hunyuan_vl_text hy_v3 hyperclovax idefics internlm3 iquestcoder jais2 jetmoe jina_embeddings_v3
    kolibri1 kolibri1_1 kyutai_speech_to_text lara_mini lasr_encoder lfm2 lfm2_moe lfm3 llama mimi mimi_decoder
    mimi_encoder minicpm5_moe minimax ministral ministral3 mistral mixtral mllama_text_model modernbert
    modernbert-decoder molmo2_text moshi muse_glimmer_assistant muse_glimmer_text muse_spark_text neucodec nomic_bert
    olmo olmo2 olmo3 olmo_hybrid olmoe phimoe pocket_tts pocket_tts_audio_tokenizer pocket_tts_audio_tokenizer_decoder
    pocket_tts_audio_tokenizer_encoder qwen2 qwen2_5_omni_dit qwen2_moe qwen3 qwen3_moe qwen3_omni_moe.code2wav_config
    qwen3_omni_moe_talker_code_predictor seed_oss smollm3 starcoder2 t5_gemma_module t5gemma2_decoder t5gemma2_text
    timesfm2_5 ultrabert unlimited_ocr_text vaultgemma voxtral_realtime_encoder voxtral_realtime_text xcodec2 zamba2
""")

#: Every rotary model type that is known here.
KNOWN = AS_LLAMA | REMOTE_AS_LLAMA | INTERLEAVED | NEGATIVE | PARTIAL | LATENT | SECTIONS.keys() | AXIAL.keys()

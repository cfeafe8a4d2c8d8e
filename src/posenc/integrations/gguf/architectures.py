"""What llama.cpp's code does by architecture and no GGUF file says: pairing, windows, layers without rotation.

Read from its source (``llama_model_rope_type`` and the files of the models), as it was in November 2026. So are the
architectures that Ollama's converter alone writes, from Ollama's.
"""

from typing import Literal


def names(text: str) -> frozenset[str]:
    """The words of a text."""
    return frozenset(text.split())


#: Architectures whose query and key weights are stored for pairs (2c, 2c + 1).
INTERLEAVED = names("""
    arcee arctic baichuan bailingmoe bailingmoe3 chameleon chatglm cohere2 cohere2moe command-r deci deepseek deepseek2
    deepseek32 deepseek4 deepseek41 dots3note eagle3 ernie4_5 ernie4_5-moe gigachat35 glm-dsa glm4 granite granite_swa
    granitehybrid granitemoe graniteswitch hy_v4 internlm2 llada llama llama-embed llama4 maincoder minicpm mistral3
    mistral4 mllama muse-glimmer nanbeige neo-bert olmo onyx plm pockettts smollm3 xverse
""")
#: And for pairs (c, c + rotated channels / 2).
HALF = names("""
    afmoe apertus bailingmoe2 berrylm bitnet codeshell cogvlm dbrx deepseek2-ocr deepseekocr dflash dots1 dream eurobert
    exaone exaone-moe exaone4 falcon falcon-h1 gemma gemma-embedding gemma2 gemma3 gemma3n gemma4 gemma4-assistant
    glm4moe gpt-oss gptneox gptoss grok grovemoe hrm_text hunyuan-dense hunyuan-moe hunyuan_vl hy_v3 jais2 jina-bert-v3
    k2-horizon laguna lfm2 lfm2moe llada-moe maple mellum mimo2 minicpm3 minimax-01 minimax-m2 minimax-m3 modern-bert
    nemotron nomic-bert nomic-bert-moe olmo2 olmo3 olmoe openelm orion pangu-embedded phi2 phi3 phimoe plamo plamo2
    plamo3 qwen qwen2 qwen2moe qwen3 qwen3moe qwen3next rnd1 seed_oss smallthinker spark2_5 stablelm starcoder2 step35
    talkie
""")
#: Several coordinates: the layout of :class:`posenc.MRoPE`.
SECTIONS = {
    **dict.fromkeys(("glmocr", "paddleocr", "qwen25vl", "qwen2vl"), "chunked"),
    **dict.fromkeys(("qwen3tts", "qwen3vl", "qwen3vlmoe", "qwen35", "qwen35moe", "qwen4exp"), "interleaved"),
}
#: The same if the file gives sections, and one coordinate if not.
SECTIONS_IF_GIVEN = dict.fromkeys(("bailingmoe3", "dflash", "glm4", "glm4moe", "hunyuan_vl"), "chunked")
#: Tables with a row for each position, biases by distance, and attention without any of these.
TABLES = names("bert gpt2 starcoder")
ALIBI = names("bloom jais jina-bert-v2 mpt refact")
#: Without biases in a file that has no ``attention.max_alibi_bias``.
ALIBI_IF_STORED = names("jais mpt")
T5 = names("t5 t5encoder")
#: A bias of mixed profiles in every layer. The converters of Inkling that are in use write the same keys.
PROFILES = names("inkling")
UNROTATED = names("glm5-next jamba kimi-k3 kimi-linear nemotron_h nemotron_h_moe")
#: No architecture of these has attention, whose positions are described here.
NO_ATTENTION = {
    **dict.fromkeys(
        names("arwkv7 mamba mamba2 rwkv6 rwkv6qwen2 rwkv7"), "a recurrent model, which counts no positions"
    ),
    "wavtokenizer-dec": "a decoder of sounds from convolutions, which counts no positions",
    "clip": "the projector and the tower of images or sounds beside a model: describe the config of their own model",
    "gptj": "llama.cpp has this name, and no code for it",
}
KNOWN = INTERLEAVED | HALF | SECTIONS.keys() | TABLES | ALIBI | T5 | PROFILES | UNROTATED

#: ALiBi in place of the rotation, at this many layers.
ALIBI_AT_LAYERS = {"baichuan": 40}

#: The rotated channels are the last of a head (latent attention).
TRAILING = names("""
    bailingmoe3 deepseek2 deepseek32 deepseek4 deepseek41 dots3note gigachat35 glm-dsa hy_v4 minicpm3 mistral4 plm
""")
#: All channels of a head rotate by base 10000, whatever the file says.
PLAIN = names("deepseek2-ocr")
#: The layers without a window rotate half of the channels that the file says.
HALF_OF_STORED = names("step35")

#: In each group of this many layers the last (or the first) sees all keys, and the others have a sliding window,
#: unless the file stores which.
WINDOWS: dict[str, tuple[int, Literal["first", "last"]]] = {
    **dict.fromkeys(names("gemma3 gemma-embedding"), (6, "last")),
    "gemma3n": (5, "last"),
    **dict.fromkeys(names("afmoe cohere2 exaone-moe exaone4 llama4 mellum muse-glimmer olmo2 onyx"), (4, "last")),
    **dict.fromkeys(names("gemma2 gpt-oss"), (2, "last")),
    "plamo3": (8, "last"),
    **dict.fromkeys(names("cohere2moe laguna smallthinker"), (4, "first")),
    "modern-bert": (3, "first"),
}
#: The file has to store which.
STORED_WINDOWS = names("dots3note gemma4 gemma4-assistant inkling maple mimo2 olmo3 spark2_5 step35")
#: No layer has a window in a file that has no length of it,
WINDOWS_IF_LENGTH = names("afmoe gemma3 laguna mellum modern-bert olmo2 plamo3 smallthinker")
#: or of another number of layers.
WINDOWS_AT_LAYERS = {"exaone4": 64}
#: Layers with a window are not scaled, and have this base where the file does not store one,
LOCAL_BASE = dict.fromkeys(
    names("dots3note gemma-embedding gemma3 gemma3n gemma4 gemma4-assistant mimo2 modern-bert plamo3 step35"),
    10_000.0,
)
#: or that of the other layers.
UNSCALED_LOCALLY = names("laguna muse-glimmer onyx")
#: They have the base of the other layers, whatever is stored, and are not scaled.
UNSCALED_AS_OTHERS = names("mellum olmo2 olmo3")
#: They are scaled as the other layers, by the stored base where there is one.
SCALED_LOCALLY = names("afmoe gemma2 gpt-oss llama4 maple smallthinker spark2_5")
#: In all others with windows, they rotate as the other layers do.

#: Only layers with a window rotate.
ROTATED_IF_WINDOWED = names("cohere2 cohere2moe exaone-moe exaone4 maple muse-glimmer onyx")
#: In each group of this many layers the last (or the first) does not rotate.
NO_ROTATION_EVERY: dict[str, tuple[int, Literal["first", "last"]]] = {
    **dict.fromkeys(names("afmoe llama4 smollm3"), (4, "last")),
    "smallthinker": (4, "first"),
}
#: All rotate in a file whose window is 0, or (smallthinker) that has none.
NO_ROTATION_IF_WINDOW = names("llama4 smallthinker")
#: The layers without rotation have a temperature: length and strength.
TEMPERATURES = {"llama4": (8192, 0.1)}
#: All layers have the temperature that the file gives the strength of: its length is that of the key.
STORED_TEMPERATURES = {
    "mistral3": "rope.scaling.original_context_length",
    "deepseek2": "attention.temperature_length",
    "mistral4": "attention.temperature_length",
}
#: All blocks predict further tokens, and are the model.
ALL_FURTHER = names("gemma4-assistant")
#: Blocks that predict further tokens are in the file if this tensor of their first is.
FURTHER_IF_STORED = dict.fromkeys(("deepseek4", "deepseek41"), "nextn.eh_proj.weight")
#: Layers whose ``attention.compress_ratios`` is not 0 have a base of their own, and they alone are scaled. Those of
#: DFlash drafts for such a model all have 0.
COMPRESSED = names("deepseek4 deepseek41")

#: The indexer has other pairs than the attention (src/models/deepseek32.cpp).
INDEXER_BY_HALVES = names("deepseek32")
#: Drafts of several kinds: those with this key are blocks of DeepSeek V4, without compression.
COMPRESSED_IF_STORED = {"dflash": "hyper_connection.count"}
#: In each group of this many layers the last has attention, where the file does not say how many.
INTERVALS = {**dict.fromkeys(names("berrylm gigachat35 qwen3next qwen35 qwen35moe qwen4exp"), 4), "minimax-01": 8}
#: YaRN's temperature goes to the softmax scale too, and ``rope.scaling.yarn_log_multiplier`` is a tenth of DeepSeek's
#: mscale_all_dim,
RAISES_SCORES = names("deepseek2 deepseek32 gigachat35 glm-dsa mistral4")
#: which this one does not read.
NO_MULTIPLIER = names("glm-dsa")
#: Scaled by YaRN where the file has the length before the extension, whatever kind of scaling it says.
YARN_BY_LENGTH = names("gptoss olmo3")
#: Ollama's files of Gemma 3 with these numbers of layers lack the factor of the layers without a window.
OLLAMAS_FACTOR = {"gemma3": {34: 8.0, 48: 8.0, 62: 8.0}}
#: And those without a base mean this one.
OLLAMAS_BASE = {"gemma3": 1e6}
#: YaRN has no temperature.
NO_TEMPERATURE = names("deepseek4 deepseek41")
#: It is mscale_all_dim itself, and divides the temperature.
DIVIDES_TEMPERATURE = names("mistral3")
#: YaRN's ends of the ramp, by turns, where the file has no others; all others have these two, whatever it has.
BETAS = (32.0, 1.0)
STORED_BETAS = {"grok": (8.0, 1.0), **dict.fromkeys(names("k2-horizon mistral3"), BETAS)}
#: ``rope.scaling.finetuned`` says whether there is any rotation.
FINETUNED_MEANS_ROTATED = names("granite granitehybrid granitemoe graniteswitch")

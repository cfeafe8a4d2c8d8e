"""What llama.cpp's code does by architecture and no GGUF file says: pairing, windows, layers without rotation.

Read from its source (``llama_model_rope_type`` and the files of the models), as it was in September 2026.
"""

from typing import Literal


def names(text: str) -> frozenset[str]:
    """The words of a text."""
    return frozenset(text.split())


#: Architectures whose query and key weights are stored for pairs (2c, 2c + 1).
INTERLEAVED = names("""
    arcee arctic baichuan bailingmoe chameleon chatglm cohere2 cohere2moe command-r deci deepseek deepseek2
    deepseek2-ocr ernie4_5 ernie4_5-moe glm-dsa glm4 granite granite_swa granitehybrid granitemoe internlm2
    llada llama llama-embed llama4 maincoder minicpm mistral3 mistral4 neo-bert olmo plm smollm3 xverse
""")
#: And for pairs (c, c + rotated channels / 2).
HALF = names("""
    afmoe apertus bailingmoe2 bitnet codeshell cogvlm dbrx dots1 dream eurobert exaone exaone-moe exaone4 falcon
    falcon-h1 gemma gemma-embedding gemma2 gemma3 gemma3n gemma4 glm4moe gpt-oss gptneox grok grovemoe hunyuan-dense
    hunyuan-moe hunyuan_vl jais2 jina-bert-v3 laguna lfm2 lfm2moe llada-moe mellum mimo2 minicpm3 minimax-m2
    modern-bert nemotron nomic-bert nomic-bert-moe olmo2 olmoe openelm orion pangu-embedded phi2 phi3 phimoe plamo
    plamo2 plamo3 qwen qwen2 qwen2moe qwen3 qwen3moe qwen3next rnd1 seed_oss smallthinker stablelm starcoder2
""")
#: Several coordinates: the layout of :class:`posenc.MRoPE`.
SECTIONS = {
    **{"qwen2vl": "chunked", "paddleocr": "chunked"},
    **dict.fromkeys(("qwen3vl", "qwen3vlmoe", "qwen35", "qwen35moe"), "interleaved"),
}
#: The same if the file gives sections, and one coordinate if not.
SECTIONS_IF_GIVEN = {"glm4": "chunked", "glm4moe": "chunked", "hunyuan_vl": "chunked"}
#: Tables with a row for each position, biases by distance, and attention without any of these.
TABLES = names("bert gpt2 starcoder")
ALIBI = names("bloom jais jina-bert-v2 mpt refact")
T5 = names("t5 t5encoder")
UNROTATED = names("jamba kimi-linear nemotron_h nemotron_h_moe")
KNOWN = INTERLEAVED | HALF | SECTIONS.keys() | TABLES | ALIBI | T5 | UNROTATED

#: ALiBi in place of the rotation, at this many layers.
ALIBI_AT_LAYERS = {"baichuan": 40}

#: The rotated channels are the last of a head (latent attention).
TRAILING = names("deepseek2 deepseek2-ocr glm-dsa minicpm3 mistral4 plm")

#: In each group of this many layers the last (or the first) sees all keys, and the others have a sliding window.
WINDOWS: dict[str, tuple[int, Literal["first", "last"]]] = {
    **dict.fromkeys(names("gemma3 gemma-embedding"), (6, "last")),
    "gemma3n": (5, "last"),
    **dict.fromkeys(names("afmoe cohere2 exaone-moe exaone4 llama4 mellum olmo2"), (4, "last")),
    **dict.fromkeys(names("gemma2 gpt-oss"), (2, "last")),
    "plamo3": (8, "last"),
    **dict.fromkeys(names("cohere2moe laguna smallthinker"), (4, "first")),
    "modern-bert": (3, "first"),
}
#: Layers with a window are not scaled, and have this base where the file does not store one,
LOCAL_BASE = dict.fromkeys(
    names("gemma-embedding gemma3 gemma3n gemma4 mimo2 modern-bert plamo3"),
    10_000.0,
)
#: or that of the other layers.
UNSCALED_LOCALLY = names("mellum olmo2")

#: Only layers with a window rotate.
ROTATED_IF_WINDOWED = names("cohere2 cohere2moe exaone-moe exaone4")
#: In each group of this many layers the last (or the first) does not rotate.
NO_ROTATION_EVERY: dict[str, tuple[int, Literal["first", "last"]]] = {
    **dict.fromkeys(names("afmoe llama4 smollm3"), (4, "last")),
    "smallthinker": (4, "first"),
}
#: All rotate in a file whose window is 0, or (smallthinker) that has none.
NO_ROTATION_IF_WINDOW = names("llama4 smallthinker")
#: The layers without rotation have a temperature: length and strength.
TEMPERATURES = {"llama4": (8192, 0.1)}
#: In each group of this many layers the last has attention, where the file does not say how many.
INTERVALS = {"qwen3next": 4, "qwen35": 4, "qwen35moe": 4}
#: ``rope.scaling.yarn_log_multiplier`` is a tenth of DeepSeek's mscale_all_dim: it raises the softmax scale.
RAISES_SCORES = names("deepseek2 glm-dsa mistral4")
#: ``rope.scaling.finetuned`` says whether there is any rotation.
FINETUNED_MEANS_ROTATED = names("granite granitehybrid granitemoe")

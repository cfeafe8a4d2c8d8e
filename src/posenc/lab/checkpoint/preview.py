"""What a model's config and headers say, before its weights are read."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from posenc import Learned, NoPE, RoPE
from posenc.frequencies import Frequencies
from posenc.integrations import gguf
from posenc.integrations.gguf.header import read_whole
from posenc.integrations.transformers import LayerGroup, describe
from posenc.lab.checkpoint.find import Place, find
from posenc.lab.checkpoint.headers import INDEX, SINGLE, check_safetensors
from posenc.lab.run.errors import RunError
from posenc.lab.run.folder import read_json

Kind = Literal["rotary", "learned"]

#: What ``architectures`` of a causal language model end with.
_CAUSAL = ("ForCausalLM", "LMHeadModel")
ENCODER = (
    "posenc extend takes causal language models. For an encoder with a learned table, use "
    'posenc.integrations.transformers.extend(model, "interpolate", length=...).'
)


@dataclass(frozen=True)
class Preview:
    """What a model's config and headers say, before its weights are read.

    Attributes:
        source: as given.
        label: a short name, for tables.
        folder: the model's folder.
        gguf: its GGUF file, if it is one.
        model_type: transformers' name, or the architecture of the GGUF file.
        trained_length: tokens, before any extension.
        layers: number of blocks.
        heads: number of query heads.
        kv_heads: number of key and value heads, which the KV cache stores.
        head_dim: channels of a head.
        hidden_size: channels between blocks.
        mlp_size: channels within a block's MLP.
        vocab_size: number of logits for each token.
        parameters: number of parameters.
        weight_bytes: bytes of the weight files.
        stored: the dtype of most stored weights, such as "float32", "bfloat16" or "Q4_1".
        kind: "rotary", or "learned" for a table of positions.
        frequencies: the rule of a rotary model; None for a table.
        rotary_dim: rotated channels of a head; None for a table.
    """

    source: str
    label: str
    folder: Path
    gguf: Path | None
    model_type: str
    trained_length: int
    layers: int
    heads: int
    kv_heads: int
    head_dim: int
    hidden_size: int
    mlp_size: int
    vocab_size: int
    parameters: int
    weight_bytes: int
    stored: str
    kind: Kind = "rotary"
    frequencies: Frequencies | None = None
    rotary_dim: int | None = None


def look(source: str | Path, *, trust_remote_code: bool = False) -> Preview:
    """Read the config and the headers of the weights, in well under a second, and refuse damaged files.

    Args:
        source: a folder in Hugging Face format, a GGUF file, or the name of an installed package that ships one.
        trust_remote_code: whether code from the model's folder may be run.

    Raises:
        RunError: no model, a damaged one, one of untrusted code, one that is no causal language model, or one without
            rotary or learned positions.
    """
    return preview(str(source), find(str(source)), trust_remote_code)


def preview(source: str, place: Place, trusted: bool) -> Preview:
    """As :func:`look`, for files that were found already."""
    return _look_gguf(source, place, place.gguf) if place.gguf else _look_folder(source, place, trusted)


def _look_folder(source: str, place: Place, trusted: bool) -> Preview:
    folder = place.folder
    if not (folder / "config.json").is_file():
        raise RunError(f"{source}: there is no config.json in it; give the folder of a model in Hugging Face format.")
    config = read_json(folder / "config.json")
    check_code(folder, config, source, trusted)
    if not any((folder / name).is_file() for name in (SINGLE, INDEX)):
        pickled = sorted(path.name for pattern in ("*.bin", "*.pt", "*.pth") for path in folder.glob(pattern))
        what = (
            f"only pickled weights ({pickled[0]}), which can run code, so posenc does not load them"
            if pickled
            else "none"
        )
        raise RunError(f"{source}: expected {SINGLE} or {INDEX}, got {what}; convert the model to safetensors.")
    if (quantized := config.get("quantization_config")) is not None:
        method = quantized.get("quant_method") if isinstance(quantized, Mapping) else quantized
        raise RunError(
            f"{source}: the weights are quantized by {method}, expected a model that is not quantized; give the "
            "original model."
        )
    architectures = config.get("architectures") or []
    own = "AutoModelForCausalLM" in (config.get("auto_map") or {})  # whose class may have any name
    if architectures and not own and not any(str(name).endswith(_CAUSAL) for name in architectures):
        raise RunError(f"{source}: {architectures[0]} is no causal language model. {ENCODER}")
    tensors = check_safetensors(folder)
    kind, group = positions(config, source)
    rotation = part(group, RoPE)
    heads = _size(config, source, "num_attention_heads", "n_head", "n_heads", "num_heads")
    hidden = _size(config, source, "hidden_size", "n_embd", "d_model", "embed_dim")
    head_dim = rotation.head_dim if rotation is not None else hidden // heads
    return Preview(
        model_type=str(config.get("model_type")),
        trained_length=_trained(group, source),
        layers=_size(config, source, "num_hidden_layers", "n_layer", "n_layers", "num_layers"),
        heads=heads,
        kv_heads=int(config.get("num_key_value_heads") or config.get("num_kv_heads") or heads),
        head_dim=head_dim,
        hidden_size=hidden,
        mlp_size=int(config.get("intermediate_size") or config.get("n_inner") or config.get("ffn_dim") or 4 * hidden),
        vocab_size=_size(config, source, "vocab_size"),
        **_common(source, place, kind, rotation, tensors),
    )


def _look_gguf(source: str, place: Place, path: Path) -> Preview:
    try:
        header = read_whole(path)
    except (ValueError, ImportError) as error:
        raise RunError(str(error)) from error
    arch = str(header.metadata.get("general.architecture"))
    heads = _first(header, "attention.head_count", source)
    hidden = _first(header, "embedding_length", source)
    trained = header.get("rope.scaling.original_context_length") or _first(header, "context_length", source)
    if header.get("rope.scaling.type") == "linear" and not header.get("rope.scaling.original_context_length"):
        trained = round(trained / (header.get("rope.scaling.factor") or 1))
    try:
        kind, group = positions_of(gguf.describe(path), source)
    except ValueError as error:
        raise RunError(f"{source}: {error}") from error
    rotation = part(group, RoPE)
    words = header.get("vocab_size") or header.metadata.get("tokenizer.ggml.tokens")
    return Preview(
        model_type=arch,
        trained_length=int(trained),
        layers=_first(header, "block_count", source),
        heads=heads,
        kv_heads=_first(header, "attention.head_count_kv", source) if header.get("attention.head_count_kv") else heads,
        head_dim=int(header.get("attention.key_length") or hidden // heads),
        hidden_size=hidden,
        mlp_size=_first(header, "feed_forward_length", source),
        vocab_size=int(words) if isinstance(words, int) else len(words or ()),
        **_common(source, place, kind, rotation, header.tensors),
    )


def _common(
    source: str, place: Place, kind: Kind, rotation: RoPE | None, tensors: Mapping[str, gguf.Stored]
) -> dict[str, Any]:
    """The fields that are read in the same way from all kinds of files."""
    return {
        "source": source,
        "label": place.label,
        "folder": place.folder,
        "gguf": place.gguf,
        "parameters": sum(tensor.count for tensor in tensors.values()),
        "weight_bytes": sum(tensor.size for tensor in tensors.values()),
        "stored": _stored(tensors),
        "kind": kind,
        "frequencies": None if rotation is None else rotation.frequencies,
        "rotary_dim": None if rotation is None else rotation.rotary_dim,
    }


def check_code(folder: Path, config: Mapping[str, Any], source: str, trusted: bool) -> None:
    """Refuse code from the model's folder, or from a hub that its config names, unless it is trusted."""
    tokenizer = folder / "tokenizer_config.json"
    configs = [config, *([read_json(tokenizer)] if tokenizer.is_file() else [])]
    if not trusted and any(found.get("auto_map") for found in configs):
        raise RunError(
            f"{source}: the model comes with Python code (auto_map in its config), which could do anything; read the "
            "code, and give --trust-remote-code to run it."
        )
    if not trusted and (asked := _code_of_a_hub(config)):
        raise RunError(
            f"{source}: its config asks for code from a hub ({asked}), and posenc loads no such code by default; "
            "remove the key, or give --trust-remote-code."
        )


def _code_of_a_hub(config: Mapping[str, Any]) -> str:
    """The key and value that name an implementation on a hub, "owner/name", in the config or one of its parts."""
    for key, value in config.items():
        if "implementation" in str(key):
            named = list(value.values()) if isinstance(value, Mapping) else [value]
            for each in named:
                if isinstance(each, str) and "/" in each:
                    return f"{key}: {each}"
        if isinstance(value, Mapping) and (inside := _code_of_a_hub(value)):
            return inside
    return ""


def positions(config: Mapping[str, Any], source: str) -> tuple[Kind, LayerGroup]:
    """The layer group that attends to the whole text, with its positional encoding."""
    try:
        # No rule depends on the pairing, and transformers itself refuses an unknown model type.
        return positions_of(describe(config, pairing="half"), source)
    except ValueError as error:
        raise RunError(f"{source}: {error}") from error


def positions_of(description: Iterable[LayerGroup], source: str) -> tuple[Kind, LayerGroup]:
    """:func:`positions`, of a description."""
    groups = [group for group in description if not isinstance(group.encoding, NoPE)]
    if any(group.part for group in groups):
        raise RunError(f"{source}: a model of several parts ({groups[0].part}, ...); expected a model of text only.")
    rotary = [group for group in groups if part(group, RoPE) is not None]
    learned = [group for group in groups if part(group, Learned) is not None]
    if rotary:
        return "rotary", min(rotary, key=lambda group: ("full" not in group.label, -len(group.layers)))
    if learned:
        return "learned", learned[0]
    names = " and ".join(sorted({type(group.encoding).__name__ for group in groups})) or "none"
    raise RunError(
        f"{source}: the model's positional encoding is {names}, expected RoPE or a learned table; for other encodings "
        "there is no rule to choose."
    )


def part(group: LayerGroup, kind: type[Any]) -> Any:
    """The part of a group's encoding that has this class."""
    return next((part for part in group.encoding.parts if isinstance(part, kind)), None)


def _trained(group: LayerGroup, source: str) -> int:
    table = part(group, Learned)
    found = table.length if group.trained_length is None and table is not None else group.trained_length
    if found is None:
        raise RunError(f"{source}: its config has no max_position_embeddings, the trained length; add it.")
    return int(found)


def _size(config: Mapping[str, Any], source: str, *names: str) -> int:
    found = next((config[name] for name in names if isinstance(config.get(name), int)), None)
    if found is None or found < 1:
        raise RunError(f"{source}: its config has no {names[0]}, expected a number of at least 1; add it.")
    return int(found)


def _first(header: gguf.Header, key: str, source: str) -> int:
    """A number, or the largest number of a list with one for each layer."""
    found = header.get(key)
    largest = max(found, default=0) if isinstance(found, list) else found
    if not isinstance(largest, int) or largest < 1:
        raise RunError(
            f"{source}: its metadata have no {key}, expected a number of at least 1; the file holds no language model."
        )
    return largest


def _stored(tensors: Mapping[str, gguf.Stored]) -> str:
    """The dtype of most of the stored numbers."""
    totals: dict[str, int] = {}
    for tensor in tensors.values():
        totals[tensor.dtype] = totals.get(tensor.dtype, 0) + tensor.count
    name = max(totals, key=lambda dtype: totals[dtype], default="F32")
    return {"F64": "float64", "F32": "float32", "F16": "float16", "BF16": "bfloat16"}.get(name, name)

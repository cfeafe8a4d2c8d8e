"""Opens a language model from a folder, a GGUF file or an installed package, after checks of its files."""

import contextlib
import functools
import importlib.util
import io
import json
import os
import re
import warnings
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from posenc import RoPE
from posenc.frequencies import Frequencies
from posenc.integrations.gguf import describe as describe_gguf
from posenc.integrations.transformers import describe, extend, to_transformers
from posenc.lab.checkpoint.find import Place, check_digests, find
from posenc.lab.checkpoint.preview import ENCODER, Kind, part, positions, positions_of, preview
from posenc.lab.checkpoint.preview import Preview as Preview
from posenc.lab.checkpoint.preview import look as look
from posenc.lab.run.config import check_choice
from posenc.lab.run.errors import RunError

DTYPES = ("auto", "float32", "bfloat16", "float16")


@dataclass
class Checkpoint:
    """A model that is loaded.

    Attributes:
        preview: what its files say.
        model: a causal language model of transformers, in eval mode.
        tokenizer: its tokenizer.
        kind: how the model encodes positions.
        frequencies: its present frequency rule, if the model is rotary.
        rotary_dim: rotated channels of a head, if rotary.
        config: its config as plain data, without ``quantization_config``: a GGUF file's weights are dequantized.
        unset: whether transformers left its rates unset, as it does if a model's own code does not set
            them on loading. posenc then set the rates from the config, with the model's code.
    """

    preview: Preview
    model: Any
    tokenizer: Any
    kind: Kind
    frequencies: Frequencies | None
    rotary_dim: int | None
    config: dict[str, Any]
    unset: bool

    @property
    def label(self) -> str:
        """The model's short name, for tables."""
        return self.preview.label

    @property
    def trained_length(self) -> int:
        """Tokens, before any extension."""
        return self.preview.trained_length


def open_checkpoint(
    source: str | Path, *, dtype: str = "auto", device: str = "cpu", trust_remote_code: bool = False
) -> Checkpoint:
    """Load a model and its tokenizer, without the network, after the checks of :func:`look`.

    Args:
        source: as in :func:`look`.
        dtype: "float32", "bfloat16", "float16", or "auto": the dtype of the stored weights, but float32 for GGUF files,
            and float32 instead of float16 on a CPU, where float16 is many times slower and not more exact.
        device: where to.
        trust_remote_code: whether code from the model's folder may be run.

    Raises:
        ValueError: another dtype.
        RunError: as :func:`look`; also if weights do not fit the config or are not finite, or a package is missing.
    """
    check_choice("--dtype", dtype, DTYPES)
    place = find(str(source))
    seen = preview(str(source), place, trust_remote_code)
    check_digests(place)
    with quietly(), _parsed_once(place.gguf):
        model = _load_model(seen, place, dtype_of(dtype, seen.stored, device), trust_remote_code)
        tokenizer = _load_tokenizer(seen, place, trust_remote_code)
    _check_numbers(model, str(source))
    # Added tokens do not count: a padding token past the end of the embedding table is common, and never embedded.
    if (words := tokenizer.vocab_size) > model.get_input_embeddings().num_embeddings:
        raise RunError(
            f"{source}: its tokenizer has {words} tokens, and the model has fewer; the tokenizer and the model do not "
            "belong together; use the model's own tokenizer."
        )
    kind, group = positions(model.config.to_dict(), str(source))
    rotation = part(group, RoPE)
    unset = _set_rates(model, rotation, str(source))
    config: dict[str, Any] = json.loads(model.config.to_json_string(use_diff=False))
    config.pop("_name_or_path", None)
    return Checkpoint(
        preview=seen,
        model=model.to(device).eval(),
        tokenizer=tokenizer,
        kind=kind,
        frequencies=None if rotation is None else rotation.frequencies,
        rotary_dim=None if rotation is None else rotation.rotary_dim,
        config=config,
        unset=unset,
    )


def is_foreign(model: Any) -> bool:
    """Whether the model runs code from its own folder."""
    return not type(model).__module__.startswith("transformers.")


def dtype_of(dtype: str, stored: str, device: str) -> torch.dtype:
    """The dtype that a name such as "auto" means for weights that are stored in ``stored``."""
    if dtype == "auto":
        kept = stored == "bfloat16" or (stored == "float16" and torch.device(device).type != "cpu")
        dtype = stored if kept else "float32"
    found: torch.dtype = getattr(torch, dtype)
    return found


@contextlib.contextmanager
def _parsed_once(path: Path | None) -> Iterator[None]:
    """Within this context, ``gguf.GGUFReader`` reads the header of this file only once.

    transformers parses the header for the config, the weights and the tokenizer, for seconds each time. Each takes a
    path, not a reader, and imports the class again, so replacing the name in gguf is the only way. Other files and
    other modes use the class itself. Two threads must not open models in this context at the same time.
    """
    if path is None:
        yield
        return
    import gguf

    parse = gguf.GGUFReader
    parsed = functools.cache(lambda: parse(path))
    vars(gguf)["GGUFReader"] = lambda other, *mode: parsed() if Path(other) == path else parse(other, *mode)
    try:
        yield
    finally:
        vars(gguf)["GGUFReader"] = parse


@contextlib.contextmanager
def quietly() -> Iterator[None]:
    """Silence transformers' progress bars and notes, and download nothing; failures still raise errors."""
    os.environ["HF_HUB_OFFLINE"] = "1"  # before transformers is imported
    from transformers.utils import logging

    level, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        with contextlib.redirect_stderr(io.StringIO()):  # its progress bar over GGUF tensors ignores every setting
            yield
    finally:
        logging.set_verbosity(level)
        if bars:
            logging.enable_progress_bar()


def _load_model(seen: Preview, place: Place, dtype: torch.dtype, trusted: bool) -> Any:
    from transformers import AutoConfig, AutoModelForCausalLM

    options = place.options(trusted)
    if place.gguf is not None and importlib.util.find_spec("accelerate") is None:
        raise RunError(f"{seen.source}: transformers needs accelerate for GGUF files; pip install accelerate.")
    with _explained(seen.source):
        config = AutoConfig.from_pretrained(place.folder, **options)
        _check_causal(config, seen.source)
        if place.gguf is not None:
            config = _with_rule_of(place.gguf, config)
            options |= _as_numbers()
        options |= {"config": config, "dtype": dtype, "use_safetensors": True, "output_loading_info": True}
        loaded: Any = AutoModelForCausalLM.from_pretrained(place.folder, **options)
        model, report = loaded
    if missing := sorted(report["missing_keys"]):
        raise RunError(
            f"{seen.source}: {_several(missing)} of the weights missing; the files were altered; download them again."
        )
    # A block that the model does not read belongs to a model with more blocks: the config was altered.
    if extra := sorted(name for name in report["unexpected_keys"] if re.search(r"\.\d+\.", name)):
        raise RunError(
            f"{seen.source}: {_several(extra)} in blocks that the config does not have; the files were altered; "
            "download them again."
        )
    if place.gguf is not None:  # its weights are dequantized now, and are saved and trained like any others
        model.hf_quantizer = None
        vars(model.config).pop("quantization_config", None)
    return model


def _several(names: list[str]) -> str:
    return f"{names[0]} and {len(names) - 1} more are" if len(names) > 1 else f"{names[0]} is"


def _as_numbers() -> dict[str, Any]:
    """Ask transformers to dequantize GGUF blocks; before about version 5.20 it always did."""
    import transformers

    packs = getattr(transformers, "GgufConfig", None)
    return {} if packs is None else {"quantization_config": packs(dequantize=True)}


def _check_causal(config: Any, source: str) -> None:
    from transformers import MODEL_FOR_CAUSAL_LM_MAPPING, MODEL_FOR_MASKED_LM_MAPPING

    kind, code = type(config), getattr(config, "auto_map", None) or {}
    encoder = kind in MODEL_FOR_MASKED_LM_MAPPING and not getattr(config, "is_decoder", False)
    if encoder or getattr(config, "is_encoder_decoder", False):
        raise RunError(f"{source}: {config.model_type} is no causal language model. {ENCODER}")
    if kind not in MODEL_FOR_CAUSAL_LM_MAPPING and "AutoModelForCausalLM" not in code:
        raise RunError(
            f"{source}: the installed transformers has no causal language model of the type {config.model_type}."
        )


def _with_rule_of(path: Path, config: Any) -> Any:
    """The config with the frequency rule of the GGUF file: for most files, transformers reads the base alone."""
    plain = config.to_dict()
    kind, group = positions(plain, str(path))
    if kind == "learned":
        return config
    own = positions_of(describe_gguf(path), str(path))[1]
    meant, read = part(own, RoPE), part(group, RoPE)
    if meant is None or read is None or meant.frequencies == read.frequencies:
        return config
    ways = {"pairing": read.pairing, "rotary_dim": read.rotary_dim, "rotary_start": read.rotary_start}
    rope = RoPE(read.head_dim, frequencies=meant.frequencies, **ways)
    try:
        described = describe(plain, pairing="half")
        if len([each for each in described if part(each, RoPE) is not None]) > 1:  # each kind of layers has its own
            changed = replace(group, encoding=rope, trained_length=own.trained_length, longest=own.longest)
            groups = tuple(changed if each.layers == group.layers else each for each in described)
            written = to_transformers(replace(described, groups=groups), plain)
        else:
            written = to_transformers(rope, plain)
    except ValueError as error:
        raise RunError(f"{path}: transformers cannot apply the frequency rule of this file: {error}") from error
    return type(config).from_dict({**written, "max_position_embeddings": own.longest or group.longest})


def _load_tokenizer(seen: Preview, place: Place, trusted: bool) -> Any:
    from transformers import AutoTokenizer

    with _explained(f"{seen.source}, its tokenizer"):
        return AutoTokenizer.from_pretrained(place.folder, **place.options(trusted))


@contextlib.contextmanager
def _explained(source: str) -> Iterator[None]:
    """Turn an error of transformers about a file into one line; the full error is kept as the cause."""
    try:
        yield
    except RunError:
        raise
    except Exception as error:
        lines = str(error).strip().splitlines() or [type(error).__name__]
        raise RunError(f"{source}: transformers cannot load this model: {lines[0]}") from error


def _set_rates(model: Any, rotation: RoPE | None, source: str) -> bool:
    """Set the rates of a model with its own code from its config, if they are not set; return whether they were not.

    transformers 5 loads through the meta device. A buffer that no ``_init_weights`` fills then holds arbitrary memory.
    """
    if rotation is None or not is_foreign(model):
        return False
    wanted = torch.from_numpy(rotation.frequencies.inv_freq(rotation.rotary_dim))
    rates = [
        rates for name, rates in model.named_buffers() if name.endswith("inv_freq") and rates.shape == wanted.shape
    ]
    if not rates or any(torch.allclose(found.double().cpu(), wanted, rtol=1e-5, atol=0) for found in rates):
        return False  # others may be those of another kind of layers
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # this function corrects wrong rates, and reports them
            extend(model, rotation.frequencies)
    except ValueError as error:
        raise RunError(
            f"{source}: after loading, the model's rates are not those of its config, and {error}"
        ) from error
    return True


def _check_numbers(model: Any, source: str) -> None:
    """Check the first and last values of every tensor for NaN and infinity, at almost no cost."""
    for name, values in model.state_dict().items():
        flat, some = values.flatten(), 1 << 14
        if values.is_floating_point() and not (flat[:some].isfinite().all() and flat[-some:].isfinite().all()):
            raise RunError(f"{source}: {name} contains NaN or infinite values; the file is damaged; download it again.")

"""Which key of a config is meant by an error of an encoding, which knows its own names alone."""

import re
from collections.abc import Iterator, Mapping
from typing import Any

from posenc.integrations.transformers.description.config import bears_on_positions

#: Numbers in a message.
_NUMBER = re.compile(r"(?<![\w.])-?\d+(?:\.\d+)?(?:e[+-]?\d+)?(?![\w])")
#: Other keys that sizes of an encoding come from.
_SIZES = re.compile(r"head|hidden_size|n_embd|d_model|factor|mscale|beta_|layers|image_size|patch_size")


def with_key(trouble: ValueError, *configs: Mapping[str, Any]) -> ValueError:
    """An error that names the keys whose values it speaks of; one that names them itself is left as it is.

    Args:
        trouble: the error.
        configs: the config, as it is written and as a class has filled it in.
    """
    said = str(trouble)
    if said.startswith("describe:"):
        return trouble
    numbers = {float(number) for number in _NUMBER.findall(said.partition("expected")[0])}
    found = [dict(_numbers(config)) for config in configs]
    by_value = ({key: value for key, value in each.items() if value in numbers} for each in found)
    by_name = ({k: v for k, v in each.items() if bears_on_positions(k.rpartition(".")[2])} for each in found)
    meant = next((each for each in (*by_value, *by_name) if each), {})
    listed = ", ".join(f"{key}={value:g}" for key, value in meant.items())
    sure = any(value in numbers for value in meant.values())
    named = f" It comes from {listed}; correct that." if sure else f" The config says {listed}." if listed else ""
    error = ValueError(f"describe: {configs[-1].get('model_type')}: {said}{'' if said.endswith('.') else '.'}{named}")
    error.__cause__ = trouble
    return error


def _numbers(config: Mapping[str, Any], inside: str = "") -> Iterator[tuple[str, float]]:
    """The numbers of the keys that an encoding may be made of, those of rotary parameters too."""
    for key, value in config.items():
        if isinstance(value, Mapping) and (inside or bears_on_positions(key)):
            yield from _numbers(value, f"{inside}{key}.")
        elif isinstance(value, bool) or not (bears_on_positions(key) or _SIZES.search(key)):
            continue
        elif isinstance(value, (int, float)) and abs(value) < 1e300:
            yield f"{inside}{key}", float(value)

"""Which key of a config is meant by an error of an encoding, which knows its own names alone."""

import re
from collections.abc import Iterator, Mapping
from typing import Any

from posenc.integrations.transformers.description.config import bears_on_positions

#: Numbers in a message.
_NUMBER = re.compile(r"(?<![\w.])-?\d+(?:\.\d+)?(?:e[+-]?\d+)?(?![\w])")
#: Other keys that sizes of an encoding come from.
_SIZES = re.compile(r"section|head|hidden_size|n_embd|d_model|factor|mscale|beta_|layers|image_size|patch_size")


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
    bearing = [{k: v for k, v in each.items() if bears_on_positions(k.rpartition(".")[2])} for each in found]
    exact = ({k: v for k, v in each.items() if numbers.issuperset(v)} for each in (*bearing, *found))
    meant = next((each for each in (*exact, *bearing) if each), {})
    listed = ", ".join(f"{key}={_shown(values)}" for key, values in meant.items())
    sure = all(numbers.issuperset(values) for values in meant.values())
    named = (
        f" It comes from {listed}; correct that."
        if sure and listed
        else f" The config says {listed}."
        if listed
        else ""
    )
    error = ValueError(f"describe: {configs[-1].get('model_type')}: {said}{'' if said.endswith('.') else '.'}{named}")
    error.__cause__ = trouble
    return error


def _shown(values: tuple[float, ...]) -> str:
    texts = [f"{value:g}" for value in values]
    return texts[0] if len(texts) == 1 else f"[{', '.join(texts)}]"


def _numbers(config: Mapping[str, Any], inside: str = "") -> Iterator[tuple[str, tuple[float, ...]]]:
    """The numbers of the keys that an encoding may be made of, those of rotary parameters and short lists too."""
    for key, value in config.items():
        if isinstance(value, Mapping) and (inside or bears_on_positions(key)):
            yield from _numbers(value, f"{inside}{key}.")
            continue
        values = tuple(value) if isinstance(value, (list, tuple)) else (value,)
        right = all(isinstance(v, (int, float)) and not isinstance(v, bool) and abs(v) < 1e300 for v in values)
        if right and 0 < len(values) < 5 and (bears_on_positions(key) or _SIZES.search(key)):
            yield f"{inside}{key}", tuple(map(float, values))

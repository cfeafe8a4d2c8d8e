"""Checks that the safetensors files of a folder are complete; the safetensors library compares header and file."""

import re
from collections.abc import Iterator
from math import prod
from pathlib import Path

from posenc.integrations.gguf import Stored
from posenc.lab.run.errors import RunError
from posenc.lab.run.folder import read_json

INDEX = "model.safetensors.index.json"
SINGLE = "model.safetensors"


def check_safetensors(folder: Path) -> dict[str, Stored]:
    """Return all tensors of a Hugging Face folder, after a check of every file's header, length and offsets.

    Raises:
        RunError: there is no safetensors file, or one is missing, truncated or altered.
    """
    if not (folder / INDEX).is_file():
        return dict(_read_safetensors(folder / SINGLE))
    places = read_json(folder / INDEX).get("weight_map")
    if not isinstance(places, dict) or not all(isinstance(name, str) for name in places.values()):
        raise RunError(
            f"{folder / INDEX}: expected a weight_map from tensor names to files, got none; the file is damaged."
        )
    if outside := sorted(name for name in set(places.values()) if Path(name).name != name):
        raise RunError(f"{folder / INDEX}: {outside[0]!r} is not a file of this folder; the index was altered.")
    if missing := sorted(name for name in set(places.values()) if not (folder / name).is_file()):
        raise RunError(f"{folder}: {', '.join(missing)} of {INDEX} is missing; the copy is not complete.")
    found: dict[str, Stored] = {}
    for file in sorted(set(places.values())):
        held = dict(_read_safetensors(folder / file))
        if absent := sorted(name for name, place in places.items() if place == file and name not in held):
            raise RunError(
                f"{folder / file}: {absent[0]} is missing, although {INDEX} lists it for this file; the file or the "
                "index was altered."
            )
        found |= held
    return found


def _read_safetensors(path: Path) -> Iterator[tuple[str, Stored]]:
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="numpy") as file:
            for name in file.keys():  # noqa: SIM118  # it is no mapping
                part = file.get_slice(name)
                dtype, shape = part.get_dtype(), tuple(part.get_shape())
                yield name, Stored(shape, dtype, -(-prod(shape) * _bits(dtype) // 8))
    except SafetensorError as error:
        raise RunError(
            f"{path}: the header of the file cannot be read ({error}); the file was truncated or altered."
        ) from error


def _bits(dtype: str) -> int:
    """Bits of an element: the first number in the name of its dtype."""
    found = re.search(r"\d+", dtype)
    return 8 if found is None else int(found[0])  # BOOL has none

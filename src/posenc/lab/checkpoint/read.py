"""The description of whatever a model is given as: one door for every verb that reads no weights."""

from pathlib import Path
from typing import Any

from posenc.integrations import gguf
from posenc.integrations.transformers import Description, describe
from posenc.lab.checkpoint.find import find
from posenc.lab.checkpoint.pipeline import describe_diffusers
from posenc.lab.checkpoint.timm_library import describe_name
from posenc.lab.run.errors import RunError


def read(source: str | Path, *, pairing: Any = None) -> Description:
    """What a folder, a config.json or params.json, a GGUF file, or an installed package that ships one says of itself.

    The folder may be a pipeline or a model of diffusers, and a name that is no file's a model of timm, where those are
    installed.

    Raises:
        RunError: there is none, or several.
        ValueError: a damaged GGUF file; nothing that is known in it; an adapter's folder, with the name of its base.
    """
    path = Path(source).expanduser()
    if path.suffix == ".gguf":
        return gguf.describe(path)
    if path.suffix == ".json" or (path.is_dir() and any(path.glob("*.json"))):
        found = describe_diffusers(path, pairing=pairing)
        return describe(path, pairing=pairing) if found is None else found  # which may be empty, and says why
    try:
        place = find(str(source))  # a folder with a GGUF file, or a package
    except RunError as error:
        is_name = not path.exists() and path.parent == Path() and "/" not in str(source)
        if is_name and (found := describe_name(str(source), otherwise=error)) is not None:
            return found
        raise
    return gguf.describe(place.gguf) if place.gguf is not None else describe(place.folder, pairing=pairing)

"""Reads the description of a model in any supported form; used by every verb that reads no weights."""

import os
from pathlib import Path
from typing import Any

from posenc.integrations import gguf
from posenc.integrations.transformers import Description, describe
from posenc.lab.checkpoint.find import find
from posenc.lab.checkpoint.pipeline import describe_diffusers
from posenc.lab.checkpoint.timm_library import describe_config, describe_name
from posenc.lab.run.errors import RunError


def read(source: str | Path, *, pairing: Any = None) -> Description:
    """Describe a model from a folder, a config.json or params.json, a GGUF file, or an installed package.

    The folder may be a pipeline or model of diffusers, or a model of timm. A name that is not a file may be a model of
    timm. Both need the package installed.

    Raises:
        RunError: there is no model, or there are several.
        ValueError: the GGUF file is damaged, posenc knows no encoding in it, or the folder holds an adapter.
    """
    path = Path(os.path.expanduser(source))
    if path.suffix == ".gguf":
        return gguf.describe(path)
    if path.suffix == ".json" or (path.is_dir() and any(path.glob("*.json"))):
        found = describe_diffusers(path, pairing=pairing)
        found = describe_config(path) if found is None else found
        return describe(path, pairing=pairing) if found is None else found  # which may be empty, and says why
    try:
        place = find(str(source))  # a folder with a GGUF file, or a package
    except RunError as error:
        if not path.exists() and (
            "/" not in str(source) or str(source).startswith(("timm/", "hf-hub:timm/", "hf_hub:timm/"))
        ):
            return describe_name(str(source), otherwise=error)
        raise
    return gguf.describe(place.gguf) if place.gguf is not None else describe(place.folder, pairing=pairing)

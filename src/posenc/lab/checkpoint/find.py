"""Finds a model's files: a folder, a GGUF file, or an installed package that ships one of them."""

import base64
import contextlib
import hashlib
import importlib.metadata
import importlib.util
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from posenc.integrations.json_file import load_json
from posenc.lab.run.errors import RunError


@dataclass(frozen=True)
class Place:
    """The files of a model: its folder, and the GGUF file in that folder if the model is one."""

    folder: Path
    gguf: Path | None
    label: str
    digests: Mapping[Path, Any]  # of files that an installed package vouches for

    def options(self, trusted: bool) -> dict[str, Any]:
        """How transformers reads these files, without the network."""
        gguf = {} if self.gguf is None else {"gguf_file": self.gguf.name}
        return {"local_files_only": True, "trust_remote_code": trusted, **gguf}


def find(source: str) -> Place:
    """Find a model's files, without reading them.

    Raises:
        RunError: there is no model, or there are several.
    """
    path = Path(os.path.expanduser(source))  # Path.expanduser fails at a user that does not exist
    if path.is_dir():
        return _in_folder(path, _label(path.absolute()), {})
    if path.is_file():
        if path.suffix == ".gguf":
            return Place(path.parent, path, path.stem, {})
        if path.name == "config.json":
            return _in_folder(path.parent, _label(path.parent.absolute()), {})
        raise RunError(f"{source}: a model is a folder with config.json, or a .gguf file; give one of them.")
    if re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]*", source):
        return _in_package(source)
    hub = re.fullmatch(r"\w[\w.-]*/[\w.-]+", source)
    advice = (
        f"; posenc downloads nothing, so download the model first: hf download {source} --local-dir DIR" if hub else ""
    )
    raise RunError(f"{source}: there is no such folder or file{advice}.")


def _label(folder: Path) -> str:
    """The name of a folder; in the Hugging Face cache, where folders are named by digests, the name of the model."""
    if folder.parent.name == "snapshots":
        return folder.parent.parent.name.rpartition("--")[2]
    return folder.resolve().name


def _in_folder(folder: Path, label: str, digests: Mapping[Path, Any]) -> Place:
    if (folder / "adapter_config.json").exists():
        base = load_json(folder / "adapter_config.json").get("base_model_name_or_path")
        raise RunError(
            f"{folder}: the folder holds an adapter of {base!r}; merge it into that model first (merge_and_unload of "
            "peft), or give that model."
        )
    files = sorted(folder.glob("*.gguf"))
    if (folder / "config.json").exists() or not files:
        return Place(folder, None, label, digests)
    if len(files) > 1:
        raise RunError(f"{folder}: the folder holds {', '.join(file.name for file in files)}; name one of them.")
    return Place(folder, files[0], label, digests)


def _in_package(name: str) -> Place:
    """The model in an installed package. The package's code is not run."""
    files: dict[Path, Any] = {}
    with contextlib.suppress(importlib.metadata.PackageNotFoundError):
        for file in importlib.metadata.distribution(name).files or ():
            files[Path(str(file.locate())).resolve()] = file.hash
    if not files:
        with contextlib.suppress(ImportError, ValueError):
            spec = importlib.util.find_spec(name.replace("-", "_").partition(".")[0])
            for home in (spec.submodule_search_locations or ()) if spec else ():
                files |= dict.fromkeys((path for path in Path(home).rglob("*") if path.is_file()), None)
    if not files:
        raise RunError(f"{name}: there is no such folder or file, and no such package is installed.")
    ggufs = [file for file in files if file.suffix == ".gguf"]
    folders = {file.parent for file in files if file.name == "config.json"}
    folders &= {file.parent for file in files if file.suffix == ".safetensors"}
    found = sorted([*ggufs, *folders])
    if len(found) != 1:
        what = (
            ", ".join(map(str, found))
            if found
            else "no model, that is, neither a GGUF file nor safetensors with a config.json"
        )
        raise RunError(f"{name}: the package holds {what}{'; name one of them' if found else ''}.")
    place = found[0]
    digests = {file: digest for file, digest in files.items() if digest and place in (file, file.parent)}
    return Place(place.parent, place, name, digests) if place in ggufs else _in_folder(place, name, digests)


def check_digests(place: Place) -> None:
    """Compare the weights with the digests that the installed package lists."""
    for file, digest in place.digests.items():
        if file.suffix in (".gguf", ".safetensors") and digest.mode == "sha256":
            with file.open("rb") as data:
                found = hashlib.file_digest(data, "sha256").digest()
            if base64.urlsafe_b64encode(found).rstrip(b"=").decode() != digest.value:
                raise RunError(f"{file}: the file differs from the one that was installed; install the package again.")

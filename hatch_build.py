"""Puts kernels that were built ahead into the wheel, which then is one of this platform; without them it is pure."""

import os
import sysconfig
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface


class PrebuiltKernels(BuildHookInterface):  # type: ignore[type-arg]
    """Takes the libraries in the folder ``POSENC_PREBUILT``, which `posenc build --into` filled."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        folder = os.environ.get("POSENC_PREBUILT")
        if self.target_name != "wheel" or not folder or version == "editable":
            return
        libraries = sorted(Path(folder).glob("*.so"))
        if not libraries:
            raise ValueError(f"POSENC_PREBUILT: {folder} holds no libraries, expected those of posenc build --into.")
        for library in libraries:
            build_data["force_include"][str(library)] = f"posenc/kernels/prebuilt/{library.name}"
        build_data["pure_python"] = False
        platform = sysconfig.get_platform().replace("-", "_").replace(".", "_")
        build_data["tag"] = f"py3-none-{platform}"  # the stable ABI knows nothing of the version of Python

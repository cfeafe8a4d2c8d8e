"""Run the library's tests on the oldest and the newest versions that it promises: ``python -m tools.versions``.

versions.toml, beside this file, says which. Each of the two has an environment of its own in build/versions, which is
made on first use and when the file or the requirements change; where PyTorch comes from is what pip is configured for.
"""

import argparse
import os
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

ROOT = Path(__file__).parent.parent
FILE = Path(__file__).with_suffix(".toml")
PAGE = ROOT / "docs" / "versions.md"
TITLES = {"python": "Python", "torch": "PyTorch", "numpy": "NumPy", "transformers": "transformers"}

#: The core, the kernels and the integrations with transformers: everything but the command, its data and its pages.
TESTS = (
    *("embeddings", "frequencies", "positions", "queries_keys", "scores", "oracle", "conformance", "kernels", "nn"),
    *("integrations", "test_cached_keys.py", "test_catalogue.py", "test_checkpoints.py", "test_compose.py"),
    *("test_dot_product_attention.py", "test_names.py", "test_none.py", "test_per_layer.py", "test_refusals.py"),
    *("test_ssmax.py", "test_temperature.py", "test_testing.py", "test_transforms.py"),
)
WITHOUT = ("integrations/diffusers", "integrations/timm")

#: Beside the package itself. What these need in turn is not pinned: it has to fit what is tested.
_ALSO = ("beartype", "hypothesis", "mpmath", "pytest", "pytest-xdist")
_IN_TWO = ("-n", "2", "--dist", "worksteal", "-p", "no:cacheprovider")


def versions() -> dict[str, dict[str, str]]:
    """The versions of each set, "python" among them, the pinned ones too."""
    sets: dict[str, dict[str, str]] = tomllib.loads(FILE.read_text(encoding="utf-8"))
    pins = dict(re.findall(r"^([\w.-]+)==(.+)$", (ROOT / "constraints.txt").read_text(encoding="utf-8"), re.M))
    pinned = {name: pins.get(name, "3.11") for name in TITLES}
    return {"oldest": sets["oldest"], "pinned": pinned, "newest": sets["newest"]}


def markdown() -> str:
    """The table of docs/versions.md."""
    sets = versions()
    lines = ["| | " + " | ".join(sets) + " |", "| --- | " + " | ".join("---" for _ in sets) + " |"]
    for name, title in TITLES.items():
        lines.append(f"| {title} | " + " | ".join(each[name] for each in sets.values()) + " |")
    return "\n".join(lines) + "\n"


def interpreter(version: str) -> str:
    """A Python of this version: on the PATH, or among pyenv's.

    Raises:
        SystemExit: there is none.
    """
    pyenv = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv"))
    for found in (shutil.which(f"python{version}"), *sorted(pyenv.glob(f"versions/{version}.*/bin/python"))):
        if found and not subprocess.run([found, "-c", ""], capture_output=True).returncode:
            return str(found)
    raise SystemExit(
        f"versions: python{version} is neither on the PATH nor among pyenv's; install it, or run the other set alone."
    )


def environment(name: str) -> Path:
    """The interpreter of the environment of a set, which is made if it is not there as the files ask for it."""
    wanted = versions()[name]
    folder = ROOT / "build" / "versions" / name
    python, stamp = folder / "bin" / "python", folder / "made-of"
    asked = repr(sorted(wanted.items())) + (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    if stamp.exists() and stamp.read_text(encoding="utf-8") == asked:
        return python
    subprocess.run([interpreter(wanted["python"]), "-m", "venv", "--clear", str(folder)], check=True)
    pins = [f"{package}=={version}" for package, version in wanted.items() if package != "python"]
    install = [str(python), "-m", "pip", "install", "--quiet", "--no-compile", "--disable-pip-version-check"]
    subprocess.run([*install, "--editable", f"{ROOT}[transformers,extend]", *pins, *_ALSO], check=True)
    stamp.write_text(asked, encoding="utf-8")
    return python


def test(name: str, options: list[str]) -> int:
    """Run the quick tests in the environment of a set; what pytest returns."""
    python = environment(name)
    print(f"{name}: " + ", ".join(f"{package} {version}" for package, version in versions()[name].items()), flush=True)
    chosen = [option for option in options if (ROOT / option.partition("::")[0]).exists()]
    paths = [] if chosen else [f"tests/{each}" for each in TESTS]
    paths += [f"--ignore=tests/{each}" for each in WITHOUT]
    command = [str(python), "-m", "pytest", *_IN_TWO, "-m", "not slow", *paths, *options]
    return subprocess.run(command, cwd=ROOT, env=os.environ | {"OMP_NUM_THREADS": "1"}).returncode


def main(arguments: list[str] | None = None) -> int:
    """The command."""
    parser = argparse.ArgumentParser(prog="python -m tools.versions", description=__doc__)
    parser.add_argument("words", nargs="*", help="oldest or newest, both by default; then what pytest takes")
    parser.add_argument("--table", action="store_true", help="print the table of docs/versions.md and run nothing")
    own, options = parser.parse_known_args(arguments)
    if own.table:
        print(markdown(), end="")
        return 0
    both = ("oldest", "newest")
    options = [word for word in own.words if word not in both] + options
    return max([test(name, options) for name in both if name in own.words or not set(both) & set(own.words)])


if __name__ == "__main__":
    sys.exit(main())

"""Read a JSON file from an untrusted source."""

import json
from pathlib import Path
from typing import Any


def load_json(file: Path) -> dict[str, Any]:
    """The object in a JSON file.

    Raises:
        ValueError: no such file, not JSON, too deeply nested, or not an object.
    """
    try:
        found = json.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ValueError(f"describe: there is no file {file}; give a config.json or the folder of one.") from None
    except (OSError, ValueError, RecursionError) as error:  # no JSON, no UTF-8, or nested too deep
        raise ValueError(f"describe: {file} is not valid JSON ({error}); give a config.json.") from error
    if not isinstance(found, dict):
        raise ValueError(
            f"describe: {file} holds a value of type {type(found).__name__}, expected an object, the keys of a config."
        )
    return found

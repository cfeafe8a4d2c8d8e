"""The common parts of all report pages: one style sheet for light and dark themes, figures, colour marks, facts.

A page is self-contained: it includes styles and pictures, and fetches nothing. Pages are Jinja2 templates that stand
beside the code of their job; they extend ``shell.html`` and use the macros of ``parts.html``, and what they show is
escaped.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from posenc.lab.drawing import plots


def page(template: Path, **shown: Any) -> str:
    """Render a page from its template and the data that the template shows."""
    environment = Environment(
        loader=FileSystemLoader([template.parent, Path(__file__).parent]),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    dark = "".join(f"--{name}: {on_black}; " for name, (_, on_black) in plots.HUES.items())
    environment.globals |= {"dark": dark, "hue": hue, "svg": lambda picture: Markup(plots.svg(picture))}
    return environment.get_template(template.name).render(shown)


def hue(on_white: str) -> str:
    """A hue as a CSS variable, which the page sets to another value in the dark theme."""
    name = next(name for name, (white, _) in plots.HUES.items() if white == on_white)
    return f"var(--{name},{on_white})"


def files(described: Sequence[Mapping[str, Any]]) -> str:
    """The files of a text: name, size, digest."""
    return "; ".join(f"{file['name']} ({file['bytes']:,} bytes, sha256 {file['sha256'][:12]}…)" for file in described)


def flat(value: Any) -> str:
    """Nested data as one line of text."""
    if isinstance(value, Mapping):
        return ", ".join(f"{key.replace('_', ' ')} {flat(item)}" for key, item in value.items())
    if isinstance(value, (list, tuple)):
        return ", ".join(map(flat, value))
    return "" if value is None else str(value)

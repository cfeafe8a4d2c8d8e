"""What every report page shares: one style sheet for light and dark, figures, swatches, lists of facts.

A page needs nothing else: styles and pictures are in it, and nothing is fetched.
"""

import html
from collections.abc import Mapping
from pathlib import Path
from string import Template
from typing import Any

from posenc.lab.drawing import plots


def page(template: Path, *, title: str, **parts: str) -> str:
    """A whole page: the shell around a template's body, whose parts are HTML already; the title is plain text."""
    shown = text(title)
    body = Template(template.read_text(encoding="utf-8")).substitute(title=shown, **parts)
    shell = Template(Path(__file__).with_name("shell.html").read_text(encoding="utf-8"))
    dark = "".join(f"--{name}: {on_black}; " for name, (_, on_black) in plots.HUES.items())
    return shell.substitute(title=shown, dark=dark, body=body)


def text(value: object) -> str:
    """Plain text, fit for a page."""
    return html.escape(str(value))


def hue(on_white: str) -> str:
    """A hue as a variable that the page sets anew on black."""
    name = next(name for name, (white, _) in plots.HUES.items() if white == on_white)
    return f"var(--{name},{on_white})"


def swatch(on_white: str) -> str:
    """A spot of a line's hue."""
    return f'<span class="swatch" style="background:{hue(on_white)}"></span>'


def figure(picture: plots.Picture) -> str:
    """A picture with its title and caption."""
    caption = f"<figcaption>{text(picture.caption)}</figcaption>" if picture.caption else ""
    return f"<figure><h4>{text(picture.title)}</h4>{plots.svg(picture)}{caption}</figure>"


def mark(holds: bool | None) -> str:
    """A tick, a cross, or a dash where there is nothing to say."""
    if holds is None:
        return '<span class="open">&ndash;</span>'
    return '<span class="yes">✓</span>' if holds else '<span class="no">✗</span>'


def facts(shown: Mapping[str, object]) -> str:
    """The rows of a list of facts; empty ones are left out."""
    return "\n".join(
        f"<dt>{text(key.replace('_', ' '))}</dt><dd>{text(value)}</dd>" for key, value in shown.items() if value != ""
    )


def files(described: list[Mapping[str, Any]]) -> str:
    """The files of a text in words: name, size, digest."""
    return "; ".join(f"{file['name']} ({file['bytes']:,} bytes, sha256 {file['sha256'][:12]}…)" for file in described)


def flat(value: Any) -> str:
    """Nested data in one line of words."""
    if isinstance(value, Mapping):
        return ", ".join(f"{key.replace('_', ' ')} {flat(item)}" for key, item in value.items())
    if isinstance(value, list):
        return ", ".join(map(flat, value))
    return "" if value is None else str(value)

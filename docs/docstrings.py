"""Docstrings say formulas and cross-references in Sphinx's words, which an editor and ``help()`` show well.

Griffe reads them for the site; this extension turns those words into Markdown's on the way.
"""

import re

import griffe


class Docstrings(griffe.Extension):
    """Rewrites each docstring before its sections are parsed."""

    def on_object(self, *, obj: griffe.Object, **_: object) -> None:
        if obj.docstring is not None:
            obj.docstring.value = to_markdown(obj.docstring.value)


def to_markdown(text: str) -> str:
    """``:math:`` and ``.. math::`` as TeX between dollars, roles as links, and the example as a block of code."""
    text = re.sub(r"\.\. math::\n?((?:[ \t]+.*\n|[ \t]*.+\n)(?:[ \t]+\S.*\n)*)", _block, text)
    text = re.sub(r":math:`([^`]+)`", r"\\(\1\\)", text, flags=re.S)
    text = re.sub(r":(?:class|func|meth):`(?:posenc\.)?([\w.]+)`", r"`\1`", text)
    text = re.sub(r"^Example:$", "Examples:", text, flags=re.M)
    return re.sub(r"``([^`]+)``", r"`\1`", text)


def _block(found: re.Match[str]) -> str:
    return f"\n$$\n{' '.join(found[1].split())}\n$$\n"

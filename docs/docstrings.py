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
    """``:math:`` and ``.. math::`` as TeX between dollars, roles as links, tables, the example as a block of code."""
    text = re.sub(r"^( *)(=+(?: +=+)+)\n((?:.*\n)+?)\1\2\n((?:.*\n)+?)\1\2$", _table, text, flags=re.M)
    text = re.sub(r"\.\. math::\n?((?:[ \t]+.*\n|[ \t]*.+\n)(?:[ \t]+\S.*\n)*)", _block, text)
    text = re.sub(r":math:`([^`]+)`", r"\\(\1\\)", text, flags=re.S)
    text = re.sub(r":(?:class|func|meth):`(?:posenc\.)?([\w.]+)`", r"`\1`", text)
    text = re.sub(r"^ *::\n", "", text, flags=re.M)  # what is indented below it is code in Markdown too
    text = re.sub(r"^Example:$", "Examples:", text, flags=re.M)
    return re.sub(r"``([^`]+)``", r"`\1`", text)


def _block(found: re.Match[str]) -> str:
    return f"\n$$\n{' '.join(found[1].split())}\n$$\n"


def _table(found: re.Match[str]) -> str:
    """A table whose columns stand below and above rules of equal signs, with bars between its cells."""
    indent = found[1]
    starts = [rule.start() for rule in re.finditer("=+", found[2])]
    rows: list[list[str]] = []
    for line in (found[3] + found[4]).splitlines():
        text = line.removeprefix(indent)
        cells = [text[a:b].strip().replace("|", "&#124;") for a, b in zip(starts, [*starts[1:], None], strict=True)]
        if cells[0] or not rows:
            rows.append(cells)
        else:  # a row that goes on in a second line
            rows[-1] = [f"{above} {below}".strip() for above, below in zip(rows[-1], cells, strict=True)]
    rows.insert(1, ["---"] * len(starts))
    return "\n".join(f"{indent}| {' | '.join(cells)} |" for cells in rows)

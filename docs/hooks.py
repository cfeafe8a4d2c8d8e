"""What the pages get while the site is built: pictures drawn by the library, and the README as the start page.

``<!-- pictures: rope -->`` becomes what the library draws of it; ``<!-- README -->`` and ``<!-- CONTRIBUTING -->``
those files, their links made right; ``<!-- explore: distance -->`` the explorer, opened at that section;
``<!-- house: floors -->`` the floors of the architecture page as a picture. The first use of each term of the glossary
becomes a link to it.
"""

import html
import re
from pathlib import Path

import house
import latex2mathml.converter
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.pages import Page
from mkdocs.utils import get_relative_url

from posenc.lab.drawing import plots
from posenc.lab.encodings.pictures import pictures_of
from posenc.lab.encodings.spec import parse
from posenc.lab.explore.job import explore

DIM, HEADS, LENGTH = 128, 4, 128
EXPLORER = "explorer.html"
# Words of the glossary that are everyday words too: only these phrases are links.
PHRASES = {
    "place": r"(?:first|second|third|three) places?|place [123]",
    "window": r"sliding windows?|with a window",
}
STYLE = (
    ".pictures{display:grid;grid-template-columns:repeat(auto-fit,minmax(18rem,1fr));gap:0 1.5rem;align-items:end}"
    ".md-typeset .pictures figure{width:100%;margin:.8rem 0}.pictures b{display:block;text-align:left}"
    ".pictures svg{width:100%;height:auto}.md-typeset .pictures figcaption{text-align:left;margin:0;max-width:none}"
    "[data-md-color-scheme=slate]{--grid:#3a3d42;--muted:#9da1a6;"
    + "".join(f"--{name}:{on_black};" for name, (_, on_black) in plots.HUES.items())
    + "}"
)


def on_page_markdown(markdown: str, **_: object) -> str:
    """Called by MkDocs with the text of each page."""
    page = re.fullmatch(r"<!-- (README|CONTRIBUTING) -->", markdown.strip())
    if page is None:
        return markdown
    text = (Path(__file__).parent.parent / f"{page[1]}.md").read_text(encoding="utf-8")
    text = re.sub(r"\[([^\]]+)\]\(examples[^)]*\)", r"\1", text)  # no part of the site
    return re.sub(r"\((CHANGELOG|CONTRIBUTING)\.md\)", lambda m: f"({m[1].lower()}.md)", text).replace("(docs/", "(")


def on_page_content(page_html: str, page: Page, **_: object) -> str:
    """Called by MkDocs with the HTML of each page."""
    page_html = _breakable(re.sub(r'<(span|div) class="arithmatex">(.*?)</\1>', _formula, page_html, flags=re.S))
    if page.file.src_uri.startswith(("howto/", "tutorials/", "three_places", "frequencies", "positions")):
        page_html = _linked(page_html, page.url)
    page_html = re.sub(r"<!-- house: ([\w-]+) -->", lambda found: house.picture(found[1]), page_html)
    page_html = re.sub(r"<!-- explore: (\w+) -->", lambda found: _explorer(found[1], page.url), page_html)
    return re.sub(r"<!-- pictures: (.+?) -->", lambda found: _pictures(found[1]), page_html)


def _breakable(page_html: str) -> str:
    """Names in tables may break after an underscore or a dot, and nowhere else."""

    def broken(found: re.Match[str]) -> str:
        return re.sub(r"(?<=\w)([_.])(?=\w)", r"\1<wbr>", found[0])

    def table(found: re.Match[str]) -> str:
        return re.sub(r"(?<=<code>)[^<]+(?=</code>)", broken, found[0])

    return re.sub(r"<table>.*?</table>", table, page_html, flags=re.S)


def _linked(page_html: str, url: str) -> str:
    """The page with the first plain use of each term of the glossary as a link."""
    home, pieces, inside = get_relative_url("glossary/", url), re.split(r"(<[^>]+>)", page_html), 0
    left = dict(_terms())
    for index, piece in enumerate(pieces):
        if tag := re.match(r"<(/?)(a|code|pre|h[1-6]|script|style|svg|math|figure|table|iframe|button)\b", piece):
            inside += -1 if tag[1] else 1
        elif not inside and left and not piece.startswith("<"):
            words = sorted(left, key=len, reverse=True)
            parts = (PHRASES.get(word) or f"{re.escape(word)}s?" for word in words)
            pattern = rf"\b(?:{'|'.join(f'({part})' for part in parts)})\b"

            def link(found: re.Match[str], words: list[str] = words) -> str:
                anchor = left.pop(words[(found.lastindex or 1) - 1], None)
                title = "What this means: the glossary"
                return f'<a href="{home}#{anchor}" title="{title}">{found[0]}</a>' if anchor else found[0]

            pieces[index] = re.sub(pattern, link, piece, flags=re.I)
    return "".join(pieces)


def _terms() -> list[tuple[str, str]]:
    """The terms of the glossary and their anchors."""
    rows = (Path(__file__).parent / "glossary.md").read_text(encoding="utf-8")
    return [(name, anchor) for anchor, name in re.findall(r'^\| <a id="([\w-]+)"></a>([^|]+?) \|', rows, flags=re.M)]


def on_post_build(config: MkDocsConfig) -> None:
    """Called by MkDocs when all pages are written."""
    explore("rope", Path(config.site_dir) / EXPLORER)


def _explorer(section: str, url: str) -> str:
    home = get_relative_url(EXPLORER, url)
    return (
        f'<p><a href="{home}">Open the whole explorer</a>, or change its controls here:</p>'
        f'<iframe src="{home}?view={section}" title="The explorer: RoPE with controls" loading="lazy" '
        'style="width:100%;height:44rem;border:1px solid var(--md-default-fg-color--lightest);border-radius:6px">'
        "</iframe>"
    )


def _formula(found: re.Match[str]) -> str:
    """TeX as MathML, which a browser draws without a script and without a network."""
    tex = html.unescape(found[2]).strip().removeprefix("\\(").removesuffix("\\)")
    tex = tex.removeprefix("\\[").removesuffix("\\]").strip()
    kind = "inline" if found[1] == "span" else "block"
    return f'<{found[1]} class="formula-{kind}">{latex2mathml.converter.convert(tex, display=kind)}</{found[1]}>'


def _pictures(spec: str) -> str:
    encoding = parse(spec).build(dim=DIM, num_heads=HEADS, length=LENGTH)
    figures = (
        f"<figure><b>{html.escape(picture.title)}</b>{plots.svg(picture)}"
        f"<figcaption>{html.escape(picture.caption)}</figcaption></figure>"
        for picture in pictures_of(encoding, dim=DIM, num_heads=HEADS, length=LENGTH)
    )
    return f"<style>{STYLE}</style><div class='pictures'>{''.join(figures)}</div>"

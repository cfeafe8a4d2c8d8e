"""What the pages get while the site is built: pictures drawn by the library, and the README as the start page.

``<!-- pictures: rope -->`` becomes what the library draws of it; ``<!-- README -->`` the README, its links made right;
``<!-- explore: distance -->`` the explorer, opened at that section.
"""

import html
import re
from pathlib import Path

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
    if markdown.strip() != "<!-- README -->":
        return markdown
    readme = (Path(__file__).parent.parent / "README.md").read_text(encoding="utf-8")
    return re.sub(r"\((CHANGELOG|CONTRIBUTING)\.md\)", lambda m: f"({m[1].lower()}.md)", readme).replace("(docs/", "(")


def on_page_content(page_html: str, page: Page, **_: object) -> str:
    """Called by MkDocs with the HTML of each page."""
    page_html = re.sub(r"<!-- explore: (\w+) -->", lambda found: _explorer(found[1], page.url), page_html)
    page_html = re.sub(r'<(span|div) class="arithmatex">(.*?)</\1>', _formula, page_html, flags=re.S)
    return re.sub(r"<!-- pictures: (.+?) -->", lambda found: _pictures(found[1]), page_html)


def on_post_build(config: MkDocsConfig) -> None:
    """Called by MkDocs when all pages are written."""
    explore("rope", Path(config.site_dir) / EXPLORER)


def _explorer(section: str, url: str) -> str:
    at = f"{get_relative_url(EXPLORER, url)}#{section}"
    return (
        f'<p><a href="{at}">Open the explorer</a> in a window of its own, or turn its controls here:</p>'
        f'<iframe src="{at}" title="The explorer: RoPE with controls" loading="lazy" '
        'style="width:100%;height:44rem;border:1px solid var(--md-default-fg-color--lightest);border-radius:6px">'
        "</iframe>"
    )


def _formula(found: re.Match[str]) -> str:
    """TeX as MathML, which a browser draws without a script and without a network."""
    tex = html.unescape(found[2]).strip().removeprefix("\\(").removesuffix("\\)")
    tex = tex.removeprefix("\\[").removesuffix("\\]").strip()
    return latex2mathml.converter.convert(tex, display="inline" if found[1] == "span" else "block")


def _pictures(spec: str) -> str:
    encoding = parse(spec).build(dim=DIM, num_heads=HEADS, length=LENGTH)
    figures = (
        f"<figure><b>{html.escape(picture.title)}</b>{plots.svg(picture)}"
        f"<figcaption>{html.escape(picture.caption)}</figcaption></figure>"
        for picture in pictures_of(encoding, dim=DIM, num_heads=HEADS, length=LENGTH)
    )
    return f"<style>{STYLE}</style><div class='pictures'>{''.join(figures)}</div>"

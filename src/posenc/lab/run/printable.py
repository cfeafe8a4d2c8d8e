"""Makes text from files safe to print: a model's config must not move the cursor, change a title or start markup."""

import unicodedata

from rich import markup

_LINES = "\n\t"


def printable(text: object) -> str:
    r"""Escape every character that controls a terminal or the order of letters.

    Line ends and tabs are kept.

    >>> print(printable("ll\x1b[31mama\u202e"))
    ll\x1b[31mama\u202e
    """
    return "".join(
        character if character in _LINES or not _controls(character) else _escape(character) for character in str(text)
    )


def escape(text: object) -> str:
    r"""As :func:`printable`, on one line and with rich's markup escaped, for use within markup.

    >>> print(escape("[/red] a\nb"))
    \[/red] a\nb
    """
    return markup.escape("".join(_escape(c) if c in _LINES else c for c in printable(text)))


def _controls(character: str) -> bool:
    # Cc: C0, DEL, C1. Cf: marks that order or hide letters. Cs: half a character. Zl, Zp: Unicode's line ends.
    return unicodedata.category(character) in ("Cc", "Cf", "Cs", "Zl", "Zp")


def _escape(character: str) -> str:
    return character.encode("unicode_escape").decode("ascii")

"""Names that anybody may have chosen (classes, methods, folders, groups), written so that they stay names; numbers.

One function per format; every writer uses them. Cells of CSV files are left as they are: programs read them back.
"""

from __future__ import annotations

import html as _html
import re
import unicodedata

_JOINERS = "\u200c\u200d"
"""Invisible, but letters of Persian, of Indian scripts and of emoji need them."""

_INVISIBLE = ("Cc", "Cf", "Cs", "Zl", "Zp")
_LATEX = {
    "\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "<": r"\textless{}",
    ">": r"\textgreater{}", "|": r"\textbar{}", "[": "{[}", "]": "{]}", "*": "{*}",
    **{letter: rf"\{letter}" for letter in "&%$#_{}"},
}  # fmt: skip
_MARKDOWN = {
    **{letter: f"\\{letter}" for letter in "\\`*"},
    **{letter: f"&#{ord(letter)};" for letter in "<&|~$@[]{}"},
}
_ADDRESS = re.compile(r"(?i)(\b(?:https?|ftp|mailto|xmpp)):|(\bwww)\.")
_EMPHASIS = re.compile(r"(?<![^\W_])_|_(?![^\W_])")  # within a word an underscore is one
_CODE = re.compile(r"[\w .,:;=+/%()@#'\"?-]*")


def plain(text: str, width: int | None = None) -> str:
    r"""Return a name for terminals, logs and TensorBoard: control characters become \n, \x1b, \u202e and the like.

    Args:
        text: the name.
        width: a longer name is cut, which two dots show; None leaves it whole.
    """
    visible = text if text.isascii() and text.isprintable() else "".join(map(_visible, text))
    return visible if width is None or len(visible) <= width else visible[: max(0, width - 2)] + ".."


def _visible(letter: str) -> str:
    if letter in _JOINERS or unicodedata.category(letter) not in _INVISIBLE:
        return letter
    return letter.encode("unicode_escape").decode()


def markdown(text: str) -> str:
    """Return a name for running text and cells of tables in Markdown: no markup, no HTML, no link, one line."""
    escaped = "".join(_MARKDOWN.get(letter, letter) for letter in plain(text))
    escaped = _EMPHASIS.sub(r"\\_", escaped)
    # Some readers make links of bare addresses.
    return _ADDRESS.sub(lambda address: f"{address[1]}&#58;" if address[1] else f"{address[2]}&#46;", escaped)


def markdown_code(text: str) -> str:
    """Return words of a command line for Markdown: in backticks where nothing in them can end or leave these."""
    return f"`{text}`" if text and _CODE.fullmatch(text) else markdown(text)


def latex(text: str) -> str:
    """Return a name for running text and cells of tables in LaTeX: no command, group or optional argument."""
    escaped = "".join(_LATEX.get(letter, letter) for letter in plain(text))
    return escaped.replace(r"\textgreater{}=", r"$\geq$")


def html(text: str) -> str:
    """Return a name for the text and the quoted attributes of an HTML page."""
    return _html.escape(plain(text))


def html_lines(text: str) -> str:
    """Return preformatted text for an HTML page; its line feeds are kept."""
    return "\n".join(map(html, text.split("\n")))


def counted(number: int, noun: str, plural: str | None = None) -> str:
    """Return a number with its noun: "1 image", "2 images", "2 classes".

    Args:
        number: how many.
        noun: the singular.
        plural: of the noun; None appends an s.
    """
    return f"{number} {noun}" if number == 1 else f"{number} {plural or f'{noun}s'}"

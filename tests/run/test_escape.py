"""Names with markup stay names: in Markdown, LaTeX, HTML, on terminals and in logs."""

from __future__ import annotations

import html
import io
import logging
import re
import unicodedata
from html.parser import HTMLParser

import pytest

from ttc.run import escape
from ttc.run.log import _Lines

HOSTILE = (
    "<img src=x onerror=\"document.title='PWNED'\"> & <b>x</b>",
    "=A|b `c` <script>alert(1)</script> [l](javascript:alert(1)) & 100%_#{~^}\\input{/etc/passwd} \u202ecod 💩\nnew",
    "**bold** _word_ ~~gone~~ ![i](http://x/y.png) http://evil.example www.evil.example a@evil.example",
    "$x^2$ \\[ \\( `` ` ``` \\` \\\\ [^1] [a]: b {#id} &lt;script&gt; &#60;",
    "\x1b[2J\x1b]0;title\x07\r\n\t\0\x7f\x9b\u2028\u2066\ud800",
    "*star",
    "[bracket",
)


@pytest.mark.parametrize("name", HOSTILE)
def test_no_control_character_is_printed(name: str) -> None:
    shown = escape.plain(name)
    assert not {unicodedata.category(letter) for letter in shown} & {"Cc", "Cf", "Cs", "Zl", "Zp"}
    assert shown.encode("utf-8")
    assert len(escape.plain(name, 12)) <= 12


@pytest.mark.parametrize("name", ["healthy", "class 0, 1", "Grün_2", "中文", "می‌خواهم", "👩‍⚕️"])
def test_ordinary_names_stay_as_they_are(name: str) -> None:
    assert escape.plain(name) == escape.markdown(name) == escape.html(name) == name


class Seen(HTMLParser):
    """What a reader of HTML sees: the text, and no tag."""

    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.text, self.tags = "", list[str]()

    def handle_starttag(self, tag: str, attrs: object) -> None:
        self.tags.append(tag)

    def handle_data(self, data: str) -> None:
        self.text += data


@pytest.mark.parametrize("name", HOSTILE)
def test_html_shows_the_name_and_has_no_tag(name: str) -> None:
    seen = Seen()
    seen.feed(f"<td title='{escape.html(name)}'>{escape.html(name)}</td>")
    seen.close()
    assert seen.tags == ["td"]
    assert seen.text == escape.plain(name)


@pytest.mark.parametrize("name", HOSTILE)
def test_markdown_leaves_nothing_that_could_be_markup(name: str) -> None:
    """What is left of `<`, `&`, `|`, `[` and the like are numbers of characters, which no renderer takes for markup."""
    cell = escape.markdown(name)
    assert "\n" not in cell
    assert not set("|<&~$@[]{}") & set(cell.replace("&#", ""))
    assert not re.search(r"(?<!\\)(\\\\)*[`*]", cell), "a backtick or star without its backslash"
    assert html.unescape(re.sub(r"\\([\\`*_])", r"\1", cell)) == escape.plain(name)
    assert not re.search(r"(?i)(https?|ftp):|www\.", cell), "no bare address either"


@pytest.mark.parametrize(
    "words", ["--lr 0.1", "--x `", "--x ``` `` <img src=x onerror=y>", "--x a|b\n", "--x \\", "--x <!--"]
)
def test_words_in_backticks_cannot_leave_them(words: str) -> None:
    shown = escape.markdown_code(words)
    inside = shown[1:-1] if shown.startswith("`") else ""
    assert shown == f"`{words}`" if inside else shown == escape.markdown(words)
    assert not set("`<&|\\\n") & set(inside)


@pytest.mark.parametrize("name", HOSTILE)
def test_latex_has_balanced_braces_and_no_command_of_the_name(name: str) -> None:
    shown = escape.latex(name)
    depth, place = 0, 0
    while place < len(shown):
        letter = shown[place]
        if letter == "\\":
            command = next(
                (known for known in (r"\textbackslash{}", r"\textasciitilde{}", r"\textasciicircum{}", r"\textless{}",
                                     r"\textgreater{}", r"\textbar{}", *(rf"\{each}" for each in "&%$#_{}"))
                 if shown.startswith(known, place)), None,
            )  # fmt: skip
            assert command, shown[place:]
            place += len(command)
            continue
        assert letter not in "&%$#_~^\n"
        depth += {"{": 1, "}": -1}.get(letter, 0)
        assert depth >= 0
        place += 1
    assert depth == 0
    # After the \\ of the row before, an optional argument or a star would be taken for the command's.
    assert not shown.startswith(("[", "*"))


def test_at_least_is_set_as_a_sign() -> None:
    assert escape.latex("supmin >=4") == r"supmin $\geq$4"


def test_a_record_of_the_log_is_one_line() -> None:
    stream = io.StringIO()
    handler = logging.StreamHandler(stream)
    handler.setFormatter(_Lines("%(levelname)s %(message)s"))
    logger = logging.Logger("test")
    logger.addHandler(handler)
    logger.warning("class %s", "a\nERROR forged\x1b[31m")
    assert stream.getvalue() == "WARNING class a\\nERROR forged\\x1b[31m\n"


def test_numbers_come_with_the_singular_or_the_plural() -> None:
    assert [escape.counted(number, "image") for number in (0, 1, 2)] == ["0 images", "1 image", "2 images"]
    assert [escape.counted(number, "copy is", "copies are") for number in (1, 3)] == ["1 copy is", "3 copies are"]

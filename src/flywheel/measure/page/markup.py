"""HTML and SVG as values: whatever is not markup already is escaped, so that no data is read as markup."""

from html import escape

VOID = ("br", "meta")


class Markup(str):
    """Text that is HTML or SVG already."""

    __slots__ = ()


def tag(name: str, *children: str, **attributes: str | float | None) -> Markup:
    """An element; text within it and in its attributes is escaped, and an attribute of None is left out.

    A trailing underscore is for words that Python has taken, another one stands for a dash.

    >>> tag("p", "a < b, ", tag("b", "c"), class_="odd", font_size=12, id=None)
    '<p class="odd" font-size="12">a &lt; b, <b>c</b></p>'
    """
    said = "".join(
        f' {key.rstrip("_").replace("_", "-")}="{escape(_plain(value))}"'
        for key, value in attributes.items()
        if value is not None
    )
    return Markup(f"<{name}{said}>" if name in VOID else f"<{name}{said}>{join(*children)}</{name}>")


def join(*parts: str) -> Markup:
    """Parts one after the other; those that are not markup are escaped.

    >>> join("<script>", tag("i", "?"))
    '&lt;script&gt;<i>?</i>'
    """
    return Markup("".join(part if isinstance(part, Markup) else escape(part) for part in parts))


def _plain(value: str | float) -> str:
    """A coordinate to a tenth of a pixel: what is finer is not seen, and costs bytes.

    >>> _plain(12.0), _plain(3.14159), _plain("M0 0")
    ('12', '3.1', 'M0 0')
    """
    return value if isinstance(value, str) else f"{round(value, 1):g}"

"""HTML that is escaped by construction: only `Html` goes in as it is, any other text is escaped."""

import html
from collections.abc import Iterable, Sequence

__all__ = ["Html", "Node", "details", "join", "json_text", "table", "tag"]

VOID = frozenset({"meta", "rect", "line", "path", "circle"})


class Html(str):
    """Markup that is safe as it stands. Adding plain text to it gives plain text again."""

    __slots__ = ()


Node = str | Iterable["Node"] | None
Attribute = str | int | float | bool | None


def tag(name: str, /, *children: Node, **attributes: Attribute) -> Html:
    """One element: `tag("td", text, class_="number", aria_label=label)`.

    Underscores in attribute names become hyphens, a trailing one goes; None and False leave the
    attribute out, True gives it without a value.
    """
    opening = name + "".join(_attribute(key, value) for key, value in attributes.items())
    if name in VOID:
        return Html(f"<{opening}/>")
    return Html(f"<{opening}>{join(children)}</{name}>")


def join(children: Node) -> Html:
    """Nodes side by side, plain text escaped."""
    if children is None:
        return Html()
    if isinstance(children, Html):
        return children
    if isinstance(children, str):
        return Html(html.escape(children))
    return Html("".join(join(child) for child in children))


def table(
    headers: Sequence[Node], rows: Iterable[Sequence[Node]], *, label: str, class_: str = ""
) -> Html:
    """A table whose first cell names its row, in a region that scrolls sideways where it must."""
    head = tag("thead", tag("tr", (tag("th", text, scope="col") for text in headers)))
    body = tag("tbody", (_row(cells) for cells in rows))
    return tag(
        "div",
        tag("table", head, body, class_=class_ or None),
        class_="scroll",
        role="region",
        tabindex=0,
        aria_label=label,
    )


def details(summary: Node, *children: Node) -> Html:
    """A block that opens on a click."""
    return tag("details", tag("summary", summary), *children)


def json_text(text: str) -> Html:
    """JSON that cannot end the script element that it stands in."""
    return Html(text.replace("&", "\\u0026").replace("<", "\\u003c").replace(">", "\\u003e"))


def _row(cells: Sequence[Node]) -> Html:
    first, *others = cells
    return tag("tr", tag("th", first, scope="row"), (tag("td", cell) for cell in others))


def _attribute(key: str, value: Attribute) -> str:
    if value is None or value is False:
        return ""
    name = key.rstrip("_").replace("_", "-")
    return f" {name}" if value is True else f' {name}="{html.escape(str(value))}"'

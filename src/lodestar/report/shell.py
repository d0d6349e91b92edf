"""What all pages share: one HTML file that needs no network; style, script and plotly.js are inside it.

Its content security policy allows no request at all and no script but those two, by their hashes.
"""

import base64
import functools
import gzip
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import resources
from typing import TypeAlias

from lodestar.report import marks
from lodestar.report.markup import Html, Node, tag

__all__ = ["Section", "shell"]

# Level 4 makes the page 4 % larger than level 6, in half of the time.
GZIP_LEVEL = 4
Section: TypeAlias = tuple[str, str]


@dataclass(frozen=True)
class _Library:
    """plotly.js for the page: gzipped base64 text, and the hash that lets it run."""

    packed: str
    digest: str


def shell(
    *,
    title: str,
    navigation: Sequence[Section],
    header: Html,
    sections: Node,
    footer: str,
    drawn: bool,
) -> str:
    """A whole page: `navigation` are ids and names of sections; `drawn`: it has plotly's figures."""
    script = _bundled("page.js")
    library = _plotly() if drawn else None
    digests = [_digest(script.encode()), *([library.digest] if library else [])]
    first, name = navigation[0]
    page = tag(
        "html",
        _head(title, policy=_policy(*digests)),
        tag(
            "body",
            tag("a", f"Skip to the {name.lower()}", href=f"#{first}", class_="skip"),
            _bar(navigation),
            header,
            tag("main", sections, id="content"),
            tag("footer", footer),
            tag("script", Html(library.packed), type="text/plain", id="plotly")
            if library
            else None,
            tag("script", Html(script)),
        ),
        lang="en",
    )
    return f"<!doctype html>\n{page}\n"


def _head(title: str, *, policy: str) -> Html:
    return tag(
        "head",
        tag("meta", charset="utf-8"),
        tag("meta", http_equiv="Content-Security-Policy", content=policy),
        tag("meta", name="viewport", content="width=device-width, initial-scale=1"),
        tag("meta", name="color-scheme", content="light dark"),
        tag("meta", name="robots", content="noindex"),
        tag("title", title),
        tag("style", Html(_bundled("style.css"))),
    )


def _bar(navigation: Sequence[Section]) -> Html:
    links = (tag("a", title, href=f"#{name}") for name, title in navigation)
    return tag(
        "div",
        tag("span", marks.brand(), "Lodestar", class_="name"),
        tag("nav", links, aria_label="Sections"),
        tag(
            "button",
            marks.icon("theme"),
            type="button",
            id="theme",
            aria_label="Switch between light and dark",
            hidden=True,
        ),
        class_="bar",
    )


def _policy(*digests: str) -> str:
    scripts = " ".join(f"'sha256-{digest}'" for digest in digests)
    return (
        f"default-src 'none'; script-src {scripts}; style-src 'unsafe-inline'; "
        "img-src data:; base-uri 'none'; form-action 'none'"
    )


@functools.lru_cache(maxsize=1)
def _plotly() -> _Library:
    source = (resources.files("plotly") / "package_data" / "plotly.min.js").read_bytes()
    packed = base64.b64encode(gzip.compress(source, GZIP_LEVEL, mtime=0)).decode("ascii")
    return _Library(packed, _digest(source))


def _digest(source: bytes) -> str:
    return base64.b64encode(hashlib.sha256(source).digest()).decode("ascii")


@functools.lru_cache(maxsize=2)
def _bundled(name: str) -> str:
    return (resources.files("lodestar.report") / name).read_text(encoding="utf-8")

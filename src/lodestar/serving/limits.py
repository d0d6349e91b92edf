"""What a request may look like, checked on its headers and bytes before anything parses it."""

from collections.abc import Mapping, Sequence

from lodestar.serving.problems import ProblemError

__all__ = ["check_headers", "deeper_than", "too_large", "too_slow"]

# A second one of these could mean one thing to us and another to a proxy in front of us.
SINGLE = frozenset(
    (b"host", b"authorization", b"x-api-key", b"content-type", b"content-length", b"expect")
)
JSON_MEDIA = b"application/json"
UTF_8 = (b"utf-8", b'"utf-8"', b"utf8", b"us-ascii")
NOT_BRACKETS = bytes(byte for byte in range(256) if byte not in b"[]{}")
ONE_KIND = bytes.maketrans(b"{}", b"[]")


def check_headers(
    headers: Sequence[tuple[bytes, bytes]],
    fields: Mapping[bytes, bytes],
    *,
    body_bytes: int,
    named: bool = True,
) -> None:
    """Refuse what will not be read: too long, compressed, or no JSON.

    `fields` are the headers by name, in lower case. Where it need not be `named`, a body without a
    Content-Type is taken for JSON: clients of the Open Inference Protocol send none.

    Raises:
        ProblemError: 400, 413 or 415.
    """
    if len(fields) != len(headers):
        _check_single(headers)
    length = fields.get(b"content-length")
    if length is None:
        if b"transfer-encoding" not in fields:
            return
        if fields[b"transfer-encoding"].lower() != b"chunked":
            raise ProblemError(415, "encoded-body", "A body may be chunked, not encoded otherwise.")
    elif not length.isdigit():
        raise ProblemError(400, "bad-length", "Content-Length is no number.")
    elif len(length) > 18 or int(length) > body_bytes:  # noqa: PLR2004 -- digits of an int64
        raise too_large(body_bytes)
    elif int(length) == 0:
        return
    _check_content(fields, named=named)


def too_large(body_bytes: int) -> ProblemError:
    """The refusal of a body that has, or announces, more bytes than are read."""
    return ProblemError(413, "body-too-large", f"A body may have {body_bytes} bytes.")


def too_slow() -> ProblemError:
    """The refusal of a request that did not come whole in time."""
    return ProblemError(408, "request-too-slow", "The request did not come in time.")


def deeper_than(body: bytes, depth: int) -> bool:
    """Whether JSON arrays and objects are nested deeper, found without parsing.

    Text that is no JSON may be called either; a parser never sees it nested deeper than twice `depth`.
    """
    if body.count(b"[") + body.count(b"{") <= depth:
        return False
    # Backslashes stand in strings alone; without escapes, every second part is outside of strings.
    plain = body.replace(rb"\\", b"").replace(rb"\"", b"") if b"\\" in body else body
    brackets = b"".join(plain.split(b'"')[::2]).translate(ONE_KIND, NOT_BRACKETS)
    for _ in range(depth):  # each time, pairs with nothing between them go: the innermost level
        brackets = brackets.replace(b"[]", b"")
        if not brackets:
            return False
    return b"[]" in brackets or brackets.count(b"[") > depth


def _check_single(headers: Sequence[tuple[bytes, bytes]]) -> None:
    seen = set()
    for name, _ in headers:
        if name in seen:
            raise ProblemError(400, "repeated-header", "A header that may stand once stands twice.")
        if name in SINGLE:
            seen.add(name)


def _check_content(fields: Mapping[bytes, bytes], *, named: bool) -> None:
    if fields.get(b"content-encoding", b"identity").lower() not in (b"identity", b""):
        raise ProblemError(
            415,
            "compressed-body",
            "Bodies are taken as they are, not compressed.",
            headers=((b"accept-encoding", b"identity"),),
        )
    media = fields.get(b"content-type", b"" if named else JSON_MEDIA)
    if media != JSON_MEDIA and not _is_json(media):
        raise ProblemError(
            415, "not-json", "The body must be JSON in UTF-8, with Content-Type: application/json."
        )


def _is_json(media: bytes) -> bool:
    """`application/json` or `application/…+json`, and UTF-8 where a charset is named."""
    kind, *parameters = (part.strip().lower() for part in media.split(b";"))
    for parameter in parameters:
        name, _, value = parameter.partition(b"=")
        if name.strip() == b"charset" and value.strip() not in UTF_8:
            return False
    return kind == JSON_MEDIA or (kind.startswith(b"application/") and kind.endswith(b"+json"))

"""An answer as it goes over the line: as bytes of HTTP/1.1, or as ASGI's header list."""

from collections.abc import Sequence
from http import HTTPStatus

from lodestar.serving.http import Answer

__all__ = ["SECURITY", "WITHOUT_BODY", "check_extra", "header_list", "response"]

Headers = Sequence[tuple[bytes, bytes]]

SECURITY: Headers = (
    (b"cache-control", b"no-store"),
    (b"content-security-policy", b"default-src 'none'; frame-ancestors 'none'"),
    (b"referrer-policy", b"no-referrer"),
    (b"x-content-type-options", b"nosniff"),
    (b"x-frame-options", b"DENY"),
)
# The page of the OpenAPI document starts its script, which comes from here, by a line of its own.
PAGE_POLICY = (
    b"default-src 'none'; connect-src 'self'; frame-ancestors 'none'; img-src 'self' data:; "
    b"script-src 'self' 'unsafe-inline'; style-src 'self' 'unsafe-inline'"
)
PAGE_SECURITY: Headers = (
    *((name, value) for name, value in SECURITY if name != b"content-security-policy"),
    (b"content-security-policy", PAGE_POLICY),
)
WITHOUT_BODY = frozenset((204, 304))


def _lines(headers: Headers) -> bytes:
    return b"".join(b"%b: %b\r\n" % header for header in headers)


STATUS = {
    status.value: f"HTTP/1.1 {status.value} {status.phrase}\r\n".encode() for status in HTTPStatus
}
FIXED, PAGE_FIXED = _lines(SECURITY), _lines(PAGE_SECURITY)
FORBIDDEN = (b"\r", b"\n", b"\0")


def response(
    answer: Answer, request_id: str, date: bytes, *, page: bool, last: bool, head: bool
) -> bytes:
    """The whole response; `date` is the Date header's line, `last` says that the connection ends."""
    body = answer.body
    parts = [
        STATUS.get(answer.status) or b"HTTP/1.1 %d \r\n" % answer.status,
        date,
        PAGE_FIXED if page else FIXED,
        b"x-request-id: ",
        request_id.encode(),
    ]
    if answer.status in WITHOUT_BODY:
        head = True
    else:
        parts += (
            b"\r\ncontent-type: ",
            answer.content_type,
            b"\r\ncontent-length: ",
            b"%d" % len(body),
        )
    parts.append(b"\r\n")
    if answer.headers:
        parts.append(_lines(answer.headers))
    if last:
        parts.append(b"connection: close\r\n")
    parts.append(b"\r\n")
    if not head:
        parts.append(body)
    return b"".join(parts)


def header_list(answer: Answer, request_id: str, *, page: bool) -> list[tuple[bytes, bytes]]:
    """The headers, for a server that writes them itself."""
    headers = [*(PAGE_SECURITY if page else SECURITY), (b"x-request-id", request_id.encode())]
    if answer.status not in WITHOUT_BODY:
        headers.append((b"content-type", answer.content_type))
        headers.append((b"content-length", b"%d" % len(answer.body)))
    headers.extend(answer.headers)
    return headers


def check_extra(headers: Headers) -> None:
    """Refuse headers that would begin another header or response.

    Raises:
        ValueError: a line break or NUL in one of them.
    """
    for name, value in headers:
        if any(byte in name or byte in value for byte in FORBIDDEN):
            raise ValueError("a header of an answer has a line break in it")

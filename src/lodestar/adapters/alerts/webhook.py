"""Alerts by HTTP POST: plain JSON, or what Slack's incoming webhooks take."""

import base64
import http.client
import json
import socket
import ssl
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any
from urllib.parse import unquote, urlsplit

from lodestar.adapters.alerts.wording import plain_notice, said_of
from lodestar.interface.alerting import Message, Notice, UndeliveredError

__all__ = ["Webhook"]

AGAIN = frozenset((408, 425, 429))
SERVER_FAULT = 500
MULTIPLE = 300
# Slack takes 50 blocks of 3,000 characters.
MOST_BLOCKS = 20
MOST_CHARACTERS = 2_900
MARKS = {
    "firing": ":red_circle:",
    "reminder": ":red_circle:",
    "resolved": ":large_green_circle:",
    "test": ":white_circle:",
}


class Webhook:
    """One address. Redirects are not followed: they would take message and headers elsewhere."""

    def __init__(
        self,
        url: str,
        *,
        slack: bool = False,
        headers: Mapping[str, str] | None = None,
        trusted: ssl.SSLContext | None = None,
    ) -> None:
        self._parts = parts = urlsplit(url)
        self._slack = slack
        self._trusted = trusted
        self._target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
        self._headers = {"content-type": "application/json", "user-agent": "lodestar"}
        if parts.username is not None:
            pair = f"{unquote(parts.username)}:{unquote(parts.password or '')}"
            self._headers["authorization"] = f"Basic {base64.b64encode(pair.encode()).decode()}"
        self._headers |= dict(headers or {})

    def send(self, message: Message, *, seconds: float) -> str:
        """Post it; any 2xx is a delivery."""
        body = json.dumps(_slack(message) if self._slack else _plain(message)).encode()
        connection = self._connection(seconds)
        try:
            with _ended_within(connection, seconds) as late:
                try:
                    connection.connect()
                    if late.is_set():  # there was nothing to cut off yet
                        raise TimeoutError
                    connection.request("POST", self._target, body, self._headers)
                    response = connection.getresponse()
                except (OSError, http.client.HTTPException) as error:
                    raise _undelivered(error, seconds, late=late.is_set()) from error
                status, after = response.status, response.headers.get("retry-after", "")
                response.close()  # what it says is nobody's
                if late.is_set():  # what was cut off there reads like the end of its headers
                    raise UndeliveredError(f"no answer within {seconds:.3g} s", again=True)
        finally:
            connection.close()
        if http.client.OK <= status < MULTIPLE:
            return ""
        again = status in AGAIN or status >= SERVER_FAULT
        wait = float(after) if after.isascii() and after.isdigit() else None
        raise UndeliveredError(f"HTTP status {status}", again=again, after=wait)

    def _connection(self, seconds: float) -> http.client.HTTPConnection:
        host, port = self._parts.hostname or "", self._parts.port
        if self._parts.scheme == "http":
            return http.client.HTTPConnection(host, port, timeout=seconds)
        context = self._trusted or ssl.create_default_context()
        return http.client.HTTPSConnection(host, port, timeout=seconds, context=context)


@contextmanager
def _ended_within(
    connection: http.client.HTTPConnection, seconds: float
) -> Iterator[threading.Event]:
    """Cut it off when the time is over, however slowly bytes still come; the event says that it was."""
    late = threading.Event()

    def cut() -> None:
        late.set()
        if connection.sock is not None:
            try:
                # That of ssl would take TLS off first, below a thread that may be sending.
                socket.socket.shutdown(connection.sock, socket.SHUT_RDWR)
            except OSError:  # it has ended by itself
                return

    timer = threading.Timer(seconds, cut)
    timer.daemon = True
    timer.start()
    try:
        yield late
    finally:
        timer.cancel()
        timer.join()  # before the connection is closed, whose number another may get


def _undelivered(
    error: OSError | http.client.HTTPException, seconds: float, *, late: bool
) -> UndeliveredError:
    """In words of ours: a library's may quote what was sent."""
    if late or isinstance(error, TimeoutError):
        return UndeliveredError(f"no answer within {seconds:.3g} s", again=True)
    if isinstance(error, ssl.SSLCertVerificationError):
        return UndeliveredError("the certificate is not trusted", again=False)
    kinds: dict[type[Exception], str] = {
        socket.gaierror: "the name of its host is not known",
        ConnectionRefusedError: "the connection was refused",
        ssl.SSLError: "TLS failed",
        OSError: "the connection broke",
    }
    words = (said for kind, said in kinds.items() if isinstance(error, kind))
    return UndeliveredError(next(words, "the answer is no HTTP"), again=True)


def _plain(message: Message) -> dict[str, Any]:
    return {
        "version": 1,
        "title": message.title,
        "project": message.project,
        "environment": message.environment,
        "sent_at": message.sent_at.isoformat(timespec="seconds"),
        "alerts": [plain_notice(one) for one in message.notices],
    }


def _slack(message: Message) -> dict[str, Any]:
    shown = message.notices[:MOST_BLOCKS]
    blocks = [_block(one) for one in shown]
    if rest := len(message.notices) - len(shown):
        blocks.append(_section(f"and {rest:,} more: `lodestar alerts list`"))
    return {"text": _escaped(message.title), "blocks": [_header(message.title), *blocks]}


def _header(title: str) -> dict[str, Any]:
    return {"type": "header", "text": {"type": "plain_text", "text": title[:150]}}


def _block(one: Notice) -> dict[str, Any]:
    words = f"{MARKS[one.status]} *{_escaped(one.rule)}* ({one.severity})\n{_escaped(said_of(one))}"
    return _section(words)


def _section(words: str) -> dict[str, Any]:
    return {"type": "section", "text": {"type": "mrkdwn", "text": words[:MOST_CHARACTERS]}}


def _escaped(text: str) -> str:
    """What Slack would read as a link or a mention is text."""
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")

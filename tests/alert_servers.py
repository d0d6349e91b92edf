"""A real HTTP and a real SMTP server on 127.0.0.1 that take alerts, and answer as a test says."""

import base64
import datetime as dt
import json
import socket
import socketserver
import ssl
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from email import message_from_bytes
from email.message import Message
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from ipaddress import ip_address
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from tests.local_servers import answering

__all__ = [
    "Certificate",
    "Hook",
    "PostOffice",
    "Posted",
    "certificate",
    "eventually",
    "hook",
    "nobody_there",
    "post_office",
]


@dataclass(frozen=True)
class Posted:
    """One request that came."""

    path: str
    headers: Mapping[str, str]
    body: bytes

    @property
    def json(self) -> Any:  # noqa: ANN401 -- whatever was sent
        return json.loads(self.body)


@dataclass(frozen=True)
class Certificate:
    """Of 127.0.0.1, signed by itself."""

    chain: Path
    key: Path

    def context(self) -> ssl.SSLContext:
        made = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        made.load_cert_chain(self.chain, self.key)
        return made


def certificate(folder: Path) -> Certificate:
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "localhost")])
    now = dt.datetime.now(dt.UTC)
    built = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - dt.timedelta(days=1))
        .not_valid_after(now + dt.timedelta(days=1))
        .add_extension(
            x509.SubjectAlternativeName([x509.IPAddress(ip_address("127.0.0.1"))]), critical=False
        )
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    chain, secret = folder / "chain.pem", folder / "key.pem"
    chain.write_bytes(built.public_bytes(serialization.Encoding.PEM))
    secret.write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
    )
    return Certificate(chain, secret)


@dataclass
class Hook:
    """What came, and how it is answered: `statuses` one after the other, the last of them for ever."""

    port: int = 0
    statuses: list[int] = field(default_factory=lambda: [200])
    answer_headers: dict[str, str] = field(default_factory=dict)
    slow: float = 0.0
    drip: bool = False
    tls: Certificate | None = None
    posted: list[Posted] = field(default_factory=list)

    @property
    def url(self) -> str:
        return f"http{'s' if self.tls else ''}://127.0.0.1:{self.port}/hooks/T0KEN-CANARY"

    def alerts(self) -> list[dict[str, Any]]:
        """All alerts of all messages that were taken, in order."""
        return [alert for one in self.posted for alert in one.json["alerts"]]


class _Hooked(BaseHTTPRequestHandler):
    """Answers as its `hook` says, until `ended`."""

    hook: Hook
    ended: threading.Event

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["content-length"]))
        self.hook.posted.append(Posted(self.path, dict(self.headers), body))
        statuses = self.hook.statuses
        status = statuses.pop(0) if len(statuses) > 1 else statuses[0]
        self.ended.wait(self.hook.slow)
        try:
            if self.hook.drip:
                self._drip()
            self.send_response(status)
            for name, value in self.hook.answer_headers.items():
                self.send_header(name, value)
            self.send_header("content-length", "0")
            self.end_headers()
        except OSError:  # the client has gone
            self.close_connection = True

    def _drip(self) -> None:
        """A byte of a header line now and then, which never ends."""
        self.wfile.write(b"HTTP/1.1 200 OK\r\nx-slow: ")
        while not self.ended.wait(0.05):
            self.wfile.write(b"a")
            self.wfile.flush()

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 -- as it is called there
        del format, args


@contextmanager
def hook(
    statuses: Sequence[int] = (200,),
    *,
    slow: float = 0.0,
    drip: bool = False,
    tls: Certificate | None = None,
) -> Iterator[Hook]:
    found = Hook(statuses=list(statuses), slow=slow, drip=drip, tls=tls)
    ended = threading.Event()
    handler = type("Handler", (_Hooked,), {"hook": found, "ended": ended})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    server.daemon_threads = True
    if tls is not None:
        server.socket = tls.context().wrap_socket(server.socket, server_side=True)
    found.port = server.server_address[1]
    with answering(server):
        try:
            yield found
        finally:
            ended.set()


@dataclass
class PostOffice:
    """What was handed in. `greetings`, one for each connection, begin with 220, or refuse."""

    port: int = 0
    greetings: list[str] = field(default_factory=lambda: ["220 here"])
    login: tuple[str, str] | None = None
    refused: frozenset[str] = frozenset()
    tls: Certificate | None = None
    silent: bool = False
    mails: list[bytes] = field(default_factory=list)
    connections: int = 0
    encrypted: list[bool] = field(default_factory=list)

    def read(self) -> list[Message]:
        return [message_from_bytes(mail) for mail in self.mails]


class _Talk(socketserver.StreamRequestHandler):
    """RFC 5321 as far as a client needs it, with STARTTLS and AUTH PLAIN."""

    office: PostOffice
    ended: Callable[[float], bool]

    def handle(self) -> None:
        office = self.office
        office.connections += 1
        greetings = office.greetings
        greeting = greetings.pop(0) if len(greetings) > 1 else greetings[0]
        self._secure, self._known = False, False
        if office.silent:
            type(self).ended(60)
            return
        self._say(greeting)
        if not greeting.startswith("220"):
            return
        while line := self.rfile.readline().decode().strip():
            verb, _, rest = line.partition(" ")
            if verb.upper() == "QUIT":
                self._say("221 bye")
                return
            getattr(self, f"_{verb.lower()}", self._unknown)(rest)

    def finish(self) -> None:
        """Also close what STARTTLS has put in the place of the first socket."""
        try:
            super().finish()
        finally:
            self.connection.close()

    def _say(self, *lines: str) -> None:
        self.wfile.write("".join(f"{line}\r\n" for line in lines).encode())

    def _unknown(self, rest: str) -> None:
        self._say("502 not here")

    def _ehlo(self, rest: str) -> None:
        offers = ["250-here"]
        if self.office.tls is not None and not self._secure:
            offers.append("250-STARTTLS")
        if self.office.login is not None:
            offers.append("250-AUTH PLAIN")
        self._say(*offers, "250 SMTPUTF8")

    def _starttls(self, rest: str) -> None:
        assert self.office.tls is not None
        self._say("220 go on")
        self.wfile.flush()
        self.rfile.close()
        self.wfile.close()
        self.connection = self.office.tls.context().wrap_socket(self.connection, server_side=True)
        self.rfile, self.wfile = self.connection.makefile("rb"), self.connection.makefile("wb", 0)
        self._secure = True

    def _auth(self, rest: str) -> None:
        kind, _, given = rest.partition(" ")
        _, user, password = base64.b64decode(given).decode().split("\0")
        self._known = kind == "PLAIN" and (user, password) == self.office.login
        self._say("235 welcome" if self._known else f"535 no such login {user} {password}")

    def _mail(self, rest: str) -> None:
        lacks = self.office.login is not None and not self._known
        self._say("530 log in first" if lacks else "250 go on")

    def _rcpt(self, rest: str) -> None:
        address = rest.partition("<")[2].partition(">")[0]
        self._say("550 nobody" if address in self.office.refused else "250 go on")

    def _data(self, rest: str) -> None:
        self._say("354 go on")
        lines = []
        while (line := self.rfile.readline()) != b".\r\n":
            lines.append(line)
        self.office.mails.append(b"".join(lines))
        self.office.encrypted.append(self._secure)
        self._say("250 taken")

    def _rset(self, rest: str) -> None:
        self._say("250 again")


@contextmanager
def post_office(**said: Any) -> Iterator[PostOffice]:  # noqa: ANN401 -- any of PostOffice's fields
    office = PostOffice(**said)
    event = threading.Event()
    talk = type("Talk", (_Talk,), {"office": office, "ended": staticmethod(event.wait)})

    class Server(socketserver.ThreadingTCPServer):
        daemon_threads = True

        def handle_error(self, request: object, client_address: object) -> None:
            """A client that breaks off is what some tests are about."""

    server = Server(("127.0.0.1", 0), talk)
    office.port = server.server_address[1]
    with answering(server):
        try:
            yield office
        finally:
            event.set()


def nobody_there() -> int:
    """A port that nobody listens on."""
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


def eventually(check: Callable[[], bool], *, within: float = 30.0) -> None:
    """Wait for something that another process or thread does."""
    ends = time.monotonic() + within
    while not check():
        assert time.monotonic() < ends, f"not within {within:g} s"
        time.sleep(0.02)

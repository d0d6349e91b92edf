"""Redis servers of a test's own, to be frozen and killed; a Cluster; Sentinels; a bad line to one."""

import contextlib
import secrets
import signal
import socket
import ssl
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import partial
from ipaddress import IPv4Address
from pathlib import Path
from typing import Any

import redis
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from tests.local_servers import shut

from lodestar.infra.endpoint import HOST, PORTS, free_port, port_taken
from lodestar.infra.programs import redis_program

DEADLINE = 60.0
SLOTS = 16_384
BUS = 10_000  # a node talks to the others on its port plus this


@dataclass
class Redis:
    """One redis-server; `kill`, `freeze` and `start` are faults to inject."""

    folder: Path
    options: tuple[str, ...] = ()
    port: int = field(default_factory=free_port)
    password: str = field(default_factory=lambda: "Geheim-" + secrets.token_hex(8))
    process: "subprocess.Popen[bytes] | None" = None

    @property
    def uri(self) -> str:
        return f"redis://:{self.password}@{HOST}:{self.port}/0"

    def client(self) -> Any:  # noqa: ANN401 -- the driver's own, for looking and preparing
        return redis.Redis(host=HOST, port=self.port, password=self.password, socket_timeout=5)

    def start(self) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        common = (
            f"--port {self.port} --bind {HOST} --dir {self.folder} --save '' --loglevel warning"
        )
        words = [word.strip("'") for word in common.split()]
        login = ("--requirepass", self.password, "--masterauth", self.password)
        log = (self.folder / "log").open("ab")
        with log:
            self.process = subprocess.Popen(
                [str(redis_program()), *words, *login, *self.options], stdout=log, stderr=log
            )
        until(self._answers, "Redis answers")

    def _answers(self) -> bool:
        assert self.process is not None
        log = self.folder / "log"
        assert self.process.poll() is None, log.read_text(encoding="utf-8")
        return bool(self.client().ping())

    def freeze(self) -> None:
        self.signal(signal.SIGSTOP)

    def thaw(self) -> None:
        self.signal(signal.SIGCONT)

    def kill(self) -> None:
        if self.process is not None:
            self.process.kill()
            self.process.wait(DEADLINE)
            self.process = None

    def signal(self, number: int) -> None:
        assert self.process is not None
        self.process.send_signal(number)


def until(reached: Callable[[], bool], what: str) -> None:
    """Wait for something, with a deadline."""
    ends = time.monotonic() + DEADLINE
    while time.monotonic() < ends:
        with contextlib.suppress(redis.RedisError, OSError):
            if reached():
                return
        time.sleep(0.05)
    raise AssertionError(f"not within {DEADLINE:g} s: {what}")


@contextmanager
def one_redis(folder: Path, *options: str) -> Iterator[Redis]:
    """A server that ends with the test."""
    server = Redis(folder, options)
    server.start()
    try:
        yield server
    finally:
        server.kill()


@contextmanager
def redis_cluster(folder: Path, *, given_up: int = 2_000) -> Iterator[list[Redis]]:
    """Three nodes with a third of the slots each; one that is silent for `given_up` (ms) is gone."""
    options = ("--cluster-enabled", "yes", "--cluster-node-timeout", str(given_up))
    with contextlib.ExitStack() as stack:
        password = secrets.token_hex(8)
        nodes = []
        for number in range(3):
            node = Redis(folder / str(number), options, cluster_port(), password)
            stack.callback(node.kill)
            node.start()
            nodes.append(node)
        bounds = [0, SLOTS // 3, 2 * SLOTS // 3, SLOTS]
        for number, node in enumerate(nodes):
            slots = range(bounds[number], bounds[number + 1])
            node.client().execute_command("CLUSTER", "ADDSLOTS", *slots)
            node.client().execute_command("CLUSTER", "MEET", HOST, nodes[0].port)
        for node in nodes:
            until(partial(_knows_all, node), "the Cluster is whole")
        yield nodes


def cluster_port() -> int:
    """A free port whose bus, 10,000 above it, is free too and no outgoing connection's."""
    while (port := free_port()) + BUS not in PORTS or port_taken(port + BUS):
        pass
    return port


def _knows_all(node: Redis) -> bool:
    info = node.client().execute_command("CLUSTER", "INFO")
    return b"cluster_state:ok" in info and b"cluster_known_nodes:3" in info


@dataclass
class Watched:
    """A master, its replica, and the ports of the Sentinels that watch them."""

    master: Redis
    replica: Redis
    sentinels: list[Redis]

    @property
    def uri(self) -> str:
        places = ",".join(f"{HOST}:{sentinel.port}" for sentinel in self.sentinels)
        return f"redis://:{self.master.password}@{places}/0"

    def master_port(self) -> int:
        (_, port) = _sentinel_client(self.sentinels[-1]).execute_command(
            "SENTINEL", "GET-MASTER-ADDR-BY-NAME", "shop"
        )
        return int(port)


def _sentinel_client(sentinel: Redis) -> Any:  # noqa: ANN401 -- the driver's own
    return redis.Redis(host=HOST, port=sentinel.port, socket_timeout=5)


@contextmanager
def watched_redis(folder: Path, *, given_up: int = 500) -> Iterator[Watched]:
    """A master with a replica, and two Sentinels that move to it when the master is gone.

    It is when it has been silent for `given_up` (ms).
    """
    with contextlib.ExitStack() as stack:
        master = stack.enter_context(one_redis(folder / "master"))
        replica = Redis(
            folder / "replica", ("--replicaof", HOST, str(master.port)), password=master.password
        )
        stack.callback(replica.kill)
        replica.start()
        until(lambda: replica.client().info()["master_link_status"] == "up", "the replica follows")
        sentinels = []
        for number in range(2):
            sentinel = Redis(folder / f"sentinel{number}")
            stack.callback(sentinel.kill)
            _start_sentinel(sentinel, master, given_up)
            sentinels.append(sentinel)
        watched = Watched(master, replica, sentinels)
        for sentinel in sentinels:
            until(partial(_sees, sentinel), "a Sentinel sees the others")
        yield watched


def _start_sentinel(sentinel: Redis, master: Redis, given_up: int) -> None:
    sentinel.folder.mkdir(parents=True)
    config = sentinel.folder / "sentinel.conf"
    lines = [
        f"port {sentinel.port}",
        f"bind {HOST}",
        f"dir {sentinel.folder}",
        f"sentinel monitor shop {HOST} {master.port} 1",
        f"sentinel auth-pass shop {master.password}",
        f"sentinel down-after-milliseconds shop {given_up}",
        "sentinel failover-timeout shop 3000",
    ]
    config.write_text("\n".join(lines) + "\n", encoding="utf-8")
    sentinel.process = subprocess.Popen(
        [str(redis_program()), str(config), "--sentinel"],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    until(lambda: bool(_sentinel_client(sentinel).ping()), "a Sentinel answers")


def _sees(sentinel: Redis) -> bool:
    state = _sentinel_client(sentinel).sentinel_master("shop")
    return bool(state["num-slaves"] == 1 and state["num-other-sentinels"] == 1)


class Line:
    """A TCP line to a server that can be cut, slowed or wrapped in TLS.

    `cut_after` is how many bytes of answers come through, over all connections, before every
    connection is closed; `trickle` lets one byte through every so many seconds.

    A socket is closed when both its threads are done with it, not before: see `shut`.
    """

    def __init__(self, port: int, *, tls: "Certificate | None" = None) -> None:
        self._target = port
        self._tls = tls
        self._listener = socket.create_server((HOST, 0))
        self.port = int(self._listener.getsockname()[1])
        self.cut_after: int | None = None
        self.trickle: float | None = None
        self.delay: float = 0.0
        self.fired = threading.Event()
        self._open: set[socket.socket] = set()
        self._lock = threading.Lock()
        self._closed = threading.Event()
        self._joining: list[threading.Thread] = []
        self._accepting = threading.Thread(target=self._accept, daemon=True)
        self._accepting.start()

    def close(self) -> None:
        """Close everything; none of the line's threads is left."""
        self._closed.set()
        shut(self._listener)  # to close it would not wake who accepts
        self._accepting.join()
        self._listener.close()
        self.drop()
        for thread in self._joining:
            thread.join()

    def drop(self) -> None:
        """End every connection."""
        with self._lock:
            for one in self._open:
                shut(one)

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                near, _ = self._listener.accept()
                thread = threading.Thread(target=self._join, args=(near,), daemon=True)
                self._joining.append(thread)
                thread.start()

    def _join(self, near: socket.socket) -> None:
        with contextlib.suppress(OSError):
            if self._tls is not None:
                near = self._tls.server().wrap_socket(
                    near, server_side=True, do_handshake_on_connect=False
                )
            with (
                self._kept(near),
                self._kept(socket.create_connection((HOST, self._target))) as far,
            ):
                if isinstance(near, ssl.SSLSocket):
                    near.do_handshake()
                asking = threading.Thread(target=self._carry, args=(near, far), daemon=True)
                asking.start()
                self._carry_answers(far, near)
                asking.join()

    @contextmanager
    def _kept(self, one: socket.socket) -> Iterator[socket.socket]:
        """What `drop` may end, until it is closed here."""
        with one:
            with self._lock:
                self._open.add(one)
                if self._closed.is_set():
                    shut(one)
            try:
                yield one
            finally:
                with self._lock:
                    self._open.remove(one)

    @staticmethod
    def _carry(source: socket.socket, target: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(65536):
                target.sendall(data)
        shut(target)

    def _carry_answers(self, source: socket.socket, target: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(65536):
                if self.delay:
                    self.fired.set()
                    self._closed.wait(self.delay)
                self._pass(data, target)
        shut(target)

    def _pass(self, data: bytes, target: socket.socket) -> None:
        if pause := self.trickle:
            for byte in data:
                self.fired.set()
                target.sendall(bytes([byte]))
                self._closed.wait(pause)
        elif self.cut_after is None:
            target.sendall(data)
        else:
            target.sendall(data[: self.cut_after])
            self.cut_after -= len(data)
            if self.cut_after < 0:
                self.cut_after = 0
                self.fired.set()
                self.drop()


@contextmanager
def line_to(port: int, *, tls: "Certificate | None" = None) -> Iterator[Line]:
    """A line that is closed with the test."""
    line = Line(port, tls=tls)
    try:
        yield line
    finally:
        line.close()


@dataclass(frozen=True)
class Certificate:
    """A self-signed certificate for 127.0.0.1, in files."""

    certificate: Path
    key: Path

    @classmethod
    def made(cls, folder: Path) -> "Certificate":
        key = ec.generate_private_key(ec.SECP256R1())
        name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "a test")])
        now = datetime.now(UTC)
        certificate = (
            x509.CertificateBuilder()
            .subject_name(name)
            .issuer_name(name)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - timedelta(days=1))
            .not_valid_after(now + timedelta(days=1))
            .add_extension(
                x509.SubjectAlternativeName([x509.IPAddress(IPv4Address(HOST))]), critical=False
            )
            .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
            .sign(key, hashes.SHA256())
        )
        folder.mkdir(parents=True, exist_ok=True)
        made = cls(folder / "ca.pem", folder / "key.pem")
        made.certificate.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
        made.key.write_bytes(
            key.private_bytes(
                serialization.Encoding.PEM,
                serialization.PrivateFormat.PKCS8,
                serialization.NoEncryption(),
            )
        )
        return made

    def server(self) -> ssl.SSLContext:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(self.certificate, self.key)
        return context

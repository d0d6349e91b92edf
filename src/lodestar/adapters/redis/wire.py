"""Talks to a single Redis, a Cluster or a Sentinel's master, and has its answer by a deadline.

A round trip as a whole has one deadline, connecting, TLS and AUTH included. Nothing is repeated but
what a Cluster redirects, and what met a connection that the server had closed while it was idle.
"""

import time
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, Protocol, TypeVar

import redis
from redis.crc import key_slot
from redis.exceptions import AskError, InvalidResponse, MovedError, TryAgainError

from lodestar.adapters.redis.connection import RedisAddress, RedisConnection
from lodestar.adapters.redis.node import (
    CLOCK,
    Node,
    Timed,
    TimedTLS,
    Words,
    converse,
    within,
)
from lodestar.errors import ExternalError

__all__ = ["Command", "RedisClient", "open_client", "said", "shown"]

# The key that says which node of a Cluster is asked, and the command's words.
Command = tuple[str | bytes, Words]
Place = tuple[str, int]
T = TypeVar("T")
PAUSE = 0.01  # seconds


class RedisClient(Protocol):
    """One round trip at a time: many commands there, as many answers back, or ExternalError."""

    def exchange(self, commands: Sequence[Command], *, first: Words | None = None) -> list[Any]:
        """Send commands; `first` is said before them to every server that is asked."""
        ...

    def close(self) -> None:
        """Close idle connections."""
        ...


def open_client(connection: RedisConnection) -> RedisClient:
    """Make the client for the connection's mode; nothing is connected yet."""
    address = connection.address()
    kinds: dict[str, type[_Client]] = {
        "single": _Single,
        "cluster": _Cluster,
        "sentinel": _Sentinel,
    }
    return kinds[connection.mode](connection, address)


def _options(connection: RedisConnection, address: RedisAddress) -> dict[str, Any]:
    options: dict[str, Any] = {
        "protocol": 2,
        "socket_timeout": connection.timeout,
        "socket_connect_timeout": connection.timeout,
        "driver_info": None,
        "username": address.user,
        "password": address.password.get_secret_value() if address.password else None,
    }
    if address.tls and connection.ca_file is not None:
        options["ssl_ca_certs"] = str(connection.ca_file)
    return options


class _Client:
    def __init__(self, connection: RedisConnection, address: RedisAddress) -> None:
        self._connection = connection
        self._address = address
        self._options = _options(connection, address)
        self._nodes: dict[Place, Node] = {}

    def exchange(self, commands: Sequence[Command], *, first: Words | None = None) -> list[Any]:
        if not commands:
            return []
        CLOCK.deadline = time.monotonic() + self._connection.timeout
        try:
            answers = self._ask(commands, first)
            for answer in answers:
                if isinstance(answer, redis.RedisError):
                    raise answer
        except (redis.RedisError, TimeoutError) as error:
            self._forget()
            raise said(error, self._address, self._connection.timeout) from shown(
                error, self._address
            )
        finally:
            CLOCK.deadline = None
        return answers

    def close(self) -> None:
        for node in list(self._nodes.values()):
            node.drain()

    def _ask(self, commands: Sequence[Command], first: Words | None) -> list[Any]:
        raise NotImplementedError

    def _ask_one(self, node: Node, commands: Sequence[Command], first: Words | None) -> list[Any]:
        words = [command for _, command in commands]
        (answers,) = converse([(node, [first, *words] if first else words)])
        return answers[1:] if first else answers

    def _node(self, host: str, port: int) -> Node:
        known = self._nodes.get((host, port))
        if known is None:
            kind = TimedTLS if self._address.tls else Timed
            options = {**self._options, "db": self._address.database}
            known = Node(lambda: kind(host=host, port=port, **options))
            self._nodes[host, port] = known
        return known

    def _forget(self) -> None:
        """Let the next call look again for who is there."""

    def _first_to_answer(self, ask: Callable[[Place], T]) -> T:
        nodes = self._address.nodes
        failure: Exception = redis.ConnectionError()
        for position, node in enumerate(nodes):
            # One that hangs leaves time to ask the next, and then for the answer itself.
            share = CLOCK.left(self._connection.timeout) / (len(nodes) - position + 1)
            try:
                with within(share):
                    return ask(node)
            except (redis.RedisError, TimeoutError) as error:
                failure = error
        raise failure


def said(error: BaseException, address: RedisAddress, timeout: float) -> ExternalError:
    """Our error for the driver's, without anything that it may quote."""
    what, hint = _words(error, timeout)
    return ExternalError(f"Redis at {address} {what}", hint=hint)


def shown(error: BaseException, address: RedisAddress) -> BaseException | None:
    """The driver's error as a cause; None where it repeats the password."""
    secret = address.password
    quiet = secret is not None and secret.get_secret_value() in str(error)
    return None if quiet else error


def _words(error: BaseException, timeout: float) -> tuple[str, str | None]:
    """What is wrong and what to do; of Redis's own words its error code alone, as they may quote."""
    text = str(error)
    code = text.split(" ", 1)[0].rstrip(":")
    denied = isinstance(error, redis.AuthenticationError) or code in {"WRONGPASS", "NOPERM"}
    late = isinstance(error, (redis.TimeoutError, TimeoutError))
    cases = (
        (late, f"did not answer within {timeout:g} s", "is it overloaded, stopped or firewalled?"),
        (denied, "refuses the user or the password", "check both in the config's environment"),
        (isinstance(error, redis.BusyLoadingError), "is still loading its data", "try again soon"),
        (isinstance(error, InvalidResponse), "does not speak Redis's protocol", "check the port"),
        (
            isinstance(error, redis.ConnectionError),
            "cannot be reached, or broke off in the middle",
            "is it running?",
        ),
        ("OOM command not allowed" in text, "is out of memory", "raise its maxmemory"),
        (code in {"READONLY", "CLUSTERDOWN", "MASTERDOWN"}, "takes no commands now", None),
        (True, f"answers with the error {code}", None),
    )
    return next((what, hint) for applies, what, hint in cases if applies)


class _Single(_Client):
    def _ask(self, commands: Sequence[Command], first: Words | None) -> list[Any]:
        return self._ask_one(self._node(*self._address.nodes[0]), commands, first)


class _Sentinel(_Client):
    """Asks the Sentinels who the master is, once, and again after any failure."""

    _master: Place | None = None

    def _ask(self, commands: Sequence[Command], first: Words | None) -> list[Any]:
        master = self._master
        if master is None:
            found = self._first_to_answer(self._asked)
            if not found:
                raise redis.ConnectionError("no such master")
            self._master = master = found[0].decode(), int(found[1])
        return self._ask_one(self._node(*master), commands, first)

    def _asked(self, place: Place) -> Any:  # noqa: ANN401 -- an address, or None
        question = ("SENTINEL", "GET-MASTER-ADDR-BY-NAME", self._connection.master_name or "")
        # Sentinels seldom have a password; those that have one share the master's.
        for login in ({"username": None, "password": None}, {}):
            kind = TimedTLS if self._address.tls else Timed
            options = {**self._options, **login}
            node = Node(partial(kind, host=place[0], port=place[1], **options))
            ((answer,),) = converse([(node, [question])])
            node.drain()
            if not isinstance(answer, redis.AuthenticationError):
                break
        if isinstance(answer, redis.RedisError):
            raise answer
        return answer

    def _forget(self) -> None:
        self._master = None


class _Cluster(_Client):
    """Groups commands by node; which node has a slot is found once, and again after any failure."""

    _slots: Mapping[int, Place] | None = None

    def _ask(self, commands: Sequence[Command], first: Words | None) -> list[Any]:
        answers = self._round(commands, first)
        while late := [
            at for at, answer in enumerate(answers) if isinstance(answer, (AskError, TryAgainError))
        ]:
            kinds = {type(answers[at]) for at in late}
            if MovedError in kinds:
                self._slots = None
            if TryAgainError in kinds:  # an entity's keys are on their way from node to node
                time.sleep(min(PAUSE, CLOCK.left(PAUSE)))
            for at in [at for at in late if type(answers[at]) is AskError]:
                answers[at] = self._elsewhere(answers[at], commands[at][1], first)
                late.remove(at)
            again = self._round([commands[at] for at in late], first)
            for at, answer in zip(late, again, strict=True):
                answers[at] = answer
        return answers

    def _round(self, commands: Sequence[Command], first: Words | None) -> list[Any]:
        by_node: defaultdict[Node, list[int]] = defaultdict(list)
        for at, (key, _) in enumerate(commands):
            by_node[self._node(*self._place_of(key))].append(at)
        before = [first] if first else []
        asked = [
            (node, [*before, *(commands[at][1] for at in places)])
            for node, places in by_node.items()
        ]
        answers: list[Any] = [None] * len(commands)
        for places, given in zip(by_node.values(), converse(asked), strict=True):
            for at, answer in zip(places, given[len(before) :], strict=True):
                answers[at] = answer
        return answers

    def _elsewhere(self, redirection: AskError, words: Words, first: Words | None) -> Any:  # noqa: ANN401 -- as Redis says
        node = self._node(redirection.host, redirection.port)
        (answers,) = converse([(node, [*([first] if first else []), ("ASKING",), words])])
        return answers[-1]

    def _place_of(self, key: str | bytes) -> Place:
        slots = self._slots
        if slots is None:
            self._slots = slots = self._first_to_answer(self._map)
        place = slots.get(key_slot(key.encode() if isinstance(key, str) else key))
        if place is None:
            raise redis.ConnectionError("no node has this key")
        return place

    def _map(self, place: Place) -> Mapping[int, Place]:
        ((ranges,),) = converse([(self._node(*place), [("CLUSTER", "SLOTS")])])
        if isinstance(ranges, redis.RedisError):
            raise ranges
        return {
            slot: (host.decode() or place[0], port)
            for start, end, (host, port, *_), *_ in ranges
            for slot in range(start, end + 1)
        }

    def _forget(self) -> None:
        self._slots = None

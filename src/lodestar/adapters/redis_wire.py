"""Talks to a single Redis, a Cluster or a Sentinel's master, and has its answer by a deadline.

A round trip as a whole has one deadline, connecting, TLS and AUTH included. Nothing is repeated but
what a Cluster redirects, and what met a connection that the server had closed while it was idle.
"""

import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from typing import Any, Protocol, TypeVar

import redis
from redis.backoff import NoBackoff
from redis.cluster import RedisCluster
from redis.exceptions import (
    AskError,
    ClusterDownError,
    InvalidResponse,
    RedisClusterException,
    TryAgainError,
)
from redis.retry import Retry

from lodestar.adapters.redis_connection import RedisAddress, RedisConnection
from lodestar.adapters.redis_node import (
    CLOCK,
    Node,
    Timed,
    TimedTLS,
    Words,
    converse,
    within,
)
from lodestar.errors import ExternalError

__all__ = ["Command", "RedisClient", "open_client"]

# The key that says which node of a Cluster is asked, and the command's words.
Command = tuple[str | bytes, Words]
T = TypeVar("T")


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


def _innermost(error: BaseException) -> BaseException:
    """A Cluster's client wraps what the last node said."""
    cause = error.__cause__
    return cause if isinstance(cause, redis.RedisError) else error


class _Client:
    def __init__(self, connection: RedisConnection, address: RedisAddress) -> None:
        self._connection = connection
        self._address = address
        self._options = _options(connection, address)
        self._nodes: dict[tuple[str, int], Node] = {}

    def exchange(self, commands: Sequence[Command], *, first: Words | None = None) -> list[Any]:
        if not commands:
            return []
        CLOCK.deadline = time.monotonic() + self._connection.timeout
        try:
            answers = self._ask(commands, first)
            for answer in answers:
                if isinstance(answer, redis.RedisError):
                    raise answer
        except (redis.RedisError, RedisClusterException) as error:
            self._forget()
            secret = self._address.password
            shown = secret is None or secret.get_secret_value() not in str(error)
            raise self._said(_innermost(error)) from (error if shown else None)
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

    def _first_to_answer(self, ask: Callable[[tuple[str, int]], T]) -> T:
        nodes = self._address.nodes
        failure: Exception = redis.ConnectionError()
        for position, node in enumerate(nodes):
            # One that hangs leaves time to ask the next, and then for the answer itself.
            share = CLOCK.left(self._connection.timeout) / (len(nodes) - position + 1)
            try:
                with within(share):
                    return ask(node)
            except (redis.RedisError, RedisClusterException) as error:
                failure = error
        raise failure

    def _said(self, error: BaseException) -> ExternalError:
        place = f"Redis at {self._address}"
        if isinstance(error, redis.TimeoutError):
            return ExternalError(
                f"{place} did not answer within {self._connection.timeout:g} s",
                hint="is it overloaded, stopped or behind a firewall?",
            )
        code = str(error).split(" ", 1)[0].rstrip(":")
        if isinstance(error, redis.AuthenticationError) or code in {"WRONGPASS", "NOPERM"}:
            return ExternalError(
                f"{place} refuses the user or the password",
                hint="check both in the environment variable that the config names",
            )
        if isinstance(error, redis.BusyLoadingError):
            return ExternalError(f"{place} is still loading its data", hint="try again soon")
        if isinstance(error, InvalidResponse):
            return ExternalError(f"{place} does not speak Redis's protocol", hint="check the port")
        if isinstance(error, (redis.ConnectionError, RedisClusterException)):
            return ExternalError(
                f"{place} cannot be reached, or broke off in the middle", hint="is it running?"
            )
        return ExternalError(f"{place} answers with the error {code}")


class _Single(_Client):
    def _ask(self, commands: Sequence[Command], first: Words | None) -> list[Any]:
        return self._ask_one(self._node(*self._address.nodes[0]), commands, first)


class _Sentinel(_Client):
    """Asks the Sentinels who the master is, once, and again after any failure."""

    _master: tuple[str, int] | None = None

    def _ask(self, commands: Sequence[Command], first: Words | None) -> list[Any]:
        master = self._master
        if master is None:
            found = self._first_to_answer(self._asked)
            if not found:
                raise redis.ConnectionError("no such master")
            self._master = master = found[0].decode(), int(found[1])
        return self._ask_one(self._node(*master), commands, first)

    def _asked(self, place: tuple[str, int]) -> Any:  # noqa: ANN401 -- an address, or None
        question = ("SENTINEL", "GET-MASTER-ADDR-BY-NAME", self._connection.master_name or "")
        # Sentinels seldom have a password; those that have one share the master's.
        for login in ({"username": None, "password": None}, {}):
            kind = TimedTLS if self._address.tls else Timed
            connection = kind(host=place[0], port=place[1], **{**self._options, **login})
            node = Node(lambda made=connection: made)  # type: ignore[misc]
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
    """Groups commands by node; which node has a key is found once, and again after any failure."""

    _found: Any = None  # the driver's own client of the Cluster, for its map of slots

    def _ask(self, commands: Sequence[Command], first: Words | None) -> list[Any]:
        cluster = self._found
        if cluster is None:
            self._found = cluster = self._first_to_answer(self._look)
        by_node: defaultdict[Node, list[int]] = defaultdict(list)
        for at, (key, _) in enumerate(commands):
            place = cluster.get_node_from_key(key)
            by_node[self._node(place.host, place.port)].append(at)
        before = [first] if first else []
        asked = [
            (node, [*before, *(commands[at][1] for at in places)])
            for node, places in by_node.items()
        ]
        answers: list[Any] = [None] * len(commands)
        for places, given in zip(by_node.values(), converse(asked), strict=True):
            for at, answer in zip(places, given[len(before) :], strict=True):
                answers[at] = answer
        for at, answer in enumerate(answers):
            if isinstance(answer, (AskError, TryAgainError, ClusterDownError)):  # MOVED is an ASK
                answers[at] = _redirected(cluster, commands[at][1], first)
        return answers

    def _look(self, place: tuple[str, int]) -> RedisCluster:
        return RedisCluster(
            # The driver takes a class of connections only beside a URL.
            url=f"redis://{place[0]}:{place[1]}",
            connection_class=TimedTLS if self._address.tls else Timed,
            retry=Retry(NoBackoff(), 0),
            reinitialize_steps=1,
            **self._options,
        )

    def _forget(self) -> None:
        self._found = None

    def close(self) -> None:
        super().close()
        cluster, self._found = self._found, None
        if cluster is not None:
            cluster.close()


def _redirected(cluster: Any, words: Words, first: Words | None) -> Any:  # noqa: ANN401 -- as Redis says
    """Let the driver follow: slots are on the move."""
    if first:
        cluster.execute_command(*first, target_nodes=RedisCluster.PRIMARIES)
    return cluster.execute_command(*words)

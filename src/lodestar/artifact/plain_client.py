"""Asks a tracking server what a reference means in plain HTTP, which spares importing MLflow.

Requests and answers are those of MLflow's REST API, https://mlflow.org/docs/latest/rest-api.html; the
methods are named as MLflow's own client names them, so that either can be asked. Whatever is unusual
(another way to sign in, an answer that is none of these) is left to MLflow's client.
"""

import base64
import json
import os
import re
import socket
import ssl
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lodestar.errors import UnreachableError

__all__ = [
    "NotPlainError",
    "PlainClient",
    "names_database",
    "no_answer",
    "plain_client",
    "public",
    "unreachable",
]

WITHIN = 10.0
_PAUSES = (0.5, 1.0, 0.0)  # seconds after a failure
_API = "/api/2.0/mlflow/"
# Ways to sign in, or to check the server, that MLflow's client knows and this one does not.
_SPECIAL = {
    "http": ("MLFLOW_TRACKING_AUTH", "MLFLOW_TRACKING_AWS_SIGV4", "MLFLOW_WORKSPACE"),
    "https": (
        "MLFLOW_TRACKING_AUTH",
        "MLFLOW_TRACKING_AWS_SIGV4",
        "MLFLOW_WORKSPACE",
        "MLFLOW_TRACKING_CLIENT_CERT_PATH",
        "MLFLOW_TRACKING_SERVER_CERT_PATH",
        "MLFLOW_TRACKING_INSECURE_TLS",
        "REQUESTS_CA_BUNDLE",
        "CURL_CA_BUNDLE",
    ),
}
_DATABASE_PORTS = {"postgresql": 5432, "mysql": 3306, "mssql": 1433}
_NOT_FOUND = 404
_SERVER_ERROR = 500


class NotPlainError(Exception):
    """MLflow's own client has to be asked. `missing`: the server says that there is no such thing."""

    def __init__(self, *, missing: bool = False) -> None:
        super().__init__("only MLflow's own client can ask this")
        self.missing = missing


@dataclass(frozen=True)
class _Experiment:
    experiment_id: str


@dataclass(frozen=True)
class _Info:
    run_id: str
    run_name: str
    status: str
    start_time: int


@dataclass(frozen=True)
class _Data:
    tags: Mapping[str, str]
    metrics: Mapping[str, float]
    params: Mapping[str, str]


@dataclass(frozen=True)
class PlainRun:
    """What is known of a run, in the places where MLflow's own has it."""

    info: _Info
    data: _Data

    @classmethod
    def of(
        cls,
        run_id: str,
        name: str,
        status: str,
        tags: Mapping[str, str],
        *,
        started: int,
        metrics: Mapping[str, float],
        params: Mapping[str, str],
    ) -> "PlainRun":
        """A run; `started` is in ms since 1970."""
        return cls(_Info(run_id, name, status, started), _Data(tags, metrics, params))


@dataclass(frozen=True)
class PlainModel:
    """A registered model: alias → version."""

    name: str
    tags: Mapping[str, str]
    aliases: Mapping[str, str]


@dataclass(frozen=True)
class _Version:
    run_id: str


class _Page(list[PlainModel]):
    token: str | None = None


class PlainClient:
    """The few questions that tell which run a reference means.

    Every method raises UnreachableError where the server does not answer, and NotPlainError where
    MLflow's own client has to be asked.
    """

    def __init__(self, base: str, headers: Mapping[str, str]) -> None:
        self._base = base
        self._headers = headers

    def get_experiment_by_name(self, name: str) -> _Experiment | None:
        """The experiment of this name, if there is one."""
        try:
            with _as_documented():
                value = self._get("experiments/get-by-name", experiment_name=name)
                return _Experiment(str(value["experiment"]["experiment_id"]))
        except NotPlainError as error:
            if error.missing:
                return None
            raise

    def search_runs(
        self, experiment_ids: Sequence[str], filter_string: str, *, max_results: int
    ) -> list[PlainRun]:
        """The runs that a filter leaves."""
        body = {
            "experiment_ids": list(experiment_ids),
            "filter": filter_string,
            "max_results": max_results,
        }
        with _as_documented():
            return [_run(item) for item in self._post("runs/search", body).get("runs", [])]

    def get_run(self, run_id: str) -> PlainRun:
        """One run."""
        with _as_documented():
            return _run(self._get("runs/get", run_id=run_id)["run"])

    def search_registered_models(
        self, filter_string: str, max_results: int, *, page_token: str | None
    ) -> _Page:
        """A page of the registered models that a filter leaves."""
        asked = {"filter": filter_string, "max_results": str(max_results)}
        if page_token is not None:
            asked["page_token"] = page_token
        with _as_documented():
            value = self._get("registered-models/search", **asked)
            page = _Page(_model(item) for item in value.get("registered_models", []))
            page.token = value.get("next_page_token")
            return page

    def get_model_version(self, name: str, version: str) -> _Version:
        """One version of a registered model."""
        with _as_documented():
            value = self._get("model-versions/get", name=name, version=version)
            return _Version(str(value["model_version"]["run_id"]))

    def log_tags(self, run_id: str, tags: Mapping[str, str]) -> None:
        """Set tags of a run; a second time changes nothing."""
        listed = [{"key": key, "value": value} for key, value in tags.items()]
        self._post("runs/log-batch", {"run_id": run_id, "tags": listed})

    def _get(self, path: str, **parameters: str) -> dict[str, Any]:
        return self._asked(f"{path}?{urllib.parse.urlencode(parameters)}", None)

    def _post(self, path: str, body: Mapping[str, Any]) -> dict[str, Any]:
        return self._asked(path, json.dumps(body).encode())

    def _asked(self, path: str, body: bytes | None) -> dict[str, Any]:
        """The answer; a server's own error may pass, so that is asked again."""
        request = urllib.request.Request(  # noqa: S310 -- the scheme was checked
            f"{self._base}{_API}{path}",
            data=body,
            headers={**self._headers, "Content-Type": "application/json"},
        )
        for pause in _PAUSES:
            try:
                return _answer(request)
            except urllib.error.HTTPError as error:
                error.close()
                if error.code < _SERVER_ERROR:
                    raise NotPlainError(missing=error.code == _NOT_FOUND) from error
                problem = unreachable(self._base, f"HTTP status {error.code}")
            except OSError as error:
                if isinstance(getattr(error, "reason", error), ssl.SSLError):
                    raise NotPlainError from error
                raise unreachable(self._base, _reason(error, WITHIN)) from error
            time.sleep(pause)
        raise problem


def plain_client(uri: str, environ: Mapping[str, str] = os.environ) -> PlainClient | None:
    """A client for a server that takes plain requests; None where only MLflow knows how to ask it."""
    parts = urllib.parse.urlsplit(uri)
    special = _SPECIAL.get(parts.scheme)
    if special is None or parts.query or any(environ.get(name) for name in special):
        return None
    if (Path.home() / ".mlflow" / "credentials").exists():
        return None
    user = urllib.parse.unquote(parts.username or "") or environ.get("MLFLOW_TRACKING_USERNAME")
    password = urllib.parse.unquote(parts.password or "")
    password = password or environ.get("MLFLOW_TRACKING_PASSWORD", "")
    headers: dict[str, str] = {}
    if user and password:
        coded = base64.b64encode(f"{user}:{password}".encode()).decode()
        headers["Authorization"] = f"Basic {coded}"
    elif token := environ.get("MLFLOW_TRACKING_TOKEN"):
        headers["Authorization"] = f"Bearer {token}"
    netloc = parts.netloc.rpartition("@")[2]
    return PlainClient(f"{parts.scheme}://{netloc}{parts.path.rstrip('/')}", headers)


def no_answer(uri: str, within: float) -> str | None:
    """Why a server does not answer a plain request; whatever it answers, 5xx apart, is an answer.

    A database answers where it takes a connection: MLflow itself asks for almost two minutes.
    """
    if (database := _database(uri)) is not None:
        return _takes_no_connection(database, within)
    if not uri.startswith(("http://", "https://")):
        return None
    health = f"{public(uri).rstrip('/')}/health"
    try:
        with urllib.request.urlopen(health, timeout=within):  # noqa: S310 -- the scheme was checked
            return None
    except urllib.error.HTTPError as error:
        error.close()
        return f"HTTP status {error.code}" if error.code >= _SERVER_ERROR else None
    except OSError as error:
        if isinstance(getattr(error, "reason", error), ssl.SSLError):
            return None  # MLflow has its own settings for TLS
        return _reason(error, within)


def unreachable(uri: str, why: str) -> UnreachableError:
    """Word that a server does not answer."""
    kind = "MLflow server" if _database(uri) is None else "tracking database"
    place = urllib.parse.urlsplit(public(uri))
    start = "start it (lodestar infra up)" if place.hostname == "127.0.0.1" else "start it"
    return UnreachableError(
        f"the {kind} at {place.netloc} does not answer: {why}",
        hint=f"{start}, or see mlflow.tracking_uri in the config",
    )


def public(uri: str) -> str:
    """A URI without user, password and query."""
    return re.sub(r"//[^/@\s]+@", "//", uri).partition("?")[0]


def names_database(uri: str) -> bool:
    """Whether MLflow would go to a database server itself."""
    return _dialect(uri) in _DATABASE_PORTS


def _dialect(uri: str) -> str:
    return uri.partition(":")[0].partition("+")[0]


def _takes_no_connection(address: tuple[str, int], within: float) -> str | None:
    try:
        socket.create_connection(address, within).close()
    except OSError as error:
        return _reason(error, within)
    return None


def _database(uri: str) -> tuple[str, int] | None:
    """Host and port of a database server; None where it is something else, or the URI names no host."""
    if not names_database(uri):
        return None
    parts = urllib.parse.urlsplit(uri)
    try:
        host, port = parts.hostname, parts.port
    except ValueError:
        return None
    return (host, port or _DATABASE_PORTS[_dialect(uri)]) if host else None


def _reason(error: OSError, within: float) -> str:
    inner = getattr(error, "reason", error)
    if isinstance(inner, TimeoutError):
        return f"no answer within {within:g} s"
    return (inner.strerror if isinstance(inner, OSError) else None) or str(inner)


def _answer(request: urllib.request.Request) -> dict[str, Any]:
    with urllib.request.urlopen(request, timeout=WITHIN) as answer:  # noqa: S310 -- see above
        try:
            value = json.load(answer)
        except ValueError as error:
            raise NotPlainError from error
    if not isinstance(value, dict):
        raise NotPlainError
    return value


@contextmanager
def _as_documented() -> Iterator[None]:
    try:
        yield
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        raise NotPlainError from error


def _run(value: Mapping[str, Any]) -> PlainRun:
    info, data = value["info"], value["data"]
    return PlainRun.of(
        str(info["run_id"]),
        str(info.get("run_name", "")),
        str(info.get("status", "")),
        _tags(data),
        started=int(info.get("start_time", 0)),
        metrics={item["key"]: float(item["value"]) for item in data.get("metrics", [])},
        params={item["key"]: item["value"] for item in data.get("params", [])},
    )


def _model(value: Mapping[str, Any]) -> PlainModel:
    aliases = {item["alias"]: str(item["version"]) for item in value.get("aliases", [])}
    return PlainModel(str(value["name"]), _tags(value), aliases)


def _tags(value: Mapping[str, Any]) -> dict[str, str]:
    return {item["key"]: item["value"] for item in value.get("tags", [])}

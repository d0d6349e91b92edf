"""The way to MLflow's tracking store: opened late, its database made once, its errors worded as ours."""

import fcntl
import logging
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import gettempdir
from typing import TYPE_CHECKING
from urllib.parse import unquote, urlsplit

from lodestar.artifact.mlflow_plugins import load_header_providers
from lodestar.artifact.plain_client import (
    PlainClient,
    names_database,
    no_answer,
    plain_client,
    unreachable,
)
from lodestar.errors import ExternalError, UnreachableError, UsageError, first_line
from lodestar.settings.config import MlflowTracking

if TYPE_CHECKING:
    from mlflow.tracking import MlflowClient

__all__ = ["Connection", "PlainConnection", "Tracking", "translated"]

# Read by MLflow when it is used: a server that does not answer is an error soon, and what there is to
# say is said by us.
_MLFLOW = {
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "30",
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2",
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
}
_SQLITE = "sqlite:///"
# Seconds. A server that runs answers this at once; only a frozen one takes it all.
ANSWERS_WITHIN = 10.0
SOON = 3.0
_SERVER_ERROR = 500
_STORE_CLIENTS = {"azure", "boto3", "botocore", "google", "s3transfer"}


@dataclass(frozen=True)
class Connection:
    """A client of the store, and this project's experiment in it."""

    client: "MlflowClient"
    experiment: str
    uri: str

    @property
    def over_http(self) -> bool:
        """Whether a server answers for the store."""
        return self.uri.startswith(("http://", "https://"))

    def answers(self) -> bool:
        """Whether it answers just now; a file or a database always does."""
        return no_answer(self.uri, SOON) is None


@dataclass(frozen=True)
class PlainConnection:
    """The same without MLflow; enough to tell which run a reference means."""

    client: PlainClient
    experiment: str


class Tracking:
    """One tracking store: a SQLite file below the project, a server, or another database."""

    def __init__(self, config: MlflowTracking, project: Path) -> None:
        self.uri = _absolute(config.tracking_uri.get_secret_value(), project)
        self.experiment_name = config.experiment_name
        self._artifact_root = _absolute_root(config.artifact_root, project)
        self._lock_file = project / "mlruns" / ".lock"
        self._connection: Connection | None = None
        self._plain: PlainConnection | None = None

    @property
    def local(self) -> bool:
        """Whether it is a file of this project, that no server stands before."""
        return self.uri.startswith("sqlite:")

    @property
    def file(self) -> Path | None:
        """The SQLite file; None where it is no file, or one that is opened in a way of its own."""
        path = self.uri.removeprefix(_SQLITE)
        return Path(path) if self.local and "?" not in path and path != self.uri else None

    def require_writable(self) -> None:
        """See that the folders of a local store can be written to; a server is not asked.

        Raises:
            ExternalError: one of them cannot.
        """
        file, root = self.file, _local_path(self._artifact_root)
        folders = ([] if file is None else [file.parent]) + ([] if root is None else [root])
        there = [_nearest(folder) for folder in folders] if self.local else []
        wrong = [place for place in there if not (place.is_dir() and os.access(place, os.W_OK))]
        if file is not None and file.exists() and not os.access(file, os.W_OK):
            wrong.append(file)
        if wrong:
            raise ExternalError(
                f"no run can be stored: {wrong[0]} cannot be written to",
                hint="see mlflow.tracking_uri and mlflow.artifact_root in the config",
            )

    def problem(self, *, within: float = ANSWERS_WITHIN) -> str | None:
        """Why the server cannot be used just now; None where it answers, or there is none to ask."""
        return no_answer(self.uri, within)

    def open(self) -> Connection:
        """The client and the experiment's id; both are made on first use, by one process at a time.

        Raises:
            UnreachableError: the server does not answer.
            ExternalError: the store refuses.
        """
        if self._connection is None:
            if (why := self.problem()) is not None:
                raise unreachable(self.uri, why)
            self._connection = self._opened()
        return self._connection

    def plain(self) -> PlainConnection | None:
        """A way to look runs up without importing MLflow, where the server takes plain requests.

        Raises:
            UnreachableError: the server does not answer.
            NotPlainError: MLflow's client has to be asked.
        """
        client = plain_client(self.uri)
        if client is None or self._connection is not None:
            return None
        if self._plain is None:
            found = client.get_experiment_by_name(self.experiment_name)
            self._plain = None if found is None else PlainConnection(client, found.experiment_id)
        return self._plain

    def _opened(self) -> Connection:
        for name, value in _MLFLOW.items():
            os.environ.setdefault(name, value)
        from mlflow.tracking import MlflowClient

        for noisy in ("mlflow", "alembic"):  # its import sets their levels
            logging.getLogger(noisy).setLevel(logging.WARNING)
        _require_readable(self.uri)
        with translated(), self._only_one():
            if self.local:
                _make_database(self.uri)
            else:
                load_header_providers()
            client = MlflowClient(tracking_uri=self.uri, registry_uri=self.uri)
            found = client.get_experiment_by_name(self.experiment_name)
            if found is not None:
                return Connection(client, found.experiment_id, self.uri)
            root = self._artifact_root if self.local else None
            made = client.create_experiment(self.experiment_name, artifact_location=root)
            return Connection(client, made, self.uri)

    @contextmanager
    def _only_one(self) -> Iterator[None]:
        """SQLite's tables must not be created by two commands at once."""
        if not self.local:
            yield
            return
        self._lock_file.parent.mkdir(parents=True, exist_ok=True)
        with self._lock_file.open("w") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield


def _require_readable(uri: str) -> None:
    """See that SQLAlchemy can take a database's URI apart; its own words would quote from it."""
    if not names_database(uri):
        return
    from sqlalchemy.engine import make_url
    from sqlalchemy.exc import ArgumentError

    try:
        make_url(uri)
    except (ArgumentError, ValueError):
        raise UsageError(
            "mlflow.tracking_uri cannot be taken apart into scheme, user, password, host and port",
            hint="write / @ : % in user or password as %2F %40 %3A %25",
        ) from None


def _make_database(uri: str) -> None:
    """Let MLflow make its tables aside: it takes many steps, and half of them can never be finished."""
    from mlflow.tracking import MlflowClient

    path = Path(uri.removeprefix(_SQLITE))
    if path.exists() or "?" in path.name:
        return
    aside = path.with_name(f".{path.name}.tmp")
    path.parent.mkdir(parents=True, exist_ok=True)
    for left in (aside, aside.with_name(f"{aside.name}-journal")):
        left.unlink(missing_ok=True)
    MlflowClient(tracking_uri=f"{_SQLITE}{aside}").search_experiments(max_results=1)
    aside.replace(path)


def _absolute(uri: str, project: Path) -> str:
    """A SQLite file is below the project unless its path says otherwise."""
    if not uri.startswith(_SQLITE):
        return uri
    return f"{_SQLITE}{project / uri.removeprefix(_SQLITE)}"


def _absolute_root(root: str, project: Path) -> str:
    """An object store's URI as it is; a path is below the project unless it says otherwise."""
    return root if "://" in root else (project / root).as_uri()


def _nearest(folder: Path) -> Path:
    return next(place for place in (folder, *folder.parents) if place.exists())


def _local_path(root: str) -> Path | None:
    place = urlsplit(root)
    return Path(unquote(place.path)) if place.scheme == "file" else None


@contextmanager
def translated() -> Iterator[None]:
    """Word what MLflow or the file system says while a run is stored as our errors."""
    from mlflow.exceptions import MlflowException
    from sqlalchemy.exc import DBAPIError

    try:
        yield
    except MlflowException as error:
        if _is_unreachable(error):
            raise _no_answer_to(error) from error
        raise ExternalError(
            f"MLflow refuses: {_without_password(str(error).splitlines()[0])}",
            hint="see mlflow.tracking_uri in the config",
        ) from error
    except DBAPIError as error:  # raised where MLflow makes or migrates its tables
        raise ExternalError(
            f"the tracking database refuses: {_without_password(str(error.orig).splitlines()[0])}",
            hint="see mlflow.tracking_uri in the config, and the space left where it lies",
        ) from error
    except ModuleNotFoundError as error:
        raise ExternalError(
            f"MLflow needs the package {error.name} for its database or artifact store, which is not "
            "installed",
            hint="see mlflow in the config; for object stores: pip install 'lodestar-ml[s3]', [gcs] or "
            "[azure]",
        ) from error
    except OSError as error:
        if _is_unreachable(error):
            raise _no_answer_to(error) from error
        reason = error.strerror or _without_password(str(error))
        raise ExternalError(
            f"the artifact cannot be stored: {reason}"
            + (f" ({error.filename})" if error.filename else ""),
            hint=f"see mlflow in the config; the temporary directory is {gettempdir()}",
        ) from error
    except Exception as error:
        # The edge to the client of whichever object store the artifacts are in.
        if type(error).__module__.partition(".")[0] not in _STORE_CLIENTS:
            raise
        raise ExternalError(
            f"the artifact store refuses or does not answer: {_without_password(first_line(error))}",
            hint="see mlflow.artifact_root, and the variables by which MLflow reaches it "
            "(AWS_…, MLFLOW_S3_ENDPOINT_URL, GOOGLE_APPLICATION_CREDENTIALS, AZURE_STORAGE_…)",
        ) from error


def _is_unreachable(error: BaseException | None) -> bool:
    """Whether a request came to nothing, or to a server's own error, however often it was tried."""
    import requests

    nothing = (
        requests.ConnectionError,
        requests.Timeout,
        requests.exceptions.RetryError,
        requests.exceptions.ChunkedEncodingError,
    )
    while error is not None:
        if isinstance(error, nothing):
            return True
        if isinstance(error, requests.HTTPError) and error.response is not None:
            return bool(error.response.status_code >= _SERVER_ERROR)
        error = error.__cause__ or error.__context__
    return False


def _no_answer_to(error: BaseException) -> UnreachableError:
    """What became of a request, in short: MLflow and its libraries wrap it several times."""
    text = _without_password(str(error).replace("\n", " "))
    server = re.search(r"https?://([^/\s'\"]+)", text)
    at = f" at {server[1].rpartition('@')[2]}" if server else ""
    cause = re.search(r"Caused by (.{1,300}?)\)*$", text)
    timed_out = "timeout" in text or "timed out" in text
    why = "no answer in time" if timed_out else cause[1] if cause else text[:200]
    return UnreachableError(
        f"the MLflow server{at} does not answer: {why}",
        hint="start it, or see mlflow.tracking_uri in the config",
    )


def _without_password(text: str) -> str:
    text = re.sub(r"//[^/@\s]+@", "//***@", text)
    return re.sub(r"(://[^\s'\"?]*\?)[^\s'\"]+", r"\1***", text)

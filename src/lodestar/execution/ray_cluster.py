"""A connection to a Ray cluster: the one of the config's address, or one on this machine for a while."""

import logging
import os
import secrets
import shutil
import socket
import sys
import tempfile
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil

from lodestar.errors import ExternalError, UnreachableError, UsageError, first_line
from lodestar.settings.execution import RayCluster

__all__ = ["MEGABYTE", "alone", "connected", "reason_of", "workers_of"]

INSTALL = "pip install 'lodestar-ml[ray]'"
MEGABYTE = 1 << 20
FOLDER = "lodestar-ray-"
LONGEST = 24  # of a folder in which the names of sockets still fit the system's 107 bytes
QUIET = {
    "RAY_USAGE_STATS_ENABLED": "0",  # tells nobody outside
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",  # as Ray will have it by itself; else it warns
    "RAY_DEDUP_LOGS": "0",
}
# What has Ray listen on 127.0.0.1 alone, on every system; it is read when Ray is imported.
LOOPBACK = {"RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0"}
MODE, TOKEN, TOKEN_FILE = "RAY_AUTH_MODE", "RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH"


@contextmanager
def connected(settings: RayCluster) -> Iterator[Any]:
    """Ray, connected until the end of the block.

    Raises:
        UsageError: Ray is not installed, or this process is connected already.
        UnreachableError: no cluster answers at the address in time.
        ExternalError: the cluster is of another version, or does not start.
    """
    if settings.address is not None:
        _require_open(settings.address, settings.timeout)
    ray = _imported(settings)
    if ray.is_initialized():
        raise UsageError(
            "this process is connected to a Ray cluster already", hint="call ray.shutdown() before"
        )
    with _folder() as folder:
        try:
            with _translated(ray, settings), warnings.catch_warnings():
                warnings.simplefilter(
                    "ignore"
                )  # of Ray's own, about what it will do in years to come
                ray.init(**_arguments(settings, folder))
            yield ray
        finally:
            ray.shutdown()


@contextmanager
def _translated(ray: Any, settings: RayCluster) -> Iterator[None]:  # noqa: ANN401 -- the module
    where = None if settings.address is None else f"execution.ray.address {settings.address}"
    try:
        yield
    except ray.exceptions.AuthenticationError as error:
        raise ExternalError(
            "the cluster does not let this command in: " + first_line(error),
            where=where,
            hint="set RAY_AUTH_MODE=token and the cluster's RAY_AUTH_TOKEN or RAY_AUTH_TOKEN_PATH",
        ) from error
    except (ConnectionError, TimeoutError) as error:
        raise UnreachableError(
            f"the Ray cluster does not answer: {first_line(error)}", where=where
        ) from error
    except (RuntimeError, OSError, ValueError) as error:
        if "Version mismatch" in str(error):
            raise ExternalError(
                "the cluster is of another version: " + " ".join(str(error).split()),
                where=where,
                hint="install the cluster's versions of Ray and Python here, or ours there",
            ) from error
        raise ExternalError(f"Ray does not start: {first_line(error)}", where=where) from error
    except Exception as error:
        if type(error) is not Exception:
            raise
        # Ray has no class for a node that is not up in time, as happens where a machine is overloaded.
        raise ExternalError(f"Ray does not start: {first_line(error)}", where=where) from error


@contextmanager
def _folder() -> Iterator[Path]:
    """Where a Ray of this command alone keeps sockets and logs; removed at the end."""
    base = Path(tempfile.gettempdir())
    if len(str(base)) > LONGEST:
        base = Path("/tmp")  # noqa: S108 -- the folder below it is this user's alone
    for left in base.glob(f"{FOLDER}*"):  # by commands that were killed
        owner = left.name.removeprefix(FOLDER)
        if owner.isdigit() and not psutil.pid_exists(int(owner)):
            shutil.rmtree(left, ignore_errors=True)
    folder = base / f"{FOLDER}{os.getpid()}"
    shutil.rmtree(folder, ignore_errors=True)
    try:
        folder.mkdir(mode=0o700)
    except OSError as error:
        raise ExternalError(
            f"{folder}: {error.strerror}", hint="Ray's sockets and logs lie there; set TMPDIR"
        ) from error
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def workers_of(ray: Any, settings: RayCluster) -> int:  # noqa: ANN401 -- the module
    """How many workers there are to be.

    Raises:
        ExternalError: the cluster has no room for even one.
    """
    there = int(ray.cluster_resources().get("CPU", 0))
    if there < settings.cpus_per_worker:
        raise ExternalError(
            f"the cluster has {there} processors, and a worker takes {settings.cpus_per_worker}",
            hint="see execution.ray.cpus_per_worker",
        )
    return settings.workers or there // settings.cpus_per_worker


def alone() -> dict[str, str]:
    """Variables for a cluster of this command alone: on the loopback, behind a secret of its own."""
    chosen = {MODE, TOKEN, TOKEN_FILE} & os.environ.keys()
    secret = {} if chosen else {MODE: "token", TOKEN: secrets.token_hex(32)}
    return LOOPBACK | secret


def _variables(settings: RayCluster) -> dict[str, str]:
    if settings.address is None:
        return alone()
    # Else Ray asks for minutes whoever listens there and is no Ray.
    bounded = {
        "RAY_NUM_REDIS_GET_RETRIES": "1",
        "RAY_py_gcs_connect_timeout_s": str(settings.timeout),
        "RAY_gcs_rpc_server_connect_timeout_s": str(min(settings.timeout, 5)),
    }
    host = settings.address.rpartition(":")[0]
    return bounded | (LOOPBACK if host in {"127.0.0.1", "localhost"} else {})


def _imported(settings: RayCluster) -> Any:  # noqa: ANN401 -- a module
    if "ray" not in sys.modules:
        for name, value in (QUIET | _variables(settings)).items():
            os.environ.setdefault(name, value)
    try:
        import ray
    except ModuleNotFoundError as error:
        if error.name != "ray":
            raise
        raise UsageError(
            "execution.engine is ray, and the Python package ray is not installed", hint=INSTALL
        ) from error
    return ray


def _arguments(settings: RayCluster, folder: Path) -> dict[str, Any]:
    quiet = {"logging_level": logging.ERROR, "log_to_driver": False, "configure_logging": False}
    if settings.address is not None:
        return {"address": settings.address, **quiet}
    store = settings.object_store_mb
    return {
        "address": "local",
        "_temp_dir": str(folder),
        "include_dashboard": False,
        "num_cpus": len(os.sched_getaffinity(0)),
        "object_store_memory": None if store is None else store * MEGABYTE,
        **quiet,
    }


def _require_open(address: str, timeout: float) -> None:
    """See that somebody listens there: Ray itself would try for minutes, or end the process."""
    host, _, port = address.rpartition(":")
    try:
        socket.create_connection((host, int(port)), min(timeout, 10)).close()
    except (OSError, OverflowError) as error:
        raise UnreachableError(
            f"no Ray cluster answers: {first_line(error)}",
            where=f"execution.ray.address {address}",
            hint="start one with: ray start --head --port 6379",
        ) from error


def reason_of(error: Exception) -> str:
    """What Ray says, on one line and without the places in its own code."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    told = [line for line in lines if "Error" in line or "killed" in line or "died" in line]
    return (told or lines or [first_line(error)])[0][:300]

"""Serves an application: on one address, from this process or from several."""

import os
import socket
from collections.abc import Callable, Mapping

from lodestar.errors import ExternalError
from lodestar.serving.process import run_worker
from lodestar.serving.supervisor import Supervisor, environment
from lodestar.serving.threads import thread_limits
from lodestar.settings.permissions import check_exposure
from lodestar.settings.serving import Serving

__all__ = ["serve"]


def serve(
    app_target: str,
    settings: Serving,
    *,
    environ: Mapping[str, str],
    started: Callable[[str], None],
) -> int:
    """Serve until a signal says to end; returns the exit code, which is 0 after a drain.

    `app_target` is `module:function`, whose function makes this process's Edge. `environ` is added to
    the environment before it is called, in this process or in each worker, and so is how many threads a
    worker's libraries may use. `started` is called with the address, once all workers answer.

    Raises:
        NotAllowedError: others can reach the address, and nobody must say who they are.
        ExternalError: the address cannot be listened on.
        LodestarError: whatever kept the application from starting.
    """
    check_exposure(settings)
    limits = thread_limits(settings.workers, os.environ)
    with _listening(settings) as listener, environment({**limits, **environ}):
        address = _address(settings.host, listener)
        if settings.workers == 1:
            run_worker(app_target, settings, listener, lambda: started(address))
        else:
            Supervisor(app_target, settings, listener).run(lambda: started(address))
    return 0


def _listening(settings: Serving) -> socket.socket:
    """A socket bound to the address; uvicorn listens on it once the application has started."""
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            settings.host, settings.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        listener = socket.socket(family, kind, protocol)
        try:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.bind(address)
        except OSError:
            listener.close()
            raise
    except OSError as error:
        raise ExternalError(
            f"cannot listen on {settings.host}:{settings.port}: {error.strerror}",
            where="config:serving.port",
            hint="another address: --host and --port, or port 0 for any that is free",
        ) from error
    return listener


def _address(host: str, listener: socket.socket) -> str:
    port = listener.getsockname()[1]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"

"""`lodestar …` in a process of its own that need not import anything: forked off one that has.

Imports are most of what a short command costs, and the suite runs hundreds of them. A forked command
has its own directory, environment and streams, as a started one has. What an import itself reads,
kills, limits or replaces is tested with commands that are really started: see `Lodestar`.
"""

import atexit
import gc
import importlib
import json
import os
import pkgutil
import random
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import traceback
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import NoReturn

__all__ = ["WarmCommands", "warm_commands"]

LIBRARIES = (
    "mlflow.pyfunc",
    "mlflow.store.tracking.sqlalchemy_store",
    "sklearn.ensemble",
    "sklearn.linear_model",
    "xgboost",
    "causalml.inference.meta",
)
CALLER_GONE_WITHIN = 10.0


@contextmanager
def warm_commands() -> "Iterator[WarmCommands]":
    """Start the process that has imported everything; it lives as long as the block."""
    with tempfile.TemporaryDirectory(prefix="warm-") as folder:
        address = str(Path(folder) / "socket")
        with subprocess.Popen(
            [sys.executable, "-c", f"from tests.warm import serve; serve({address!r})"],
            cwd=Path(__file__).resolve().parents[1],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
        ) as process:
            assert process.stdout is not None
            try:
                said = process.stdout.readline()
                assert said == b"ready\n", said
                yield WarmCommands(address)
            finally:
                process.terminate()


@dataclass(frozen=True)
class WarmCommands:
    """Asks that process, by the address of its socket, to be a command."""

    address: str

    def run(
        self, args: Sequence[str], cwd: Path, env: Mapping[str, str], *, timeout: float
    ) -> tuple[int, str, str]:
        """Exit code, stdout and stderr of a command that has ended.

        Raises:
            TimeoutError: it has not.
        """
        order = json.dumps({"args": list(args), "cwd": str(cwd), "env": dict(env)}).encode()
        with (
            tempfile.TemporaryFile() as stdout,
            tempfile.TemporaryFile() as stderr,
            open(os.devnull, "rb") as stdin,  # noqa: PTH123 -- no path of anybody
            socket.socket(socket.AF_UNIX) as line,
        ):
            line.settimeout(timeout)
            line.connect(self.address)
            streams = [stdin.fileno(), stdout.fileno(), stderr.fileno()]
            socket.send_fds(line, [len(order).to_bytes(4, "big")], streams)
            line.sendall(order)
            code = int(line.makefile("rb").read())
            texts = []
            for stream in (stdout, stderr):
                stream.seek(0)
                texts.append(stream.read().decode())
        return code, texts[0], texts[1]


def serve(address: str) -> None:
    """Import, then fork off every command that is asked for, until SIGTERM or the caller's end."""
    caller = os.getppid()
    _import_everything()
    gc.collect()
    gc.freeze()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(address)
        listener.listen()
        listener.settimeout(CALLER_GONE_WITHIN)
        os.write(1, b"ready\n")
        while os.getppid() == caller:
            try:
                line, _ = listener.accept()
            except TimeoutError:
                continue
            # Whoever waits for the command is a process of its own, so that many run at a time.
            if os.fork() == 0:
                signal.signal(signal.SIGTERM, signal.SIG_DFL)
                listener.close()
                _attend(line)
            line.close()
            _bury()


def _import_everything() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for name in LIBRARIES:
            importlib.import_module(name)
        import lodestar

        for module in pkgutil.walk_packages(lodestar.__path__, "lodestar."):
            if not module.name.endswith("__main__"):
                importlib.import_module(module.name)


def _bury() -> None:
    while True:
        try:
            if os.waitpid(-1, os.WNOHANG)[0] == 0:
                return
        except ChildProcessError:
            return


def _attend(line: socket.socket) -> None:
    head, streams, _, _ = socket.recv_fds(line, 4, 3)
    with line.makefile("rb") as file:
        order = json.loads(file.read(int.from_bytes(head, "big")))
    command = os.fork()
    if command == 0:
        line.close()
        _become(order["args"], order["cwd"], order["env"], streams)
    _, status = os.waitpid(command, 0)
    line.sendall(str(os.waitstatus_to_exitcode(status)).encode())
    line.close()
    os._exit(0)


def _become(
    args: Sequence[str], cwd: str, env: Mapping[str, str], streams: Sequence[int]
) -> NoReturn:
    """Be the command: as if just started there, with these variables and streams."""
    for target, stream in enumerate(streams):
        os.dup2(stream, target)
        os.close(stream)
    os.chdir(cwd)
    os.environ.clear()
    os.environ.update(env)
    tempfile.tempdir = None
    random.seed()
    sys.argv = ["lodestar", *args]
    # What worker processes would import again.
    sys.modules["__main__"] = ModuleType("__main__")
    from lodestar.cli.app import main

    code = 0
    try:
        main()
    except SystemExit as ended:
        code = ended.code if isinstance(ended.code, int) else int(bool(ended.code))
    except BaseException:  # noqa: BLE001 -- as the interpreter ends, with its trace
        traceback.print_exc()
        code = 1
    _end(code)


def _end(code: int) -> NoReturn:
    """End as the interpreter does, but for taking apart all that was imported, which takes seconds."""
    threading._shutdown()  # type: ignore[attr-defined]  # private: waits for threads
    atexit._run_exitfuncs()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)

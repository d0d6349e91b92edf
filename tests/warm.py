"""`lodestar …` in a process of its own that need not import anything: forked off one that has.

Imports are most of what a short command costs, and the suite runs hundreds of them. A forked command
has its own directory, environment and streams, as a started one has. What an import itself reads,
kills, limits or replaces is tested with commands that are really started: see `Lodestar`.

MLflow's tables are most of what the first command of a project costs: they are made once, to be copied.
"""

import atexit
import fcntl
import gc
import importlib
import json
import os
import pkgutil
import random
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
import traceback
import warnings
from collections.abc import Mapping, Sequence
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
CALLER_GONE_WITHIN = 1.0
SOCKET, STORE = "socket", "mlflow.db"


def warm_commands(folder: Path, caller: int) -> "WarmCommands":
    """The process that has imported everything; whoever asks first in this folder starts it for all.

    It lives as long as the process `caller`.
    """
    with (folder / "warm.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        note = folder / "warm.address"
        if not note.exists():
            # The address of a socket has room for a hundred characters.
            place = Path(tempfile.mkdtemp(prefix="warm-"))
            program = f"from tests.warm import serve; serve({str(place)!r}, {caller})"
            subprocess.run(
                [sys.executable, "-c", program],
                cwd=Path(__file__).resolve().parents[1],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                check=True,
            )
            note.write_text(str(place), encoding="utf-8")
        place = Path(note.read_text(encoding="utf-8"))
    return WarmCommands(str(place / SOCKET), place / STORE)


@dataclass(frozen=True)
class WarmCommands:
    """Asks that process, by the address of its socket, to be a command.

    `store` is a tracking store as MLflow makes it, with no run.
    """

    address: str
    store: Path

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


def serve(folder: str, caller: int) -> None:
    """Import, go to the background, and fork off every command asked for until the caller has ended."""
    place = Path(folder)
    _import_everything()
    gc.collect()
    gc.freeze()
    _make_store(place / STORE)
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(place / SOCKET))
        listener.listen()
        if os.fork():
            os._exit(0)
        os.setsid()
        os.dup2(1, 2)  # nobody reads it; whoever started us is not to wait for it
        listener.settimeout(CALLER_GONE_WITHIN)
        while _lives(caller):
            try:
                line, _ = listener.accept()
            except TimeoutError:
                continue
            # Whoever waits for the command is a process of its own, so that many run at a time.
            if os.fork() == 0:
                listener.close()
                _attend(line)
            line.close()
            _bury()
    shutil.rmtree(place)


def _lives(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    return True


def _import_everything() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for name in LIBRARIES:
            importlib.import_module(name)
        import lodestar

        for module in pkgutil.walk_packages(lodestar.__path__, "lodestar."):
            if not module.name.endswith("__main__"):
                importlib.import_module(module.name)


def _make_store(path: Path) -> None:
    """By a child, so that no command has its connections."""
    maker = os.fork()
    if maker == 0:
        from mlflow.tracking import MlflowClient

        MlflowClient(tracking_uri=f"sqlite:///{path}").search_experiments(max_results=1)
        os._exit(0)
    _, status = os.waitpid(maker, 0)
    assert status == 0, "MLflow has made no tables"


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

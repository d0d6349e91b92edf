"""A sample project, each recipe trained once for the whole suite, and the real command to run."""

import hashlib
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import prometheus_client  # noqa: F401 -- before Feast has it count in files that all tests share
import pytest
from tests.examples import without_chance
from tests.warm import WarmCommands, warm_commands

from lodestar.adapters.feast.project import METRICS_FOLDERS
from lodestar.samples.project import create_project

pytest_plugins = (
    *("tests.servers", "tests.object_stores", "tests.warehouse_servers"),
    "tests.sharing",
)

without_chance()
# Before any library loads OpenMP, whose threads else spin on cores that the suite's others use.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

ROOT = Path(__file__).resolve().parents[1]
COMMAND = (sys.executable, "-c", "from lodestar.cli.app import main; main()")
DEADLINE = 240
READ_BY_IMPORTS = ("PYTHON", "MLFLOW", "OMP", "PATH", "HOME")
READ_LATER = ("MLFLOW_HTTP_REQUEST_", "MLFLOW_S3_ENDPOINT_URL")
SMALL = ("--set", "model.hyperparameters.n_estimators=5")


@dataclass(frozen=True)
class Finished:
    """A command that has ended."""

    code: int
    stdout: str
    stderr: str

    @property
    def json(self) -> Any:  # noqa: ANN401 -- whatever the command printed
        """The one JSON object on stdout; a second one, NaN or any other text fails the test."""
        value = json.loads(self.stdout, parse_constant=_no_json)
        assert isinstance(value, dict), self.stdout
        return value

    def succeeded(self) -> "Finished":
        """Fail the test, with what the command said, unless it exited 0."""
        assert self.code == 0, f"exit {self.code}\n{self.stderr}\n{self.stdout}"
        return self

    def refused(self, code: int, *words: str) -> "Finished":
        """A clear error: this exit code, these words, a line that starts so, and no stack trace."""
        assert "Traceback" not in self.stderr, self.stderr
        assert self.code == code, f"exit {self.code}, not {code}\n{self.stderr}\n{self.stdout}"
        assert "error: " in self.stderr, self.stderr
        for word in words:
            assert word in self.stderr, f"{word!r} is not in:\n{self.stderr}"
        return self


class Lodestar:
    """Runs `lodestar …` as a user does: another process, its own directory and environment.

    It is forked off a process that has imported everything (`tests.warm`), and really started where it
    runs under something or is given what imports read.
    """

    def __init__(self, warm: WarmCommands) -> None:
        self._warm = warm

    def __call__(
        self,
        *args: str | Path,
        cwd: Path,
        env: Mapping[str, str] | None = None,
        under: Sequence[str] = (),
    ) -> Finished:
        """Run to the end. `under` is a command that starts it, such as prlimit."""
        if not under and not any(map(_read_by_imports, env or ())):
            words, variables = list(map(str, args)), _environment(env)
            return Finished(*self._warm.run(words, cwd, variables, timeout=DEADLINE))
        done = subprocess.run(
            [*under, *COMMAND, *map(str, args)],
            cwd=cwd,
            # Under limits the coverage of a child could not be written either.
            env=_environment(env, measured=not under),
            capture_output=True,
            text=True,
            timeout=DEADLINE,
            check=False,
            stdin=subprocess.DEVNULL,
        )
        return Finished(done.returncode, done.stdout, done.stderr)

    def stocked(self, project: Path) -> Path:
        """Give a new project the empty tracking store that its first command would make."""
        (project / "mlruns").mkdir()
        shutil.copyfile(self._warm.store, project / "mlruns/mlflow.db")
        return project

    def start(
        self, *args: str | Path, cwd: Path, env: Mapping[str, str] | None = None
    ) -> "subprocess.Popen[str]":
        """Start it and do not wait."""
        return subprocess.Popen(
            [*COMMAND, *map(str, args)],
            cwd=cwd,
            env=_environment(env),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            stdin=subprocess.DEVNULL,
            text=True,
        )


def ended(process: "subprocess.Popen[str]") -> Finished:
    """Wait for a started command."""
    stdout, stderr = process.communicate(timeout=DEADLINE)
    return Finished(process.returncode, stdout, stderr)


@dataclass(frozen=True)
class Trained:
    """A run, the project that it lies in, and what `train --json` said."""

    project: Path
    json: dict[str, Any]

    @property
    def run_id(self) -> str:
        return str(self.json["run_id"])

    @property
    def artifact(self) -> Path:
        """The model directory in the store."""
        return self.project / str(self.json["artifact_uri"])


def outbox(project: Path, tmp_path: Path) -> Path:
    """A new directory for one test's outputs; they must lie below the project."""
    place = project / "outbox" / tmp_path.parent.name / tmp_path.name
    place.mkdir(parents=True, exist_ok=True)
    return place


def digests(folder: Path) -> dict[str, str]:
    """Every file below a folder and its sha256: equal before and after means nothing was written."""
    return {
        path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and not path.is_symlink()
    }


def edited(path: Path, old: str, new: str) -> None:
    """Replace text that stands exactly once in a file."""
    text = path.read_text(encoding="utf-8")
    assert text.count(old) == 1, f"{old!r} stands {text.count(old)} times in {path}"
    path.write_text(text.replace(old, new), encoding="utf-8")


def _read_by_imports(variable: str) -> bool:
    return variable.startswith(READ_BY_IMPORTS) and not variable.startswith(READ_LATER)


def _environment(extra: Mapping[str, str] | None, *, measured: bool = True) -> dict[str, str]:
    given = {name: value for name, value in os.environ.items() if name != "APP_ENV"}
    if not measured:
        given = {name: value for name, value in given.items() if not name.startswith("COVERAGE_")}
    given |= extra or {}
    paths = ((extra or {}).get("PYTHONPATH"), os.environ.get("PYTHONPATH"))
    given["PYTHONPATH"] = os.pathsep.join(path for path in paths if path)
    return given


def _no_json(name: str) -> None:
    raise AssertionError(f"{name} is no JSON")


@pytest.fixture(autouse=True)
def _as_without_feast() -> None:
    """What Feast's import and our calls of it leave in the environment is not for other tests."""
    for name in (*METRICS_FOLDERS, "PGTZ"):
        os.environ.pop(name, None)


@pytest.fixture(scope="session")
def lodestar(tmp_path_factory: pytest.TempPathFactory) -> Lodestar:
    folder = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:  # one process that is warm does for all workers
        return Lodestar(warm_commands(folder.parent, os.getppid()))
    return Lodestar(warm_commands(folder, os.getpid()))


@pytest.fixture(scope="session")
def sample_project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The sample project with its data; tests read it and train in it, but change no file of it."""
    target = tmp_path_factory.mktemp("sample") / "project"
    create_project(target)
    return target


@pytest.fixture(scope="session")
def trained(lodestar: Lodestar, sample_project: Path) -> Callable[..., Trained]:
    """Trains a recipe of the sample project, once for the whole suite."""
    known: dict[tuple[str, ...], Trained] = {}

    def train(recipe: str, *options: str) -> Trained:
        key = (recipe, *options)
        if key not in known:
            done = lodestar("train", "-r", recipe, *options, "--json", cwd=sample_project)
            known[key] = Trained(sample_project, done.succeeded().json)
        return known[key]

    return train


@pytest.fixture
def project(request: pytest.FixtureRequest, new_project: Path) -> Path:
    """A fresh copy of the sample project without runs, to change at will; its store is made already."""
    if "lodestar" in request.fixturenames:
        lodestar: Lodestar = request.getfixturevalue("lodestar")
        return lodestar.stocked(new_project)
    return new_project


@pytest.fixture
def new_project(sample_project: Path, tmp_path: Path) -> Path:
    """A fresh copy of the sample project in which no command has run."""
    return copy_of(sample_project, tmp_path / "project")


def copy_of(project: Path, target: Path) -> Path:
    """Copy a project without its runs and outputs."""
    made = ("mlruns", "outputs", "outbox", ".lodestar", "__pycache__")
    return shutil.copytree(project, target, ignore=shutil.ignore_patterns(*made))

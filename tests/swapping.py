"""A project whose runs take each other's place, what each of them says of every row, and a client."""

import hashlib
import json
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any, Self

import httpx
import pyarrow.parquet as pq
from tests.conftest import Lodestar, copy_of
from tests.served_projects import served_run
from tests.serving_places import DEADLINE, Served

__all__ = ["ADMIN", "MOOD", "PATIENCE", "Asking", "Place", "Server", "eventually"]

KEY, ADMIN_KEY = "a key", "an administrator's key"
ASK, ADMIN = {"X-API-Key": KEY}, {"X-API-Key": ADMIN_KEY}
MOOD = "TEST_SWAP_MOOD"
PATIENCE = 120.0
CONFIG = """\
environment: {{serving: allowed}}
serving:
  follow_seconds: 0.5
  authentication: {{api_keys: [{key}], admin_keys: [{admin}]}}
  limits: {{answer_seconds: {answer}}}
  rollback:
    watch_seconds: {watch}
    window_seconds: 1
    requests: {requests}
    latency_p99_seconds: {latency}
    prediction_psi: {psi}
"""
# Environments by what they hold against a new champion. So few requests as here tell drift from chance
# only where it is large, and a busy machine breaks the limit on latency by itself.
JUDGED = {"answer": 20, "watch": 60, "requests": 20, "psi": 0.5, "latency": 2.0}
ENVIRONMENTS: Mapping[str, Mapping[str, float]] = {
    "judged": JUDGED,
    "judged_for_errors": {**JUDGED, "psi": 1000, "latency": 1000},
    "judged_for_latency": {**JUDGED, "psi": 1000},
    "never_judged": {**JUDGED, "requests": 1_000_000},
    "unwatched": {**JUDGED, "answer": 2, "watch": 0.001},
}
# Does as a file says that its process was told of: sleep, fail or die; else it is a good model.
MOODY = """\
import os
import time
from pathlib import Path

from sklearn.linear_model import LogisticRegression


class Moody(LogisticRegression):
    def predict_proba(self, X):
        path = Path(os.environ.get("TEST_SWAP_MOOD", "/nowhere"))
        mood = path.read_text() if path.exists() else ""
        if mood == "slow":
            time.sleep(2.5)
        if mood == "failing":
            raise RuntimeError("in a bad mood")
        if mood == "dying":
            os._exit(9)
        return super().predict_proba(X){shift}
"""
TREES = "model.hyperparameters.n_estimators={}"
OTHER_SQL = "SELECT * EXCLUDE (mean_area), 1 AS weekday FROM breast_cancer\n"


def _sha256(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


@dataclass(frozen=True, eq=False)
class Place:
    """The project, its runs by what they are like, and the rows that are asked."""

    project: Path
    lodestar: Lodestar
    runs: dict[str, str] = field(default_factory=dict)

    @classmethod
    def make(cls, lodestar: Lodestar, sample: Path, target: Path) -> "Place":
        """Copy the sample and let it serve; nothing is trained yet."""
        project = lodestar.stocked(copy_of(sample, target))
        keys = {"key": _sha256(KEY), "admin": _sha256(ADMIN_KEY)}
        for name, numbers in ENVIRONMENTS.items():
            (project / "config" / f"{name}.yaml").write_text(CONFIG.format(**keys, **numbers))
        (project / "recipes/sql/loaders/other.sql").write_text(OTHER_SQL)
        return cls(project, lodestar)

    def run(self, name: str) -> str:
        """The run of that name, trained when it is first asked for."""
        if name not in self.runs:
            options = [word for option in self._options(name) for word in ("--set", option)]
            done = self.lodestar(
                "train", "-r", "breast_cancer", *options, "--json", cwd=self.project
            )
            self.runs[name] = done.succeeded().json["run_id"]
        return self.runs[name]

    def promote(self, name: str) -> None:
        """Make it the champion in the registry."""
        self.lodestar(
            "promote", "--run-id", self.run(name), "--alias", "champion", "--force",
            cwd=self.project,
        ).succeeded()  # fmt: skip

    def said(self, name: str) -> Sequence[tuple[str, float]]:
        """What that run says of every row, by the batch path: the class, how likely it is malignant."""
        return _said_by(self, name)

    @property
    def bodies(self) -> list[dict[str, Any]]:
        """Every row as a client sends it."""
        rows = pq.read_table(self.project / "data/breast_cancer.parquet").to_pylist()
        return [{key: value for key, value in row.items() if key != "diagnosis"} for row in rows]

    @contextmanager
    def served(
        self,
        run: str,
        *options: str,
        environment: str = "judged",
        env: Mapping[str, str] | None = None,
    ) -> Iterator["Server"]:
        """Serve a run, or an alias, as the command does."""
        reference = run if run == "champion" else self.run(run)
        variables = {"APP_ENV": environment, **(env or {})}
        with served_run(self.project, reference, *options, env=variables) as process:
            yield Server(self, process)

    def _options(self, name: str) -> tuple[str, ...]:
        if name.startswith("moody"):
            shift = " * [1.0, 1.0]" if name == "moody" else " [:, ::-1]"
            (self.project / "moody.py").write_text(MOODY.format(shift=shift))
            return ("model.class_path=moody.Moody", "model.hyperparameters={}")
        return {
            "one": (TREES.format(100),),
            "two": (TREES.format(110),),
            "drifting": (TREES.format(1), "model.hyperparameters.learning_rate=0.02"),
            "other": (TREES.format(5), "loader.source_uri=recipes/sql/loaders/other.sql"),
        }[name]


@cache
def _said_by(place: Place, name: str) -> Sequence[tuple[str, float]]:
    out = place.project / "outbox" / f"{name}.parquet"
    out.parent.mkdir(exist_ok=True)
    place.lodestar(
        "batch-inference", "--run-id", place.run(name), "--output", out, cwd=place.project
    ).succeeded()
    table = pq.read_table(out)
    columns = (table.column(name).to_pylist() for name in ("prediction", "probability_malignant"))
    return list(zip(*columns, strict=True))


@dataclass(frozen=True)
class Server:
    """A server of the place's runs."""

    place: Place
    process: Served

    def admin(self, method: str, path: str, **options: Any) -> httpx.Response:  # noqa: ANN401 -- httpx's
        """Ask as an administrator."""
        with self.process.client(headers=ADMIN) as client:
            return client.request(method, path, timeout=PATIENCE, **options)

    def swap(self, reference: str) -> httpx.Response:
        """Bring in another champion."""
        return self.admin("POST", "/admin/swap", json={"run_id": reference})

    def state(self) -> Any:  # noqa: ANN401 -- JSON
        """What all workers serve."""
        return self.admin("GET", "/admin/state").json()

    def metric(self, name: str) -> float:
        """A line of /metrics."""
        lines = self.admin("GET", "/metrics").text.splitlines()
        return next((float(line.split()[-1]) for line in lines if line.startswith(name)), 0.0)


@dataclass(frozen=True)
class Answer:
    """What a client got, and when it had asked."""

    asked: float
    row: int
    status: int
    body: Any


class Asking:
    """Clients that ask one row after the other, until the block ends."""

    def __init__(self, server: Server, *, clients: int = 3, pause: float = 0.01) -> None:
        self._process = server.process
        self._bodies = [json.dumps(body) for body in server.place.bodies]
        self._pause = pause
        self._ended = threading.Event()
        self._threads = [
            threading.Thread(target=self._ask_on, args=(at * 101,)) for at in range(clients)
        ]
        self.answers: list[Answer] = []
        self.broken: list[str] = []

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *raised: object) -> None:
        self._ended.set()
        for thread in self._threads:
            thread.join(DEADLINE)

    def ask_some(self, count: int) -> None:
        """Wait until so many more were answered."""
        wanted = len(self.answers) + count
        eventually(lambda: len(self.answers) >= wanted)

    def _ask_on(self, at: int) -> None:
        headers = {**ASK, "content-type": "application/json"}
        with self._process.client(headers=headers) as client:
            while not self._ended.wait(self._pause):
                at = (at + 1) % len(self._bodies)
                asked = time.monotonic()
                try:
                    found = client.post("/predict", content=self._bodies[at])
                    self.answers.append(Answer(asked, at, found.status_code, found.json()))
                except httpx.HTTPError as error:
                    self.broken.append(repr(error))


def eventually(look: Any, within: float = PATIENCE) -> Any:  # noqa: ANN401 -- whatever is looked for
    """Look until there is something."""
    ends = time.monotonic() + within
    while True:
        found = look()
        if found:
            return found
        assert time.monotonic() < ends, "it did not happen in time"
        time.sleep(0.1)

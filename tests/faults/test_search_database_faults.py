"""`lodestar train` with its study in PostgreSQL: killed and resumed, and the password is nowhere."""

import random
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.conftest import Finished, Lodestar, edited, ended
from tests.databases import Database, fresh_database
from tests.faults.test_search_faults import (
    SEARCH,
    TRIALS,
    TWO,
    arena,
    in_artifact,
    nothing_left_of,
    undisturbed,
)
from tests.faults.test_secrets import hits, said_by

__all__ = ["arena", "undisturbed"]  # fixtures


@pytest.fixture
def database(postgres_uri: str) -> Iterator[Database]:
    with fresh_database(postgres_uri) as database:
        yield database


@pytest.fixture
def project(arena: Path) -> Path:
    edited(arena / "config/base.yaml", "storage: .lodestar/studies", "storage: ${STUDIES}")
    return arena


FEW = 14
QUICKER = (
    *("--set", f"hyperparameter_tuning.n_trials={FEW}"),
    *("--set", "model.hyperparameters.n_estimators=60"),
)

ENDED = """
SELECT a.value_json::int, t.state::text, v.value FROM trials t
JOIN trial_user_attributes a ON a.trial_id = t.trial_id AND a.key = 'slot'
LEFT JOIN trial_values v ON v.trial_id = t.trial_id
WHERE t.state IN ('COMPLETE', 'PRUNED')
"""


def acknowledged(database: Database) -> dict[int, tuple[str, float | None]]:
    """Slot → state and value of every trial that the server has. Read without Optuna."""
    if "trials" not in database.tables():
        return {}
    return {slot: (state.lower(), value) for slot, state, value in database.run(ENDED)}


def killed_once(
    lodestar: Lodestar, project: Path, database: Database, *options: str, after: int, wait: float
) -> Finished:
    env = {"STUDIES": database.uri}
    process = lodestar.start(*SEARCH, *options, "--json", cwd=project, env=env)
    with nothing_left_of(process) as look:
        deadline = time.monotonic() + 60
        while len(acknowledged(database)) < after and process.poll() is None:
            assert time.monotonic() < deadline, "the search does not get anywhere"
            look()
            time.sleep(0.05)
        time.sleep(wait)
        look()
        process.kill()
        return ended(process)


def whole(
    project: Path, done: Finished, before: dict[int, tuple[str, float | None]], trials: int
) -> None:
    """Exactly the budget, and every trial that the server had is in the history as it was."""
    history = in_artifact(project, done)["optimization_history"]
    assert [trial["number"] for trial in history] == list(range(trials))
    for slot, (state, value) in before.items():
        assert history[slot]["state"] == state
        assert value is None or history[slot]["value"] == value


@pytest.mark.faults
def test_two_workers_go_on_after_a_kill_and_nobody_has_seen_the_password(
    lodestar: Lodestar, project: Path, database: Database
) -> None:
    options = (*TWO, *QUICKER)
    killed = killed_once(lodestar, project, database, *options, after=4, wait=0.1)
    assert killed.code == -signal.SIGKILL
    before = acknowledged(database)
    env = {"STUDIES": database.uri}
    done = lodestar(*SEARCH, *options, "--resume", "--json", cwd=project, env=env).succeeded()
    whole(project, done, before, FEW)
    assert f"resumed after {len(before)} of {FEW} trials" in done.stderr
    assert set(acknowledged(database)) == set(range(FEW))
    assert not hits(project, database.password)
    assert not any(said_by(said, database.password) for said in (killed, done))


def test_a_server_that_is_down_is_an_error_in_time_without_the_password(
    lodestar: Lodestar, project: Path, database: Database
) -> None:
    down = database.uri.replace(f":{database.port}/", ":1/")
    began = time.monotonic()
    done = lodestar(*SEARCH, cwd=project, env={"STUDIES": down})
    done.refused(4, "the study breast_cancer-", "cannot be used", "hyperparameter_tuning.storage")
    assert time.monotonic() - began < 15 + 30  # of which most is the start of the command
    assert not said_by(done, database.password)


@pytest.mark.faults
@pytest.mark.parametrize("seed", range(5))
def test_in_postgres_as_in_a_journal_a_killed_search_comes_to_bitwise_the_same(
    lodestar: Lodestar, project: Path, database: Database, undisturbed: Finished, seed: int
) -> None:
    moment = random.Random(seed)  # noqa: S311 -- a moment, no secret
    killed_once(
        lodestar, project, database, after=moment.randrange(1, 30), wait=moment.uniform(0, 0.5)
    )
    before = acknowledged(database)
    env = {"STUDIES": database.uri}
    done = lodestar(*SEARCH, "--resume", "--json", cwd=project, env=env).succeeded()
    whole(project, done, before, TRIALS)
    assert done.json["tuning"]["best_params"] == undisturbed.json["tuning"]["best_params"]
    assert done.json["tuning"]["best_score"] == undisturbed.json["tuning"]["best_score"]
    assert done.json["metrics"] == undisturbed.json["metrics"]

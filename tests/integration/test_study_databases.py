"""Searches in a database: real fits, two workers, commands beside each other, servers that go away."""

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import replace
from pathlib import Path
from urllib.parse import urlsplit

import optuna
import pytest
from optuna.trial import TrialState
from tests.conftest import ROOT
from tests.databases import Database, fresh_database
from tests.faults.injector.proxy import Proxy
from tests.searching import Script, between, metric_of, problem_of, searched, searching

from lodestar.adapters.studies.database import opened_database
from lodestar.adapters.studies.keeper import opened_study
from lodestar.core.tuning.algorithms import pruner_of
from lodestar.core.tuning.result import SearchLimits, TuningResult
from lodestar.core.tuning.search import Search
from lodestar.errors import ExternalError, UsageError
from lodestar.interface.execution import TrialTask

NAME = "wine-0123abcd-4567"
LIMITS = SearchLimits(n_trials=12, seconds=60, candidates=2, splits=2)
SPACE = {"n_estimators": 5, "n_jobs": 1, "learning_rate": between(0.01, 0.5, log=True)}


@pytest.fixture
def database(postgres_uri: str) -> Iterator[Database]:
    with fresh_database(postgres_uri) as database:
        yield database


@pytest.fixture(params=["sqlite", "postgres"])
def storage(request: pytest.FixtureRequest) -> Iterator[str]:
    if request.param == "sqlite":
        yield "sqlite:///studies.db"
    else:
        with fresh_database(request.getfixturevalue("postgres_uri")) as database:
            yield database.uri


def study_in(
    project: Path, storage: str, *, name: str = NAME, resume: bool = False
) -> AbstractContextManager[optuna.Study]:
    return opened_study(
        storage, project, name=name, direction="maximize", pruner=pruner_of(LIMITS), resume=resume
    )


def add_trials(study: optuna.Study, count: int, *, then: Callable[[], None]) -> None:
    """So many trials, then what happens to the server, then one more."""
    for number in range(count + 1):
        if number == count:
            then()
        study.tell(study.ask(), 0.5)


def hill(task: TrialTask) -> float:
    """Best at x = 0.3; every split shifts it a little."""
    shift = (task.split_seed * 7919 % 101 - 50) / 5000
    return float(0.9 - (task.hyperparameters["x"] - 0.3) ** 2 + shift)


def playing(study: optuna.Study, script: Script, limits: SearchLimits = LIMITS) -> Search:
    return searching(script, {"x": between(-1, 1)}, metric_of("roc_auc"), limits, study=study)


def played(project: Path, storage: str, *, resume: bool = False) -> TuningResult:
    with study_in(project, storage, resume=resume) as study:
        return playing(study, Script(hill)).run()


KILLED = """
import os, signal, sys
from pathlib import Path
from tests.integration.test_study_databases import *

def fatal(task):
    if task.number == 7:
        os.kill(os.getpid(), signal.SIGKILL)
    return hill(task)

with study_in(Path(sys.argv[1]), os.environ["STORAGE"]) as study:
    playing(study, Script(fatal)).run()
"""


def run_killed(project: Path, storage: str) -> None:
    done = subprocess.run(
        [sys.executable, "-c", KILLED, str(project)],
        cwd=ROOT,
        env={**os.environ, "STORAGE": storage},
        check=False,
        timeout=60,
    )
    assert done.returncode == -9


def test_a_killed_search_goes_on_to_its_exact_budget_and_bitwise_the_same(
    tmp_path: Path, storage: str
) -> None:
    undisturbed = played(tmp_path, "studies")  # a journal: the storage makes no difference either
    run_killed(tmp_path, storage)
    with study_in(tmp_path, storage, resume=True) as study:
        assert len(study.trials) == 7
    resumed = played(tmp_path, storage, resume=True)
    assert [record.number for record in resumed.history] == list(range(12))
    assert "resumed after 7 of 12 trials" in resumed.notes
    assert resumed.best_params == undisturbed.best_params
    assert resumed.best_score == undisturbed.best_score
    with study_in(tmp_path, storage, resume=True) as study:
        assert all(trial.state.is_finished() for trial in study.trials)
        assert len(study.trials) == 12  # the one that was killed never was there


def test_a_trial_is_in_the_database_whole_as_soon_as_it_has_ended(
    tmp_path: Path, storage: str
) -> None:
    with study_in(tmp_path, storage) as study:
        for state in (TrialState.COMPLETE, TrialState.PRUNED, TrialState.FAIL):
            trial = study.ask({"x": optuna.distributions.FloatDistribution(0, 1)})
            trial.report(0.25, 10)
            trial.set_user_attr("slot", trial.number)
            study.tell(trial, 0.5 if state == TrialState.COMPLETE else None, state=state)
        study.set_user_attr("shared", [1, 2])
        study.ask()
        told = study.get_trials()[:3]
        with opened_database(storage, tmp_path, locks=tmp_path, name="a reader's") as database:
            (kept,) = database.get_all_studies()
            trials = database.get_all_trials(kept._study_id)
            assert database.get_study_user_attrs(kept._study_id) == {"shared": [1, 2]}
    assert [trial.state for trial in trials] == [trial.state for trial in told]
    for found, known in zip(trials, told, strict=True):
        assert (found.params, found.value) == (known.params, known.value)
        assert found.intermediate_values == {10: 0.25}
        assert found.user_attrs == known.user_attrs


def test_a_trial_that_others_left_running_gives_its_slot_back(tmp_path: Path, storage: str) -> None:
    """As Optuna's own storage leaves it, which writes while a trial runs."""
    with (
        study_in(tmp_path, storage),
        opened_database(storage, tmp_path, locks=tmp_path, name="an older one's") as database,
    ):
        theirs = optuna.load_study(study_name=NAME, storage=database)
        theirs.ask().set_user_attr("slot", 0)
    result = played(tmp_path, storage, resume=True)
    assert [record.number for record in result.history] == list(range(12))
    with study_in(tmp_path, storage, resume=True) as study:
        assert len(study.trials) == 12


def test_a_sequence_goes_on_where_it_was(tmp_path: Path, storage: str) -> None:
    limits = replace(LIMITS, sampler="QMCSampler")
    for trials in (8, 16):
        with study_in(tmp_path, storage, resume=trials > 8) as study:
            result = playing(study, Script(hill), replace(limits, n_trials=trials)).run()
    assert len({record.params["x"] for record in result.history}) == 16


def test_two_workers_fill_a_study_in_a_database(tmp_path: Path, storage: str) -> None:
    with study_in(tmp_path, storage) as study:
        result = searched(problem_of(), SPACE, LIMITS, study=study, workers=2)
    assert [record.number for record in result.history] == list(range(12))
    assert result.count("failed") == 0


BESIDE = """
import os, sys
from pathlib import Path
from tests.integration.test_study_databases import *
with study_in(Path(sys.argv[1]), os.environ["STORAGE"], name=sys.argv[2]) as study:
    print("open", flush=True)
    sys.stdin.readline()
    assert len(playing(study, Script(hill)).run().history) == 12
"""


def beside(project: Path, storage: str, name: str) -> "subprocess.Popen[str]":
    return subprocess.Popen(
        [sys.executable, "-c", BESIDE, str(project), name],
        cwd=ROOT,
        env={**os.environ, "STORAGE": storage},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


@pytest.mark.faults
def test_two_recipes_start_in_an_empty_database_at_once_and_do_not_meet(
    tmp_path: Path, storage: str
) -> None:
    names = ["wine-1", "diabetes-1"]
    commands = [beside(tmp_path, storage, name) for name in names]
    for command in commands:
        assert command.stdout is not None
        assert command.stdout.readline() == "open\n"
    said = [command.communicate("go\n", timeout=60)[1] for command in commands]
    assert [command.returncode for command in commands] == [0, 0], said
    for name in names:
        with study_in(tmp_path, storage, name=name, resume=True) as study:
            assert len(study.trials) == 12


def test_in_postgres_no_other_machine_runs_the_same_study(
    tmp_path: Path, database: Database
) -> None:
    # Another project's folder has locks of its own, as another machine's has.
    here, there = tmp_path / "here", tmp_path / "there"
    with study_in(here, database.uri):
        for resume in (True, False):
            with (
                pytest.raises(ExternalError, match="another command is running the search"),
                study_in(there, database.uri, resume=resume),
            ):
                pass
        with study_in(there, database.uri, name="wine-another"):
            pass
    with study_in(there, database.uri, resume=True):
        pass


def test_a_relative_sqlite_path_is_below_the_project(tmp_path: Path) -> None:
    with study_in(tmp_path / "project", "sqlite:///studies.db"):
        assert (tmp_path / "project/studies.db").is_file()


@pytest.mark.parametrize("url", ["sqlite://", "sqlite:///:memory:"])
def test_a_sqlite_url_without_a_file_would_keep_nothing(tmp_path: Path, url: str) -> None:
    with pytest.raises(UsageError, match="needs a file"), study_in(tmp_path, url):
        pass


CANARY = "canary-p4ssw0rd"


@pytest.mark.parametrize(
    "url",
    [
        f"postgresql://me:{CANARY}@@127.0.0.1:1/db",
        f"postgresql://me:x@{CANARY}@127.0.0.1:1/db",
        f"postgresql://me@127.0.0.1:{CANARY}/db",
        f"postgresql:///{CANARY}://",
    ],
)
def test_of_a_url_that_cannot_be_read_nothing_is_shown(tmp_path: Path, url: str) -> None:
    with pytest.raises((UsageError, ExternalError)) as caught, study_in(tmp_path, url):
        pass
    assert CANARY not in str(caught.value)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"password": CANARY}, "password authentication failed"),
        ({"database": CANARY}, "does not exist"),
        ({"host": "host.invalid", "password": CANARY}, "host.invalid"),
    ],
)
def test_a_database_that_refuses_is_an_error_without_the_password(
    tmp_path: Path, database: Database, change: dict[str, str], words: str
) -> None:
    there = urlsplit(database.uri)
    host = f"{change.get('host', there.hostname)}:{there.port}"
    secret = change.get("password", database.password)
    name = change.get("database", "lodestar")
    url = f"postgresql://{there.username}:{secret}@{host}/{name}"
    with pytest.raises(ExternalError, match=words) as caught, study_in(tmp_path, url):
        pass
    assert secret not in str(caught.value)
    assert "hyperparameter_tuning.storage" in str(caught.value)


@pytest.mark.faults
def test_a_server_that_is_down_or_silent_is_an_error_in_time(
    tmp_path: Path, database: Database
) -> None:
    with Proxy("127.0.0.1", database.port) as proxy:
        url = database.uri.replace(f":{database.port}/", f":{proxy.port}/")
        for refuses in (False, True):
            proxy.frozen = True
            if refuses:
                proxy.refuse()
            began = time.monotonic()
            with (
                pytest.raises(ExternalError, match="cannot be used") as caught,
                study_in(tmp_path, url),
            ):
                pass
            assert time.monotonic() - began < 15
            assert database.password not in str(caught.value)


def test_a_server_that_goes_away_loses_nothing_of_what_it_had(
    tmp_path: Path, database: Database
) -> None:
    with Proxy("127.0.0.1", database.port) as proxy:
        url = database.uri.replace(f":{database.port}/", f":{proxy.port}/")
        with (
            pytest.raises(ExternalError, match="cannot be used") as caught,
            study_in(tmp_path, url) as study,
        ):
            add_trials(study, 3, then=proxy.refuse)
        assert "train --resume" in str(caught.value)
        assert database.password not in str(caught.value)
        proxy.listen()
        with study_in(tmp_path, url, resume=True) as study:
            assert [trial.value for trial in study.get_trials()] == [0.5, 0.5, 0.5]


@pytest.mark.faults
def test_a_server_that_stops_without_a_word_does_not_hang_the_search(
    tmp_path: Path, database: Database
) -> None:
    with Proxy("127.0.0.1", database.port) as proxy:
        url = database.uri.replace(f":{database.port}/", f":{proxy.port}/")
        began = time.monotonic()
        with (
            pytest.raises(ExternalError, match="fell silent for 30 s"),
            study_in(tmp_path, url) as study,
        ):
            add_trials(study, 1, then=lambda: setattr(proxy, "frozen", True))
        assert 25 < time.monotonic() - began < 45
        assert proxy.held > 0

"""Where a search is kept: a journal or a database that survives its writer, and has only one."""

import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import AbstractContextManager
from pathlib import Path

import optuna
import pytest
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend
from tests.conftest import ROOT
from tests.databases import fresh_database

from lodestar.adapters.studies.database import opened_database
from lodestar.adapters.studies.keeper import opened_study
from lodestar.core.tuning.algorithms import pruner_of
from lodestar.core.tuning.result import SearchLimits
from lodestar.errors import ExternalError, UsageError

NAME = "wine-0123abcd-4567"
SPACE: dict[str, optuna.distributions.BaseDistribution] = {
    "x": optuna.distributions.FloatDistribution(0, 1)
}


def study_in(
    project: Path, *, storage: str = "studies", resume: bool = False
) -> AbstractContextManager[optuna.Study]:
    return opened_study(
        storage,
        project,
        name=NAME,
        direction="maximize",
        pruner=pruner_of(SearchLimits(n_trials=1, seconds=1)),
        resume=resume,
    )


def add_trials(study: optuna.Study, count: int) -> list[float]:
    values = []
    for _ in range(count):
        trial = study.ask(SPACE)
        study.tell(trial, trial.params["x"])
        values.append(trial.params["x"])
    return values


def values_of(study: optuna.Study) -> list[float | None]:
    return [trial.value for trial in study.get_trials()]


@pytest.fixture(params=["journal", "sqlite", "postgres"])
def storage(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    if request.param == "postgres":
        with fresh_database(request.getfixturevalue("postgres_uri")) as database:
            yield database.uri
    else:
        yield {"journal": "studies", "sqlite": f"sqlite:///{tmp_path}/studies.db"}[request.param]


def test_a_study_is_resumed_as_it_was_left(tmp_path: Path, storage: str) -> None:
    with study_in(tmp_path, storage=storage) as study:
        values = add_trials(study, 3)
    with study_in(tmp_path, storage=storage, resume=True) as study:
        assert values_of(study) == values
        assert study.direction == optuna.study.StudyDirection.MAXIMIZE
        values += add_trials(study, 1)
    with study_in(tmp_path, storage=storage, resume=True) as study:
        assert values_of(study) == values


def test_a_new_search_leaves_the_old_one_where_it_can_be_found(
    tmp_path: Path, storage: str
) -> None:
    for count in (2, 3, 4):
        with study_in(tmp_path, storage=storage) as study:
            assert values_of(study) == []
            add_trials(study, count)
    with study_in(tmp_path, storage=storage, resume=True) as study:
        assert len(study.trials) == 4
    if storage == "studies":
        assert len(list((tmp_path / "studies").glob(f"{NAME}*.journal"))) == 3
    else:
        with opened_database(storage, tmp_path, locks=tmp_path, name="nobody's") as database:
            names = [study.study_name for study in database.get_all_studies()]
        assert len(names) == 3
        assert all(name.startswith(NAME) for name in names)


def test_there_is_nothing_to_resume_before_the_first_search(tmp_path: Path, storage: str) -> None:
    with (
        pytest.raises(UsageError, match="there is no search wine-0123abcd-4567 to resume"),
        study_in(tmp_path, storage=storage, resume=True),
    ):
        pass


def test_a_second_command_on_the_same_study_is_refused(tmp_path: Path, storage: str) -> None:
    with study_in(tmp_path, storage=storage) as study:
        add_trials(study, 1)
        for resume in (True, False):
            with (
                pytest.raises(ExternalError, match="another command is running the search"),
                study_in(tmp_path, storage=storage, resume=resume),
            ):
                pass
    with study_in(tmp_path, storage=storage, resume=True) as study:
        assert len(study.trials) == 1


def test_the_lock_of_a_killed_command_holds_nobody_up(tmp_path: Path) -> None:
    script = (
        "import os, signal\nfrom pathlib import Path\nfrom tests.unit.test_search_studies import *\n"
        f"with study_in(Path({str(tmp_path)!r})) as study:\n"
        "    add_trials(study, 2)\n    study.ask(SPACE)\n    os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, check=False)
    assert done.returncode == -9
    with study_in(tmp_path, resume=True) as study:
        assert [trial.state.name for trial in study.get_trials()] == [
            *("COMPLETE", "COMPLETE", "RUNNING")
        ]


def journal(project: Path) -> Path:
    return project / "studies" / f"{NAME}.journal"


def test_a_last_line_that_a_kill_cut_short_is_mended(tmp_path: Path) -> None:
    with study_in(tmp_path) as study:
        values = add_trials(study, 3)
    path = journal(tmp_path)
    whole = path.read_bytes()
    for cut in (1, 7, 40):
        path.write_bytes(whole + whole.splitlines(keepends=True)[-1][:cut])
        with study_in(tmp_path, resume=True) as study:
            assert values_of(study) == values
        assert path.read_bytes() == whole


@pytest.mark.parametrize("garbage", [b"\0\0\0\n", b'{"op_code": 4, "tri\n', b"\xff\xfe\n"])
def test_a_damaged_line_is_refused_by_its_number(tmp_path: Path, garbage: bytes) -> None:
    with study_in(tmp_path) as study:
        add_trials(study, 2)
    path = journal(tmp_path)
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join([*lines[:2], garbage, *lines[2:]]))
    before = path.read_bytes()
    with (
        pytest.raises(ExternalError, match="damaged in line 3") as caught,
        study_in(tmp_path, resume=True),
    ):
        pass
    assert str(path) in str(caught.value)
    assert path.read_bytes() == before


@pytest.mark.parametrize(
    "content", ["5\n", "{}\n", '["a"]\n', '{"op_code": 99, "worker_id": "a"}\n']
)
def test_a_file_that_is_no_journal_is_refused(tmp_path: Path, content: str) -> None:
    journal(tmp_path).parent.mkdir()
    journal(tmp_path).write_text(content, encoding="utf-8")
    with (
        pytest.raises((ExternalError, UsageError), match=NAME),
        study_in(tmp_path, resume=True),
    ):
        pass


def test_a_place_that_cannot_be_written_is_an_error_of_the_config(tmp_path: Path) -> None:
    (tmp_path / "studies").write_text("a file is in the way", encoding="utf-8")
    with (
        pytest.raises(ExternalError, match="cannot be kept in") as caught,
        study_in(tmp_path),
    ):
        pass
    assert "hyperparameter_tuning.storage" in str(caught.value)


def test_a_full_disk_is_said_and_can_be_resumed(tmp_path: Path) -> None:
    with study_in(tmp_path) as study:
        values = add_trials(study, 1)
    script = (
        "import resource\nfrom pathlib import Path\nimport pytest\n"
        "from lodestar.errors import ExternalError\nimport signal\n"
        "from tests.unit.test_search_studies import *\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        f"size = journal(Path({str(tmp_path)!r})).stat().st_size\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (size + 30, size + 30))\n"
        "with pytest.raises(ExternalError, match='cannot be written'):\n"
        f"    with study_in(Path({str(tmp_path)!r}), resume=True) as study:\n"
        "        add_trials(study, 1)\n"
    )
    subprocess.run([sys.executable, "-c", script], cwd=ROOT, check=True)
    with study_in(tmp_path, resume=True) as study:
        assert values_of(study)[:1] == values


@pytest.mark.parametrize(
    "url", ["sqlite:////no/such/folder/studies.db", "nosuch://me:hunter2@host/base"]
)
def test_a_database_that_cannot_be_opened_is_an_error_without_its_password(
    tmp_path: Path, url: str
) -> None:
    with (
        pytest.raises(ExternalError, match="cannot be used") as caught,
        study_in(tmp_path, storage=url),
    ):
        pass
    assert "hunter2" not in str(caught.value)


def test_optunas_own_tools_open_the_journal_while_it_is_written(tmp_path: Path) -> None:
    with study_in(tmp_path) as study:
        values = add_trials(study, 2)
        # As optuna-dashboard does it: by the file alone.
        kept = JournalStorage(JournalFileBackend(str(journal(tmp_path))))
        (summary,) = optuna.get_all_study_summaries(kept)
        assert summary.study_name == NAME
        assert values_of(optuna.load_study(study_name=NAME, storage=kept)) == values
    assert all(json.loads(line) for line in journal(tmp_path).read_text().splitlines())

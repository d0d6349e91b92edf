"""No secret and no machine in what a run leaves behind or says."""

import base64
import io
import json
import pickletools
import socket
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from urllib.parse import quote

import pytest
from tests.conftest import SMALL, Finished, Lodestar, Trained, edited

CANARY = "CANARY/p@ss:w%rd"


def disguises(secret: str) -> set[bytes]:
    """The secret as it is, url-quoted, and in base64 at each of the three alignments."""
    plain = secret.encode()
    found = {plain, quote(secret, safe="").encode(), quote(secret).encode(), repr(secret).encode()}
    for shift in range(3):
        encoded = base64.b64encode(b"x" * shift + plain)
        found.add(encoded[4 if shift else 0 : -4])
    return found


def contents(folder: Path) -> Iterator[tuple[str, bytes]]:
    """Every file; the members of zips and the strings of pickles as well."""
    for path in folder.rglob("*"):
        if path.is_file():
            yield from _opened(path.relative_to(folder).as_posix(), path.read_bytes())


def _opened(name: str, content: bytes) -> Iterator[tuple[str, bytes]]:
    yield name, content
    if name.endswith(".pkl"):
        for opcode, value, _ in pickletools.genops(content):
            if isinstance(value, str | bytes):
                text = value.encode() if isinstance(value, str) else value
                yield f"{name}:{opcode.name}", text
    if zipfile.is_zipfile(io.BytesIO(content)):
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            for member in archive.namelist():
                yield f"{name}/{member}", archive.read(member)


def hits(folder: Path, *secrets: str) -> list[str]:
    wanted = {word for secret in secrets for word in disguises(secret)}
    return [name for name, content in contents(folder) if any(word in content for word in wanted)]


def said_by(done: Finished, secret: str) -> bool:
    text = (done.stdout + done.stderr).encode()
    return any(word in text for word in disguises(secret))


def test_the_search_for_secrets_finds_them_in_every_disguise(tmp_path: Path) -> None:
    import pickle

    (tmp_path / "plain.txt").write_text(f"a {CANARY} b", encoding="utf-8")
    (tmp_path / "quoted.txt").write_text(quote(CANARY, safe=""), encoding="utf-8")
    for shift in range(3):
        encoded = base64.b64encode(b"yyyyyyy"[: 3 + shift] + CANARY.encode() + b" and more")
        (tmp_path / f"base64-{shift}.txt").write_bytes(encoded)
    (tmp_path / "model.pkl").write_bytes(pickle.dumps({"a": CANARY}))
    with zipfile.ZipFile(tmp_path / "model.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("inside.txt", CANARY)
    assert {name.split(":")[0] for name in hits(tmp_path, CANARY)} == {
        *(f"base64-{shift}.txt" for shift in range(3)),
        *("plain.txt", "quoted.txt", "model.pkl", "model.zip/inside.txt"),
    }


def test_a_secret_of_the_config_is_nowhere_after_a_training(
    lodestar: Lodestar, new_project: Path
) -> None:
    # The only place that LOCAL has for a secret; SQLite takes any query part.
    edited(
        new_project / "config/base.yaml",
        "tracking_uri: sqlite:///mlruns/mlflow.db",
        "tracking_uri: ${TRACKING}",
    )
    env = {
        "TRACKING": f"sqlite:///mlruns/mlflow.db?password={quote(CANARY, safe='')}",
        "UNUSED_PASSWORD": CANARY,
    }
    train = lodestar("train", "-r", "wine", *SMALL, "--json", cwd=new_project, env=env).succeeded()
    run_id = train.json["run_id"]
    others = [
        lodestar(*args, cwd=new_project, env=env).succeeded()
        for args in (
            ("batch-inference", "--run-id", run_id, "--json"),
            ("runs", "show", run_id),
            ("train", "--help"),
        )
    ]
    for done in (train, *others):
        assert not said_by(done, CANARY)
    assert hits(new_project / "mlruns/artifacts", CANARY) == []
    assert hits(new_project / "outputs", CANARY) == []
    # The files that were searched are those of the run.
    report = new_project / train.json["report"]
    assert report.is_relative_to(new_project / "mlruns/artifacts")
    assert report.is_file()


@pytest.mark.parametrize(
    "uri",
    [
        "postgresql://user:{}@127.0.0.1:9/db",
        "mysql://user:{}@127.0.0.1:9/db",
        "unheard-of://user:{}@host/db",
        "unheard-of://host/db?password={}",
        "sqlite:////proc/nowhere/db?password={}",
    ],
)
def test_a_tracking_address_that_fails_is_not_repeated_in_the_error(
    lodestar: Lodestar, project: Path, uri: str
) -> None:
    edited(
        project / "config/base.yaml",
        "tracking_uri: sqlite:///mlruns/mlflow.db",
        "tracking_uri: ${TRACKING}",
    )
    env = {"TRACKING": uri.format(quote(CANARY, safe=""))}
    done = lodestar("runs", "list", "--json", cwd=project, env=env).refused(4)
    assert not said_by(done, CANARY)


def test_a_database_that_does_not_answer_is_told_at_once_and_without_its_password(
    lodestar: Lodestar, project: Path
) -> None:
    base = project / "config/base.yaml"
    edited(base, "tracking_uri: sqlite:///mlruns/mlflow.db", "tracking_uri: ${TRACKING}")
    address = "postgresql+psycopg://user:{}@127.0.0.1:9/db"
    env = {"TRACKING": address.format(CANARY)}
    done = lodestar("runs", "list", cwd=project, env=env).refused(2, "%2F %40 %3A %25")
    assert not said_by(done, CANARY)
    env = {"TRACKING": address.format(quote(CANARY, safe=""))}
    done = lodestar("runs", "list", cwd=project, env=env)
    done.refused(4, "the tracking database at 127.0.0.1:9 does not answer: Connection refused")
    assert "retried" not in done.stderr
    assert not said_by(done, CANARY)


def test_a_wrong_setting_does_not_repeat_its_value(lodestar: Lodestar, project: Path) -> None:
    base = project / "config/base.yaml"
    edited(base, "tracking_uri: sqlite:///mlruns/mlflow.db", "tracking_uri: ['${SECRET}']")
    edited(base, "serving: blocked", "serving: ${SECRET}")
    done = lodestar("train", "-r", "wine", "--json", cwd=project, env={"SECRET": CANARY})
    done.refused(2, "mlflow.tracking_uri", "environment.serving")
    assert not said_by(done, CANARY)


def test_a_variable_in_a_recipe_stays_a_name(lodestar: Lodestar, project: Path) -> None:
    recipe = project / "recipes/wine.yaml"
    edited(recipe, "data_interface:\n", "# signed by ${SIGNATURE}\ndata_interface:\n")
    env = {"SIGNATURE": CANARY}
    done = lodestar("train", "-r", "wine", *SMALL, "--json", cwd=project, env=env).succeeded()
    run = Trained(project, done.json)
    kept = json.loads((run.artifact / "lodestar/contents.json").read_text(encoding="utf-8"))
    assert "${SIGNATURE}" in kept["recipe_yaml_snapshot"]
    assert hits(project / "mlruns", CANARY) == []


@pytest.mark.parametrize("recipe", ["breast_cancer", "diabetes", "wine"])
def test_an_artifact_knows_no_machine(trained: Callable[..., Trained], recipe: str) -> None:
    run = trained(recipe)
    here = {str(run.project), str(Path.home()), str(Path(__file__).parents[2]), "/tmp/"}  # noqa: S108 -- only looked for
    for name, content in contents(run.artifact):
        for place in here:
            assert place.encode() not in content, f"{place} in {name}"
        if not name.startswith("code/"):  # our own source may well contain a short host name
            assert socket.gethostname().encode() not in content.split(), name
            assert b"sqlite:" not in content, name

"""Which variables a config reads, and that no secret stands in what an image gets."""

from pathlib import Path

import pytest

from lodestar.deploy.variables import (
    config_files,
    needed_variables,
    plain_variables,
    refuse_secrets,
    with_stand_ins,
)
from lodestar.errors import SettingsError, UsageError

CANARY = "CANARY-4711"


def write(project: Path, base: str, prod: str = "{}\n") -> None:
    (project / "config").mkdir()
    (project / "config/base.yaml").write_text(base, encoding="utf-8")
    (project / "config/prod.yaml").write_text(prod, encoding="utf-8")


def test_variables_of_both_files_without_those_that_have_a_default(tmp_path: Path) -> None:
    write(
        tmp_path,
        "a: ${BASE}\nb: ${WITH:default}\n# ${COMMENT}\n",
        'c: {d: ["${ONE}", "x${TWO}y${ONE}"], e: "${EMPTY:}"}\n',
    )
    assert needed_variables(tmp_path, "prod") == ("BASE", "EMPTY", "ONE", "TWO")
    assert needed_variables(tmp_path, "local") == ("BASE",)
    assert config_files("prod") == ("config/base.yaml", "config/prod.yaml")


@pytest.mark.parametrize(
    "line",
    [
        f"a: postgresql://user:{CANARY}@host/db",
        f"a: rediss://:{CANARY}@host:6379/0",
        f"a: ${{URI:redis://:{CANARY}@host}}",
        f"a: [x, 'sqlite:///db?password={CANARY}']",
        f"serving: {{authentication: {{jwt: {{key: {CANARY}}}}}}}",
        f"serving: {{authentication: {{jwt: {{key: '${{KEY:{CANARY}}}'}}}}}}",
    ],
)
def test_a_secret_in_the_config_is_refused_and_not_repeated(tmp_path: Path, line: str) -> None:
    write(tmp_path, "a: 1\n", f"{line}\n")
    with pytest.raises(SettingsError, match="a secret stands in the file") as raised:
        refuse_secrets(tmp_path, "prod")
    assert CANARY not in str(raised.value)
    assert "config/prod.yaml:1:" in str(raised.value)


@pytest.mark.parametrize(
    "line",
    [
        "a: ${URI}",
        "a: postgresql://user:${PASSWORD}@host/db",
        "a: http://host:5000/path",
        "a: redis://host:6379/0?timeout=1",
        f"serving: {{authentication: {{api_keys: [{'a' * 64}]}}}}",
        "serving: {authentication: {jwt: {key: '-----BEGIN PUBLIC KEY-----x'}}}",
    ],
)
def test_what_is_no_secret_may_stand_there(tmp_path: Path, line: str) -> None:
    write(tmp_path, f"{line}\n")
    refuse_secrets(tmp_path, "local")


def test_variables_of_the_command_line() -> None:
    assert plain_variables(["A=1", "B", "C=x=y"], ("D",)) == ({"A": "1", "C": "x=y"}, ("B", "D"))


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ("D=value", "for all to read"),
        ("A=redis://:secret@host", "for all to read"),
        ("1A=x", "is no name"),
        ("=x", "is no name"),
        ("A B", "is no name"),
    ],
)
def test_a_secret_has_no_value_on_the_command_line(given: str, words: str) -> None:
    with pytest.raises(UsageError, match=words) as raised:
        plain_variables([given], ("D",))
    assert "secret@" not in str(raised.value)


def test_secrets_that_are_not_set_get_a_stand_in_and_nothing_else_does(tmp_path: Path) -> None:
    write(
        tmp_path,
        "mlflow: {tracking_uri: '${TRACKING}'}\ndata: {root: '${ROOT}', postgres: {uri: '${SQL}'}}\n",
        "serving:\n"
        "  workers: ${WORKERS}\n"
        "  authentication: {api_keys: ['${KEY}', '${SET}', '${FILE}', '${BOTH}'], jwt: {key: '${J}'}}\n"
        "feature_store: {redis: {uri: '${REDIS}', ca_file: '${BOTH}'}, feast: {online: '${O:redis}'}}\n",
    )
    (tmp_path / ".lodestar").mkdir()
    (tmp_path / ".lodestar/infra.env").write_text("FILE=kept\n", encoding="utf-8")
    found = with_stand_ins(tmp_path, "prod", {"SET": "given"})
    assert {name for name, value in found.items() if value == "0" * 64} == {
        *("J", "KEY", "REDIS", "SQL"),
    }
    assert (found["SET"], found["FILE"]) == ("given", "kept")
    assert not {"TRACKING", "ROOT", "WORKERS", "BOTH", "O"} & set(found)


def test_an_environment_without_a_file_is_told_by_whoever_loads_it(tmp_path: Path) -> None:
    write(tmp_path, "a: ${A}\n")
    assert with_stand_ins(tmp_path, "none", {"B": "1"}) == {"B": "1"}

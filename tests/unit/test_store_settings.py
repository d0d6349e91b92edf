"""The config's sections for object stores, read as a project's files are."""

from pathlib import Path

import pytest

from lodestar.errors import SettingsError
from lodestar.settings.config import Config
from lodestar.settings.loading import load_config

BASE = """\
environment: {augmenter: pass_through, serving: blocked}
data: {adapter: duckdb, root: data, snapshots: data/snapshots}
mlflow: {experiment_name: t, tracking_uri: "sqlite:///mlruns/m.db", artifact_root: mlruns/a}
model: {allowed_modules: ["*"]}
output: {root: outputs}
"""


def loaded(tmp_path: Path, section: str, **variables: str) -> Config:
    (tmp_path / "config").mkdir(exist_ok=True)
    (tmp_path / "config/base.yaml").write_text(BASE, encoding="utf-8")
    (tmp_path / "config/far.yaml").write_text(f"data:\n  {section}\n", encoding="utf-8")
    return load_config(tmp_path, "far", variables=variables).config


def test_without_a_section_the_libraries_chains_count(tmp_path: Path) -> None:
    data = loaded(tmp_path, "root: elsewhere").data
    assert not data.s3.anonymous
    assert data.s3.access_key_id is data.gcs.credentials is data.azure.account_key is None
    assert (data.s3.connect_timeout, data.s3.read_timeout, data.s3.attempts) == (5, 30, 4)


def test_secrets_come_from_variables_and_hide_themselves(tmp_path: Path) -> None:
    section = "s3: {access_key_id: '${U}', secret_access_key: '${P}', attempts: '${N}'}"
    config = loaded(tmp_path, section, U="me", P="CANARY", N="7")
    assert config.data.s3.secret_access_key is not None
    assert config.data.s3.secret_access_key.get_secret_value() == "CANARY"
    assert config.data.s3.attempts == 7
    assert "CANARY" not in repr(config) + str(config.model_dump())


@pytest.mark.parametrize(
    ("section", "words"),
    [
        ("s3: {access_key_id: a}", "go together"),
        ("s3: {session_token: a}", "goes with access_key_id"),
        ("s3: {anonymous: true, profile: p}", "one of anonymous, profile and access_key_id"),
        ("s3: {encryption: {kind: AES256, kms_key_id: k}}", "kms_key_id goes with aws:kms"),
        ("s3: {encryption: {kind: rot13}}", "none of the choices"),
        ("s3: {endpoint_url: minio:9000}", "must be http://host:port"),
        ("s3: {endpoint_url: 'http://me:CANARY@minio'}", "no user, password or query"),
        ("s3: {regoin: x}", "unknown key 'regoin'"),
        ("s3: {attempts: 0}", "greater than or equal to 1"),
        ("s3: {connect_timeout: 61}", "less than or equal to 60"),
        ("gcs: {anonymous: true, credentials: CANARY}", "one of anonymous and credentials"),
        ("azure: {account_key: CANARY, sas_token: CANARY}", "one of anonymous, account_key"),
        ("azure: {connection_string: CANARY, account: a}", "leave account and endpoint_url out"),
        ("options: {shelf: 5}", "must be a mapping"),
    ],
)
def test_what_cannot_be_is_told_with_its_place(tmp_path: Path, section: str, words: str) -> None:
    with pytest.raises(SettingsError) as caught:
        loaded(tmp_path, section)
    said = str(caught.value)
    assert words in said
    assert "config/far.yaml:2:data." in said
    assert "CANARY" not in said

"""The config's section of alerts: what is refused, in words that repeat no secret."""

from pathlib import Path

import pytest

from lodestar.errors import SettingsError
from lodestar.settings.alerts import Alerts, EmailChannel, WebhookChannel
from lodestar.settings.loading import load_config

BASE = """\
environment: {augmenter: pass_through, serving: blocked}
data: {adapter: duckdb, root: data, snapshots: data/snapshots}
mlflow: {experiment_name: t, tracking_uri: "sqlite:///mlruns/m.db", artifact_root: mlruns/a}
model: {allowed_modules: ["*"]}
output: {root: outputs}
"""
HOOK = "kind: webhook, url: '${HOOK}'"
MAIL = "kind: email, host: mail, from: a@b.c, to: [d@e.f]"


def loaded(tmp_path: Path, section: str, **variables: str) -> Alerts:
    (tmp_path / "config").mkdir(exist_ok=True)
    (tmp_path / "config/base.yaml").write_text(BASE, encoding="utf-8")
    (tmp_path / "config/prod.yaml").write_text(f"alerts: {section}\n", encoding="utf-8")
    return load_config(tmp_path, "prod", variables=variables).config.alerts


def refused(tmp_path: Path, section: str, **variables: str) -> str:
    with pytest.raises(SettingsError) as caught:
        loaded(tmp_path, section, **variables)
    return str(caught.value)


def rule(text: str) -> str:
    return f"{{rules: [{{name: r, {text}}}]}}"


def channel(text: str) -> str:
    return f"{{channels: {{team: {{{text}}}}}}}"


def test_there_are_none_without_the_section(tmp_path: Path) -> None:
    assert loaded(tmp_path, "{}") == Alerts()


@pytest.mark.parametrize(
    ("text", "seconds"), [("90", 90), ("90s", 90), ("15m", 900), ("1.5h", 5_400), ("2d", 172_800)]
)
def test_durations_have_units(tmp_path: Path, text: str, seconds: float) -> None:
    section = rule(f"metric: drift.psi, above: 1, for: {text}, window: {text}, repeat: {text}")
    (found,) = loaded(tmp_path, section).rules
    assert (found.for_, found.window, found.repeat) == (seconds, seconds, seconds)


@pytest.mark.parametrize(
    "metric",
    [
        *("performance.accuracy", "performance.change.rmse", "performance.degraded"),
        *("drift.columns", "drift.psi", "labels.accuracy", "features.lag_seconds"),
    ],
)
def test_metrics_of_every_family_can_be_watched(tmp_path: Path, metric: str) -> None:
    assert loaded(tmp_path, rule(f"metric: {metric}, below: 0.8")).rules[0].metric == metric


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("metric: drift.psi", "a rule has either above or below"),
        ("metric: drift.psi, above: 1, below: 2", "a rule has either above or below"),
        ("metric: drift.pssi, above: 1", "nothing is measured under this name; valid: "),
        ("metric: accuracy, above: 1", "performance.<name>"),
        ("metric: drift.psi, above: 1, for: soon", "a number with s, m, h or d"),
        ("metric: drift.psi, above: 1, for: true", "a number with s, m, h or d"),
        ("metric: drift.psi, above: 1, over: mean", "over: mean needs a window"),
        ("metric: drift.psi, above: 1, severity: loud", "'info', 'warning' or 'critical'"),
        ("metric: drift.psi, above: 1, channels: [nobody]", "there is no channel 'nobody'"),
        ("metric: drift.psi, above: 1, fro: 15m", "unknown key 'fro'"),
        ("metric: drift.psi, above: true", "must be a number"),
    ],
)
def test_a_rule_that_cannot_be_meant_is_refused(tmp_path: Path, text: str, words: str) -> None:
    said = refused(tmp_path, rule(text))
    assert words in said
    assert "prod.yaml:1:alerts" in said


def test_a_misspelt_key_is_answered_with_the_name_that_yaml_has(tmp_path: Path) -> None:
    assert "did you mean 'for'?" in refused(tmp_path, rule("metric: drift.psi, above: 1, fr: 1m"))


def test_two_rules_have_two_names(tmp_path: Path) -> None:
    one = "{name: r, metric: drift.psi, above: 1}"
    assert "two rules are called 'r'" in refused(tmp_path, f"{{rules: [{one}, {one}]}}")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("url: 'http://x'", "a channel needs its kind: log, webhook or email"),
        ("kind: pager, url: 'http://x'", "a channel needs its kind: log, webhook or email"),
        ("kind: webhook", "the key 'url' is missing"),
        (f"{HOOK}, format: teams", "'json' or 'slack'"),
        (f"{MAIL}, user: u", "user and password go together"),
        (f"{MAIL}, user: u, password: '${{HOOK}}', security: none", "not sent without encryption"),
        ("kind: email, host: mail, from: nobody, to: [d@e.f]", "must be name@host"),
        ("kind: email, host: mail, from: a@b.c, to: []", "at least 1 item"),
    ],
)
def test_a_channel_that_cannot_work_is_refused(tmp_path: Path, text: str, words: str) -> None:
    said = refused(tmp_path, channel(text), HOOK="https://example.com/CANARY")
    assert words in said
    assert "alerts.channels.team" in said
    assert "CANARY" not in said


@pytest.mark.parametrize(
    "url", ["CANARY", "ftp://x/CANARY", "https:///CANARY", "http://x/CANARY y", "http://[CANARY"]
)
def test_an_address_that_is_none_is_not_repeated(tmp_path: Path, url: str) -> None:
    said = refused(tmp_path, channel(HOOK), HOOK=url)
    assert "prod.yaml:1:alerts.channels.team.url: must be http://host… or https://host…" in said
    assert "CANARY" not in said


def test_secrets_come_from_variables_and_hide_themselves(tmp_path: Path) -> None:
    section = (
        "{channels: {"
        f"a: {{{HOOK}, headers: {{authorization: '${{TOKEN}}'}}}}, "
        f"b: {{{MAIL}, user: '${{TOKEN}}', password: '${{TOKEN}}'}}}}}}"
    )
    variables = {"HOOK": "https://hooks.example.com/CANARY", "TOKEN": "CANARY"}
    alerts = loaded(tmp_path, section, **variables)
    hook, mail = alerts.channels["a"], alerts.channels["b"]
    assert isinstance(hook, WebhookChannel)
    assert hook.url.get_secret_value() == variables["HOOK"]
    assert isinstance(mail, EmailChannel)
    assert mail.password is not None
    assert mail.password.get_secret_value() == "CANARY"
    assert "CANARY" not in repr(alerts) + str(alerts.model_dump())
    del variables["HOOK"]
    assert "the environment variable HOOK is not set" in refused(tmp_path, section, **variables)

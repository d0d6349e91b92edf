"""Alerts from measurement to message: told once over many processes, kills and channels that fail."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from tests.alert_servers import certificate, eventually, hook, nobody_there, post_office

from lodestar.adapters.alerts.files import AlertFiles
from lodestar.core.alerts.readings import Measured, Series
from lodestar.errors import ExternalError, UsageError
from lodestar.factory.alerts import Alerting, AlertOutcome
from lodestar.settings.loading import load_config

BASE = """\
environment: {augmenter: pass_through, serving: blocked}
data: {adapter: duckdb, root: data, snapshots: data/snapshots}
mlflow: {experiment_name: t, tracking_uri: "sqlite:///mlruns/m.db", artifact_root: mlruns/a}
model: {allowed_modules: ["*"]}
output: {root: outputs}
"""
RULES = """\
rules:
- {name: it drifts, metric: drift.columns, above: 0, severity: critical, summary: Look at it.}
- {name: far off, metric: drift.psi, above: 0.2}
"""
# What a command does of it, in a process of its own.
COMMAND = """
import json, sys
from pathlib import Path
from lodestar.core.alerts.readings import Measured, Series
from lodestar.factory.alerts import Alerting
from lodestar.settings.loading import load_config
value = float(sys.argv[1])
print("begins", flush=True)
environment = load_config(Path.cwd(), None, variables={})
values = {Series.of("drift.columns"): value}
outcome = Alerting(environment).take([Measured("monitor", "shop", "run", values)])
print(json.dumps([[one.channel, one.problem] for one in outcome.deliveries]))
"""


class Place:
    """A project whose config has these rules and channels."""

    def __init__(self, folder: Path, channels: str, more: str = "") -> None:
        self.folder = folder
        (folder / "config").mkdir(exist_ok=True)
        section = "\n".join(
            f"  {line}" for line in (RULES + f"channels: {channels}\n" + more).splitlines()
        )
        text = f"{BASE}alerts:\n{section}\n"
        (folder / "config/base.yaml").write_text(text, encoding="utf-8")
        self.now = 1_000_000_000.0

    def alerting(self, **variables: str) -> Alerting:
        environment = load_config(self.folder, None, variables=variables)
        return Alerting(environment, clock=lambda: self.now)

    def take(
        self, columns: float, psi: Mapping[str, float] | None = None, **variables: str
    ) -> AlertOutcome:
        values = {Series.of("drift.columns"): columns}
        values |= {Series.of("drift.psi", column=name): each for name, each in (psi or {}).items()}
        measured = Measured("monitor", "shop", "a" * 32, values)
        return self.alerting(**variables).take([measured])

    def command(self, columns: float) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [sys.executable, "-c", COMMAND, str(columns)],
            cwd=self.folder,
            stdout=subprocess.PIPE,
            text=True,
        )

    def state(self) -> Any:  # noqa: ANN401 -- the file as it is
        return json.loads((self.folder / ".lodestar/alerts/local.json").read_text())


def to(port: int) -> str:
    url = f"http://127.0.0.1:{port}/T0KEN-CANARY"
    return f"{{team: {{kind: webhook, url: '{url}', attempt_seconds: 60}}}}"


def statuses(alerts: list[dict[str, Any]]) -> list[tuple[str, str]]:
    return [(alert["rule"], alert["status"]) for alert in alerts]


def problems(outcome: AlertOutcome) -> list[str]:
    return [one.problem for one in outcome.deliveries]


def test_an_alert_is_told_once_however_often_it_is_found_and_its_end_is_told_once(
    tmp_path: Path,
) -> None:
    with hook() as at:
        place = Place(tmp_path, to(at.port))
        assert not place.take(0).deliveries
        first = place.take(3, {"age": 0.5, "city": 0.1})
        assert [one.rule for one in first.begun] == ["it drifts", "far off"]
        assert [(one.channel, one.notices, one.problem) for one in first.deliveries] == [
            ("team", 2, "")
        ]
        again = place.take(4, {"age": 0.4, "city": 0.1})
        assert not again.begun
        assert len(again.firing) == 2
        assert not again.deliveries
        assert len(at.posted) == 1
        over = place.take(0, {"age": 0.1, "city": 0.1})
        assert len(over.resolved) == 2
        assert not place.take(0, {"age": 0.1, "city": 0.1}).deliveries
        assert statuses(at.alerts()) == [
            *(("it drifts", "firing"), ("far off", "firing")),
            *(("it drifts", "resolved"), ("far off", "resolved")),
        ]
        assert at.alerts()[0]["id"] == at.alerts()[2]["id"]
        assert at.alerts()[0]["labels"] == {"recipe": "shop", "source": "monitor"}
        assert at.alerts()[1]["labels"]["column"] == "age"


def test_it_is_reminded_of_after_the_rules_time(tmp_path: Path) -> None:
    with hook() as at:
        place = Place(tmp_path, to(at.port))
        for _ in range(2):
            place.take(1)
            place.now += 86_400
            place.take(1)
        assert [status for _, status in statuses(at.alerts())] == ["firing", "reminder", "reminder"]


def test_a_channel_that_was_down_is_told_later_and_says_so_meanwhile(tmp_path: Path) -> None:
    place = Place(tmp_path, to(nobody_there()), "timeout: 1\n")
    (failed,) = place.take(1).deliveries
    assert "the connection was refused" in failed.problem
    channel = place.state()["channels"]["team"]
    assert channel["failure"] == failed.problem
    assert not channel["told"]
    with hook() as at:
        Place(tmp_path, to(at.port))
        assert problems(place.take(1)) == [""]
        assert statuses(at.alerts()) == [("it drifts", "firing")]
        assert place.state()["channels"]["team"]["failure"] == ""


def test_the_end_of_an_alert_that_could_not_be_told_is_told_later(tmp_path: Path) -> None:
    with hook([200, 404, 200]) as at:
        place = Place(tmp_path, to(at.port))
        place.take(1)
        assert problems(place.take(0)) == ["HTTP status 404"]
        assert problems(place.take(0)) == [""]
        assert not place.take(0).deliveries
        assert [status for _, status in statuses(at.alerts())] == [
            *("firing", "resolved", "resolved")
        ]


def test_a_slow_channel_ends_in_time_and_holds_up_no_other(tmp_path: Path) -> None:
    with hook(slow=60) as slow, hook(drip=True) as dripping, hook() as quick:
        channels = "".join(
            f"{name}: {{kind: webhook, url: 'http://127.0.0.1:{at.port}/x', attempt_seconds: 60}}, "
            for name, at in (("slow", slow), ("drips", dripping), ("quick", quick))
        )
        place = Place(tmp_path, f"{{{channels}}}", "timeout: 3\n")
        found = {one.channel: one.problem for one in place.take(1).deliveries}
        assert found["quick"] == ""
        assert "no answer within" in found["slow"]
        assert "no answer within" in found["drips"]
        assert len(quick.posted) == 1


def test_more_messages_than_an_hour_may_have_wait_for_the_next(tmp_path: Path) -> None:
    with hook() as at:
        place = Place(tmp_path, to(at.port), "most_per_hour: 2\n")
        place.take(1)
        place.take(0)
        assert problems(place.take(1)) == ["held back: 2 messages in this hour"]
        assert len(at.posted) == 2
        place.now += 3_601
        assert problems(place.take(1)) == [""]
        assert [status for _, status in statuses(at.alerts())] == ["firing", "resolved", "firing"]


def test_a_new_process_knows_what_the_last_one_told(tmp_path: Path) -> None:
    with hook() as at:
        place = Place(tmp_path, to(at.port))
        for columns in (1, 0, 0):
            with place.command(columns) as process:
                process.communicate(timeout=60)
            assert process.returncode == 0
        assert [status for _, status in statuses(at.alerts())] == ["firing", "resolved"]


def test_two_processes_at_once_tell_once(tmp_path: Path) -> None:
    with hook(slow=0.5) as at:
        place = Place(tmp_path, to(at.port), "timeout: 30\n")
        processes = [place.command(1) for _ in range(2)]
        outputs = [process.communicate(timeout=60)[0] for process in processes]
        assert statuses(at.alerts()) == [("it drifts", "firing")]
        said = sorted(json.loads(text.splitlines()[-1]) for text in outputs)
        assert said == [[], [["team", ""]]]


def test_a_kill_while_a_channel_is_told_leaves_no_lock_and_loses_nothing(tmp_path: Path) -> None:
    with hook(slow=60) as at:
        place = Place(tmp_path, to(at.port), "timeout: 60\n")
        with place.command(1) as process:
            eventually(lambda: len(at.posted) == 1)
            os.kill(process.pid, signal.SIGKILL)
            assert process.wait(60) == -signal.SIGKILL
        assert [one["rule"] for one in place.state()["alerts"]] == ["it drifts"]
        at.slow, place.now = 0.0, time.time()
        # Nobody heard how the first message ended, so it is sent again, as the same alert.
        assert problems(place.take(1)) == [""]
        first, second = at.alerts()
        assert first["id"] == second["id"]


@pytest.mark.faults
def test_a_kill_at_any_moment_leaves_a_whole_file(tmp_path: Path) -> None:
    with hook() as at:
        place = Place(tmp_path, to(at.port))
        killed = 0
        for number in range(20):
            with place.command(number % 2) as process:
                assert process.stdout is not None
                assert process.stdout.readline() == "begins\n"
                time.sleep(number * 0.008)
                process.kill()
                killed += process.wait(60) == -signal.SIGKILL
            if (tmp_path / ".lodestar/alerts/local.json").exists():
                assert place.state()["version"] == 1
        assert killed >= 5
        assert not list((tmp_path / ".lodestar/alerts").glob("*damaged*"))
        assert not place.take(0).problem


def test_threads_of_one_process_tell_once_too(tmp_path: Path) -> None:
    with hook(slow=0.2) as at:
        place = Place(tmp_path, to(at.port))
        threads = [threading.Thread(target=place.take, args=(1,)) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert statuses(at.alerts()) == [("it drifts", "firing")]


@pytest.mark.parametrize("text", ["", "{", "[]", '{"version": 1}', '{"version": 1, "alerts": [1]}'])
def test_a_damaged_file_is_put_aside_and_begun_anew(tmp_path: Path, text: str) -> None:
    place = Place(tmp_path, "{}")
    place.take(1)
    path = tmp_path / ".lodestar/alerts/local.json"
    path.write_text(text)
    outcome = place.take(1)
    assert not outcome.problem
    assert "was damaged and is begun anew" in outcome.notes[0]
    (aside,) = path.parent.glob("local-damaged-*.json")
    assert aside.read_text() == text
    assert len(outcome.firing) == 1


def test_a_file_of_a_later_version_stops_the_alerts_and_nothing_else(tmp_path: Path) -> None:
    place = Place(tmp_path, "{}")
    place.take(1)
    path = tmp_path / ".lodestar/alerts/local.json"
    path.write_text('{"version": 2}')
    assert "written by a later version" in place.take(1).problem
    assert path.read_text() == '{"version": 2}'
    with pytest.raises(ExternalError, match="later version"):
        place.alerting().state()


def test_a_folder_that_cannot_be_written_stops_the_alerts_and_nothing_else(tmp_path: Path) -> None:
    place = Place(tmp_path, "{}", "state: file/alerts\n")
    (tmp_path / "file").write_text("in the way")
    assert "alerts were not judged: what is known of alerts cannot be" in place.take(1).problem


def test_whoever_holds_the_state_too_long_is_told_of(tmp_path: Path) -> None:
    place = Place(tmp_path, "{}", "timeout: 0.2\n")
    files = AlertFiles(tmp_path / ".lodestar/alerts", "local")
    with files.locked("state", until=time.monotonic()):
        assert place.take(1).problem == "alerts were not judged: another process is at it"
    assert not place.take(1).problem


def test_every_channel_can_be_tried_out(tmp_path: Path) -> None:
    made = certificate(tmp_path)
    with hook() as at, hook([403]) as forbidden, post_office(tls=made, login=("u", "p")) as office:
        mail = f"kind: email, host: 127.0.0.1, port: {office.port}, ca_file: chain.pem"
        place = Place(
            tmp_path,
            "{"
            f"team: {{kind: webhook, format: slack, url: '{at.url}'}}, "
            f"gone: {{kind: webhook, url: '{forbidden.url}'}}, "
            f"mail: {{{mail}, from: a@b.c, to: [d@e.f], user: '${{U}}', password: '${{P}}'}}, "
            "log: {kind: log}}",
        )
        alerting = place.alerting(U="u", P="p")
        tested = {one.channel: one.problem for one in alerting.test()}
        assert tested == {"team": "", "gone": "HTTP status 403", "mail": "", "log": ""}
        assert "test message" in at.posted[0].json["text"]
        assert office.encrypted == [True]
        assert '"status": "test"' in (tmp_path / "logs/alerts.jsonl").read_text()
        assert [one.channel for one in alerting.test("log")] == ["log"]
        assert not (tmp_path / ".lodestar").exists()
        with pytest.raises(UsageError, match="there is no channel 'lok'"):
            alerting.test("lok")


def test_no_secret_is_said_kept_or_logged(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    made = certificate(tmp_path)
    with hook([500]) as at, post_office(tls=made, login=("u", "x")) as office:
        mail = f"kind: email, host: 127.0.0.1, port: {office.port}, ca_file: chain.pem"
        urls = [at.url, at.url.replace("//", "//user:C4NARY@"), "http://nowhere.invalid/C4NARY"]
        hooks = "".join(
            f"hook{number}: {{kind: webhook, url: '{url}', headers: {{X-Key: '${{P}}'}}}}, "
            for number, url in enumerate(urls)
        )
        login = "user: '${P}', password: '${P}'"
        channels = f"{{{hooks} mail: {{{mail}, from: a@b.c, to: [d@e.f], {login}}}}}"
        place = Place(tmp_path, channels, "timeout: 2\n")
        outcome = place.take(1, {"age": 1}, P="C4NARY")
        assert len(problems(outcome)) == 4
        assert all(problems(outcome))
        state = (tmp_path / ".lodestar/alerts/local.json").read_text()
        alerting = place.alerting(P="C4NARY")
        said = repr(outcome) + state + "".join(capfd.readouterr()) + caplog.text
        said += repr(alerting.test()) + repr(alerting)
        assert at.posted[0].headers["X-Key"] == "C4NARY"
    for secret in ("C4NARY", "T0KEN-CANARY"):
        assert secret not in said

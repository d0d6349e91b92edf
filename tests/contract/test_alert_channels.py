"""Every alert channel keeps its port's promises, and the form that its receiver takes."""

import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from tests.alert_servers import Hook, PostOffice, hook, post_office

from lodestar.adapters.alerts.lines import AlertLines
from lodestar.adapters.alerts.mail import Mail, MailServer
from lodestar.adapters.alerts.webhook import Webhook
from lodestar.interface.alerting import AlertChannel
from lodestar.testing.alerting import ODD, AlertChannelContract, example_message


@pytest.fixture
def at_hook() -> Iterator[Hook]:
    with hook() as found:
        yield found


@pytest.fixture
def at_post() -> Iterator[PostOffice]:
    with post_office() as found:
        yield found


class TestPlainWebhook(AlertChannelContract):
    @pytest.fixture
    def channel(self, at_hook: Hook) -> AlertChannel:
        return Webhook(at_hook.url, headers={"X-Who": "lodestar"})

    @pytest.fixture
    def arrived(self, at_hook: Hook) -> Callable[[], str]:
        def text() -> str:
            return at_hook.posted[0].body.decode()

        return text

    def test_its_form_is_the_documented_one(self, channel: AlertChannel, at_hook: Hook) -> None:
        channel.send(example_message(), seconds=10)
        (posted,) = at_hook.posted
        assert posted.path == "/hooks/T0KEN-CANARY"
        assert posted.headers["X-Who"] == "lodestar"
        assert posted.headers["content-type"] == "application/json"
        assert posted.json == {
            "version": 1,
            "title": "[shop prod] 1 firing: a column drifts",
            "project": "shop",
            "environment": "prod",
            "sent_at": "2026-03-01T12:30:00+00:00",
            "alerts": [
                {
                    "id": "0" * 16,
                    "status": "firing",
                    "rule": "a column drifts",
                    "severity": "warning",
                    "metric": "drift.psi",
                    "labels": {"column": "column_0", "recipe": "shop", "source": "monitor"},
                    "value": 0.25,
                    "condition": "above 0.2",
                    "since": "2026-03-01T12:30:00+00:00",
                    "run_id": "7e2121c3035940fbb68f98468444477f",
                    "summary": "Look at its sensor.",
                }
            ],
        }

    def test_user_and_password_of_its_url_log_in(self, at_hook: Hook) -> None:
        url = at_hook.url.replace("//", "//us%40er:pa%3Ass@")
        Webhook(url).send(example_message(), seconds=10)
        # us@er:pa:ss
        assert at_hook.posted[0].headers["authorization"] == "Basic dXNAZXI6cGE6c3M="


class TestSlacksWebhook(AlertChannelContract):
    @pytest.fixture
    def channel(self, at_hook: Hook) -> AlertChannel:
        return Webhook(at_hook.url, slack=True)

    @pytest.fixture
    def arrived(self, at_hook: Hook) -> Callable[[], str]:
        def text() -> str:
            return at_hook.posted[0].body.decode()

        return text

    def test_it_keeps_slacks_limits_and_mentions_nobody(
        self, channel: AlertChannel, at_hook: Hook
    ) -> None:
        message = example_message(500)
        odd = replace(message.notices[0], labels={"column": ODD}, summary="x" * 500)
        channel.send(replace(message, notices=(odd, *message.notices)), seconds=10)
        body = at_hook.posted[0].json
        assert set(body) == {"text", "blocks"}
        assert len(body["blocks"]) <= 50
        head, *sections = body["blocks"]
        assert head["type"] == "header"
        assert len(head["text"]["text"]) <= 150
        assert all(len(one["text"]["text"]) <= 3_000 for one in sections)
        assert {one["text"]["type"] for one in sections} == {"mrkdwn"}
        assert "<!channel>" not in json.dumps(body)
        assert "&lt;!channel&gt;" in sections[0]["text"]["text"]


class TestMail(AlertChannelContract):
    @pytest.fixture
    def channel(self, at_post: PostOffice) -> AlertChannel:
        server = MailServer("127.0.0.1", at_post.port, "none")
        return Mail(server, "lodestar@example.com", ["one@example.com", "two@example.com"])

    @pytest.fixture
    def arrived(self, at_post: PostOffice) -> Callable[[], str]:
        def text() -> str:
            (mail,) = at_post.read()
            body = mail.get_payload(decode=True)
            assert isinstance(body, bytes)
            return body.decode()

        return text

    def test_its_headers_are_a_mails(self, channel: AlertChannel, at_post: PostOffice) -> None:
        channel.send(example_message(2), seconds=10)
        (mail,) = at_post.read()
        assert mail["subject"] == "[shop prod] 2 firing: a column drifts"
        assert mail["from"] == "lodestar@example.com"
        assert mail["to"] == "one@example.com, two@example.com"
        assert mail["message-id"].endswith("@example.com>")
        assert mail["auto-submitted"] == "auto-generated"


class TestLines(AlertChannelContract):
    @pytest.fixture
    def channel(self, tmp_path: Path) -> AlertChannel:
        return AlertLines(tmp_path / "logs" / "alerts.jsonl")

    @pytest.fixture
    def arrived(self, tmp_path: Path) -> Callable[[], str]:
        return (tmp_path / "logs" / "alerts.jsonl").read_text

    def test_each_alert_is_a_line_behind_those_before(
        self, channel: AlertChannel, arrived: Callable[[], str]
    ) -> None:
        channel.send(example_message(2), seconds=10)
        channel.send(example_message(1), seconds=10)
        lines = [json.loads(line) for line in arrived().splitlines()]
        assert [line["labels"]["column"] for line in lines] == ["column_0", "column_1", "column_0"]
        assert {line["environment"] for line in lines} == {"prod"}

"""What every alert channel must keep, whoever is at its other end."""

from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime

from lodestar.interface.alerting import AlertChannel, Message, Notice

__all__ = ["ODD", "AlertChannelContract", "example_message"]

SINCE = datetime(2026, 3, 1, 12, 30, tzinfo=UTC)
ODD = "a\r\nBcc: all@example.com\x1b[31m<!channel> é"


def example_message(count: int = 1) -> Message:
    """Some alerts, each of another column."""
    notices = tuple(
        Notice(
            id=f"{at:016x}",
            status="firing",
            rule="a column drifts",
            severity="warning",
            metric="drift.psi",
            labels={"column": f"column_{at}", "recipe": "shop", "source": "monitor"},
            value=0.25 + at,
            condition="above 0.2",
            since=SINCE,
            run_id="7e2121c3035940fbb68f98468444477f",
            summary="Look at its sensor.",
        )
        for at in range(count)
    )
    return Message("shop", "prod", SINCE, notices)


class AlertChannelContract:
    """Subclass it, and give the fixtures `channel` and `arrived`, which says what came out, as text."""

    def test_all_of_an_alert_arrives(
        self, channel: AlertChannel, arrived: Callable[[], str]
    ) -> None:
        """Rule, severity, labels, value, bound, time, run and summary."""
        assert not channel.send(example_message(), seconds=10)
        text = arrived()
        for word in ("a column drifts", "warning", "drift.psi", "column_0", "0.25", "above 0.2"):
            assert word in text, word
        for word in ("2026-03-01", "7e2121c3", "Look at its sensor."):
            assert word in text, word

    def test_several_alerts_arrive_together(
        self, channel: AlertChannel, arrived: Callable[[], str]
    ) -> None:
        """What one command has to say is one message."""
        channel.send(example_message(3), seconds=10)
        text = arrived()
        assert all(f"column_{at}" in text for at in range(3))

    def test_hundreds_of_alerts_arrive_in_some_form(
        self, channel: AlertChannel, arrived: Callable[[], str]
    ) -> None:
        """All, or some and how many more."""
        channel.send(example_message(500), seconds=10)
        text = arrived()
        assert "column_0" in text
        assert "column_499" in text or "more" in text

    def test_what_data_has_chosen_stays_text(
        self, channel: AlertChannel, arrived: Callable[[], str]
    ) -> None:
        """No header, no escape sequence."""
        message = example_message()
        notice = replace(message.notices[0], labels={"column": ODD})
        channel.send(replace(message, notices=(notice,)), seconds=10)
        text = arrived()
        assert "\x1b" not in text
        assert "\nBcc:" not in text

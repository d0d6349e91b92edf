"""Channels that are down, slow or refuse: what is tried again, for how long, and what is said of it."""

import http.client
import ssl
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest
from tests.alert_servers import certificate, eventually, hook, nobody_there, post_office

from lodestar.adapters.alerts.delivery import Pace, deliver
from lodestar.adapters.alerts.lines import AlertLines
from lodestar.adapters.alerts.mail import Mail, MailServer
from lodestar.adapters.alerts.webhook import Webhook, _ended_within
from lodestar.factory.alerts import _trusted
from lodestar.interface.alerting import AlertChannel, UndeliveredError
from lodestar.testing.alerting import example_message

QUICK = Pace(attempt_seconds=0.3, first=0.02)
PATIENT = Pace(attempt_seconds=30.0, first=0.02)
USER, PASSWORD = "robot", "P4SS-CANARY"


def delivered(channel: AlertChannel, *, seconds: float = 30.0, pace: Pace = PATIENT) -> str:
    return deliver(channel, example_message(), until=time.monotonic() + seconds, pace=pace)


def refused(channel: AlertChannel) -> str:
    with pytest.raises(UndeliveredError) as caught:
        delivered(channel)
    return str(caught.value)


def given_up(channel: AlertChannel) -> str:
    """What is said of a channel that is waited for in vain."""
    with pytest.raises(UndeliveredError) as caught:
        delivered(channel, seconds=0.4, pace=QUICK)
    return str(caught.value)


def test_a_server_error_is_tried_again_until_it_is_over() -> None:
    with hook([500, 503, 200]) as at:
        assert delivered(Webhook(at.url)) == ""
        assert len(at.posted) == 3
        assert len({one.body for one in at.posted}) == 1


@pytest.mark.parametrize("status", [400, 401, 403, 404, 410, 302])
def test_what_would_be_refused_again_is_not_tried_again(status: int) -> None:
    with hook([status]) as at:
        assert f"HTTP status {status}" in refused(Webhook(at.url))
        assert len(at.posted) == 1


def test_too_many_requests_waits_as_long_as_it_is_told() -> None:
    with hook([429, 200]) as at:
        at.answer_headers["Retry-After"] = "1"
        slept: list[float] = []
        until = time.monotonic() + 10
        deliver(Webhook(at.url), example_message(), until=until, pace=QUICK, sleep=slept.append)
        assert slept == [1.0]
    with hook([429]) as at:
        at.answer_headers["Retry-After"] = "3600"
        assert "HTTP status 429" in refused(Webhook(at.url))
        assert len(at.posted) == 1


def test_pauses_grow_and_are_random() -> None:
    def slept(draw: Callable[[], float]) -> list[float]:
        now, found = [0.0], list[float]()

        def sleep(seconds: float) -> None:
            found.append(seconds)
            now[0] += seconds

        channel = AlertLinesThatFail()
        with pytest.raises(UndeliveredError, match=r"away \(tried . times\)"):
            deliver(
                channel,
                example_message(),
                until=10.0,
                pace=Pace(first=0.5, most=4.0),
                clock=lambda: now[0],
                sleep=sleep,
                draw=draw,
            )
        return found

    assert slept(lambda: 1.0) == [0.5, 1.0, 2.0, 4.0]
    assert slept(lambda: 0.6) == pytest.approx([0.4, 0.8, 1.6, 3.2, 3.2])


class AlertLinesThatFail:
    """A channel whose other end is away."""

    def send(self, message: object, *, seconds: float) -> str:
        raise UndeliveredError("away", again=True)


def test_nobody_there_a_slow_one_and_one_that_drips_end_in_time() -> None:
    assert "refused" in given_up(Webhook(f"http://127.0.0.1:{nobody_there()}/x"))
    with hook(slow=30) as at:
        assert "no answer within" in given_up(Webhook(at.url))
    with hook(drip=True) as at:
        assert "no answer within" in given_up(Webhook(at.url))
    with post_office(silent=True) as office:
        mail = Mail(MailServer("127.0.0.1", office.port, "none"), "a@b.c", ["d@e.f"])
        assert "no answer within" in given_up(mail)
    gone = Mail(MailServer("127.0.0.1", nobody_there(), "none"), "a@b.c", ["d@e.f"])
    assert "refused" in given_up(gone)


def test_over_tls_a_slow_one_and_one_that_drips_end_in_time_too(tmp_path: Path) -> None:
    made = certificate(tmp_path)
    trusted = _trusted("chain.pem", tmp_path)
    with hook(tls=made) as at:
        assert delivered(Webhook(at.url, trusted=trusted)) == ""
    with hook(tls=made, slow=30) as at:
        assert "no answer within" in given_up(Webhook(at.url, trusted=trusted))
    with hook(tls=made, drip=True) as at:
        assert "no answer within" in given_up(Webhook(at.url, trusted=trusted))


def test_a_connection_that_is_cut_off_stays_encrypted(tmp_path: Path) -> None:
    made = certificate(tmp_path)
    trusted = _trusted("chain.pem", tmp_path)
    with hook(tls=made) as at:
        line = http.client.HTTPSConnection("127.0.0.1", at.port, context=trusted)
        line.connect()
        with closing(line), _ended_within(line, 0.0) as late:
            assert late.wait(10)
            eventually(lambda: not _takes(line.sock))
            assert line.sock.version() == "TLSv1.3"


def _takes(sock: ssl.SSLSocket) -> bool:
    try:
        return sock.send(b"x") > 0
    except OSError:
        return False


def test_a_mail_goes_encrypted_and_logged_in(tmp_path: Path) -> None:
    made = certificate(tmp_path)
    trusted = _trusted("chain.pem", tmp_path)
    with post_office(tls=made, login=(USER, PASSWORD)) as office:
        server = MailServer("127.0.0.1", office.port, "starttls", (USER, PASSWORD), trusted)
        assert delivered(Mail(server, "a@b.c", ["d@e.f"])) == ""
        assert office.encrypted == [True]


def test_a_certificate_that_nobody_vouches_for_gets_no_password(tmp_path: Path) -> None:
    with post_office(tls=certificate(tmp_path), login=(USER, PASSWORD)) as office:
        server = MailServer("127.0.0.1", office.port, "starttls", (USER, PASSWORD))
        assert "certificate is not trusted" in refused(Mail(server, "a@b.c", ["d@e.f"]))
        assert not office.mails
        assert office.connections == 1


def test_without_encryption_there_is_no_mail_where_the_config_asks_for_it() -> None:
    with post_office() as office:
        server = MailServer("127.0.0.1", office.port, "starttls")
        said = refused(Mail(server, "a@b.c", ["d@e.f"]))
        assert "does not offer" in said
        assert not office.mails


def test_a_refused_login_is_said_without_it_and_not_tried_again(tmp_path: Path) -> None:
    with post_office(tls=certificate(tmp_path), login=(USER, "another")) as office:
        trusted = _trusted("chain.pem", tmp_path)
        server = MailServer("127.0.0.1", office.port, "starttls", (USER, PASSWORD), trusted)
        said = refused(Mail(server, "a@b.c", ["d@e.f"]))
        assert "the login was refused (SMTP 535)" in said
        assert PASSWORD not in said
        assert office.connections == 1


def test_a_mail_server_that_is_busy_is_asked_again() -> None:
    with post_office(greetings=["421 busy", "220 here"]) as office:
        server = MailServer("127.0.0.1", office.port, "none")
        assert delivered(Mail(server, "a@b.c", ["d@e.f"])) == ""
        assert len(office.mails) == 1


def test_recipients_that_are_refused_are_told_of() -> None:
    with post_office(refused=frozenset({"no@e.f"})) as office:
        server = MailServer("127.0.0.1", office.port, "none")
        assert delivered(Mail(server, "a@b.c", ["no@e.f", "yes@e.f"])) == (
            "1 of 2 recipients were refused"
        )
        assert len(office.mails) == 1
        said = refused(Mail(server, "a@b.c", ["no@e.f"]))
        assert "all recipients were refused (SMTP 550)" in said


def test_a_file_that_cannot_be_written_is_told_of(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    said = refused(AlertLines(tmp_path / "file" / "alerts.jsonl"))
    assert "cannot be written" in said

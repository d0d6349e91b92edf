"""Alerts of one environment: rules judged by what was measured, and everybody told who has to be."""

import ssl
import threading
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

from lodestar.adapters.alerts.delivery import Pace, deliver
from lodestar.adapters.alerts.files import AlertFiles
from lodestar.adapters.alerts.lines import AlertLines
from lodestar.adapters.alerts.mail import Mail, MailServer
from lodestar.adapters.alerts.webhook import Webhook
from lodestar.core.alerts.readings import Measured, Series
from lodestar.core.alerts.rules import Alert, Rule, evaluate
from lodestar.core.alerts.telling import AlertState, Due, due, held_back, told
from lodestar.errors import ExternalError, UsageError, choices, first_line
from lodestar.interface.alerting import AlertChannel, Message, Notice, UndeliveredError
from lodestar.settings.alerts import AlertRule, Channel, EmailChannel, LogChannel
from lodestar.settings.loading import Environment

__all__ = ["AlertOutcome", "Alerting", "Delivery"]

# What a thread may take beyond its time to say how it ended.
GRACE_SECONDS = 0.5


@dataclass(frozen=True)
class Delivery:
    """What became of one channel's message; `problem` where it did not arrive, `remark` what is odd."""

    channel: str
    notices: int
    problem: str = ""
    remark: str = ""


@dataclass(frozen=True)
class AlertOutcome:
    """What measurements came to: alerts that fire, those among them that are new, and what is over.

    `problem`: nothing was judged, and why. `notes`: what a human should know.
    """

    firing: tuple[Alert, ...] = ()
    begun: tuple[Alert, ...] = ()
    resolved: tuple[Alert, ...] = ()
    deliveries: tuple[Delivery, ...] = ()
    problem: str = ""
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class _Carrier:
    """A channel and how it is paced."""

    channel: AlertChannel
    pace: Pace


class Alerting:
    """Judges measurements and tells channels; fails nobody, and takes at most the config's `timeout`.

    `clock` gives seconds since 1970.
    """

    def __init__(self, environment: Environment, *, clock: Callable[[], float] = time.time) -> None:
        self._environment = environment
        self._section = section = environment.config.alerts
        self._files = AlertFiles(environment.project / section.state, environment.name)
        self._rules = tuple(map(_rule, section.rules))
        self._clock = clock

    @property
    def wanted(self) -> bool:
        """Whether there is any rule."""
        return bool(self._rules)

    def take(self, measured: Iterable[Measured]) -> AlertOutcome:
        """Judge what was measured and tell every channel what it has to know."""
        until = time.monotonic() + self._section.timeout
        try:
            outcome = self._judged(measured, until)
        except ExternalError as error:
            return AlertOutcome(problem=f"alerts were not judged: {first_line(error)}")
        return replace(outcome, deliveries=self._told(self._tell, until))

    def state(self) -> AlertState:
        """What is pending and firing, and what each channel knows.

        Raises:
            ExternalError: it cannot be read.
        """
        return self._files.read()[0]

    def test(self, only: str | None = None) -> tuple[Delivery, ...]:
        """Send a message through every channel, or one; neither rules nor memory take part.

        Raises:
            UsageError: there is no such channel.
        """
        names = tuple(self._section.channels)
        if only is not None and only not in names:
            raise UsageError(f"there is no channel {only!r}", hint=choices(only, names))
        until = time.monotonic() + self._section.timeout
        return self._told(self._try, until, [only] if only is not None else names)

    def _judged(self, measured: Iterable[Measured], until: float) -> AlertOutcome:
        with self._files.locked("state", until=until):
            state, note = self._files.read()
            kept, now = state.kept, self._clock()
            for one in measured:
                kept = evaluate(self._rules, one, kept, now=now)
            after = replace(state, kept=kept)
            self._files.write(after)
        was, is_so = state.firing, after.firing
        return AlertOutcome(
            firing=tuple(is_so.values()),
            begun=tuple(one for key, one in is_so.items() if key not in was),
            resolved=tuple(one for key, one in was.items() if key not in is_so),
            notes=(f"what was known of alerts: {note}",) if note else (),
        )

    def _told(
        self,
        tell: Callable[[str, float], Delivery | None],
        until: float,
        names: Iterable[str] | None = None,
    ) -> tuple[Delivery, ...]:
        """All channels at once; one that is late is left to itself."""
        found: dict[str, Delivery | None] = {}

        def run(name: str) -> None:
            try:
                found[name] = tell(name, until)
            except Exception as error:  # noqa: BLE001 -- an edge: no channel ends a command
                found[name] = Delivery(name, 0, problem=f"it failed: {type(error).__name__}")

        names = tuple(self._section.channels if names is None else names)
        threads = [
            threading.Thread(target=run, args=(name,), name=f"alerts-{name}", daemon=True)
            for name in names
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(max(until - time.monotonic(), 0.0) + GRACE_SECONDS)
        late = f"no end within {self._section.timeout:g} s"
        ended = (found.get(name, Delivery(name, 0, problem=late)) for name in names)
        return tuple(each for each in ended if each is not None)

    def _tell(self, name: str, until: float) -> Delivery | None:
        """Tell one channel what it does not know yet; None where it knows all."""
        count = 0
        try:
            with self._files.locked(f"channel-{name}", until=until):
                now = self._clock()
                state = self._files.read()[0]
                notices = due(state, name, self._rules, now=now)
                count = len(notices)
                if not notices:
                    return None
                if held_back(state.of(name), self._section.most_per_hour, now=now):
                    most = self._section.most_per_hour
                    return Delivery(name, count, problem=f"held back: {most} messages in this hour")
                remark = self._delivered(name, notices, until)
                self._remember(name, partial(_heard, notices=notices, now=now))
                return Delivery(name, count, remark=remark)
        except ExternalError as error:
            problem = first_line(error)
            if isinstance(error, UndeliveredError):
                problem = self._noted(name, problem)
            return Delivery(name, count, problem=problem)

    def _noted(self, name: str, problem: str) -> str:
        """Keep how a channel failed, for `alerts list`."""
        failed = partial(_failed, problem=problem, now=self._clock())
        try:
            self._remember(name, failed)
        except ExternalError as error:
            return f"{problem}; {first_line(error)}"
        return problem

    def _remember(self, name: str, made: Callable[[AlertState, str], AlertState]) -> None:
        # The message is out: this must be kept even where its time is over by now.
        with self._files.locked("state", until=time.monotonic() + GRACE_SECONDS):
            self._files.write(made(self._files.read()[0], name))

    def _try(self, name: str, until: float) -> Delivery:
        now = self._clock()
        example = Alert(
            rule="test",
            severity="info",
            condition="above 0",
            summary="`lodestar alerts test` has sent this; nothing is wrong.",
            series=Series.of("test"),
            state="firing",
            since=now,
            fired=now,
            value=1.0,
            run_id="",
        )
        try:
            remark = self._delivered(name, (Due("firing", example),), until, test=True)
        except ExternalError as error:
            return Delivery(name, 1, problem=first_line(error))
        return Delivery(name, 1, remark=remark)

    def _delivered(
        self, name: str, notices: Iterable[Due], until: float, *, test: bool = False
    ) -> str:
        message = Message(
            self._environment.project.name,
            self._environment.name,
            datetime.fromtimestamp(self._clock(), UTC),
            tuple(_notice(one, test=test) for one in notices),
        )
        carrier = _carrier(self._section.channels[name], self._environment.project)
        return deliver(carrier.channel, message, until=until, pace=carrier.pace)


def _heard(state: AlertState, name: str, *, notices: Iterable[Due], now: float) -> AlertState:
    return state.having(name, told(state.of(name), notices, now=now))


def _failed(state: AlertState, name: str, *, problem: str, now: float) -> AlertState:
    return state.having(name, replace(state.of(name), failed_at=now, failure=problem))


def _notice(one: Due, *, test: bool) -> Notice:
    alert = one.alert
    return Notice(
        id=alert.id,
        status="test" if test else one.status,
        rule=alert.rule,
        severity=alert.severity,
        metric=alert.series.name,
        labels=dict(alert.series.labels),
        value=alert.value,
        condition=alert.condition,
        since=datetime.fromtimestamp(alert.since, UTC),
        run_id=alert.run_id,
        summary=alert.summary,
    )


def _rule(section: AlertRule) -> Rule:
    return Rule(
        name=section.name,
        metric=section.metric,
        above=section.above,
        below=section.below,
        where=section.where,
        window=section.window,
        over=section.over,
        lasts=section.for_,
        repeat=section.repeat,
        severity=section.severity,
        summary=section.summary,
        channels=section.channels,
    )


def _carrier(section: Channel, project: Path) -> _Carrier:
    """The channel that the config declares.

    Raises:
        ExternalError: its file of certificates cannot be read.
    """
    if isinstance(section, LogChannel):
        return _Carrier(AlertLines(project / section.file), Pace())
    trusted = _trusted(section.ca_file, project)
    pace = Pace(section.attempt_seconds)
    if isinstance(section, EmailChannel):
        login = None
        if section.user is not None and section.password is not None:
            login = (section.user.get_secret_value(), section.password.get_secret_value())
        server = MailServer(section.host, section.port, section.security, login, trusted)
        return _Carrier(Mail(server, section.sender, section.to), pace)
    headers = {name: value.get_secret_value() for name, value in section.headers.items()}
    hook = Webhook(
        section.url.get_secret_value(),
        slack=section.format == "slack",
        headers=headers,
        trusted=trusted,
    )
    return _Carrier(hook, pace)


def _trusted(ca_file: str | None, project: Path) -> ssl.SSLContext | None:
    if ca_file is None:
        return None
    try:
        return ssl.create_default_context(cafile=project / ca_file)
    except OSError as error:  # what is no certificate is an SSLError, which is one
        raise UndeliveredError("its ca_file cannot be read", again=False) from error

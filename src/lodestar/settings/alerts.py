"""Who is told, and of what: rules over named measurements, and the channels that carry the message."""

import re
from typing import Annotated, Literal
from urllib.parse import urlsplit

from pydantic import (
    BeforeValidator,
    Discriminator,
    Field,
    SecretStr,
    Tag,
    field_validator,
    model_validator,
)

from lodestar.settings.monitoring import Number
from lodestar.settings.section import EnvText, Name, Names, Section, Whole, as_tuple

__all__ = [
    "METRICS",
    "OPEN_FAMILIES",
    "AlertRule",
    "Alerts",
    "Channel",
    "EmailChannel",
    "LogChannel",
    "Severity",
    "WebhookChannel",
]

# What is measured, by the names that a rule may watch. What a family's names end with is a metric's
# name, so these are open.
OPEN_FAMILIES = ("performance.", "performance.change.", "labels.")
METRICS = (
    "performance.degraded",
    "performance.improved",
    "drift.columns",
    "drift.share",
    "drift.rows",
    "drift.psi",
    "drift.jensen_shannon",
    "drift.null_rate",
    "drift.out_of_range",
    "drift.alarm",
    "serve.requests_per_second",
    "serve.error_rate",
    "serve.latency_p99_seconds",
    "serve.shed_per_second",
    "serve.online_failures_per_second",
    "features.stale",
    "features.lag_seconds",
    "features.waiting",
    "features.age_p95_seconds",
    "features.expired",
)
_UNITS = {"s": 1.0, "m": 60.0, "h": 3600.0, "d": 86_400.0}
# What goes into subjects, headers and log lines.
_PRINTABLE = re.compile(r"[^\x00-\x1f\x7f]{1,120}")
_CHANNEL = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,63}")

Severity = Literal["info", "warning", "critical"]


def _duration(value: object) -> object:
    """`90`, `90s`, `15m`, `2h` or `1d` in seconds."""
    if isinstance(value, bool):
        raise ValueError("is a duration: seconds, or a number with s, m, h or d, such as 15m")  # noqa: TRY004 -- pydantic words it
    if isinstance(value, int | float):
        return float(value)
    match = (
        re.fullmatch(r"([0-9]+(?:\.[0-9]+)?)([smhd]?)", value) if isinstance(value, str) else None
    )
    if match is None:
        raise ValueError("is a duration: seconds, or a number with s, m, h or d, such as 15m")
    return float(match.group(1)) * _UNITS.get(match.group(2), 1.0)


Duration = Annotated[float, BeforeValidator(_duration), Field(ge=0, le=366 * 86_400)]
Positive = Annotated[float, BeforeValidator(_duration), Field(gt=0, le=366 * 86_400)]
Seconds = Annotated[float, BeforeValidator(_duration), Field(gt=0, le=300)]


class AlertRule(Section):
    """When somebody is told: `metric` lies `above` or `below` a bound, for as long as `for`.

    `where` picks by label (`column: age`, `source: monitor`). With a `window`, what was measured within
    it counts: its `last`, `mean`, `min` or `max`. While it lasts, a reminder goes out every `repeat`.
    Without `channels` all of them are told.
    """

    name: Annotated[Name, Field(max_length=120)]
    metric: Name
    where: dict[Name, Name] = Field(default_factory=dict)
    above: Number | None = None
    below: Number | None = None
    window: Positive | None = None
    over: Literal["last", "mean", "min", "max"] = "last"
    for_: Duration = Field(default=0.0, alias="for")
    severity: Severity = "warning"
    channels: Names | None = None
    repeat: Positive = 86_400.0
    summary: str = Field(default="", max_length=500)

    @field_validator("name")
    @classmethod
    def _one_line(cls, value: str) -> str:
        if not _PRINTABLE.fullmatch(value):
            raise ValueError("a rule's name is one line of at most 120 characters")
        return value

    @field_validator("metric")
    @classmethod
    def _is_measured(cls, value: str) -> str:
        known = value in METRICS or any(
            value.startswith(family) and re.fullmatch(r"\w+", value.removeprefix(family))
            for family in OPEN_FAMILIES
        )
        if not known:
            families = ", ".join(f"{family}<name>" for family in OPEN_FAMILIES)
            raise ValueError(
                f"nothing is measured under this name; valid: {', '.join(METRICS)}, {families}"
            )
        return value

    @model_validator(mode="after")
    def _bounds_one_side(self) -> "AlertRule":
        if (self.above is None) == (self.below is None):
            raise ValueError("a rule has either above or below")
        if self.over != "last" and self.window is None:
            raise ValueError(f"over: {self.over} needs a window, such as 24h")
        return self


class LogChannel(Section):
    """A file of JSON lines, below the project."""

    kind: Literal["log"]
    file: Name = "logs/alerts.jsonl"


class WebhookChannel(Section):
    """An HTTP POST: plain JSON, or what Slack's incoming webhooks take. URL and headers are secrets."""

    kind: Literal["webhook"]
    url: SecretStr
    format: Literal["json", "slack"] = "json"
    headers: dict[Name, SecretStr] = Field(default_factory=dict)
    ca_file: Name | None = None
    attempt_seconds: Seconds = 5.0

    @field_validator("url")
    @classmethod
    def _an_address(cls, value: SecretStr) -> SecretStr:
        problem = "must be http://host… or https://host…"
        try:
            parts = urlsplit(value.get_secret_value())
            usable = parts.scheme in {"http", "https"} and parts.hostname and parts.port != 0
        except ValueError:  # its text has the URL in it
            usable = False
        text = value.get_secret_value()
        if not usable or not text.isascii() or not text.isprintable() or " " in text:
            raise ValueError(problem)
        return value

    @field_validator("headers")
    @classmethod
    def _no_line_breaks(cls, value: dict[str, SecretStr]) -> dict[str, SecretStr]:
        for name, text in value.items():
            plain = text.get_secret_value()
            if not re.fullmatch(r"[A-Za-z0-9-]+", name) or not (
                plain.isascii() and plain.isprintable()
            ):
                raise ValueError(
                    "a header is a name of letters, digits and -, and one line of ASCII"
                )
        return value


class EmailChannel(Section):
    """A mail by SMTP. `starttls` refuses to go on without encryption; `none` takes no password."""

    kind: Literal["email"]
    host: Name
    port: Whole = Field(default=587, ge=1, le=65_535)
    security: Literal["starttls", "tls", "none"] = "starttls"
    user: SecretStr | None = None
    password: SecretStr | None = None
    sender: Name = Field(alias="from")
    to: Names = Field(min_length=1)
    ca_file: Name | None = None
    attempt_seconds: Seconds = 5.0

    @field_validator("sender", "to")
    @classmethod
    def _addresses(cls, value: str | tuple[str, ...]) -> str | tuple[str, ...]:
        for address in (value,) if isinstance(value, str) else value:
            if not re.fullmatch(r"[^\s@<>,]+@[^\s@<>,]+", address):
                raise ValueError("must be name@host")
        return value

    @model_validator(mode="after")
    def _logs_in_encrypted(self) -> "EmailChannel":
        if (self.user is None) != (self.password is None):
            raise ValueError("user and password go together")
        if self.password is not None and self.security == "none":
            raise ValueError("a password is not sent without encryption: security starttls or tls")
        return self


def _kind(value: object) -> str | None:
    """The tag of a channel; those of another class were read before."""
    kind = value.get("kind") if isinstance(value, dict) else getattr(value, "kind", None)
    return (
        f"[{kind}]"
        if kind in {"log", "webhook", "email"} and not isinstance(kind, EnvText)
        else None
    )


Channel = Annotated[
    Annotated[LogChannel, Tag("[log]")]
    | Annotated[WebhookChannel, Tag("[webhook]")]
    | Annotated[EmailChannel, Tag("[email]")],
    Discriminator(
        _kind,
        custom_error_type="channel_kind",
        custom_error_message="a channel needs its kind: log, webhook or email",
    ),
]


class Alerts(Section):
    """Rules, and the channels by name. `state` is the folder, below the project, of what is firing.

    All channels together have `timeout` for a command's messages; one gets at most `most_per_hour`. A
    served model's figures are looked at every `check_seconds`.
    """

    rules: Annotated[tuple[AlertRule, ...], BeforeValidator(as_tuple)] = ()
    channels: dict[Name, Channel] = Field(default_factory=dict)
    state: Name = ".lodestar/alerts"
    timeout: Seconds = 10.0
    most_per_hour: Whole = Field(default=20, ge=1, le=1_000)
    check_seconds: Positive = 30.0

    @model_validator(mode="after")
    def _names_fit(self) -> "Alerts":
        names = [rule.name for rule in self.rules]
        if twice := sorted({name for name in names if names.count(name) > 1}):
            raise ValueError(f"two rules are called {twice[0]!r}")
        for name in self.channels:
            if not _CHANNEL.fullmatch(name):
                raise ValueError("a channel's name is made of letters, digits, _, . and -")
        for rule in self.rules:
            for name in rule.channels or ():
                if name not in self.channels:
                    known = ", ".join(sorted(self.channels)) or "there are none"
                    raise ValueError(f"rule {rule.name!r}: there is no channel {name!r} ({known})")
        return self

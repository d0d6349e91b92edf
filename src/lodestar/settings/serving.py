"""How an artifact is served: where it listens, who may ask, and how much at a time."""

from typing import Annotated, Literal

from pydantic import BeforeValidator, Field, SecretStr, model_validator

from lodestar.settings.section import Name, Names, Section, Whole, as_tuple

__all__ = [
    "Authentication",
    "Batching",
    "JsonWebTokens",
    "Limits",
    "OnlineReads",
    "PredictionLog",
    "Rollback",
    "Serving",
]

Seconds = Annotated[float, Field(gt=0, le=3600)]
Share = Annotated[float, Field(ge=0, le=1)]
Digests = Annotated[tuple[SecretStr, ...], BeforeValidator(as_tuple)]


class JsonWebTokens(Section):
    """Signed tokens. `key` is the shared secret (HS…) or the public key in PEM (RS…, ES…, EdDSA).

    A token whose `scope` has the word `admin` may swap models.
    """

    key: SecretStr
    algorithms: Names = ("HS256",)
    audience: Name | None = None
    issuer: Name | None = None


class Authentication(Section):
    """Who may ask. API keys are given as sha256 in hex, so that the config holds none that works.

    Two of a kind may live at once, for rotation. `admin_keys` may also swap models.
    """

    api_keys: Digests = ()
    admin_keys: Digests = ()
    jwt: JsonWebTokens | None = None

    @property
    def required(self) -> bool:
        """Whether a call needs to say who it is."""
        return bool(self.api_keys or self.admin_keys or self.jwt)


class Limits(Section):
    """What one request, and all of them together, may take; looked at before anything is parsed."""

    header_bytes: Whole = Field(default=16_384, ge=1_024)
    body_bytes: Whole = Field(default=1_048_576, ge=1_024)
    rows: Whole = Field(default=1_000, ge=1)
    depth: Whole = Field(default=16, ge=2)
    header_seconds: Seconds = 5.0
    body_seconds: Seconds = 10.0
    answer_seconds: Seconds = 10.0
    idle_seconds: Seconds = 30.0
    connections: Whole = Field(default=2_000, ge=1)
    concurrency: Whole = Field(default=256, ge=1)
    queue: Whole = Field(default=256, ge=0)
    grace_seconds: Seconds = 10.0


class Batching(Section):
    """How many concurrent requests are scored together; nobody waits for others to come."""

    rows: Whole = Field(default=256, ge=1)


class OnlineReads(Section):
    """What happens when the online store does not answer: refuse (503), or answer by the policies.

    After `failures` in a row it is not asked again for `pause_seconds`.
    """

    on_failure: Literal["refuse", "degrade"] = "refuse"
    failures: Whole = Field(default=5, ge=1)
    pause_seconds: Seconds = 1.0


class Rollback(Section):
    """When a model that was swapped in gives way to the one before it, by itself.

    Judged every `window_seconds` for `watch_seconds` after the swap, from `requests` answers on: the
    share of failed answers, the 99th percentile of the time to answer, and how far the predictions lie
    from the former model's (population stability index).
    """

    watch_seconds: Seconds = 300.0
    window_seconds: Seconds = 10.0
    requests: Whole = Field(default=100, ge=1)
    error_rate: Share = 0.05
    latency_p99_seconds: Seconds = 1.0
    prediction_psi: float = Field(default=0.5, gt=0)


class PredictionLog(Section):
    """A sample of what was asked and answered, as parquet files by hour; off without a folder.

    At most `waiting` rows wait to be written; more are dropped and counted, and nobody waits.
    """

    folder: Name
    sample: Share = 1.0
    waiting: Whole = Field(default=100_000, ge=1)
    flush_seconds: Seconds = 60.0


class Serving(Section):
    """The REST API of `serve-api`."""

    host: Name = "127.0.0.1"
    port: Whole = Field(default=8000, ge=0, le=65_535)
    workers: Whole = Field(default=1, ge=1, le=64)
    native: bool = True
    authentication: Authentication = Authentication()
    limits: Limits = Limits()
    batching: Batching = Batching()
    online: OnlineReads = OnlineReads()
    rollback: Rollback = Rollback()
    prediction_log: PredictionLog | None = None
    follow_seconds: Seconds = 10.0

    @model_validator(mode="after")
    def _only_sha256(self) -> "Serving":
        given = (*self.authentication.api_keys, *self.authentication.admin_keys)
        for key in given:
            text = key.get_secret_value()
            if len(text) != 64 or set(text.lower()) - set("0123456789abcdef"):  # noqa: PLR2004 -- sha256 in hex
                raise ValueError(
                    "an API key is given as its sha256 in hex: printf %s KEY | sha256sum"
                )
        return self

"""Rows through a served API, as a client sends them: the far end of the parity check."""

import json
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date, datetime
from http.client import HTTPException
from typing import Any
from urllib.error import HTTPError, URLError
from urllib.parse import urlsplit
from urllib.request import Request, urlopen

import pyarrow as pa
from pydantic import SecretStr

from lodestar.errors import DataError, ExternalError, UsageError

__all__ = ["API_KEY", "ServedApi"]

API_KEY = "LODESTAR_API_KEY"
ROWS_AT_ONCE = 500
SECONDS = 30.0


@dataclass(frozen=True)
class ServedApi:
    """A server of `lodestar serve-api`; its key, if it wants one, is in the environment."""

    url: str
    key: SecretStr | None = field(default=None, repr=False)

    @classmethod
    def at(cls, url: str) -> "ServedApi":
        """Check the address.

        Raises:
            UsageError: it is no http address.
        """
        parts = urlsplit(url)
        if parts.scheme not in {"http", "https"} or not parts.hostname:
            raise UsageError(
                f"--url {url!r} is no address of a server", hint="such as http://127.0.0.1:8000"
            )
        key = os.environ.get(API_KEY)
        return cls(url.rstrip("/"), SecretStr(key) if key else None)

    def fields(self, run_id: str) -> tuple[str, ...]:
        """The fields of a request to the champion.

        Raises:
            ExternalError: it does not answer.
            UsageError: it serves another run.
        """
        versions = self._said("/metadata", None)["versions"]
        champion = next(version for version in versions if version["role"] == "champion")
        if champion["run_id"] != run_id:
            raise UsageError(
                f"{self.url} serves run {champion['run_id']}, and not {run_id}",
                hint=f"give --run-id {champion['run_id'][:8]}",
            )
        return tuple(item["name"] for item in champion["request"])

    def predictions(self, rows: pa.Table, like: Mapping[str, pa.Array]) -> dict[str, pa.Array]:
        """What it says of the rows, in columns with the types of `like`.

        Raises:
            ExternalError: it does not answer, or refuses the request.
            DataError: it refuses a row.
        """
        answers: list[dict[str, Any]] = []
        for start in range(0, rows.num_rows, ROWS_AT_ONCE):
            part = rows.slice(start, ROWS_AT_ONCE).to_pylist()
            answers += self._said("/predict/batch", {"rows": [_plain(row) for row in part]})["rows"]
        _refuse_failed(answers)
        return {
            name: pa.array(list(_values(answers, name)), column.type)
            for name, column in like.items()
        }

    def _said(self, path: str, body: Mapping[str, Any] | None) -> dict[str, Any]:
        headers = {"content-type": "application/json"}
        if self.key is not None:
            headers["authorization"] = f"Bearer {self.key.get_secret_value()}"
        data = None if body is None else json.dumps(body).encode()
        request = Request(f"{self.url}{path}", data, headers)  # noqa: S310 -- http, as checked above
        try:
            with urlopen(request, timeout=SECONDS) as answer:  # noqa: S310 -- http, as checked above
                found: dict[str, Any] = json.loads(answer.read())
        except HTTPError as error:
            raise ExternalError(
                f"{self.url}{path} answers {error.code} {error.reason}",
                hint=f"the key comes from {API_KEY}" if error.code in {401, 403} else None,
            ) from error
        except (URLError, TimeoutError, HTTPException, ValueError) as error:
            raise ExternalError(
                f"{self.url} does not answer as an API of Lodestar", hint="is serve-api running?"
            ) from error
        return found


def _plain(row: Mapping[str, Any]) -> dict[str, Any]:
    return {
        name: value.isoformat() if isinstance(value, datetime | date) else value
        for name, value in row.items()
    }


def _refuse_failed(answers: Sequence[Mapping[str, Any]]) -> None:
    failed = [(row, answer["error"]) for row, answer in enumerate(answers) if "error" in answer]
    if not failed:
        return
    row, problem = failed[0]
    names = ", ".join(item["field"] for item in problem.get("errors", ()))
    raise DataError(
        f"the API refuses {len(failed):,} of {len(answers):,} rows, the first of them row {row}: "
        f"{problem['detail']}" + (f" ({names})" if names else ""),
        hint="features older than their ttl are unknown to it: see serve-api --as-of",
    )


def _values(answers: Sequence[Mapping[str, Any]], name: str) -> Iterator[Any]:
    label = name.removeprefix("probability_")
    for answer in answers:
        yield answer["prediction"] if name == "prediction" else answer["probabilities"][label]

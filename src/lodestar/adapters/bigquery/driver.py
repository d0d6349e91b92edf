"""BigQuery's client library, loaded when chosen, and the credentials that it works with."""

from pathlib import Path
from typing import Any

from lodestar.adapters import drivers
from lodestar.adapters.bigquery.errors import credentials_failed
from lodestar.errors import UsageError
from lodestar.settings.warehouses import BigQuery

__all__ = ["credentials_of", "driver"]

_SCOPES = ("https://www.googleapis.com/auth/cloud-platform",)


def driver(name: str) -> Any:  # noqa: ANN401 -- a module that is loaded when chosen
    """Import a module of the client's; only that it is not installed is ours to explain.

    Raises:
        ExternalError: it is not.
    """
    return drivers.driver(name, store="BigQuery", extra="bigquery")


def credentials_of(config: BigQuery, project: Path) -> Any:  # noqa: ANN401 -- the library's
    """A service account's, by its file, or those of Google's default chain.

    Raises:
        UsageError: the file is none of a service account's.
        ExternalError: the chain finds nothing.
    """
    errors = driver("google.auth.exceptions")
    if config.credentials_file is None:
        try:
            found, _ = driver("google.auth").default(scopes=_SCOPES)
        except errors.GoogleAuthError as error:
            raise credentials_failed(error) from None
        return found
    path = project / config.credentials_file
    accounts = driver("google.oauth2.service_account")
    try:
        return accounts.Credentials.from_service_account_file(str(path), scopes=_SCOPES)
    except OSError as error:
        reason = error.strerror or "it cannot be read"
    except (ValueError, errors.GoogleAuthError):  # these quote what they could not read
        reason = "it is no file of a service account's"
    raise UsageError(
        f"data.bigquery.credentials_file {path}: {reason}",
        hint="give the path of the JSON file that Google made for the account's key",
    )

"""What boto3 says, in our words: where, which table, what to do; never what a server repeats of us."""

from collections.abc import Mapping, Sequence
from typing import Any

from lodestar.adapters.dynamodb.client import CHAIN, OpenedClient
from lodestar.errors import ExternalError, choices, first_line

__all__ = [
    "NO_DYNAMODB",
    "RefusedError",
    "is_broken_off",
    "is_throttled",
    "refusal_of",
    "tables_of",
    "their_errors",
    "translated",
]

THROTTLED = {
    "ProvisionedThroughputExceededException",
    "ThrottlingException",
    "Throttling",
    "RequestLimitExceeded",
    "TransactionInProgressException",
}
BUSY = {"InternalServerError", "InternalFailure", "ServiceUnavailable"}
SERVER_FAULT = 500
# Those of wrong, unknown or outdated keys; what the server adds may repeat what was signed.
KEYS = {
    "UnrecognizedClientException",
    "InvalidClientTokenId",
    "InvalidAccessKeyId",
    "InvalidSignatureException",
    "SignatureDoesNotMatch",
    "IncompleteSignature",
    "IncompleteSignatureException",
    "MissingAuthenticationToken",
    "MissingAuthenticationTokenException",
    "AuthFailure",
    "NotAuthorized",
}
EXPIRED = {"ExpiredTokenException", "ExpiredToken", "RequestExpired"}
# A status alone is what stands before AWS may answer with.
DENIED = {"AccessDeniedException", "AccessDenied", "UnauthorizedOperation", "401", "403"}
NO_DYNAMODB = "what answers as {place} does not speak DynamoDB's protocol"
MISSING = "ResourceNotFoundException"


class RefusedError(ExternalError):
    """DynamoDB has answered, with an error; `code` is its own word for it."""

    def __init__(self, what: str, *, code: str, hint: str | None = None) -> None:
        super().__init__(what, hint=hint)
        self.code = code

    @property
    def table_is_missing(self) -> bool:
        """Whether there is no such table."""
        return self.code == MISSING


def their_errors() -> tuple[type[Exception], ...]:
    """All that boto3 raises where a call does not succeed."""
    from botocore.exceptions import BotoCoreError, ClientError
    from botocore.parsers import ResponseParserError
    from urllib3.exceptions import HTTPError

    return BotoCoreError, ClientError, ResponseParserError, HTTPError, OSError


def refusal_of(error: BaseException) -> str | None:
    """The code of what DynamoDB answered; None where it did not answer."""
    response = _response(error)
    return None if response is None else str(response["Error"].get("Code", "Unknown"))


def is_throttled(error: BaseException) -> bool:
    """Whether DynamoDB asks to come again later."""
    response = _response(error)
    if response is None:
        return False
    status: int = response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
    return refusal_of(error) in THROTTLED | BUSY or status >= SERVER_FAULT


def is_broken_off(error: BaseException) -> bool:
    """Whether a connection ended before its answer did, or the answer arrived damaged."""
    from botocore import exceptions as theirs
    from urllib3.exceptions import ProtocolError

    kinds = (
        ProtocolError,
        theirs.ChecksumError,
        theirs.ConnectionClosedError,
        theirs.IncompleteReadError,
        theirs.ResponseStreamingError,
    )
    return isinstance(error, kinds)


def tables_of(request: Mapping[str, Any]) -> str:
    """Which tables a request is about, in words."""
    return ", ".join(sorted(request.get("RequestItems") or [str(request.get("TableName", ""))]))


def translated(
    error: BaseException, opened: OpenedClient, operation: str, request: Mapping[str, Any]
) -> ExternalError:
    """Our error for one of theirs."""
    code = refusal_of(error)
    if code is None:
        return _unanswered(error, opened)
    return _refused(error, code, opened, operation, tables_of(request))


def _refused(
    error: BaseException, code: str, opened: OpenedClient, operation: str, tables: str
) -> RefusedError:
    what, hint = f"{opened.place} refuses {operation} of {tables}: {code}", None
    if code == MISSING:
        what = f"there is no table {tables} in {opened.place}"
        if ", " in tables:
            what = f"at least one of the tables {tables} is not in {opened.place}"
        hint = (
            "is the region right? lodestar features apply makes tables where the config allows it"
        )
    elif code in KEYS:
        what = f"{opened.place} refuses the credentials: {code}"
        hint = f"are they of this account? They come from the config, or from {CHAIN}"
    elif code in EXPIRED:
        what = f"the credentials for {opened.place} have expired"
        hint = "log in again, or let a role renew them"
    elif code in DENIED:
        what = f"{opened.place} does not allow {operation} of {tables} to these credentials"
        hint = f"allow dynamodb:{operation} on {tables} in the role's policy"
    elif code in THROTTLED | BUSY:
        what = f"{opened.place} throttles {operation} of {tables}: {code}"
        hint = "give the tables more capacity, or ask less at once"
    elif code == "ValidationException":
        what += _said(error, opened.secrets)
    return RefusedError(what, code=code, hint=hint)


def _response(error: BaseException) -> dict[str, Any] | None:
    """What was answered, as botocore's errors carry it."""
    response = getattr(error, "response", None)
    return response if isinstance(response, dict) and "Error" in response else None


def _said(error: BaseException, secrets: Sequence[str]) -> str:
    response = _response(error) or {"Error": {}}
    said: str = first_line(Exception(response["Error"].get("Message", "")))
    return "" if any(secret in said for secret in secrets) else f" ({said[:300]})"


def _unanswered(error: BaseException, opened: OpenedClient) -> ExternalError:
    from botocore import exceptions as theirs
    from botocore.parsers import ResponseParserError

    if isinstance(error, theirs.ReadTimeoutError):
        return ExternalError(
            f"{opened.place} did not answer in time",
            hint="is it overloaded, stopped or firewalled?",
        )
    if is_broken_off(error):
        return ExternalError(f"the answer of {opened.place} broke off in the middle")
    if isinstance(error, ResponseParserError):
        return ExternalError(NO_DYNAMODB.format(place=opened.place))
    if isinstance(
        error,
        (
            theirs.NoCredentialsError,
            theirs.PartialCredentialsError,
            theirs.CredentialRetrievalError,
        ),
    ):
        return ExternalError("no AWS credentials were found", hint=CHAIN)
    if isinstance(error, theirs.SSLError):
        return ExternalError(f"{opened.place} cannot be trusted, or does not speak TLS")
    return ExternalError(
        f"{opened.place} cannot be reached: {type(error).__name__}",
        hint=_near(opened.region) or "is it running?",
    )


def _near(region: str) -> str | None:
    """Another region that may have been meant."""
    import boto3

    known = boto3.Session().get_available_regions("dynamodb")
    return None if region in known else choices(region, known)

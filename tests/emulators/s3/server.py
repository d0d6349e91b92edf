"""moto's S3, which here tells when each upload began and by whom; moto itself says 2010 of all.

A test makes an upload old, or another user's, by the metadata `began` (ISO 8601) and `initiator`.
"""

import sys
from datetime import UTC, datetime
from typing import Any

from moto.core.responses import ActionResult
from moto.s3.models import FakeMultipart
from moto.s3.responses import S3Response
from moto.server import main

_made, _serialized = FakeMultipart.__init__, S3Response.serialized
BEGAN: dict[str, str] = {}  # upload → when


def made(self: FakeMultipart, *given: Any, **named: Any) -> None:  # noqa: ANN401 -- moto's own
    """Remember when."""
    _made(self, *given, **named)
    now = datetime.now(UTC).isoformat(timespec="milliseconds")
    BEGAN[self.id] = self.metadata.get("x-amz-meta-began", now).replace("+00:00", "Z")


def serialized(self: S3Response, result: ActionResult) -> Any:  # noqa: ANN401 -- moto's own
    """Tell it where uploads are listed."""
    value: Any = result.result
    if isinstance(value, dict) and "Uploads" in value:
        known = self.backend.list_multipart_uploads(self.bucket_name)
        for one in value["Uploads"]:
            metadata = known[one["UploadId"]].metadata
            one["Initiated"] = BEGAN[one["UploadId"]]
            one["Initiator"]["ID"] = metadata.get("x-amz-meta-initiator", one["Initiator"]["ID"])
    return _serialized(self, result)


if __name__ == "__main__":
    # moto has no other place for what it does not do.
    FakeMultipart.__init__ = made  # type: ignore[method-assign]  # as said above
    S3Response.serialized = serialized  # type: ignore[assignment, method-assign]  # as said above
    main(sys.argv[1:])

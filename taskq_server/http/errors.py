"""What each error is over HTTP: the status of gRPC's table, and what only HTTP can get wrong."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from google.protobuf import any_pb2, json_format
from google.rpc import code_pb2, error_details_pb2, status_pb2

from taskq_server.rpc.status import DOMAIN, to_message

STATUS: dict[int, int] = {
    code_pb2.OK: 200,
    code_pb2.CANCELLED: 499,
    code_pb2.UNKNOWN: 500,
    code_pb2.INVALID_ARGUMENT: 400,
    code_pb2.DEADLINE_EXCEEDED: 504,
    code_pb2.NOT_FOUND: 404,
    code_pb2.ALREADY_EXISTS: 409,
    code_pb2.PERMISSION_DENIED: 403,
    code_pb2.UNAUTHENTICATED: 401,
    code_pb2.RESOURCE_EXHAUSTED: 429,
    code_pb2.FAILED_PRECONDITION: 400,
    code_pb2.ABORTED: 409,
    code_pb2.OUT_OF_RANGE: 400,
    code_pb2.UNIMPLEMENTED: 501,
    code_pb2.INTERNAL: 500,
    code_pb2.UNAVAILABLE: 503,
    code_pb2.DATA_LOSS: 500,
}
"""google/rpc/code.proto says them, and Connect says the same."""


class Refusal(Exception):
    """A request that HTTP itself refuses. `status` may be nearer than the one of the code."""

    def __init__(self, status: int, code: int, reason: str, message: str, **headers: str) -> None:
        self.status = status
        self.code = code
        self.reason = reason
        self.headers = {name.replace("_", "-"): value for name, value in headers.items()}
        super().__init__(message)

    def to_message(self) -> status_pb2.Status:
        detail = any_pb2.Any()
        detail.Pack(error_details_pb2.ErrorInfo(reason=self.reason, domain=DOMAIN))
        return status_pb2.Status(code=self.code, message=str(self), details=[detail])


class Failure:
    """An error as it is told, in whichever form."""

    def __init__(self, error: Exception) -> None:
        if isinstance(error, Refusal):
            self.message = error.to_message()
            self.status, self.headers = error.status, dict(error.headers)
        else:
            self.message = to_message(error)
            self.status, self.headers = STATUS[self.message.code], {}
        if self.status == 401:
            self.headers["www-authenticate"] = "Bearer"
        if (seconds := _retry_seconds(self.message)) is not None:
            self.headers["retry-after"] = str(seconds)

    @property
    def code(self) -> str:
        return str(code_pb2.Code.Name(self.message.code))

    def as_google(self) -> Mapping[str, Any]:
        """AIP-193."""
        told = json_format.MessageToDict(self.message)
        error = {"code": self.status, "message": self.message.message, "status": self.code}
        return {"error": error | {"details": told.get("details", [])}}


def _retry_seconds(message: status_pb2.Status) -> int | None:
    for detail in message.details:
        info = error_details_pb2.RetryInfo()
        if detail.Unpack(info):
            return int(info.retry_delay.seconds) or 1
    return None

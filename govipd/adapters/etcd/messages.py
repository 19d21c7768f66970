"""Translates between etcd's messages and the records of adapters.etcd.api, and errors of gRPC to EtcdError."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import grpc
import grpc.aio
from etcd3.etcdrpc import rpc_pb2 as pb

from govipd.adapters.etcd.api import (
    Compare,
    Get,
    IfCreateRevision,
    IfOldest,
    IfValue,
    KeyValue,
    Operation,
    Put,
    TxnResult,
)
from govipd.errors import (
    EtcdError,
    EtcdRefusedError,
    EtcdUnavailableError,
    EtcdWriteRefusedError,
    LeaseNotFoundError,
)

_REFUSED = frozenset({
    grpc.StatusCode.PERMISSION_DENIED,
    grpc.StatusCode.INVALID_ARGUMENT,
    grpc.StatusCode.UNIMPLEMENTED,
    grpc.StatusCode.UNAUTHENTICATED,
})  # fmt: skip
# etcd's error texts (server/v3rpc/rpctypes/error.go) after which a token must be fetched again. Simple tokens expire
# after five minutes without use. Any change of users or roles outdates every token; so does `auth disable`. A call
# without a token after `auth enable` has no user.
_NO_USER = "user name is empty"
_TOKEN_IS_OLD = ("invalid auth token", "revision of auth store is old", _NO_USER)
NOT_ENABLED = "authentication is not enabled"
_FULL = "database space exceeded"  # the alarm NOSPACE


@dataclass(frozen=True, slots=True)
class EndpointStatus:
    """The status of one endpoint. `leader`: id of etcd's leader, 0 where unknown; `size`: database size in bytes."""

    version: str
    cluster: int
    member: int
    leader: int
    term: int
    size: int
    alarms: tuple[str, ...]


class TokenError(EtcdRefusedError):
    """etcd refused the call because of its token, or because it had none. A new token may help."""


def translate(error: grpc.aio.AioRpcError, endpoint: str, *, login: bool) -> EtcdError:
    """Translate the error of a failed call. `login`: a user is configured, so the client can fetch a new token."""
    words = error.details() or error.code().name
    text = f"{endpoint}: {words}"
    if error.code() is grpc.StatusCode.NOT_FOUND:
        return LeaseNotFoundError(text)
    if _FULL in words:
        return EtcdWriteRefusedError(text)
    if login and any(old in words for old in _TOKEN_IS_OLD):
        return TokenError(text)
    if _NO_USER in words:
        return EtcdRefusedError(f"{text}: authentication is enabled there; next: set etcd.user and etcd.password_file")
    return EtcdRefusedError(text) if error.code() in _REFUSED else EtcdUnavailableError(text)


def txn_request(compare: Sequence[Compare], then: Sequence[Operation], otherwise: Sequence[Operation]) -> Any:
    """A transaction as etcd's message."""
    return pb.TxnRequest(
        compare=[comparison(c) for c in compare],
        success=[operation(op) for op in then],
        failure=[operation(op) for op in otherwise],
    )


def txn_result(reply: Any) -> TxnResult:
    """A transaction's result from etcd's reply."""
    gets = tuple(
        tuple(key_value(kv) for kv in r.response_range.kvs) for r in reply.responses if r.HasField("response_range")
    )
    return TxnResult(reply.succeeded, reply.header.revision, gets, reply.header.raft_term)


def comparison(compare: Compare) -> Any:
    """A transaction's condition as etcd's message."""
    match compare:
        case IfCreateRevision(key, revision):
            return pb.Compare(key=key.encode(), target=pb.Compare.CREATE, create_revision=revision)
        case IfValue(key, value):
            return pb.Compare(key=key.encode(), target=pb.Compare.VALUE, value=value)
        case IfOldest(prefix, revision):
            first = prefix.encode()
            return pb.Compare(
                key=first, range_end=_after(first), target=pb.Compare.CREATE,
                result=pb.Compare.GREATER, create_revision=revision - 1,
            )  # fmt: skip


def operation(op: Operation) -> Any:
    """One operation of a transaction."""
    match op:
        case Get():
            key = op.key.encode()
            request = pb.RangeRequest(
                key=key, range_end=_after(key) if op.prefix else b"", max_create_revision=op.max_create_revision
            )
            return pb.RequestOp(request_range=request)
        case Put():
            return pb.RequestOp(request_put=pb.PutRequest(key=op.key.encode(), value=op.value, lease=op.lease))
        case _:
            return pb.RequestOp(request_delete_range=pb.DeleteRangeRequest(key=op.key.encode()))


def _after(prefix: bytes) -> bytes:
    """The end of the range that holds every key with `prefix`: the prefix with its last byte raised by one.

    Our prefixes end in "/", so that the last byte is never 0xff.
    """
    return prefix[:-1] + bytes([prefix[-1] + 1])


def key_value(kv: Any) -> KeyValue:
    """A key as etcd returned it."""
    return KeyValue(kv.key.decode(errors="replace"), kv.value, kv.create_revision, kv.lease)

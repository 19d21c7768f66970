"""etcd over grpc.aio with python-etcd3's generated stubs: endpoints, TLS, authentication, deadlines.

One attempt per call. A call that fails moves to the next endpoint, on a new channel: a channel that has
seen a failure would wait out gRPC's own back-off, and its certificates may have been replaced since.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import grpc
import grpc.aio
from etcd3.etcdrpc import rpc_pb2 as pb
from etcd3.etcdrpc import rpc_pb2_grpc as stubs

from govipd.adapters.store import (
    Compare,
    Created,
    Delete,
    Equals,
    Get,
    KeyValue,
    Oldest,
    Operation,
    Put,
    Renewal,
    TxnResult,
)
from govipd.errors import (
    ConfigError,
    EtcdError,
    EtcdRefusedError,
    EtcdUnavailableError,
    EtcdWriteRefusedError,
    LeaseNotFoundError,
    WatchLostError,
)

_OPTIONS = (
    ("grpc.use_local_subchannel_pool", 1),  # a new channel is a new connection
    ("grpc.http2.bdp_probe", 0),  # a ping beside each answer, to find a window for more than these few bytes
    ("grpc.enable_http_proxy", 0),  # the environment of a daemon must not redirect it
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.min_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 500),
)
_REFUSED = frozenset({
    grpc.StatusCode.PERMISSION_DENIED,
    grpc.StatusCode.INVALID_ARGUMENT,
    grpc.StatusCode.UNIMPLEMENTED,
    grpc.StatusCode.UNAUTHENTICATED,
})  # fmt: skip
# etcd's words (server/v3rpc/rpctypes/error.go) for a token to be fetched again: simple tokens expire after
# five minutes without use, and any change of users or roles outdates every token.
_TOKEN_IS_OLD = ("invalid auth token", "revision of auth store is old")


@dataclass(frozen=True, slots=True)
class Tls:
    """Paths of PEM files. `cert` and `key` are for mutual TLS."""

    ca: Path | None = None
    cert: Path | None = None
    key: Path | None = None

    def credentials(self) -> grpc.ChannelCredentials:
        """Read the files, which may have been renewed since the last time.

        Raises:
            EtcdRefusedError: a file cannot be read.
        """
        try:
            ca, cert, key = (p.read_bytes() if p else None for p in (self.ca, self.cert, self.key))
        except OSError as e:
            raise EtcdRefusedError(f"TLS file: {e}") from e
        return grpc.ssl_channel_credentials(root_certificates=ca, private_key=key, certificate_chain=cert)


@dataclass(frozen=True, slots=True)
class Login:
    """An etcd user. The password is read when it is needed, and kept nowhere else."""

    user: str
    password_file: Path

    def request(self) -> Any:
        """The Authenticate request.

        Raises:
            EtcdRefusedError: the password file cannot be read.
        """
        try:
            password = self.password_file.read_text().rstrip("\n")
        except OSError as e:
            raise EtcdRefusedError(f"password file: {e}") from e
        except UnicodeDecodeError:  # whose text shows a byte of it
            raise EtcdRefusedError(f"password file: {self.password_file} is not UTF-8") from None
        return pb.AuthenticateRequest(name=self.user, password=password)


@dataclass(frozen=True, slots=True)
class EndpointStatus:
    """What one endpoint says of itself. `leader` is raft's, 0 where it knows none; `size` is in bytes."""

    version: str
    cluster: int
    member: int
    leader: int
    term: int
    size: int
    alarms: tuple[str, ...]


class _Connection:
    """One channel to one endpoint, and its keep-alive stream."""

    def __init__(self, endpoint: str, tls: Tls) -> None:
        url = urlsplit(endpoint)
        if url.scheme not in {"http", "https"} or not url.netloc:
            raise ConfigError(f"etcd endpoint {endpoint!r}: allowed is http://HOST:PORT or https://HOST:PORT")
        self.endpoint = endpoint
        self.channel = (
            grpc.aio.secure_channel(url.netloc, tls.credentials(), options=_OPTIONS)
            if url.scheme == "https"
            else grpc.aio.insecure_channel(url.netloc, options=_OPTIONS)
        )
        self.kv = stubs.KVStub(self.channel)
        self.lease = stubs.LeaseStub(self.channel)
        self.keepalive: Any = None

    async def close(self, grace: float) -> None:
        """Calls under way may end within `grace` seconds."""
        if self.keepalive is not None:
            self.keepalive.cancel()
        await self.channel.close(grace)


class Etcd:
    """A client of one etcd cluster (implements `adapters.store.Store`).

    Args:
        endpoints: http:// or https:// URLs, used in turn.
        timeout: seconds per call, everything included; shorter than the lease.
        tls: for https endpoints.
        login: None where etcd runs without authentication, or takes the certificate's name.
        failed: is told of each call that failed: endpoint, and the kind of failure in a word.
    """

    def __init__(
        self,
        endpoints: Sequence[str],
        timeout: float,
        tls: Tls | None = None,
        login: Login | None = None,
        failed: Callable[[str, str], None] = lambda *_: None,
    ) -> None:
        self._endpoints = tuple(endpoints)
        self._timeout = timeout
        self._tls = tls or Tls()
        self._login = login
        self._failed = failed
        self._turn = 0
        self._connection: _Connection | None = None
        self._token = ""
        self._cluster: int | None = None  # two clusters elect two leaders: all endpoints must be of one
        self._closing: set[asyncio.Task[None]] = set()

    async def grant(self, ttl: int) -> tuple[int, float]:
        """See Store."""
        reply = await self._call(lambda c: c.lease.LeaseGrant, pb.LeaseGrantRequest(TTL=ttl))
        return reply.ID, float(reply.TTL)

    async def renew(self, lease: int) -> Renewal:
        """See Store. The stream stays open between renewals, and goes with its connection when one fails."""
        async with self._attempt() as connection:
            if connection.keepalive is None:
                connection.keepalive = connection.lease.LeaseKeepAlive(metadata=self._metadata())
            await connection.keepalive.write(pb.LeaseKeepAliveRequest(ID=lease))
            reply = await connection.keepalive.read()
            if reply is grpc.aio.EOF:
                raise EtcdUnavailableError(f"{connection.endpoint}: keep-alive stream ended")
            if lease != reply.ID:
                raise EtcdUnavailableError(f"{connection.endpoint}: answered for another lease")
        if reply.TTL <= 0:
            raise LeaseNotFoundError("etcd does not know the lease")
        return Renewal(float(reply.TTL), reply.header.raft_term)

    async def revoke(self, lease: int) -> None:
        """See Store."""
        try:
            await self._call(lambda c: c.lease.LeaseRevoke, pb.LeaseRevokeRequest(ID=lease))
        except LeaseNotFoundError:
            return

    async def txn(
        self, compare: Sequence[Compare], then: Sequence[Operation], otherwise: Sequence[Operation] = ()
    ) -> TxnResult:
        """See Store."""
        request = pb.TxnRequest(
            compare=[_comparison(c) for c in compare],
            success=[_operation(op) for op in then],
            failure=[_operation(op) for op in otherwise],
        )
        reply = await self._call(lambda c: c.kv.Txn, request)
        gets = tuple(
            tuple(_key_value(kv) for kv in r.response_range.kvs)
            for r in reply.responses
            if r.HasField("response_range")
        )
        return TxnResult(reply.succeeded, reply.header.revision, gets, reply.header.raft_term)

    async def changed(self, key: str, from_revision: int) -> None:
        """See Store. The stream must answer the watch's creation within the deadline; after that it may rest."""
        create = pb.WatchCreateRequest(key=key.encode(), start_revision=from_revision)
        stream: Any = None
        try:
            async with self._attempt() as connection:
                stream = stubs.WatchStub(connection.channel).Watch(metadata=self._metadata())
                await stream.write(pb.WatchRequest(create_request=create))
                reply = await stream.read()
            while True:
                if reply is grpc.aio.EOF:
                    raise WatchLostError("watch stream ended")
                if reply.canceled:
                    raise WatchLostError(reply.cancel_reason or f"compacted at {reply.compact_revision}")
                if reply.events:
                    return
                reply = await stream.read()
        except grpc.aio.AioRpcError as e:
            raise WatchLostError(str(e.details())) from e
        except asyncio.CancelledError as e:
            _raise_if_asked_to_cancel()
            raise WatchLostError("connection closed") from e
        finally:
            if stream is not None:
                stream.cancel()

    async def status(self) -> EndpointStatus:
        """What the current endpoint says of itself, without asking the others; for diagnosis.

        Raises:
            EtcdError: it does not answer, or refuses.
        """
        reply = await self._call(lambda c: stubs.MaintenanceStub(c.channel).Status, pb.StatusRequest())
        request = pb.AlarmRequest(action=pb.AlarmRequest.GET)
        alarms = ()
        if reply.leader:  # else nobody answers that
            async with self._attempt() as connection:  # etcd 3.4 leaves this answer's header empty
                listed = await stubs.MaintenanceStub(connection.channel).Alarm(request, metadata=self._metadata())
            alarms = tuple(pb.AlarmType.Name(a.alarm) for a in listed.alarms)
        header = reply.header
        return EndpointStatus(
            reply.version, header.cluster_id, header.member_id, reply.leader, reply.raftTerm, reply.dbSize, alarms
        )

    async def close(self) -> None:
        """Close the connection. The object can be used again: it would connect anew."""
        self._drop(self._connection)
        if self._closing:
            await asyncio.wait(self._closing, timeout=self._timeout)

    async def _call(self, method: Callable[[_Connection], Callable[..., Awaitable[Any]]], request: Any) -> Any:
        """One unary call; authentication that has grown old is renewed and the call made once more."""
        try:
            return await self._call_once(method, request)
        except EtcdRefusedError as e:
            if self._login is None or not any(words in str(e) for words in _TOKEN_IS_OLD):
                raise
        return await self._call_once(method, request)

    async def _call_once(self, method: Callable[[_Connection], Callable[..., Awaitable[Any]]], request: Any) -> Any:
        async with self._attempt() as connection:
            reply = await method(connection)(request, timeout=self._timeout, metadata=self._metadata())
            cluster = reply.header.cluster_id
            if self._cluster not in (None, cluster):
                text = f"{connection.endpoint}: is of another cluster ({cluster:x}) than before ({self._cluster:x})"
                raise EtcdUnavailableError(text)
            self._cluster = cluster
            return reply

    @asynccontextmanager
    async def _attempt(self) -> AsyncIterator[_Connection]:
        """One attempt on the current endpoint: its deadline, and the translation of how it can fail."""
        if self._connection is None:
            self._connection = _Connection(self._endpoints[self._turn % len(self._endpoints)], self._tls)
        connection = self._connection
        try:
            async with asyncio.timeout(self._timeout):
                await self._authenticate(connection)
                yield connection
        except TimeoutError as e:
            self._move_on(connection, "timeout")
            raise EtcdUnavailableError(f"{connection.endpoint}: no answer within {self._timeout:g} s") from e
        except grpc.aio.AioRpcError as e:
            error = _translate(e, connection.endpoint)
            if any(words in str(error) for words in _TOKEN_IS_OLD):
                self._token = ""
                connection.keepalive = None
            elif not isinstance(error, LeaseNotFoundError):
                self._move_on(connection, e.code().name.lower())
            raise error from e
        except asyncio.CancelledError as e:
            _raise_if_asked_to_cancel()
            raise EtcdUnavailableError(f"{connection.endpoint}: connection closed") from e
        except (grpc.aio.UsageError, asyncio.InvalidStateError) as e:
            self._move_on(connection, "closed")
            raise EtcdUnavailableError(f"{connection.endpoint}: {e}") from e
        except EtcdUnavailableError:
            self._move_on(connection, "answer")
            raise

    async def _authenticate(self, connection: _Connection) -> None:
        if self._login is not None and not self._token:
            reply = await stubs.AuthStub(connection.channel).Authenticate(self._login.request())
            self._token = reply.token

    def _metadata(self) -> tuple[tuple[str, str], ...]:
        return (("token", self._token),) if self._token else ()

    def _move_on(self, failed: _Connection, kind: str) -> None:
        """Use the next endpoint from now on, unless a parallel call has moved on already."""
        self._failed(failed.endpoint, kind)
        if self._connection is failed:
            self._turn += 1
            self._drop(failed)

    def _drop(self, connection: _Connection | None) -> None:
        self._connection = None
        if connection is not None:
            closing = asyncio.get_running_loop().create_task(connection.close(self._timeout))
            self._closing.add(closing)
            closing.add_done_callback(self._closing.discard)


def _raise_if_asked_to_cancel() -> None:
    """Re-raise the CancelledError being handled if this task was cancelled.

    gRPC raises the same error in whoever waits for a call whose channel somebody else has closed; taken for
    a cancellation it would end the task in silence.
    """
    task = asyncio.current_task()
    if task is None or task.cancelling():
        raise  # noqa: PLE0704  # called only while one is handled


def _translate(error: grpc.aio.AioRpcError, endpoint: str) -> EtcdError:
    text = f"{endpoint}: {error.details() or error.code().name}"
    if error.code() is grpc.StatusCode.NOT_FOUND:
        return LeaseNotFoundError(text)
    if error.code() in {grpc.StatusCode.RESOURCE_EXHAUSTED, grpc.StatusCode.PERMISSION_DENIED}:
        return EtcdWriteRefusedError(text)
    return EtcdRefusedError(text) if error.code() in _REFUSED else EtcdUnavailableError(text)


def _comparison(compare: Compare) -> Any:
    match compare:
        case Created(key, revision):
            return pb.Compare(key=key.encode(), target=pb.Compare.CREATE, create_revision=revision)
        case Equals(key, value):
            return pb.Compare(key=key.encode(), target=pb.Compare.VALUE, value=value)
        case Oldest(prefix, revision):
            first = prefix.encode()
            return pb.Compare(
                key=first, range_end=_after(first), target=pb.Compare.CREATE,
                result=pb.Compare.GREATER, create_revision=revision - 1,
            )  # fmt: skip


def _operation(op: Operation) -> Any:
    match op:
        case Get():
            key = op.key.encode()
            request = pb.RangeRequest(
                key=key, range_end=_after(key) if op.prefix else b"", max_create_revision=op.max_create_revision
            )
            if op.newest:
                request.limit = 1
                request.sort_order = pb.RangeRequest.DESCEND
                request.sort_target = pb.RangeRequest.CREATE
            return pb.RequestOp(request_range=request)
        case Put():
            return pb.RequestOp(request_put=pb.PutRequest(key=op.key.encode(), value=op.value, lease=op.lease))
        case Delete():
            return pb.RequestOp(request_delete_range=pb.DeleteRangeRequest(key=op.key.encode()))


def _after(prefix: bytes) -> bytes:
    """The end of the range that holds every key with `prefix`: the prefix with its last byte raised by one.

    Our prefixes end in "/", so that the last byte is never 0xff.
    """
    return prefix[:-1] + bytes([prefix[-1] + 1])


def _key_value(kv: Any) -> KeyValue:
    return KeyValue(kv.key.decode(errors="replace"), kv.value, kv.create_revision, kv.lease)

"""etcd over grpc.aio with python-etcd3's generated stubs: endpoints in turn, authentication, deadlines.

Each call makes one attempt. A call that fails moves the client to the next endpoint, on a new channel: a channel that
has seen a failure would wait out gRPC's own back-off, and its certificates may have been replaced since.
The client checks which cluster an answer comes from before it uses the answer (adapters.etcd.cluster).
"""

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
from contextlib import asynccontextmanager, suppress
from typing import Any, TypeVar

import grpc
import grpc.aio
from etcd3.etcdrpc import rpc_pb2 as pb
from etcd3.etcdrpc import rpc_pb2_grpc as stubs

from govipd.adapters.etcd.api import Compare, Delete, Operation, Put, Renewal, TxnResult
from govipd.adapters.etcd.cluster import Believed
from govipd.adapters.etcd.connection import Access, Connection, Login, Tls, cluster_of, raise_if_asked_to_cancel
from govipd.adapters.etcd.messages import (
    NOT_ENABLED,
    EndpointStatus,
    TokenError,
    translate,
    txn_request,
    txn_result,
)
from govipd.adapters.etcd.resolver import Names, lookup
from govipd.errors import (
    EtcdError,
    EtcdRefusedError,
    EtcdUnavailableError,
    EtcdWriteRefusedError,
    LeaseNotFoundError,
)

_T = TypeVar("_T")
NOT_BELIEVED = "cluster"  # the kind of a failure
CREATIONS_MAX = 32  # watches that are created at the same time; of hundreds at once, the last would time out


def _boottime() -> float:
    return time.clock_gettime(time.CLOCK_BOOTTIME)


class _OtherClusterError(EtcdUnavailableError):
    """The answer comes from another cluster than the believed one."""


class EtcdClient:
    """A client of one etcd cluster (implements `adapters.etcd.api.Store`).

    Args:
        endpoints: http:// or https:// URLs, used in turn.
        timeout: seconds per call, name lookup and connection included; shorter than the lease.
        tls: for https endpoints.
        login: the etcd user; None where etcd runs without authentication, or takes the certificate's name.
        failed: called for each call that failed, with the endpoint and the kind of failure.
        noticed: called with a text when the client accepts another cluster.
        believed: which cluster the client accepts, also over restarts.
        now: CLOCK_BOOTTIME in seconds.
        resolve: the resolver for names of endpoints (`adapters.etcd.resolver.lookup`).
    """

    def __init__(
        self,
        endpoints: Sequence[str],
        timeout: float,
        tls: Tls | None = None,
        login: Login | None = None,
        failed: Callable[[str, str], None] = lambda *_: None,
        *,
        noticed: Callable[[str], None] = lambda _: None,
        believed: Believed | None = None,
        now: Callable[[], float] = _boottime,
        resolve: Callable[[str, int], Sequence[str]] = lookup,
    ) -> None:
        self._access = Access(tuple(endpoints), tls or Tls(), login)
        self._timeout = timeout
        self._failed = failed
        self._noticed = noticed
        self._now = now
        self._names = Names(resolve)
        self._endpoint_index = 0
        self._connection: Connection | None = None
        self._token: str | None = None  # None: the next call has to fetch one; "": authentication is off
        self._believed = believed or Believed()
        self._look: asyncio.Task[None] | None = None  # asks every endpoint for its cluster
        self._looked_at = float("-inf")
        self._learned_over: Connection | None = None  # that gave the members' addresses
        self._beside: set[asyncio.Task[None]] = set()
        self._creations = asyncio.Semaphore(CREATIONS_MAX)

    def reconfigure(self, access: Access) -> None:
        """Use other endpoints, certificates or another user from now on. The leases stay the same."""
        if access != self._access:
            self._access = access
            self._endpoint_index = 0
            self._token = None
            self._drop(self._connection)

    async def grant(self, ttl: int) -> tuple[int, float]:
        """See Store."""
        reply = await self._call(stubs.LeaseStub, "LeaseGrant", pb.LeaseGrantRequest(TTL=ttl))
        self._believed.leased(reply.TTL)
        return reply.ID, float(reply.TTL)

    async def renew(self, lease: int) -> Renewal:
        """See Store. The stream stays open between renewals. After a failure, a new connection opens a new stream."""
        reply = await self._with_token(lambda: self._renew(lease))
        if reply.TTL <= 0:
            raise LeaseNotFoundError("etcd does not know the lease")
        self._believed.leased(reply.TTL)
        return Renewal(float(reply.TTL), reply.header.raft_term)

    async def _renew(self, lease: int) -> Any:
        async with self._attempt() as connection:
            stream = connection.keepalive  # another call may replace it meanwhile
            if stream is None:
                stream = connection.stub(stubs.LeaseStub).LeaseKeepAlive(metadata=self._metadata())
                connection.keepalive = stream
            await stream.write(pb.LeaseKeepAliveRequest(ID=lease))
            reply = await stream.read()
            if reply is grpc.aio.EOF:
                raise EtcdUnavailableError(f"{connection.endpoint}: keep-alive stream ended")
            self._believe(connection, reply.header)
            if lease != reply.ID:
                raise EtcdUnavailableError(f"{connection.endpoint}: answered for another lease")
            if self._learned_over is not connection:
                self._aside(self._learn_members(connection))
            return reply

    async def revoke(self, lease: int) -> bool:
        """See Store."""
        try:
            await self._call(stubs.LeaseStub, "LeaseRevoke", pb.LeaseRevokeRequest(ID=lease))
        except LeaseNotFoundError:
            return False
        return True

    async def attached(self, lease: int) -> Sequence[str]:
        """See Store."""
        request = pb.LeaseTimeToLiveRequest(ID=lease, keys=True)
        reply = await self._call(stubs.LeaseStub, "LeaseTimeToLive", request)
        return tuple(key.decode() for key in reply.keys)

    async def txn(
        self, compare: Sequence[Compare], then: Sequence[Operation], otherwise: Sequence[Operation] = ()
    ) -> TxnResult:
        """See Store."""
        try:
            reply = await self._call(stubs.KVStub, "Txn", txn_request(compare, then, otherwise))
        except EtcdRefusedError as e:
            if "permission denied" in str(e) and any(isinstance(op, Put | Delete) for op in (*then, *otherwise)):
                raise EtcdWriteRefusedError(str(e)) from e
            raise
        return txn_result(reply)

    async def wait_changed(self, key: str, from_revision: int) -> None:
        """See Store. etcd must confirm the watch's creation within the deadline; after that, no deadline applies."""
        async with self._creations, self._attempt() as connection:
            watches = connection.watch_stream(self._metadata(), self._aside)
            watch = await watches.create(key, from_revision, lambda header: self._believe(connection, header))
        await watches.wait(watch)

    async def status(self) -> EndpointStatus:
        """The status of the current endpoint alone, for diagnosis.

        Raises:
            EtcdError: the endpoint does not answer, or refuses.
        """
        reply = await self._call(stubs.MaintenanceStub, "Status", pb.StatusRequest())
        alarms = ()
        if reply.leader:  # without a leader, no etcd member lists alarms
            listed = await self._call(stubs.MaintenanceStub, "Alarm", pb.AlarmRequest(action=pb.AlarmRequest.GET))
            alarms = tuple(pb.AlarmType.Name(a.alarm) for a in listed.alarms)
        header = reply.header
        return EndpointStatus(
            reply.version, header.cluster_id, header.member_id, reply.leader, reply.raftTerm, reply.dbSize, alarms
        )

    async def close(self) -> None:
        """Close the connection. The next call connects again."""
        if self._look is not None:
            self._look.cancel()
        self._drop(self._connection)
        if self._beside:
            await asyncio.wait(self._beside, timeout=self._timeout)

    # One call

    async def _call(self, stub: Callable[[grpc.aio.Channel], Any], method: str, request: Any) -> Any:
        """One unary call."""

        async def once() -> Any:
            async with self._attempt() as connection:
                call = getattr(connection.stub(stub), method)
                reply = await call(request, timeout=self._timeout, metadata=self._metadata())
                self._believe(connection, reply.header)
                return reply

        return await self._with_token(once)

    async def _with_token(self, once: Callable[[], Coroutine[Any, Any, _T]]) -> _T:
        """Call `once`. Where etcd refused the token, call it once more, with a new token or without one."""
        try:
            return await once()
        except TokenError:
            return await once()

    @asynccontextmanager
    async def _attempt(self) -> AsyncIterator[Connection]:
        """One attempt on the current endpoint: sets the deadline, and translates errors to EtcdError."""
        if self._connection is None:
            endpoints = self._access.endpoints
            self._connection = Connection(
                endpoints[self._endpoint_index % len(endpoints)], self._access.tls, self._names
            )
        connection = self._connection
        try:
            async with asyncio.timeout(self._timeout):
                await connection.open()
                await self._authenticate(connection)
                yield connection
        except TimeoutError as e:
            self._move_on(connection, "timeout")
            whose = "no answer" if connection.opened else "no answer from the name server"
            raise EtcdUnavailableError(f"{connection.endpoint}: {whose} within {self._timeout:g} s") from e
        except grpc.aio.AioRpcError as e:
            error = translate(e, connection.endpoint, login=self._access.login is not None)
            answers = isinstance(error, LeaseNotFoundError | EtcdWriteRefusedError)
            if answers or e.code() is grpc.StatusCode.PERMISSION_DENIED:  # has no header with the cluster's id
                found = await self._of_the_cluster(connection, error)
                answers, error = found is error, found
            kind = NOT_BELIEVED if isinstance(error, _OtherClusterError) else e.code().name.lower()
            if isinstance(error, TokenError):
                self._token = None
                connection.keepalive = None
            elif not answers:
                self._move_on(connection, kind)
            elif type(error) is EtcdRefusedError:  # one call lacks a right: the connection serves the others
                self._failed(connection.endpoint, kind)
            raise error from e
        except asyncio.CancelledError as e:
            raise_if_asked_to_cancel()
            raise EtcdUnavailableError(f"{connection.endpoint}: connection closed") from e
        except (grpc.aio.UsageError, asyncio.InvalidStateError) as e:
            self._move_on(connection, "closed")
            raise EtcdUnavailableError(f"{connection.endpoint}: {e}") from e
        except _OtherClusterError:
            self._move_on(connection, NOT_BELIEVED)
            raise
        except EtcdUnavailableError:
            self._move_on(connection, "answer" if connection.opened else "name")
            raise

    async def _authenticate(self, connection: Connection) -> None:
        login = self._access.login
        if login is None or self._token is not None:
            return
        try:
            token = (await connection.authenticate(login)).token
            if login == self._access.login:  # else a reload has replaced the user
                self._token = token
        except grpc.aio.AioRpcError as e:
            if NOT_ENABLED not in (e.details() or ""):
                raise
            self._token = ""  # until etcd enables it

    def _metadata(self) -> tuple[tuple[str, str], ...]:
        return (("token", self._token),) if self._token else ()

    def _move_on(self, failed: Connection, kind: str) -> None:
        """Use the next endpoint from now on, unless a parallel call has moved on already."""
        self._failed(failed.endpoint, kind)
        if self._connection is failed:
            failed.failed()
            self._endpoint_index += 1
            self._drop(failed)

    def _drop(self, connection: Connection | None) -> None:
        self._connection = None
        if connection is not None:
            self._aside(connection.close(self._timeout))

    def _aside(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = asyncio.get_running_loop().create_task(work)
        self._beside.add(task)
        task.add_done_callback(self._beside.discard)
        return task

    # Which cluster

    def _believe(self, connection: Connection, header: Any) -> None:
        """Check that an answer comes from the believed cluster, before the answer is used.

        Raises:
            _OtherClusterError: the answer comes from another cluster.
        """
        refused = self._believed.refuses(connection.endpoint, header.cluster_id, self._access.endpoints)
        if refused:
            if (self._look is None or self._look.done()) and self._now() >= self._looked_at + self._timeout:
                self._look = self._aside(self._look_around())
            raise _OtherClusterError(refused)

    async def _of_the_cluster(self, connection: Connection, error: EtcdError) -> EtcdError:
        """`error` itself if the endpoint is of the believed cluster; otherwise an error that says that it is not."""
        try:
            self._believe(connection, await connection.header(self._timeout, self._metadata()))
        except _OtherClusterError as e:
            return e
        except grpc.aio.AioRpcError as e:
            return EtcdUnavailableError(f"{error}, and does not say of which cluster it is: {e.details()}")
        except (grpc.aio.UsageError, asyncio.InvalidStateError, asyncio.CancelledError) as e:
            raise_if_asked_to_cancel()  # else another call has moved on, and closed the connection
            return EtcdUnavailableError(f"{connection.endpoint}: {e or 'connection closed'}")
        return error

    async def _look_around(self) -> None:
        """Ask every endpoint for its cluster's id, and accept another cluster where that is safe."""
        access, began, before = self._access, self._now(), self._believed.id
        self._looked_at = began
        endpoints = self._believed.asked(access.endpoints)
        asking = (
            cluster_of(Connection(endpoint, access.tls, self._names), self._timeout, self._metadata())
            for endpoint in endpoints
        )
        answers = dict(zip(endpoints, await asyncio.gather(*asking), strict=True))
        if access != self._access or not self._believed.looked(answers, access.endpoints, began, self._now()):
            return
        self._token = None
        self._noticed(
            f"etcd is another cluster now ({self._believed.id:x}, before {before:x}), rebuilt or restored: no endpoint "
            "is of the old one, and every lease of that has ended; next: it is believed, with a new lease"
        )

    async def _learn_members(self, connection: Connection) -> None:
        """Read the addresses of the believed cluster's members, for _look_around(). A failure changes nothing."""
        self._learned_over = connection
        with suppress(grpc.aio.AioRpcError, grpc.aio.UsageError, asyncio.InvalidStateError):
            self._believed.members = await connection.members(self._timeout, self._metadata())

"""One gRPC channel to one endpoint of etcd: the endpoint's address, TLS, and the etcd user."""

import asyncio
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from ipaddress import ip_address
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import grpc
import grpc.aio
from etcd3.etcdrpc import rpc_pb2 as pb
from etcd3.etcdrpc import rpc_pb2_grpc as stubs

from govipd.adapters.etcd.cluster import UNKNOWN
from govipd.adapters.etcd.resolver import Names
from govipd.adapters.etcd.watches import WatchStream
from govipd.errors import ConfigError, EtcdError, EtcdRefusedError

_OPTIONS = (
    ("grpc.use_local_subchannel_pool", 1),  # a new channel is a new connection
    ("grpc.http2.bdp_probe", 0),  # would ping with each answer to measure bandwidth; answers are a few bytes
    ("grpc.enable_http_proxy", 0),  # a proxy in the environment must not redirect a daemon
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.min_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 500),
)


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
    """An etcd user. The password is read from its file when a token is fetched, and kept nowhere else."""

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
        except UnicodeDecodeError:  # its text would show a byte of the password
            raise EtcdRefusedError(f"password file: {self.password_file} is not UTF-8") from None
        return pb.AuthenticateRequest(name=self.user, password=password)


@dataclass(frozen=True, slots=True)
class Access:
    """How to reach one etcd cluster. Every part may change while the client runs (`EtcdClient.reconfigure`).

    `endpoints` are http:// or https:// URLs, used in turn. `login` is None where etcd runs without authentication, or
    takes the user from the certificate's name.
    """

    endpoints: tuple[str, ...]
    tls: Tls = field(default_factory=Tls)
    login: Login | None = None


class Connection:
    """One channel to one endpoint, its keep-alive stream and its stream of watches. Nothing happens before `open()`."""

    def __init__(self, endpoint: str, tls: Tls, names: Names) -> None:
        url = urlsplit(endpoint)
        if not _usable(endpoint) or url.hostname is None:
            raise ConfigError(f"etcd endpoint {endpoint!r}: allowed is http://HOST:PORT or https://HOST:PORT")
        self.endpoint = endpoint
        self.keepalive: Any = None
        self._watches: WatchStream | None = None
        self._secure = url.scheme == "https"
        self._authority = url.netloc
        self._name = (url.hostname, url.port or 2379)
        self._tls = tls
        self._names = names
        self._address = ""  # of the name; "" where the endpoint has no name
        self._channel: grpc.aio.Channel | None = None
        self._closed = False

    @property
    def opened(self) -> bool:
        """Whether the name is resolved and the channel made."""
        return self._channel is not None

    async def open(self) -> None:
        """Make the channel, unless there is one.

        Raises:
            EtcdUnavailableError: the name has no address.
            EtcdRefusedError: a TLS file cannot be read.
        """
        if self._channel is not None:
            return
        target, options = self._authority, _OPTIONS
        if not _is_address(self._name[0]):
            addresses = await self._names.addresses(*self._name)
            if self._channel is not None or self._closed:  # by another call, during the lookup
                return
            self._address = addresses[0]
            target = _target(self._address, self._name[1])
            # gRPC checks the certificate against the name, not against the address.
            options += (("grpc.default_authority", self._authority),)  # type: ignore[assignment]
            if self._secure:
                options += (("grpc.ssl_target_name_override", self._name[0]),)  # type: ignore[assignment]
        self._channel = (
            grpc.aio.secure_channel(target, self._tls.credentials(), options=options)
            if self._secure
            else grpc.aio.insecure_channel(target, options=options)
        )

    def stub(self, kind: Callable[[grpc.aio.Channel], Any]) -> Any:
        """One of the generated stubs, on this channel.

        Raises:
            grpc.aio.UsageError: the connection was closed before it was open.
        """
        if self._channel is None:
            raise grpc.aio.UsageError("closed while its name was looked up")
        return kind(self._channel)

    def watch_stream(
        self, metadata: tuple[tuple[str, str], ...], aside: Callable[[Coroutine[Any, Any, None]], object]
    ) -> WatchStream:
        """The stream of all watches; a new one after its end, or with another token. `aside` starts a task."""
        watches = self._watches
        if watches is not None and not watches.over and watches.metadata == metadata:
            return watches
        if watches is not None:
            watches.close()
        stream = self.stub(stubs.WatchStub).Watch(metadata=metadata)
        self._watches = WatchStream(stream, metadata, aside)
        return self._watches

    def authenticate(self, login: Login) -> Any:
        """The call that fetches a token."""
        return self.stub(stubs.AuthStub).Authenticate(login.request())

    async def header(self, timeout: float, metadata: tuple[tuple[str, str], ...]) -> Any:  # noqa: ASYNC109  # gRPC's
        """The header of the endpoint's status, which names the cluster. An endpoint answers even without a majority.

        Raises:
            grpc.aio.AioRpcError: the endpoint did not answer within `timeout` seconds, or refuses.
        """
        return (
            await self.stub(stubs.MaintenanceStub).Status(pb.StatusRequest(), timeout=timeout, metadata=metadata)
        ).header

    async def members(self, timeout: float, metadata: tuple[tuple[str, str], ...]) -> tuple[str, ...]:  # noqa: ASYNC109
        """The client URLs that the members of the endpoint's cluster advertise.

        Raises:
            grpc.aio.AioRpcError: as header().
        """
        call = self.stub(stubs.ClusterStub).MemberList
        reply = await call(pb.MemberListRequest(), timeout=timeout, metadata=metadata)
        urls = (url for member in reply.members for url in member.clientURLs)
        return tuple(url for url in urls if _usable(url))

    def failed(self) -> None:
        """Note that no useful answer came: the next connection tries another address of the name first."""
        if self._address:
            self._names.failed(*self._name, self._address)

    async def close(self, grace: float) -> None:
        """Close the channel. Calls that are under way may end within `grace` seconds."""
        self._closed = True
        if self.keepalive is not None:
            self.keepalive.cancel()
        if self._watches is not None:
            self._watches.close()
        if self._channel is not None:
            await self._channel.close(grace)


def raise_if_asked_to_cancel() -> None:
    """Re-raise the CancelledError being handled if this task was cancelled.

    gRPC raises CancelledError also in every task that waits for a call when another task has closed the channel. Such
    an error, taken for a cancellation, would end the task without a message.
    """
    task = asyncio.current_task()
    if task is None or task.cancelling():
        raise  # noqa: PLE0704  # called only while an error is handled


async def cluster_of(connection: Connection, timeout: float, metadata: tuple[tuple[str, str], ...]) -> int:  # noqa: ASYNC109
    """The cluster id of an endpoint; UNKNOWN where it does not answer. Closes `connection` afterwards."""
    try:
        async with asyncio.timeout(timeout):
            await connection.open()
            return int((await connection.header(timeout, metadata)).cluster_id)
    except (TimeoutError, grpc.aio.AioRpcError, grpc.aio.UsageError, EtcdError):
        return UNKNOWN
    finally:
        await connection.close(0.0)


def _usable(endpoint: str) -> bool:
    return urlsplit(endpoint).scheme in {"http", "https"} and bool(urlsplit(endpoint).hostname)


def _is_address(host: str) -> bool:
    try:
        ip_address(host)
    except ValueError:
        return False
    return True


def _target(address: str, port: int) -> str:
    """A gRPC target that needs no resolver (grpc/doc/naming.md). The % of an IPv6 zone is escaped as in a URI."""
    return f"ipv6:%5B{address.replace('%', '%25')}%5D:{port}" if ":" in address else f"ipv4:{address}:{port}"

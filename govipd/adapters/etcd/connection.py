"""How an endpoint of etcd is reached: addresses, TLS, who asks. One gRPC channel to one endpoint."""

import asyncio
from collections.abc import Callable
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
from govipd.errors import ConfigError, EtcdError, EtcdRefusedError

_OPTIONS = (
    ("grpc.use_local_subchannel_pool", 1),  # a new channel is a new connection
    ("grpc.http2.bdp_probe", 0),  # a ping beside each answer, to find a window for more than these few bytes
    ("grpc.enable_http_proxy", 0),  # the environment of a daemon must not redirect it
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
class Access:
    """How one etcd cluster is reached, all of which may change while the client runs (`Etcd.reconfigure`).

    `endpoints` are http:// or https:// URLs, used in turn. `login` is None where etcd runs without authentication, or
    takes the certificate's name.
    """

    endpoints: tuple[str, ...]
    tls: Tls = field(default_factory=Tls)
    login: Login | None = None


class Connection:
    """One channel to one endpoint, and its keep-alive stream. Nothing happens before `open()`."""

    def __init__(self, endpoint: str, tls: Tls, names: Names) -> None:
        url = urlsplit(endpoint)
        if not _usable(endpoint) or url.hostname is None:
            raise ConfigError(f"etcd endpoint {endpoint!r}: allowed is http://HOST:PORT or https://HOST:PORT")
        self.endpoint = endpoint
        self.keepalive: Any = None
        self._secure = url.scheme == "https"
        self._authority = url.netloc
        self._name = (url.hostname, url.port or 2379)
        self._tls = tls
        self._names = names
        self._address = ""  # which of the name's it uses
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
            if self._channel is not None or self._closed:  # while it was looked up
                return
            self._address = addresses[0]
            target = _target(self._address, self._name[1])
            # Certificates are checked against the name, independent of its address.
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
            grpc.aio.UsageError: it was closed before it was open.
        """
        if self._channel is None:
            raise grpc.aio.UsageError("closed while its name was looked up")
        return kind(self._channel)

    def authenticate(self, login: Login) -> Any:
        """The call that fetches a token."""
        return self.stub(stubs.AuthStub).Authenticate(login.request())

    async def header(self, timeout: float, metadata: tuple[tuple[str, str], ...]) -> Any:  # noqa: ASYNC109  # gRPC's
        """The header of the endpoint's status, which names its cluster. An endpoint answers it without a majority, too.

        Raises:
            grpc.aio.AioRpcError: it did not answer within `timeout` seconds, or refuses.
        """
        return (
            await self.stub(stubs.MaintenanceStub).Status(pb.StatusRequest(), timeout=timeout, metadata=metadata)
        ).header

    async def members(self, timeout: float, metadata: tuple[tuple[str, str], ...]) -> tuple[str, ...]:  # noqa: ASYNC109
        """Where every member of the endpoint's cluster takes clients, as they advertise it.

        Raises:
            grpc.aio.AioRpcError: as header().
        """
        call = self.stub(stubs.ClusterStub).MemberList
        reply = await call(pb.MemberListRequest(), timeout=timeout, metadata=metadata)
        urls = (url for member in reply.members for url in member.clientURLs)
        return tuple(url for url in urls if _usable(url))

    def failed(self) -> None:
        """Nothing useful came over it: another address of the same name is tried before this one."""
        if self._address:
            self._names.failed(*self._name, self._address)

    async def close(self, grace: float) -> None:
        """Calls under way may end within `grace` seconds."""
        self._closed = True
        if self.keepalive is not None:
            self.keepalive.cancel()
        if self._channel is not None:
            await self._channel.close(grace)


def raise_if_asked_to_cancel() -> None:
    """Re-raise the CancelledError being handled if this task was cancelled.

    gRPC raises the same error in every waiter of a call whose channel another task has closed; taken for
    a cancellation it would end the task in silence.
    """
    task = asyncio.current_task()
    if task is None or task.cancelling():
        raise  # noqa: PLE0704  # called only while one is handled


async def cluster_of(connection: Connection, timeout: float, metadata: tuple[tuple[str, str], ...]) -> int:  # noqa: ASYNC109
    """The cluster id of an endpoint, asked over a connection of its own; UNKNOWN where it does not answer."""
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
    """What gRPC calls an address that needs no resolver (grpc/doc/naming.md); % is a URI's, as in a zone."""
    return f"ipv6:%5B{address.replace('%', '%25')}%5D:{port}" if ":" in address else f"ipv4:{address}:{port}"

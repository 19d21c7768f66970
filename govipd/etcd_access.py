"""Makes etcd clients, and the access to etcd, from the configuration."""

from collections.abc import Collection, Sequence
from ipaddress import IPv4Address, IPv6Address
from pathlib import Path
from urllib.parse import urlsplit

from govipd.adapters.election.session import RENEWALS_PER_TTL
from govipd.adapters.etcd.client import EtcdClient
from govipd.adapters.etcd.connection import Access, Login, Tls
from govipd.config.model import Config


def nearest_first(endpoints: Sequence[str], own: Collection[IPv4Address | IPv6Address]) -> Sequence[str]:
    """The endpoints, with this machine's own etcd member first: it does not fail when another machine dies."""
    here = {"localhost", "127.0.0.1", "::1", *map(str, own)}
    return sorted(endpoints, key=lambda endpoint: urlsplit(endpoint).hostname not in here)


def etcd_access(config: Config, endpoints: Sequence[str] = ()) -> Access:
    """The configured access to etcd; if `endpoints` is not empty, to these endpoints only."""
    etcd = config.etcd
    ca, cert, key = (Path(p) if p else None for p in (etcd.ca, etcd.cert, etcd.key))
    login = Login(etcd.user, Path(etcd.password_file)) if etcd.user and etcd.password_file else None
    return Access(tuple(endpoints or etcd.endpoints), Tls(ca, cert, key), login)


def etcd_timeout(config: Config) -> float:
    """The time-out of a call, in seconds: the pause between two renewals."""
    return config.election.ttl / RENEWALS_PER_TTL


def etcd_client(config: Config, endpoints: Sequence[str] = (), timeout: float | None = None) -> EtcdClient:
    """Make a client for a few calls. `timeout`: seconds per call; None: etcd_timeout()."""
    access = etcd_access(config, endpoints)
    return EtcdClient(access.endpoints, timeout or etcd_timeout(config), access.tls, access.login)

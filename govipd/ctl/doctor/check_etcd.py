"""Checks etcd: each endpoint by itself, the lease that etcd grants, and the rights of the configured user.

The check writes no key. It asks for a lease and revokes the lease at once. It tries rights with transactions whose
condition never holds: etcd checks the rights of both branches before it evaluates the condition (CheckTxnAuth in
etcd's server/etcdserver/txn/txn.go).
"""

import asyncio
import math
import time

from govipd.adapters.election.session import RENEWALS_PER_TTL
from govipd.adapters.etcd.api import Delete, Get, IfCreateRevision, Put, Store
from govipd.adapters.etcd.client import EtcdClient
from govipd.adapters.etcd.messages import EndpointStatus
from govipd.config.model import Config
from govipd.core.sanitize import sanitize_line
from govipd.ctl.cluster import read_vip
from govipd.ctl.doctor import check_tls
from govipd.ctl.doctor.finding import Cluster, Finding, Queue, failed, ok, skipped, warning
from govipd.errors import EtcdError, EtcdRefusedError
from govipd.etcd_access import etcd_client

_TIMEOUT_S = 2.0  # for one call
_TESTED = (3, 4)  # the oldest etcd that is tested
_SIZE_MAX = 1.5e9  # bytes; at 2 GB, etcd's default quota, it refuses every write
_NO_ETCD = "etcd does not answer"


async def examine(config: Config) -> tuple[list[Finding], Cluster | None]:
    """The findings, and the queues and records of all VIPs; None where these could not be read."""
    endpoints = config.etcd.endpoints
    looked = await asyncio.gather(*(_endpoint(config, endpoint) for endpoint in endpoints))
    findings = [finding for finding, _ in looked]
    clusters = {status.cluster for _, status in looked if status}
    if len(clusters) > 1:
        text = f"the endpoints belong to {len(clusters)} clusters: each would elect a leader of its own"
        findings.append(failed("etcd cluster", text, "list the members of one cluster only: etcdctl member list"))
    answering = [endpoint for endpoint, (_, status) in zip(endpoints, looked, strict=True) if status and status.leader]
    if not answering:
        why = "no endpoint serves requests"
        return [*findings, *(skipped(check, why) for check in ("etcd lease", "etcd rights"))], None
    store = etcd_client(config, endpoints=answering, timeout=_TIMEOUT_S)
    try:
        findings += [await _lease(store, config), *await _rights(store, config)]
        return findings, {vip.name: Queue.of(await read_vip(store, config, vip)) for vip in config.vip}
    except EtcdError as e:
        return [*findings, failed("members", f"cannot be read: {e}", "see the findings about etcd above")], None
    finally:
        await store.close()


async def _endpoint(config: Config, endpoint: str) -> tuple[Finding, EndpointStatus | None]:
    check = f"etcd {endpoint}"
    if endpoint.startswith("https:") and (fault := await check_tls.handshake(check, endpoint, config.etcd)):
        return fault, None
    etcd = etcd_client(config, endpoints=[endpoint], timeout=_TIMEOUT_S)
    try:
        status = await etcd.status()
        took = await _read_time(etcd, f"{config.etcd.prefix}doctor") if status.leader else 0.0
    except EtcdRefusedError as e:
        return failed(check, f"refuses us: {_short(e, endpoint)}", _refused_remedy(config)), None
    except EtcdError as e:
        remedy = "is etcd running there (systemctl status etcd), and does a firewall let this machine through?"
        return failed(check, f"{_NO_ETCD}: {_short(e, endpoint)}", remedy), None
    finally:
        await etcd.close()
    return _judge(check, status, took, config.election.ttl / RENEWALS_PER_TTL), status


async def _read_time(etcd: EtcdClient, key: str) -> float:
    """Seconds that a linearizable read takes. A denied read counts, too; _rights() reports it."""
    began = time.monotonic()
    try:
        await etcd.txn((), (Get(key),))
    except EtcdRefusedError as e:
        if "permission denied" not in str(e):
            raise
    return time.monotonic() - began


def _judge(check: str, status: EndpointStatus, took: float, patience: float) -> Finding:
    role = "leader" if status.leader == status.member else "follower"
    text = (
        f"etcd {sanitize_line(status.version, 20)}, {role}, {status.size / 1e6:.1f} MB, answers in {took * 1000:.0f} ms"
    )
    if not status.leader:
        remedy = "bring back the majority of etcd's members: etcdctl endpoint status --cluster"
        return failed(check, "knows no leader: without a majority no machine holds the VIP", remedy)
    if status.alarms:
        remedy = "etcdctl alarm list; compact and defragment (etcd's documentation, Maintenance); etcdctl alarm disarm"
        kinds = ", ".join(dict.fromkeys(status.alarms))  # each member raises its own
        return failed(check, f"alarm {kinds}: etcd refuses to write", remedy)
    if status.size > _SIZE_MAX:
        remedy = "compact and defragment, and set --auto-compaction-retention"
        return warning(check, f"{text}: near etcd's quota of 2 GB", remedy)
    number = status.version.split(".")[:2]
    if not all(part.isdigit() for part in number) or tuple(map(int, number)) < _TESTED:
        return warning(check, f"{text}: older than what is tested", "upgrade to etcd 3.4 or later")
    if took > patience:
        remedy = "is its disk slow, or the network between etcd's members? Else raise election.ttl"
        return warning(check, f"{text}: govipd gives a call up after {patience * 1000:.0f} ms", remedy)
    return ok(check, text)


async def _lease(store: EtcdClient, config: Config) -> Finding:
    check = "etcd lease"
    asked = math.ceil(config.election.ttl)
    try:
        lease, granted = await store.grant(asked)
        await store.revoke(lease)
    except EtcdError as e:
        return failed(check, f"not granted: {e}", _refused_remedy(config))
    if granted > asked:
        text = f"{granted:g} s granted where election.ttl = {asked} was asked for: a dead machine costs that much"
        return warning(check, text, "lower etcd's --election-timeout, or set election.ttl to what is granted")
    if granted < asked:
        return failed(check, f"{granted:g} s granted where {asked} s were asked for", "is this etcd?")
    return ok(check, f"{granted:g} s granted, as election.ttl asks")


async def _rights(store: Store, config: Config) -> list[Finding]:
    """Check the rights to read and write below etcd.prefix, and below elections and claims that are elsewhere."""
    prefix = config.etcd.prefix
    others = [*(f"{vip.election}/" for vip in config.vip), config.etcd.claims]
    ranges = [prefix, *(range_ for range_ in others if not range_.startswith(prefix))]
    user = f"user {config.etcd.user}" if config.etcd.user else "no user"
    findings = []
    for range_ in ranges:
        key, check = f"{range_}doctor", "etcd rights"
        never = IfCreateRevision(key, 1)  # revision 1 is that of an empty store: no key can have it
        try:
            await store.txn((), (Get(range_, prefix=True, max_create_revision=1),))
            await store.txn((never,), (Put(key, b"", 0), Delete(f"{key}-none")))
        except EtcdRefusedError as e:
            text = f"{user} may not read and write {range_}: {e}"
            remedy = f"etcdctl role grant-permission ROLE readwrite {range_} --prefix"
            findings.append(failed(check, text, remedy))
        except EtcdError as e:
            findings.append(failed(check, f"{range_}: {e}", "try again"))
        else:
            findings.append(ok(check, f"{user}: may read and write {range_}"))
    return findings


def _refused_remedy(config: Config) -> str:
    if config.etcd.user:
        return f"check etcd.user, {config.etcd.password_file} and the user's role: docs/operations.md, etcd with TLS"
    return "etcd's authentication is on: set etcd.user and etcd.password_file"


def _short(error: Exception, endpoint: str) -> str:
    """The error's text without the endpoint, which the check names, and without gRPC's prefix."""
    text = str(error).removeprefix(f"{endpoint}: ")
    return sanitize_line(text.rpartition(": ")[2] if "last error: " in text else text, 200)

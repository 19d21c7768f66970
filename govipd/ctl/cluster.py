"""Reads the queues and the members' records of all VIPs from etcd."""

import asyncio
import json
from typing import Any

from govipd.adapters.election.membership import RECORD_BYTES_MAX
from govipd.adapters.etcd.api import Get, KeyValue, Store
from govipd.config.model import Config, VipConfig
from govipd.errors import EtcdUnavailableError

Cluster = dict[str, dict[str, Any]]
"""By VIP: `leader` (a name, or None), `queue` (names, in order), `members` (records, by name). Untrusted text."""


def read(config: Config) -> Cluster:
    """Read from etcd. Tries each endpoint once.

    Raises:
        EtcdError: no endpoint answered, or etcd refused.
    """
    return asyncio.run(_read(config))


async def _read(config: Config) -> Cluster:
    from govipd.etcd_access import etcd_client  # noqa: PLC0415  # takes 0.3 s, so imported only if needed

    store = etcd_client(config)
    tries = len(config.etcd.endpoints)
    try:
        while True:
            tries -= 1
            try:
                return {vip.name: await read_vip(store, config, vip) for vip in config.vip}
            except EtcdUnavailableError:
                if not tries:
                    raise
    finally:
        await store.close()


async def read_vip(store: Store, config: Config, vip: VipConfig) -> dict[str, Any]:
    """Read one VIP's leader, queue and records."""
    members = f"{config.etcd.prefix}members/{vip.name}/"
    reply = await store.txn((), (Get(f"{vip.election}/", prefix=True), Get(members, prefix=True)))
    queue = [_text(kv) for kv in sorted(reply.gets[0], key=lambda kv: kv.create_revision)]
    records = {kv.key.removeprefix(members): _record(kv) for kv in reply.gets[1]}
    return {"leader": queue[0] if queue else None, "queue": queue, "members": records}


def _text(kv: KeyValue) -> str:
    return kv.value.decode(errors="replace")


def _record(kv: KeyValue) -> dict[str, Any]:
    """A member's record. A value that is no JSON object, or is too long, counts as an empty record."""
    if len(kv.value) > RECORD_BYTES_MAX:
        return {}
    try:
        record = json.loads(kv.value)
    except (ValueError, RecursionError):
        record = None
    return record if isinstance(record, dict) else {}

"""govipctl: what the cluster looks like, as its members publish it in etcd.

Exit status: 0 when every VIP has a leader, 1 when one has none, 69 (EX_UNAVAILABLE) when etcd does not
answer, 78 (EX_CONFIG) for a refused configuration.
"""

import argparse
import asyncio
import json
import socket
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from govipd.adapters.store import Get, KeyValue, Store
from govipd.cli import DEFAULT_CONFIG, EX_CONFIG, etcd_client
from govipd.config import Config, Vip, load
from govipd.core.text import line
from govipd.ctl.doctor import doctor
from govipd.errors import ConfigError, EtcdError, EtcdUnavailableError

EX_UNAVAILABLE = 69


def main(argv: Sequence[str] | None = None) -> int:
    """The command. Returns the exit status."""
    args = _arguments().parse_args(argv)
    if args.command == "doctor":
        return doctor(args.config, as_json=args.json)
    try:
        config = load(args.config, hostname=socket.gethostname())
        cluster = asyncio.run(_cluster(config))
    except ConfigError as e:
        print(e, file=sys.stderr)
        return EX_CONFIG
    except EtcdError as e:
        print(f"etcd does not answer: {e}", file=sys.stderr)
        return EX_UNAVAILABLE
    if args.json:
        print(json.dumps(cluster, indent=2))
    else:
        Console().print(_table(cluster))
    return 0 if all(vip["leader"] for vip in cluster.values()) else 1


def _arguments() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="govipctl", description="Shows what govipd's members do.")
    parser.add_argument("--config", type=Path, default=DEFAULT_CONFIG, metavar="FILE", help="default: %(default)s")
    commands = parser.add_subparsers(required=True, metavar="COMMAND", dest="command")
    status = commands.add_parser("status", help="every VIP: its queue, and every member's state and gates")
    status.add_argument("--json", action="store_true", help="for programs")
    check = commands.add_parser("doctor", help="every precondition on this machine, with a verdict and the remedy")
    check.add_argument("--json", action="store_true", help="for programs")
    return parser


async def _cluster(config: Config) -> dict[str, dict[str, object]]:
    """By VIP: the leader's name (or None), the queue in order, and every member's record.

    Raises:
        EtcdError: etcd did not answer on any endpoint.
    """
    store = etcd_client(config)
    tries = len(config.etcd.endpoints)
    try:
        while True:
            tries -= 1
            try:
                return {vip.name: await _vip(store, config, vip) for vip in config.vip}
            except EtcdUnavailableError:
                if not tries:
                    raise
    finally:
        await store.close()


async def _vip(store: Store, config: Config, vip: Vip) -> dict[str, object]:
    members = f"{config.etcd.prefix}members/{vip.name}/"
    reply = await store.txn((), (Get(f"{vip.election}/", prefix=True), Get(members, prefix=True)))
    queue = [_text(kv) for kv in sorted(reply.gets[0], key=lambda kv: kv.create_revision)]
    records = {kv.key.removeprefix(members): _record(kv) for kv in reply.gets[1]}
    return {"leader": queue[0] if queue else None, "queue": queue, "members": records}


def _text(kv: KeyValue) -> str:
    return kv.value.decode(errors="replace")


def _record(kv: KeyValue) -> dict[str, object]:
    """A member's record; one that is not a JSON object is shown as an empty one."""
    try:
        record = json.loads(kv.value)
    except (ValueError, RecursionError):
        record = None
    return record if isinstance(record, dict) else {}


def _table(cluster: Mapping[str, Mapping[str, Any]]) -> Table:
    table = Table("VIP", "member", "state", "since", "place", "gates", "reason")
    for name, vip in cluster.items():
        for member, record in sorted(vip["members"].items()):
            place = str(vip["queue"].index(member) + 1) if member in vip["queue"] else "-"
            table.add_row(
                _cell(name),
                _cell(member),
                _cell(record.get("state", "?")),
                _cell(record.get("since", "?")),
                place,
                _cell(_gates(record.get("gates"))),
                _cell(record.get("detail") or record.get("reason", "")),
            )
    return table


def _gates(gates: object) -> str:
    if not isinstance(gates, dict):
        return ""
    verdicts = {gate: value.get("verdict", "?") if isinstance(value, dict) else "?" for gate, value in gates.items()}
    return ", ".join(f"{gate} {verdict}" for gate, verdict in verdicts.items())


def _cell(value: object) -> Text:
    """Foreign text: without markup, and without control of the terminal."""
    return Text(line(str(value), 500))

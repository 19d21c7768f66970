"""The record that a member publishes beside the election, and what it learns from the other members' records.

The record's key is `<prefix>members/<vip>/<member>`, its value a JSON object, attached to the member's lease. This
module does not decide who leads. It refuses a second machine with the same member name, and reports when members
disagree on the VIP's addresses. A record under our name is ours only if this machine's runtime directory lists the
record's lease (lease_file): two clones of one machine have the same identity, but not the same runtime directory.
"""

import asyncio
import json
import re
from collections.abc import Iterable, Mapping

from govipd.adapters.election.session import EtcdSession
from govipd.adapters.etcd.api import Get, IfCreateRevision, KeyValue, Put
from govipd.core.events import ClusterFault
from govipd.core.sanitize import sanitize_line
from govipd.errors import EtcdError
from govipd.runtime.ports import Sink

TOLD_MAX = 5  # members that are named in a warning
LOOK_S = 3.0  # seconds between two reads of the other members' records
RECORD_BYTES_MAX = 64 * 1024  # of a foreign record; a longer one is not parsed
MACS_MAX = 256  # hardware addresses that are remembered
_MAC = re.compile("[0-9a-f]{2}(:[0-9a-f]{2}){5}")


class Membership:
    """One member's record in one VIP group.

    Args:
        session: the process's lease.
        sink: where ClusterFault events go.
        prefix: `<prefix>members/<vip>/`.
        member: this member's name.
        identity: what distinguishes this machine from another of the same name, and its address
            ("machine", "node"); part of every record.

    Attributes:
        key: the record's key.
    """

    def __init__(
        self,
        *,
        session: EtcdSession,
        sink: Sink,
        prefix: str,
        member: str,
        identity: Mapping[str, str],
    ) -> None:
        self._session = session
        self._sink = sink
        self._prefix = prefix
        self.key = prefix + member
        self._identity = dict(identity)
        self._record: Mapping[str, object] = {}
        self._changed = asyncio.Event()
        self._reported = ClusterFault()
        self._macs: dict[str, str] = {}
        self.addresses: Mapping[int, frozenset[str]] = {}  # each member's, by its lease; without prefixes

    def macs(self) -> Mapping[str, str]:
        """The names of the other members, by the hardware address of their interface.

        A member whose record is gone stays listed: the record vanishes with the member's lease, and just then this node
        has to know whose kernel still answers.
        """
        return self._macs

    def publish(self, record: Mapping[str, object]) -> None:
        """Set this member's record. Its "addresses" should be the same for every member."""
        self._record = record
        self._changed.set()

    def all_records(self) -> Get:
        """Reads every member's record. A record has the same lease as the member's key in the queue."""
        return Get(self._prefix, prefix=True)

    def take_in(self, records: Iterable[KeyValue]) -> None:
        """Note the addresses in the records that all_records() returned."""
        self.addresses = {
            kv.lease: frozenset(address.partition("/")[0] for address in _addresses(_parse(kv))) for kv in records
        }

    async def register(self, lease: int) -> bool:
        """Claim the member's name under a new lease; False while another machine has it.

        Raises:
            EtcdError: the outcome is not known; may be repeated.
        """
        put = Put(self.key, self._json(), lease)
        reply = await self._session.txn((IfCreateRevision(self.key, 0),), (put,), (Get(self.key),))
        if not reply.succeeded:
            held = reply.gets[0][0]
            if held.lease != lease and held.lease not in self._session.leases.earlier():
                self._report(ClusterFault(refused=self._taken_by(_parse(held))))
                return False
            reply = await self._session.txn((IfCreateRevision(self.key, held.create_revision),), (put,), ())
        if reply.succeeded:
            self._report(ClusterFault())
        return reply.succeeded

    def _taken_by(self, other: Mapping[str, object]) -> str:
        name, where = self.key.removeprefix(self._prefix), sanitize_line(str(other.get("node", "an unknown address")))
        clone = other.get("machine") == self._identity.get("machine")
        words = " or an earlier process of this machine, whose lease ends soon" if clone else ""
        return f"the member name {name} is taken by {where}{words}; set election.member"

    async def write(self, lease: int) -> None:
        """Write this member's record to etcd.

        Raises:
            EtcdWriteRefusedError: etcd takes no writes now.
        """
        await self._session.txn((), (Put(self.key, self._json(), lease),))

    async def run(self, lease: int) -> None:
        """Write our record and read the other members' records, at each change and every LOOK_S seconds."""
        while True:
            self._changed.clear()
            try:
                # Written only when it differs: without compaction, etcd keeps every version.
                if await self._look() != self._json():
                    await self.write(lease)
            except EtcdError:
                pass  # the session reports the error; the next iteration tries again
            try:
                async with asyncio.timeout(self._session.until_next(LOOK_S)):
                    await self._changed.wait()
            except TimeoutError:
                continue

    async def _look(self) -> bytes | None:
        """Compare the other members' addresses with ours. Returns our record as etcd has it; None without one."""
        reply = await self._session.txn((), (self.all_records(),))
        self.take_in(reply.gets[0])
        ours = _addresses(self._record)
        differing = []
        written = None
        macs: dict[str, str] = {}
        for kv in reply.gets[0]:
            if kv.key == self.key:
                written = kv.value
                continue
            record, name = _parse(kv), sanitize_line(kv.key.removeprefix(self._prefix), 64)
            theirs = _addresses(record)
            macs |= dict.fromkeys(filter(_MAC.fullmatch, str(record.get("mac", "")).split()), name)
            if ours and theirs and ours != theirs:
                differing.append(f"{name} has {sanitize_line(', '.join(sorted(theirs)))}")
        if len(differing) > TOLD_MAX:
            differing[TOLD_MAX:] = [f"{len(differing) - TOLD_MAX} more"]
        self._macs = dict(list({**self._macs, **macs}.items())[-MACS_MAX:])
        warning = f"members disagree on the addresses: {'; '.join(differing)}" if differing else ""
        self._report(ClusterFault(warning=warning))
        return written

    def _report(self, fault: ClusterFault) -> None:
        if fault != self._reported:
            self._reported = fault
            self._sink(fault)

    def _json(self) -> bytes:
        return json.dumps({**self._identity, **self._record}).encode()


def _parse(kv: KeyValue) -> Mapping[str, object]:
    """Another member's record. A value that is no JSON object, or is too long, counts as an empty record."""
    if len(kv.value) > RECORD_BYTES_MAX:
        return {}
    try:
        value = json.loads(kv.value)
    except (ValueError, RecursionError):
        return {}
    return value if isinstance(value, dict) else {}


def _addresses(record: Mapping[str, object]) -> frozenset[str]:
    value = record.get("addresses")
    return frozenset(map(str, value)) if isinstance(value, list) else frozenset()

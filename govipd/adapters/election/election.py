"""The election: the keys are those of Go's clientv3/concurrency. In addition, a proof comes before each leadership.

A member's key is `<name>/<lease id in hex>`, its value the member's name, attached to the member's lease.
The lowest create revision leads; each candidate waits for the deletion of the key just before it. A watch
is only a hint: the place is read again, linearizably, at every wake-up, every lost watch and every few seconds.

A member closes its fence before it resigns. The transaction that deletes its key also writes a marker beside the
election: the create revision of the deleted key. A predecessor's key may also vanish without a marker: its lease
expired or was revoked, or the key was deleted by hand. Then the successor waits a moment before it activates, because
both members learn of the loss at the same time, and closing the fence takes milliseconds.
A healthy leader that leaves lets its successor become first while its own fence is still open (election.handover).

The session owns the lease (election.session): one for all groups of the process. When etcd says that the lease is
lost, the session gets a new lease. Then the candidacy begins again, under the new lease.
"""

import asyncio
import secrets
from collections.abc import Callable, Mapping, Sequence

from govipd.adapters.election.claims import Claims
from govipd.adapters.election.contender import Contender
from govipd.adapters.election.handover import YIELD_S
from govipd.adapters.election.membership import Membership
from govipd.adapters.election.session import FIRST_PAUSE_S, LONGEST_PAUSE_S, EtcdSession
from govipd.adapters.election.troubles import Troubles
from govipd.adapters.etcd.api import KeyValue
from govipd.core.actions import Address, RestartState
from govipd.core.events import Event, LeaseLost, LeaseRenewed
from govipd.errors import EtcdError
from govipd.keys import GroupKeys
from govipd.runtime.ports import Clock, Sink, TemporaryUdpSocket
from govipd.runtime.step_timing import StepTimings


class EtcdElection:
    """One member's place in one election (implements `ports.Election` and `election.candidacy.Candidacy`).

    Args:
        session: the process's lease.
        sink: where events go.
        clock: CLOCK_BOOTTIME.
        keys: where the group's keys are.
        member: this member's name, the value of its key.
        claims: this member's claims on the group's addresses.
        membership: this member's record, and the other members' records.
        timings: where the steps of an operation are noted.
        udp_socket: makes a UDP socket for a handover (election.handover).
        token: makes a secret of that many bytes.
    """

    def __init__(
        self,
        *,
        session: EtcdSession,
        sink: Sink,
        clock: Clock,
        keys: GroupKeys,
        member: str,
        claims: Claims,
        membership: Membership,
        timings: StepTimings,
        udp_socket: Callable[[], TemporaryUdpSocket],
        token: Callable[[int], bytes] = secrets.token_bytes,
    ) -> None:
        self.silent = self.adopted = False
        self.troubles = Troubles(sink)
        self._sink = sink
        self._keys = keys
        self._claims = claims
        self._membership = membership
        self._session = session
        self._contender = Contender(
            session=session, troubles=self.troubles, sink=sink, clock=clock, keys=keys, member=member, claims=claims,
            membership=membership, timings=timings, udp_socket=udp_socket, token=token,
        )  # fmt: skip
        self._silenced = asyncio.Event()
        self._part: asyncio.Task[None] | None = None  # what this member does under the present lease
        session.join(self)

    # What the shell calls

    def silenced(self) -> None:
        """See ports.Election."""
        self.silent = True
        self._silenced.set()
        self._session.silenced()

    async def fence_closed(self) -> None:
        """See ports.Election."""
        if self._contender.sender.closed():
            await asyncio.sleep(YIELD_S)

    def campaign(self, campaign: int) -> None:
        """See ports.Election."""
        self._contender.campaign(campaign)

    def hand_over(self, campaign: int, successor: str = "") -> None:
        """See ports.Election."""
        self._contender.hand_over(campaign, successor)

    def resign(self, campaign: int, successor: str = "", *, contested: bool = False) -> None:
        """See ports.Election. Where no key can exist, the confirmation is immediate."""
        self._contender.resign(campaign, successor, contested=contested)

    def prepared(self, campaign: int) -> None:
        """See ports.Election."""
        self._contender.prepared(campaign)

    def adoptable(self, holding: RestartState) -> bool:
        """See ports.Election."""
        return self._session.adoptable(holding.lease_id)

    def adopt(self, campaign: int, holding: RestartState) -> None:
        """See ports.Election. The restart state counts only after etcd has confirmed the lease and the key."""
        self._contender.adopt(campaign, holding)
        self._session.adopt(holding.lease_id)
        self.adopted = True

    async def successors(self) -> Sequence[str]:
        """See ports.Election."""
        await self._contender.successors.look(self._contender.place.key)
        return self._contender.successors.names()

    def own_key(self) -> KeyValue | None:
        """Our key in the queue, as last confirmed, while we want to be there."""
        return self._contender.place.key if self._contender.wanted is not None else None

    def claim(self, addresses: Sequence[Address]) -> None:
        """See ports.Election."""
        self._contender.claimant.want(addresses)
        self.verify()

    def unclaim(self, addresses: Sequence[Address]) -> None:
        """See ports.Election."""
        self._contender.claimant.give_up(addresses)
        self.verify()

    async def check_writes(self) -> None:
        """See ports.Election."""
        if self._session.lease is not None:
            await self._membership.write(self._session.lease)

    def verify(self) -> None:
        """See ports.Election."""
        self._contender.changed.set()

    def publish(self, record: Mapping[str, object]) -> None:
        """See ports.Election."""
        self._membership.publish(record)

    def close(self) -> None:
        """See ports.Election: the session deletes the member's record."""
        self._contender.forget_handovers()
        self._session.leave(self)

    async def run(self) -> None:
        """Take part under one lease after the other."""
        while True:
            lease = await self._session.begun()
            async with asyncio.TaskGroup() as tasks:
                self._part = tasks.create_task(self._take_part(lease))

    async def _take_part(self, lease: int) -> None:
        """Register the member's name, then keep the queue and the record beside it, until cancelled."""
        pause = FIRST_PAUSE_S
        while True:
            try:
                if await self._membership.register(lease):
                    break
                pause = LONGEST_PAUSE_S  # another machine has the name, and may leave
                self.troubles.of_candidacy("")
            except EtcdError as e:
                self.troubles.of_candidacy(str(e))
            await asyncio.sleep(pause)
            pause = min(2 * pause, LONGEST_PAUSE_S)
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._membership.run(lease))
            await self._silenced.wait()  # what an earlier process left under an adopted lease stays until then
            tasks.create_task(self._contender.run(lease))

    # What the session calls

    def candidate(self, lease: int) -> str:
        """See candidacy.Candidacy."""
        return self._keys.candidate(lease)

    def owns(self, kv: KeyValue) -> bool:
        """See remains.Owner."""
        return self._claims.owns(kv) or kv.key == self._membership.key or kv.key in self._keys.under(kv.lease)

    def tell(self, event: Event) -> None:
        """See candidacy.Candidacy."""
        self._sink(event)

    def renewed(self, renewal: LeaseRenewed, *, exists: bool | None) -> None:
        """See candidacy.Candidacy."""
        self._sink(renewal)
        if exists is not None:
            self._contender.proved(exists=exists)

    def stuck(self) -> bool:
        """See candidacy.Candidacy."""
        return self._contender.resignation.stuck()

    def lost(self, lease: int, detail: str) -> None:
        """See candidacy.Candidacy: this campaign is over, and any resignation is confirmed.

        Nothing here awaits. So a campaign that the state machine begins after LeaseLost belongs to the next lease.
        """
        self.adopted = False
        self._contender.lost()
        self.troubles.forget()
        self._sink(LeaseLost(lease, detail))
        self._contender.resignation.lost()
        if self._part is not None:
            self._part.cancel()

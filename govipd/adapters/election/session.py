"""A process's session in etcd: one lease for all its groups, the renewals, and the end of earlier leases.

The session renews the lease whether or not a campaign runs. A failed call says nothing about the lease. Only etcd's
answer that the lease does not exist ends a session; then a new one begins, with a new lease. The groups take part in
the session by their candidacies (docs/adr/0032).
"""

import asyncio
import math
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any

from govipd.adapters.election.candidacy import Candidacy
from govipd.adapters.election.queue import sleep
from govipd.adapters.election.reads import GETS_MAX, CollectedReads
from govipd.adapters.election.remains import sweep
from govipd.adapters.etcd.api import Compare, Get, Operation, Store, TxnResult
from govipd.core.events import Event, LeaseRenewed
from govipd.errors import EtcdError, EtcdRefusedError, EtcdUnavailableError, LeaseNotFoundError
from govipd.runtime.ports import Clock, Leases

RENEWALS_PER_TTL = 6  # the death of etcd's leader costs 1 to 2 s, so most of the TTL must always be left
FIRST_PAUSE_S = 0.02  # after a failed call; doubles up to
LONGEST_PAUSE_S = 0.5
ENDING_S = 1.0  # a lease that is not renewed any more has ended so long after its TTL
SILENT_S = 1.0  # wait for every group's kernel to be silent, before earlier leases are revoked
SWEEP_S = 60.0  # seconds between two sweeps when no group has left
SWEEPS = 5  # after a group has left, or the lease was adopted: a call without an answer may take effect late
SWEEP_AGAIN_S = 2.0  # seconds between these
# The groups' transactions at the same time, each kind: of hundreds at once, the last would time out.
READS_MAX = 16
WRITES_MAX = 16
URGENT_MAX = 64
_POLL_S = 0.1  # seconds between two looks while the lease ends


class EtcdSession:
    """One process's lease (implements ports.Session).

    Args:
        store: the etcd client.
        clock: CLOCK_BOOTTIME.
        ttl: seconds to ask for; etcd counts in whole seconds and may grant more.
        leases: the list of this machine's own leases.
        reach: gives the etcd client a new access.

    Attributes:
        store: the etcd client.
        leases: the list of this machine's own leases.
        lease: etcd's id of the lease; None without one.
        rewinds: how often etcd answered with an older state of its data than in an earlier answer.
        quiet_until: until then, another member may hold a VIP by a confirmation that etcd has lost.
        renew_now: wakes the renewer.
    """

    def __init__(
        self,
        *,
        store: Store,
        clock: Clock,
        ttl: float,
        leases: Leases,
        reach: Callable[[Any], None] = lambda _: None,
    ) -> None:
        self.store = store
        self.leases = leases
        self.reach = reach
        self.lease: int | None = None
        self.rewinds = 0
        self.quiet_until = 0.0
        self.renew_now = asyncio.Event()
        self._clock = clock
        self._ttl = math.ceil(ttl)
        self._revision = 0  # of the store, as last answered
        self._reading, self._writing, self._urgent = map(asyncio.Semaphore, (READS_MAX, WRITES_MAX, URGENT_MAX))
        self._reads = CollectedReads(self._read)
        self._candidacies: list[Candidacy] = []
        self._renewed: LeaseRenewed | None = None  # the last renewal of the present lease
        self._begun = asyncio.Event()  # etcd has confirmed the lease
        self._granting = False
        self._ends_by_itself = False  # this kernel may answer under the lease for a group that has gone
        self._silenced = asyncio.Event()  # wakes the waits for silent candidacies
        self._ending_earlier = asyncio.Lock()
        self._earlier_ended_at: float | None = None  # earlier leases that were not revoked have ended by then
        self._sweep_due = asyncio.Event()  # keys under our lease may belong to no candidacy
        self._sweeps = 0  # so many sweeps more, soon

    # The candidacies

    def join(self, candidacy: Candidacy) -> None:
        """Let a candidacy take part, from now on."""
        self._candidacies.append(candidacy)
        if self._renewed is not None:
            candidacy.renewed(self._renewed, exists=None)

    def leave(self, candidacy: Candidacy) -> None:
        """Let a candidacy take part no more. What it has left under the lease is deleted."""
        if candidacy in self._candidacies:
            self._candidacies.remove(candidacy)
            self._ends_by_itself |= not candidacy.silent
            self._sweep_soon()

    def tell(self, event: Event) -> None:
        """Send an event to every group."""
        for candidacy in self._candidacies:
            candidacy.tell(event)

    def adoptable(self, lease: int) -> bool:
        """Whether a group may adopt what an earlier process held under this lease."""
        return self.lease == lease or (self.lease is None and not self._granting)

    def adopt(self, lease: int) -> None:
        """Use an earlier process's lease, if it is adoptable()."""
        self.lease = lease
        self._sweep_soon()  # the earlier process may have had other groups
        self.renew_now.set()

    async def begun(self) -> int:
        """Wait until there is a lease that etcd has confirmed. Returns it."""
        while self.lease is None or self._renewed is None:
            self._begun.clear()
            await self._begun.wait()
        return self.lease

    def silenced(self) -> None:
        """Note that one more candidacy is silent."""
        self._silenced.set()

    async def _all_silent(self) -> None:
        """Wait until every candidacy is silent."""
        while not all(candidacy.silent for candidacy in self._candidacies):
            self._silenced.clear()
            await self._silenced.wait()

    # The lease

    async def run(self) -> None:
        """See ports.Session."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._keep_swept())
            while True:
                lease = self.lease or await self._grant()
                self.leases.granted(lease)  # before etcd shows it to others
                detail = await self._renew(lease)
                known, self.lease, self._renewed = self._renewed is not None, None, None
                for candidacy in tuple(self._candidacies):
                    if known or candidacy.adopted:  # the others have not begun under this lease
                        candidacy.lost(lease, detail)

    async def close(self) -> None:
        """See ports.Session. A lease under which this kernel may answer ends by itself."""
        if self.lease is not None and not self._ends_by_itself:
            with suppress(EtcdError):  # then the lease ends with its TTL
                await self.store.revoke(self.lease)
                self.leases.ended(self.lease)
        await self.store.close()

    async def _grant(self) -> int:
        """Get a new lease. Retries until etcd grants one."""
        pause = FIRST_PAUSE_S
        self._granting = True
        while True:
            sent_at = self._clock.now()
            try:
                lease, ttl = await self.store.grant(self._ttl)
            except EtcdError as e:
                self._report(str(e))
                await asyncio.sleep(pause)
                pause = min(2 * pause, LONGEST_PAUSE_S)
            else:
                self.lease = lease
                self._confirmed(LeaseRenewed(lease, sent_at, ttl), {})
                return lease

    async def _renew(self, lease: int) -> str:
        """Renew the lease until etcd says that it does not exist. Returns etcd's answer."""
        interval = self._ttl / RENEWALS_PER_TTL
        wait, pause = interval, FIRST_PAUSE_S
        ends_at = self._clock.now() + self._ttl
        while True:
            await sleep(wait, self.renew_now)
            while self._stuck() and self._clock.now() < ends_at + ENDING_S:
                await sleep(_POLL_S, self.renew_now)
            sent_at = self._clock.now()
            try:
                ttl, found = await self._prove(lease)
            except LeaseNotFoundError as e:
                return str(e)
            except EtcdError as e:
                self._report(str(e))
                wait, pause = pause, min(2 * pause, LONGEST_PAUSE_S)
            else:
                self._confirmed(LeaseRenewed(lease, sent_at, ttl), found)
                wait, pause, ends_at = interval, FIRST_PAUSE_S, self._clock.now() + ttl

    async def _prove(self, lease: int) -> tuple[float, dict[str, bool]]:
        """Renew the lease, and prove that etcd's leader renewed it (see etcd.api.Renewal).

        Returns the granted TTL, and for the key of each candidacy whether it exists.

        Raises:
            LeaseNotFoundError: the lease does not exist.
            EtcdError: not renewed, or not known to be.
        """
        renewal = await self.store.renew(lease)
        keys = [candidacy.candidate(lease) for candidacy in self._candidacies]
        found: dict[str, bool] = {}
        for first in range(0, len(keys), GETS_MAX):
            part = keys[first : first + GETS_MAX]
            proof = await self._txn((), tuple(map(Get, part)), ())
            if proof.term != renewal.term:
                raise EtcdUnavailableError("etcd changed its leader while the lease was renewed")
            found |= {key: bool(answer) for key, answer in zip(part, proof.gets, strict=True)}
        return renewal.ttl, found

    def _confirmed(self, renewal: LeaseRenewed, found: dict[str, bool]) -> None:
        self._renewed = renewal
        self._begun.set()
        for candidacy in tuple(self._candidacies):
            candidacy.renewed(renewal, exists=found.get(candidacy.candidate(renewal.lease_id)))
        self._report("")

    def _stuck(self) -> bool:
        return any(candidacy.stuck() for candidacy in self._candidacies)

    def _report(self, trouble: str) -> None:
        for candidacy in self._candidacies:
            candidacy.troubles.of_session(trouble)

    # etcd's history

    async def txn(
        self,
        compare: Sequence[Compare],
        then: Sequence[Operation],
        otherwise: Sequence[Operation] = (),
        *,
        urgent: bool = False,
    ) -> TxnResult:
        """Run one transaction. One that only reads goes out together with others (election.reads).

        It waits its turn while others of its kind are under way. One that is `urgent` does not wait for records and
        joins. The proof of the lease does not wait.

        Raises:
            EtcdError: as Store.txn().
        """
        gets = [operation for operation in then if isinstance(operation, Get)]
        if compare or otherwise or len(gets) < len(then):
            async with self._urgent if urgent else self._writing:
                return await self._txn(compare, then, otherwise)
        return await self._reads.read(gets)

    def until_next(self, period: float) -> float:
        """Seconds until the next look at something that is looked at every `period` seconds.

        All groups look at the same instants, so that their reads go out together.
        """
        left = period - self._clock.now() % period
        return left if left >= period / 10 else left + period  # else this look's own instant

    async def _read(self, gets: Sequence[Get]) -> TxnResult:
        async with self._reading:
            return await self._txn((), gets, ())

    async def _txn(
        self, compare: Sequence[Compare], then: Sequence[Operation], otherwise: Sequence[Operation]
    ) -> TxnResult:
        """Run one transaction. A revision below one that was known before shows that etcd has lost data."""
        known = self._revision
        reply = await self.store.txn(compare, then, otherwise)
        self._revision = reply.revision if reply.revision < known else max(self._revision, reply.revision)
        if reply.revision < known:
            self.rewinds += 1
            self.wait_out_the_forgotten()
        return reply

    def wait_out_the_forgotten(self) -> None:
        """Set `quiet_until` to a TTL from now: etcd has lost data, and its earlier confirmations may last so long."""
        self.quiet_until = self._clock.now() + self._ttl

    # Earlier processes

    async def end_earlier(self, lease: int) -> None:
        """Revoke the leases of this machine's earlier processes, whose keys would hold up the queues for a TTL.

        Each candidacy calls this before it joins its queue. The leases are revoked when the kernel is silent for every
        group. Where etcd does not know such a lease, the lease was not given back: it ended with its TTL, or etcd has
        lost its data. Then, and where a group is not silent within SILENT_S, a TTL is waited out.

        Raises:
            EtcdError: the outcome is not known; may be repeated.
        """
        async with self._ending_earlier:
            earlier, now = [other for other in self.leases.earlier() if other != lease], self._clock.now()
            unknown = earlier
            if self._earlier_ended_at is not None:
                if now < self._earlier_ended_at:
                    return
            elif earlier:
                try:
                    async with asyncio.timeout(SILENT_S):
                        await self._all_silent()
                except TimeoutError:
                    self.wait_out_the_forgotten()
                    self._earlier_ended_at = self.quiet_until
                    return
                unknown = [other for other in earlier if not await self._revoke_earlier(other)]
                if unknown:
                    self.wait_out_the_forgotten()
            for other in unknown:  # kept until every call was answered: after a failure all are tried again
                self.leases.ended(other)

    async def _revoke_earlier(self, lease: int) -> bool:
        """Revoke an earlier process's lease. Returns False where etcd does not know it."""
        known = await self.store.revoke(lease)
        if known:
            self.leases.ended(lease)
        return known

    def _sweep_soon(self) -> None:
        self._sweeps = SWEEPS
        self._sweep_due.set()

    async def _keep_swept(self) -> None:
        """Delete what no candidacy owns under our lease, again and again: groups that are not configured left it."""
        while True:
            await sleep(SWEEP_AGAIN_S if self._sweeps else SWEEP_S, self._sweep_due)
            lease = await self.begun()
            await self._all_silent()
            try:
                await sweep(self.store, lease, self._candidacies)
                self._sweeps = max(0, self._sweeps - 1)
            except EtcdRefusedError:  # a right is missing, so that haste would not help
                self._sweeps = 0
            except EtcdError:
                continue

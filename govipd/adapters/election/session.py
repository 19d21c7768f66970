"""One member's session in etcd: the lease and its renewals. The session also notices when etcd has lost data.

The session renews the lease whether or not a campaign runs. A failed call says nothing about the lease. Only etcd's
answer that the lease does not exist ends a session.
"""

import asyncio
import math
from collections import Counter
from collections.abc import Callable, Sequence

from govipd.adapters.etcd.api import Compare, Get, Operation, Store, TxnResult
from govipd.core.events import EtcdState, LeaseRenewed
from govipd.errors import EtcdError, EtcdUnavailableError, LeaseNotFoundError
from govipd.runtime.ports import Clock, Sink

RENEWALS_PER_TTL = 6  # the death of etcd's leader costs 1 to 2 s, so most of the TTL must always be left
FIRST_PAUSE_S = 0.02  # after a failed call; doubles up to
LONGEST_PAUSE_S = 0.5
ENDING_S = 1.0  # a lease that is not renewed any more has ended so long after its TTL
_POLL_S = 0.1  # seconds between two looks while the lease ends


class Session:
    """One lease, and the transactions of its member.

    Args:
        store: the etcd client.
        sink: where LeaseRenewed and EtcdState events go.
        clock: CLOCK_BOOTTIME.
        ttl: seconds to ask for; etcd counts in whole seconds and may grant more.

    Attributes:
        lease: etcd's id of the lease; None without one.
        went_back: etcd answered with an older state of its data than in an earlier answer.
        quiet_until: until then, another member may hold the VIP by a confirmation that etcd has lost.
        renew_now: wakes the renewer.
    """

    def __init__(self, *, store: Store, sink: Sink, clock: Clock, ttl: float) -> None:
        self.lease: int | None = None
        self.went_back = False
        self.quiet_until = 0.0
        self.renew_now = asyncio.Event()
        self._store = store
        self._sink = sink
        self._clock = clock
        self._ttl = math.ceil(ttl)
        self._revision = 0  # of the store, as last answered
        self._failures: Counter[str] = Counter()  # in a row, for each `part` of report()
        self._troubles: dict[str, str] = {}
        self._reported: EtcdState | None = None

    async def grant(self) -> int:
        """Get a new lease. Retries until etcd grants one."""
        pause = FIRST_PAUSE_S
        while True:
            sent_at = self._clock.now()
            try:
                lease, ttl = await self._store.grant(self._ttl)
            except EtcdError as e:
                self.report("lease", str(e))
                await asyncio.sleep(pause)
                pause = min(2 * pause, LONGEST_PAUSE_S)
            else:
                self.lease = lease
                self._sink(LeaseRenewed(lease, sent_at, ttl))
                self.report("lease", "")
                return lease

    async def renew(self, lease: int, key: str, proved: Callable[[bool], None], ends: Callable[[], bool]) -> str:
        """Renew the lease until etcd says that it does not exist. Returns etcd's answer.

        Args:
            lease: the lease.
            key: the key that the proof of each renewal reads.
            proved: called with whether the key exists.
            ends: returns whether the lease must end by itself; then it is not renewed.
        """
        interval = self._ttl / RENEWALS_PER_TTL
        wait, pause = interval, FIRST_PAUSE_S
        ends_at = self._clock.now() + self._ttl
        while True:
            await sleep(wait, self.renew_now)
            while ends() and self._clock.now() < ends_at + ENDING_S:
                await sleep(_POLL_S, self.renew_now)
            sent_at = self._clock.now()
            try:
                ttl = await self._renewed(lease, key, proved)
            except LeaseNotFoundError as e:
                self.lease = None
                return str(e)
            except EtcdError as e:
                self.report("lease", str(e))
                wait, pause = pause, min(2 * pause, LONGEST_PAUSE_S)
            else:
                self._sink(LeaseRenewed(lease, sent_at, ttl))
                self.report("lease", "")
                wait, pause, ends_at = interval, FIRST_PAUSE_S, self._clock.now() + ttl

    async def _renewed(self, lease: int, key: str, proved: Callable[[bool], None]) -> float:
        """Renew the lease, and prove that etcd's leader renewed it (see etcd.api.Renewal). Returns the granted TTL.

        Raises:
            LeaseNotFoundError: the lease does not exist.
            EtcdError: not renewed, or not known to be.
        """
        renewal = await self._store.renew(lease)
        proof = await self.txn((), (Get(key),))
        if proof.term != renewal.term:
            raise EtcdUnavailableError("etcd changed its leader while the lease was renewed")
        proved(bool(proof.gets[0]))
        return renewal.ttl

    async def txn(
        self, compare: Sequence[Compare], then: Sequence[Operation], otherwise: Sequence[Operation] = ()
    ) -> TxnResult:
        """Run one transaction. A revision below one that was known before shows that etcd has lost data.

        Raises:
            EtcdError: as Store.txn().
        """
        known = self._revision
        reply = await self._store.txn(compare, then, otherwise)
        self._revision = reply.revision if reply.revision < known else max(self._revision, reply.revision)
        if reply.revision < known:
            self.went_back = True
            self.wait_out_the_forgotten()
        return reply

    def wait_out_the_forgotten(self) -> None:
        """Set `quiet_until` to a TTL from now: etcd has lost data, and its earlier confirmations may last so long."""
        self.quiet_until = self._clock.now() + self._ttl

    def report(self, part: str, trouble: str) -> None:
        """Note the `trouble` of one part of the session, "" for none. Sends EtcdState when the whole changes.

        A single failure is not reported: the next call goes to the next endpoint.
        """
        if not trouble:
            self._failures[part] = 0
            self._troubles.pop(part, None)
        else:
            self._failures[part] += 1
            if self._failures[part] > 1:
                self._troubles[part] = trouble
        state = EtcdState(not self._troubles, "; ".join(dict.fromkeys(self._troubles.values())))
        if state != self._reported:
            self._reported = state
            self._sink(state)

    def forget_trouble(self, part: str) -> None:
        """Forget the trouble of a part that has ended. The next report() sends the change."""
        self._troubles.pop(part, None)


async def sleep(seconds: float, or_event: asyncio.Event) -> None:
    """Wait until the event is set, but `seconds` at most. Then clear the event."""
    try:
        async with asyncio.timeout(seconds):
            await or_event.wait()
    except TimeoutError:
        pass
    or_event.clear()

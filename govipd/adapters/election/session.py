"""One member's session in etcd: its lease, renewed for as long as etcd knows it, and what etcd's history shows.

The lease lives apart from the campaign: as long as the process and etcd want it, whether or not a campaign runs. A
failed call says nothing about it; only etcd's word that it does not exist ends a session.
"""

import asyncio
import math
from collections import Counter
from collections.abc import Callable, Sequence

from govipd.adapters.etcd.api import Compare, Get, Operation, Store, TxnResult
from govipd.core.events import EtcdState, LeaseRenewed
from govipd.errors import EtcdError, EtcdUnavailableError, LeaseNotFoundError
from govipd.runtime.ports import Clock, Sink

RENEWALS_PER_TTL = 6  # an etcd leader's death costs 1 to 2 s: most of the TTL must be left when it comes
FIRST_PAUSE_S = 0.02  # after a failed call; doubles up to
LONGEST_PAUSE_S = 0.5
ENDING_S = 1.0  # beyond its TTL, for a lease that is not renewed any more to end
_POLL_S = 0.1  # while it ends


class Session:
    """A lease, and the transactions beside it.

    Args:
        store: the etcd client.
        sink: where LeaseRenewed and EtcdState events go.
        clock: CLOCK_BOOTTIME.
        ttl: seconds to ask for; etcd counts in whole seconds and may grant more.

    Attributes:
        lease: etcd's id of the lease; None without one.
        went_back: etcd answered with an earlier state of its data than it had shown before.
        quiet_until: another member may hold the VIP until then by what etcd has forgotten.
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
        self._failures: Counter[str] = Counter()  # in a row, by part
        self._troubles: dict[str, str] = {}
        self._reported: EtcdState | None = None

    async def grant(self) -> int:
        """A new lease, tried until etcd grants one."""
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
        """Renew until etcd says that the lease does not exist; return what it said.

        Args:
            lease: the lease.
            key: is read by the proof of each renewal.
            proved: called with whether the key exists.
            ends: whether the lease must end by itself: then it is not renewed.
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
        """One transaction. A revision that is lower than one known before it was asked is of another history.

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
        """Etcd has lost data: what it confirmed to other members before may last for a TTL."""
        self.quiet_until = self._clock.now() + self._ttl

    def report(self, part: str, trouble: str) -> None:
        """Report a change of whether etcd answers usefully, over all parts of the session.

        One failure is no trouble yet: the next call goes to the next endpoint.
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
        """A part of the session has ended, and its trouble with it; reported with the next change."""
        self._troubles.pop(part, None)


async def sleep(seconds: float, or_event: asyncio.Event) -> None:
    """Wait for seconds, or until the event, which is cleared."""
    try:
        async with asyncio.timeout(seconds):
            await or_event.wait()
    except TimeoutError:
        pass
    or_event.clear()

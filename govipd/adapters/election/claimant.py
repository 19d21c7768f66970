"""How one member claims its group's addresses while it is in an election's queue (docs/adr/0031)."""

from collections.abc import Callable, Sequence

from govipd.adapters.election.claims import Claims, Standing
from govipd.adapters.election.queue import ahead_of
from govipd.adapters.election.session import EtcdSession
from govipd.adapters.etcd.api import Compare, Get, IfCreateRevision, IfOldest, KeyValue, TxnResult
from govipd.core.actions import Address
from govipd.errors import EtcdWriteRefusedError
from govipd.keys import GroupKeys
from govipd.runtime.ports import Clock
from govipd.runtime.step_timing import StepTimings

REREAD_S = 2.0  # seconds between two reads of the member's place when nothing happens
UNORDERLY_S = 0.1  # wait for the fence of a holder that left without a marker; longer than core.lease.HANDOVER_S


class Claimant:
    """When one member claims, which addresses it may hold, and which claims it lets go.

    Args:
        session: the process's lease.
        clock: CLOCK_BOOTTIME.
        keys: where the group's keys are.
        member: this member's name.
        claims: this member's claims, as last read.
        timings: where the steps of a take-over are noted.

    Attributes:
        due: this member may be first, so the next look() creates the missing claims.
        settled: the earlier holders let go of every address in order.
        blocked: this member is first, but must not activate because of another group's claims.
        strays_due: our lease may carry claims that we do not want: attached by a predecessor, or left by an earlier
            process or by a call without an answer.
    """

    def __init__(
        self, *, session: EtcdSession, clock: Clock, keys: GroupKeys, member: str, claims: Claims, timings: StepTimings
    ) -> None:
        self.due = False
        self.settled = True
        self.blocked = False
        self.strays_due = False
        self._session = session
        self._clock = clock
        self._keys = keys
        self._member = member
        self._claims = claims
        self._timings = timings
        self._grant_at: dict[Address, float] = {}  # when an address that we claimed while leading may be held
        self._surplus: dict[Address, bool] = {}  # claims to be let go; True: our kernel closed its fence before
        self._refused_until = 0.0  # until then no claim is tried, because etcd refused a write
        self._unclaimed = False  # at the last look, etcd refused writes: addresses are held without claims
        self._granted: frozenset[Address] = frozenset()  # addresses that we hold with a claim
        self._may_hold: frozenset[Address] = frozenset()  # as last reported, or as adopted
        self._was_held: frozenset[Address] = frozenset()  # addresses that we held when they left the group

    def want(self, addresses: Sequence[Address]) -> None:
        """Set the group's addresses."""
        gone = [a for a in self._claims.wanted if a not in addresses]
        never_held = [a for a in gone if a not in self._may_hold]
        self._was_held |= self._may_hold.intersection(gone)
        self._claims.want(addresses)
        self._claims.give_up(never_held)
        self._surplus |= dict.fromkeys(never_held, False)
        self.due = True

    def give_up(self, addresses: Sequence[Address]) -> None:
        """Let go of the claims on these addresses: they left the group, and our kernel is silent for them.

        A claim on an address that we did not hold is deleted, not emptied: another member may have attached the claim
        to our lease in a handover, and that member's kernel may still answer.
        """
        self._claims.give_up(addresses)
        self._surplus |= {address: address in self._was_held for address in addresses}

    def adopt(self, addresses: Sequence[Address]) -> None:
        """Adopt the addresses that an earlier process held under our lease; (): not known, so the group's."""
        self._may_hold = frozenset(addresses or self._claims.wanted)
        self._was_held = self._may_hold.difference(self._claims.wanted)
        self._claims.keep(addresses)
        self.strays_due = True

    def joined(self) -> None:
        """Start anew, because our key has just joined the queue: we hold no address yet."""
        self.settled = self.due = True
        self.blocked = False
        self._grant_at.clear()
        self._granted = self._may_hold = self._was_held = frozenset()
        self._surplus = dict.fromkeys(self._surplus, False)  # we had left when such a claim was attached

    def first(self) -> None:
        """Note that we have become first. From here on, the wait for the whole group covers every address."""
        self._grant_at.clear()
        self.strays_due = True

    def forget(self) -> None:
        """Forget all claims: the lease is gone, and every claim with it."""
        self._claims.forget()
        self._surplus.clear()

    async def look(
        self, key: KeyValue, lease: int, gets: Sequence[Get], *, leading: bool
    ) -> tuple[TxnResult, Standing]:
        """Read our place and our claims. Where we may be first, the same transaction creates our missing claims.

        Args:
            key: our key in the queue.
            lease: our lease.
            gets: what to read besides the claims; the first Get must read the queue.
            leading: an earlier look has shown that we are first.

        Raises:
            EtcdError: the outcome is not known; may be repeated.
        """
        wanted, now = self._claims.wanted, self._clock.now()
        reads = (*gets, *self._claims.reads(wanted))
        compare, puts = self._claims.take(lease, self._member, partly=leading) if self.due else ({}, ())
        self._timings.mark("proof asked")
        if puts:
            self.strays_due = True  # a put without an answer may take effect after its address has left the group
            place = (IfCreateRevision(key.key, key.create_revision), IfOldest(self._keys.queue, key.create_revision))
            try:
                reply = await self._session.txn((*place, *compare.values()), (*puts, *reads), reads, urgent=True)
            except EtcdWriteRefusedError:  # etcd answers, and the election is valid without claims
                self._refused_until = now + REREAD_S
                reply = await self._session.txn((), reads)
        else:
            reply = await self._session.txn((), reads)
        self._timings.mark("proof answered")
        standing = self._claims.look(wanted, reply.gets[len(gets) :], lease)
        if puts and reply.succeeded:
            unsettled = {a for a, c in compare.items() if isinstance(c, IfCreateRevision)} - self._may_hold
            self.settled = not unsettled
            self._grant_at |= dict.fromkeys(unsettled, self._clock.now() + UNORDERLY_S)
        self._unclaimed = refused = self._clock.now() < self._refused_until
        self.settled = self.settled and not refused
        claimable = standing.free | standing.absent
        first = not ahead_of(reply.gets[0], key)
        self.due = bool(claimable) and not refused and first and (leading or not standing.others)
        return reply, standing

    def lost(self, standing: Standing) -> str:
        """Which claim of an address that we hold is gone, as a sentence; "" where none is."""
        lost = [a for a in self._granted if a not in standing.ours and a in self._claims.wanted]
        return f"our claim of {lost[0].ip} is gone" if lost and not self._unclaimed else ""

    def grant(self, standing: Standing) -> tuple[Address, ...]:
        """The addresses that we may hold now, as the first in the queue."""
        now = self._clock.now()
        addresses = tuple(
            a for a in self._claims.wanted
            if (a in standing.ours and now >= self._grant_at.get(a, 0.0))
            or (self._unclaimed and a not in standing.others)
        )  # fmt: skip
        self._granted = frozenset(a for a in addresses if a in standing.ours)
        self._may_hold = frozenset(addresses)
        return addresses

    def next_grant_s(self) -> float:
        """Seconds until an address that we claimed while leading may be held, REREAD_S at most."""
        now = self._clock.now()
        return min((at - now for at in self._grant_at.values() if at > now), default=REREAD_S)

    def held_in_order(self, address: Address) -> bool:
        """Whether the wait for the address's earlier holder is over: that holder's kernel is silent by now."""
        return self._clock.now() >= self._grant_at.get(address, 0.0)

    # Letting go

    async def find_strays(self, lease: int) -> None:
        """Read all claims once, and note those under our lease on addresses that are not the group's.

        Raises:
            EtcdError: the outcome is not known; may be repeated.
        """
        found = (await self._session.txn((), (self._claims.every(),))).gets[0]
        self._surplus |= dict.fromkeys(self._claims.unwanted(found, lease), False)
        self.strays_due = False

    async def find_remains(self, lease: int, out: Callable[[], bool]) -> KeyValue | None:
        """Find our key or claims while we are out of the queue: a restored etcd or a late call may bring them back.

        Args:
            lease: ours.
            out: whether we are still out of the queue; the claims found count only then.

        Raises:
            EtcdError: the outcome is not known; may be repeated.
        """
        wanted = self._claims.wanted
        every = (self._claims.every(),) if self.strays_due else ()
        gets = (Get(self._keys.candidate(lease)), *every, *self._claims.reads(wanted))
        key, *claims = (await self._session.txn((), gets)).gets
        if not out() or wanted is not self._claims.wanted:
            return None
        self._claims.look(wanted, claims[len(every) :], lease)
        for found in claims[: len(every)]:
            self._claims.held = {**self._claims.held, **self._claims.unwanted(found, lease)}
            self.strays_due = False
        return next(iter(key), None)

    async def let_go_of_surplus(self, key: KeyValue) -> None:
        """Let go of claims on addresses that are not the group's any more.

        Raises:
            EtcdError: the outcome is not known; may be repeated.
        """
        if not self._surplus:
            return
        surplus = tuple(sorted(self._surplus.keys() - set(self._claims.wanted)))
        reply = await self._session.txn((), self._claims.reads(surplus))
        self._claims.look(surplus, reply.gets, key.lease)
        ours = tuple(address for address in surplus if address in self._claims.held)
        if await self.let_go(key, ours, self._surplus.__getitem__):
            self._was_held = self._was_held.difference(self._surplus)
            self._surplus.clear()

    async def let_go(self, key: KeyValue, ours: Sequence[Address], in_order: Callable[[Address], bool]) -> bool:
        """Let go of claims that we hold. Returns False where etcd takes no writes: the claims end with the lease.

        Raises:
            EtcdError: the outcome is not known; may be repeated.
        """
        compare: list[Compare] = [IfCreateRevision(key.key, key.create_revision), *self._claims.unchanged(ours)]
        try:
            if ours and (await self._session.txn(compare, self._claims.let_go(ours, in_order))).succeeded:
                self._claims.held = {a: value for a, value in self._claims.held.items() if a not in ours}
        except EtcdWriteRefusedError:
            return False
        return True

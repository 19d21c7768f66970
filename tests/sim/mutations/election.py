"""The election: the lease's deadline, winning, the wire question, releasing."""

from tests.sim.mutate import Edit
from tests.sim.mutations.mutation import Mutation, one

ELECTION = (
    # The deadline
    Mutation(
        "lease stamped after the reply",
        (
            Edit("EtcdSession._renew", "sent_at = self._clock.now()", ""),
            Edit(
                "EtcdSession._renew",
                "ttl, found = await self._prove(lease)",
                "ttl, found = await self._prove(lease)\nsent_at = self._clock.now()\n",
            ),
        ),
        within=10_000,
    ),
    one("no margin", "Lease.deadline", "self.sent_at + self.ttl - margin", "self.sent_at + self.ttl", within=2_000),
    one(
        "a renewal counts without a look at who made it",
        "EtcdSession._prove",
        (
            "renewal = await self.store.renew(lease)\n"
            "keys = [candidacy.candidate(lease) for candidacy in self._candidacies]\n"
        ),
        "return (await self.store.renew(lease)).ttl, {}",
        within=30_000,
    ),
    one(
        "a failed call taken for a lost lease",
        "EtcdSession._renew",
        "self._report(str(e))\nwait, pause = (pause, min(2 * pause, LONGEST_PAUSE_S))\n",
        "return str(e)",
        within=2_000,
    ),
    one(
        "lease-not-found ignored",
        "EtcdSession._renew",
        "return str(e)",
        "wait = interval",
        within=300,
    ),
    # Winning
    one(
        "no proof after winning",
        "Contender._stand",
        "key = place.key or await self._join(lease)",
        (
            "key = place.key\n"
            "if key is None:\n"
            "    key, now = await self._join(lease), self._clock.now()\n"
            "    self._sink(Elected(campaign, lease, now, key.create_revision, now))\n"
        ),
        within=300,
    ),
    one(
        "the watch is trusted",
        "Contender._stand",
        "self._quiet = wake is Wake.TIME and wait >= REREAD_S / 2",
        (
            "if wake is Wake.KEY and self.wanted is not None and self._session.lease is not None and place.key:\n"
            "    now = self._clock.now()\n"
            "    self._sink(Elected(self.wanted, self._session.lease, now, place.key.create_revision, now))\n"
        ),
        within=300,
    ),
    one(
        "adoption without proof",
        "Contender.adopt",
        "self.wanted = campaign",
        (
            "from govipd.core.events import LeaseRenewed\n"
            "self.wanted = campaign\n"
            "self._sink(LeaseRenewed(holding.lease_id, self._clock.now(), 3.0))\n"
            "self._sink(Elected(campaign, holding.lease_id, self._clock.now(), holding.create_revision))\n"
        ),
        within=10_000,
    ),
    one(
        "no wait for one that left without a mark",
        "Contender._first",
        "self._clock.now() + UNORDERLY_S",
        "proven.proved_at",
        within=10_000,
    ),
    one(
        "every predecessor is taken for orderly",
        "Contender._first",
        "bool(marker) and marker[0].value == str(place.ahead).encode() and self.claimant.settled",
        "self.claimant.settled",
        within=10_000,
    ),
    # The wire
    one(
        "the wire is not asked",
        "Transitions._awaits_silence",
        "early or (self.question is not None and (not self.question.silent))",
        "early",
        within=10_000,
    ),
    one(
        "a member that answers is not waited for",
        "Question.heard",
        "counts and (not any((answer.member or stranger_waits for answer in event.answers)))",
        "True",
        within=10_000,
    ),
    one(
        "a member that fell silent is taken for closed at once",
        "Question.heard",
        "not self.member_answered or now >= self.expired_at",
        "True",
        within=30_000,
    ),
    one(
        "a member's hardware address is forgotten with its record",
        "Membership._look",
        "dict(list({**self._macs, **macs}.items())[-MACS_MAX:])",
        "macs",
        within=30_000,
    ),
    # Releasing
    one(
        "resigned before the fence is closed",
        "Transitions._fire",
        "self._actions.append(ac.CloseFence())",
        "self._actions += [ac.Resign(self._campaign), ac.CloseFence()]",
        within=300,
    ),
    one(
        "the fence is taken for closed when that was only asked for",
        "FenceDeadline.closed_by_itself",
        "max(self.requested, since) + PATIENCE_S",
        "since",
        within=2_000,
    ),
    one(
        "a refused closing taken for a closed fence",
        "VipStateMachine._note_failed",
        "self._retry_at = now + RETRY_S",
        (
            "self._retry_at = now + RETRY_S\nif self.state is State.DEACTIVATING:\n    self._fire(Trigger.CLOSED, '', now)\n"
        ),
        within=2_000,
    ),
    one(
        "after a fault the lease is given back though the fence may be open",
        "Daemon._end",
        "released.remove(group)",
        "",
        within=30_000,
    ),
    one(
        "what was released after a fault may be adopted",
        "Group.release",
        "self._parts.restart_state.forget()",
        "",
        within=30_000,
    ),
)

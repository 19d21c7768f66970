"""The safety rules, each broken on purpose: the simulation must notice, or it proves nothing.

A mutation is a change of the source in one function (tests.sim.mutate). One that does not fit any more is an error: a
rule that was rewritten needs its mutation rewritten.
"""

from dataclasses import dataclass

from tests.sim.mutate import Edit


@dataclass(frozen=True, slots=True)
class Mutation:
    """A rule without which something breaks, and how it is taken away.

    `within`: in how many schedules it must be found; some ten times what it took when that was measured.
    """

    name: str
    edits: tuple[Edit, ...]
    within: int


def _one(name: str, where: str, before: str, after: str, within: int) -> Mutation:
    return Mutation(name, (Edit(where, before, after),), within)


# A leader whose fence has lapsed by the pact goes on, as in the model that the pact's rules are from. The product drops the
# VIP for good then, which alone would hide what happens without the rules of the successor.
_LAPSED = Edit("FenceDeadline.answers_until", "self.by_lease_and_pact()", "self.by_lease()")

# A member that is ineligible looks for what it may have left in etcd, which alone would hide what it forgets when it
# leaves.
_NO_NET = Edit("Contender.run", "await self._look_for_remains(lease)", "")

MUTATIONS = (
    # The deadline
    Mutation(
        "lease stamped after the reply",
        (
            Edit("Session.renew", "sent_at = self._clock.now()", ""),
            Edit(
                "Session.renew",
                "ttl = await self._renewed(lease, key, proved)",
                ("ttl = await self._renewed(lease, key, proved)\nsent_at = self._clock.now()\n"),
            ),
        ),
        within=10_000,
    ),
    _one("no margin", "Lease.deadline", "self.sent_at + self.ttl - margin", "self.sent_at + self.ttl", within=2_000),
    _one(
        "a renewal counts without a look at who made it",
        "Session._renewed",
        (
            "proof = await self.txn((), (Get(key),))\n"
            "if proof.term != renewal.term:\n"
            "    raise EtcdUnavailableError('etcd changed its leader while the lease was renewed')\n"
            "proved(bool(proof.gets[0]))\n"
        ),
        "",
        within=30_000,
    ),
    _one(
        "a failed call taken for a lost lease",
        "Session.renew",
        ("self.report('lease', str(e))\nwait, pause = (pause, min(2 * pause, LONGEST_PAUSE_S))\n"),
        ("self.lease = None\nreturn str(e)\n"),
        within=2_000,
    ),
    _one(
        "lease-not-found ignored",
        "Session.renew",
        ("self.lease = None\nreturn str(e)\n"),
        "wait = interval",
        within=300,
    ),
    # Winning
    Mutation(
        "no proof after winning",
        (
            Edit(
                "Contender._disproved",
                "not own or own[0].create_revision != key.create_revision or own[0].lease != key.lease",
                "False",
            ),
            Edit(
                "Claimant.look",
                "(IfCreateRevision(key.key, key.create_revision), IfOldest(self._keys.queue, key.create_revision))",
                "IfOldest(self._keys.queue, key.create_revision)",
            ),
            Edit("Contender._stand", "ahead or own", "ahead or own or (key,)"),
        ),
        within=300,
    ),
    _one(
        "the watch is trusted",
        "Contender._stand",
        "self._quiet = wake is Wake.TIME and wait >= REREAD_S",
        (
            "if wake is Wake.KEY and self.wanted is not None and self._session.lease is not None and place.key:\n"
            "    now = self._clock.now()\n"
            "    self._sink(Elected(self.wanted, self._session.lease, now, place.key.create_revision, now))\n"
        ),
        within=300,
    ),
    _one(
        "adoption without proof",
        "EtcdElection.adopt",
        "self._session.renew_now.set()",
        (
            "from govipd.core.events import LeaseRenewed\n"
            "self._session.renew_now.set()\n"
            "self._sink(LeaseRenewed(holding.lease_id, self._clock.now(), 3.0))\n"
            "self._sink(Elected(campaign, holding.lease_id, self._clock.now(), holding.create_revision))\n"
        ),
        within=10_000,
    ),
    _one(
        "no wait for one that left without a mark",
        "Contender._first",
        "self._clock.now() + UNORDERLY_S",
        "proven.proved_at",
        within=10_000,
    ),
    _one(
        "every predecessor is taken for orderly",
        "Contender._first",
        "bool(marker) and marker[0].value == str(place.ahead).encode() and self.claimant.settled",
        "self.claimant.settled",
        within=10_000,
    ),
    # The wire
    _one(
        "the wire is not asked",
        "Transitions._awaits_silence",
        "early or (self.question is not None and (not self.question.silent))",
        "early",
        within=10_000,
    ),
    _one(
        "a member that answers is not waited for",
        "Question.heard",
        "counts and (not any((claim.member or stranger_waits for claim in event.claims)))",
        "True",
        within=10_000,
    ),
    _one(
        "a member that fell silent is taken for closed at once",
        "Question.heard",
        "not self.member_answered or now >= self.expired_at",
        "True",
        within=30_000,
    ),
    _one(
        "a member's hardware address is forgotten with its record",
        "Membership._look",
        "dict(list({**self._macs, **macs}.items())[-MACS_MAX:])",
        "macs",
        within=30_000,
    ),
    # Releasing
    _one(
        "resigned before the fence is closed",
        "Transitions._fire",
        "self._actions.append(ac.CloseFence())",
        "self._actions += [ac.Resign(self._campaign), ac.CloseFence()]",
        within=300,
    ),
    _one(
        "the fence is taken for closed when that was only asked for",
        "FenceDeadline.closed_by_itself",
        "max(self.requested, since) + patience",
        "since",
        within=2_000,
    ),
    _one(
        "a refused closing taken for a closed fence",
        "VipStateMachine._note_failed",
        "self._retry_at = now + RETRY_S",
        (
            "self._retry_at = now + RETRY_S\nif self.state is State.DEACTIVATING:\n    self._fire(Trigger.CLOSED, '', now)\n"
        ),
        within=2_000,
    ),
    _one(
        "after a fault the lease is given back though the fence may be open",
        "Daemon._end",
        "released.remove(group)",
        "",
        within=30_000,
    ),
    _one(
        "what was released after a fault may be adopted",
        "Group.release",
        "self._parts.restart_state.forget()",
        "",
        within=30_000,
    ),
    # The fence
    _one(
        "the fence is renewed in two steps",
        "NftFence.open",
        "ready, self._ready = (self._ready, None)",
        ("ready, self._ready = (self._ready, None)\nawait self.close()\n"),
        within=300,
    ),
    _one(
        "an element is added without being deleted first",
        "_fills.make",
        (
            "yield timing(table.add_element(name, key, times_out=True), _LONG_MS)\n"
            "yield table.delete_element(name, key)\n"
        ),
        "",
        within=300,
    ),
    _one(
        "time lost before the transaction is not looked at",
        "NftFence._fill",
        "self._clock.now() - began <= allowance",
        "True",
        within=30_000,
    ),
    _one(
        "the fence looks at elements before it is known when they end",
        "NftFence._fill",
        ("if self._clock.now() - began <= allowance:\n    return idle\n"),
        ("self._commit(self._using[idle])\nif self._clock.now() - began <= allowance:\n    return idle\n"),
        within=10_000,
    ),
    _one(
        "elements for the next renewal are taken to end when it was planned",
        "NftFence._use",
        "expected + max(0.0, self._clock.now() - began - _ALLOWANCES_S[0])",
        "expected",
        within=30_000,
    ),
    _one(
        "elements for the next renewal are taken though they end later",
        "NftFence.open",
        "0 <= until - ready[1] <= loss_max",
        "until - ready[1] <= loss_max",
        within=10_000,
    ),
    # Health
    _one("the probe is ignored", "Health._note_probe", "verdict = Verdict.UNHEALTHY", "", within=1_000),
    _one("the unit is ignored", "Health.note", "event.active_state in SERVING", "True", within=1_000),
    _one(
        "what is not known permits",
        "Health.against_campaigning",
        "(s for s in self._counted if s.verdict is not Verdict.HEALTHY)",
        "(s for s in self._counted if s.verdict is Verdict.UNHEALTHY)",
        within=30_000,
    ),
    _one(
        "the unhealthy stay in the queue",
        "VipStateMachine._decide",
        "blockers = self.blockers(now)",
        "blockers = ()",
        within=300,
    ),
    Mutation(
        "a key whose reply was lost is forgotten",
        (
            Edit("Contender._join", "before, place.put_unanswered = (place.put_unanswered, True)", "before = False"),
            _NO_NET,
        ),
        within=30_000,
    ),
    _one(
        "a deletion that was given up may hit a later key",
        "Resignation._delete",
        "self._session.txn([*there, *claims.unchanged(held)], [*operations, *reads], reads)",
        "self._session.txn((), [*operations, *reads])",
        within=30_000,
    ),
    # Passing the VIP on
    _one(
        "passing on: the fence outlasts the next one's wait",
        "core.lease",
        "HANDOVER_S = 0.07",
        "HANDOVER_S = 0.2",
        within=30_000,
    ),
    _one(
        "passing on: etcd is told before the fence is short",
        "Transitions._hand_over",
        "self._actions.append(ac.Hold(self.fence.begin_handover(now)))",
        "self._actions += [ac.HandOver(self._campaign, self._successor), ac.Hold(self.fence.begin_handover(now))]",
        within=30_000,
    ),
    _one(
        "passing on: a renewal lengthens the fence",
        "Transitions._hold",
        "HOLDING",
        "HOLDING | {State.HANDING_OVER}",
        within=30_000,
    ),
    _one(
        "passing on: the addresses are put where the fence may have been taken away",
        "KernelWorker._perform",
        "await parts.fence.prepare(action.until)",
        "",
        within=10_000,
    ),
    _one(
        "passing on: the next one is told before the fence is closed",
        "HandoverSender._answer",
        "self._closed and self._ready is not None and (self._offer is not None)",
        "self._ready is not None and self._offer is not None",
        within=10_000,
    ),
    _one(
        "passing on: who is passed the VIP takes it at once",
        "HandoverReceiver.wait",
        "self._offer, self._closed = (offer, closed)",
        ("self._offer, self._closed = (offer, closed)\nclosed()\n"),
        within=2_000,
    ),
    # Claims and addresses
    _one("claims: made without a condition", "Claims.take", "compare", "{}", within=10_000),
    _one(
        "claims: kept when an address is removed from the file",
        "KernelWorker._apply_addresses",
        "parts.election.unclaim(gone)",
        "pass",
        within=30_000,
    ),
    Mutation(
        "passing on: claims that the next one does not want go with it",
        (
            Edit("HandoverSender.hand_over", "[address for address in held if successor.wants(address)]", "list(held)"),
            Edit(
                "Claimant.find_strays", "self._surplus |= dict.fromkeys(self._claims.unwanted(found, lease), False)", ""
            ),
        ),
        within=30_000,
    ),
    _one(
        "fences that an earlier file left stay",
        "leftovers.orphan_fences",
        "return () if kernel.missing() else await clear_orphans(kernel, fence_prefix(interface), owned, remove)",
        "return ()",
        within=10_000,
    ),
    # What etcd and other machines do
    _one(
        "each process believes the first cluster that answers", "Believed.__init__", "known", "UNKNOWN", within=30_000
    ),
    Mutation(
        "leaving waits until etcd takes writes",
        (
            Edit(
                "Resignation.delete",
                "await self._delete(lease, keys, None, marks=False, in_order=lambda _: False)",
                "raise",
            ),
            Edit("Resignation.leave", "give_back = True", "raise"),
            Edit("Resignation.stuck", "self._since is not None", "False"),
        ),
        within=30_000,
    ),
    Mutation(
        "a clone's lease is taken for our own",
        (
            Edit(
                "Membership.register",
                "held.lease not in self._leases.earlier()",
                "_parse(held).get('machine') != self._identity.get('machine')",
            ),
            Edit(
                "Membership.register",
                "reply = await self._store.txn((IfCreateRevision(self._key, held.create_revision),), (put,), ())",
                ("await self._store.revoke(held.lease)\nreply = await self._store.txn((), (put,), ())\n"),
            ),
        ),
        within=10_000,
    ),
    # The operator
    _one(
        "the drain is ignored",
        "Facts.withdrawals",
        "('drained by the operator',) if self.drained else ()",
        "()",
        within=2_000,
    ),
    _one("the drain ends with the process", "Group.start", "self._parts.drain.is_set()", "False", within=30_000),
    _one("a drain is lost while a group leaves to begin anew", "Daemon._named", "returning", "False", within=30_000),
    # The pact
    Mutation(
        "the pact: acknowledges while it takes over",
        (
            _LAPSED,
            Edit(
                "SuccessorHalf.hear", "self.phase is not SuccessorPhase.FOLLOWS", "self.phase is SuccessorPhase.GAVE_UP"
            ),
        ),
        within=30_000,
    ),
    Mutation(
        "the pact: acknowledges after it gave up",
        (
            _LAPSED,
            Edit(
                "SuccessorHalf.hear",
                "self.phase is not SuccessorPhase.FOLLOWS",
                "self.phase is SuccessorPhase.TAKES_OVER",
            ),
        ),
        within=30_000,
    ),
    _one(
        "the pact: back on the lease before the end is confirmed",
        "LeaderHalf.doubt",
        "self._doubted = self._doubted or due",
        ("self._doubted = self._doubted or due\nself._bound = self._bound and (not due)\n"),
        within=10_000,
    ),
    _one(
        "the pact: counted from the answer's arrival",
        "PactLeader._answered",
        "PactAnswered(leading.pact.hex(), self._timeout, sent_at)",
        "PactAnswered(leading.pact.hex(), self._timeout, self._clock.now())",
        within=30_000,
    ),
    _one(
        "the pact: the leader's time-out is the longer one",
        "LeaderHalf.limit",
        "self._acknowledged_at + self.timeout - self._margin",
        "self._acknowledged_at + self.timeout + 0.1",
        within=10_000,
    ),
    _one(
        "the pact: its margin leaves the clocks out",
        "LeaderHalf.__init__",
        "CLOCKS_SHARE * timeout + KERNEL_S",
        "KERNEL_S",
        within=10_000,
    ),
    _one(
        "the pact: in force before the fence is short",
        "VipStateMachine._note_pact",
        "self.fence.pact.acknowledged(event.sent_at, now)",
        (
            "self.fence.pact.acknowledged(event.sent_at, now)\nself._actions.append(ac.EnforcePact(self.fence.pact.id))\n"
        ),
        within=10_000,
    ),
    Mutation(
        "the pact: its end is taken for confirmed though somebody has taken over",
        (_LAPSED, Edit("PactLeader._end", "not reply.succeeded", "False")),
        within=30_000,
    ),
    _one(
        "the pact: an earlier process's is ended though the successor has taken over",
        "Contender._stand",
        "(IfCreateRevision(key.key, key.create_revision),)",
        "()",
        within=30_000,
    ),
    _one(
        "the pact: an adopted VIP keeps the earlier process's",
        "Contender._stand",
        "pact and place.adopted",
        "False",
        within=30_000,
    ),
    # Staying available
    Mutation(
        "every event is trusted to arrive",
        (
            Edit("election.claimant", "REREAD_S = 2.0", "REREAD_S = 1e9"),
            Edit("core.transitions", "REPEAT_S = 5.0", "REPEAT_S = 1e9"),
        ),
        within=10_000,
    ),
    _one(
        "a restart is an ordinary stop", "Daemon._ask_why", "await self._job_type() == 'restart'", "False", within=300
    ),
    _one(
        "an address that somebody added is left",
        "VipStateMachine._note",
        "self.state in ABSENT and (not self.present)",
        "False",
        within=2_000,
    ),
    Mutation(
        "addresses are compared with their prefix",
        (
            Edit(
                "NetlinkMonitor._look",
                "(address for index, address in found if index == self._index)",
                "(address for index, address in found if index == self._index and address in self._addresses)",
            ),
            Edit(
                "KernelAddresses._remove",
                "{address for address in self._route.addresses(link.index) if address.ip in ips}",
                "{address for address in self._route.addresses(link.index) if address in addresses}",
            ),
        ),
        within=10_000,
    ),
    _one(
        "a machine with the VIP on another interface stands",
        "VipStateMachine.blockers",
        "(*self._faults(now), *self.facts.foreign_addresses(), *self.facts.withdrawals())",
        "(*self._faults(now), *self.facts.withdrawals())",
        within=30_000,
    ),
    _one(
        "the fence is removed though the address is on the machine",
        "Group.close",
        "[each for each in found if not self._is_of_another(each.address)]",
        "()",
        within=10_000,
    ),
    _one(
        "a reload starts anew",
        "Daemon._apply",
        "new is None or new.identity != group.plan.identity",
        "True",
        within=300,
    ),
    _one(
        "which slot counts is not asked",
        "NftFence._counting",
        "any(found)",
        "any(found) is None",
        within=10_000,
    ),
    _one(
        "passing on: the claims are let go instead of passed on",
        "HandoverSender.hand_over",
        "claims.puts(moved, successor.key.lease, successor.name)",
        "claims.let_go(moved, lambda _: True)",
        within=30_000,
    ),
    Mutation(
        "an address of an earlier process is neither guarded nor removed",
        (
            Edit(
                "leftovers.orphan_fences",
                "return () if kernel.missing() else await clear_orphans(kernel, fence_prefix(interface), owned, remove)",
                "return ()",
            ),
            Edit("KernelWorker._apply_addresses", "await self._guard_all()", ""),
        ),
        within=10_000,
    ),
    _one(
        "what may be left in etcd is not looked for",
        "Contender.run",
        "await self._look_for_remains(lease)",
        "",
        within=30_000,
    ),
    Mutation(
        "a leader that is not first any more goes on",
        (
            Edit("Contender._disproved", "went_back or ahead", "False"),
            # Each of these alone would hide it.
            Edit("Claimant.lost", "lost and (not self._unclaimed)", "False"),
            Edit(
                "Transitions._awaits_silence",
                "early or (self.question is not None and (not self.question.silent))",
                "early",
            ),
        ),
        within=30_000,
    ),
    _one(
        "addresses are held before they are claimed",
        "Claimant.grant",
        "(a in standing.ours and now >= self._grant_at.get(a, 0.0)) or (self._unclaimed and a not in standing.others)",
        "True",
        within=30_000,
    ),
    _one(
        "a deposed leader deletes its key before its fence is closed",
        "Contender.run",
        "self._deposed",
        "False",
        within=30_000,
    ),
    Mutation(
        "a history that went back is not waited for",
        (
            Edit("Session.txn", "self.wait_out_the_forgotten()", ""),
            Edit(
                "Transitions._awaits_silence",
                "early or (self.question is not None and (not self.question.silent))",
                "early",
            ),
        ),
        within=30_000,
    ),
    _one(
        "a history in which an earlier process's lease is missing is not waited for",
        "Contender._join",
        "not await self._membership.end_earlier(lease)",
        "await self._membership.end_earlier(lease) and False",
        within=30_000,
    ),
    _one(
        "a member that was not free to take leaves a mark",
        "Contender._leave",
        "not_before is not None and now >= not_before",
        "True",
        within=30_000,
    ),
    _one(
        "a claim is kept behind the member that is first in the queue",
        "Contender._stand",
        "await claimant.let_go(key, tuple(standing.ours), lambda _: False)",
        "",
        within=30_000,
    ),
    _one(
        "a group that leaves removes and guards what another group of the process has",
        "Daemon._apply",
        "group.others = self._addresses",
        "",
        within=30_000,
    ),
)

# Rules that tests of the adapters and of the daemon see, and that schedules find seldom or not: holes, to be closed.
# `python -m tests.sim --mutant NAME --first SEED` hunts one of them.
NOT_FOUND_YET = (
    _one(
        "claims: another group's claim is no reason to wait",
        "Contender._stand",
        "standing.others and place.not_before is None",
        "False",
        within=30_000,
    ),
)

"""etcd, other machines, the operator, and staying available."""

from tests.sim.mutate import Edit
from tests.sim.mutations.mutation import Mutation, one

SURROUNDINGS = (
    # What etcd and other machines do
    one("each process believes the first cluster that answers", "Believed.__init__", "known", "UNKNOWN", within=30_000),
    Mutation(
        "leaving waits until etcd takes writes",
        (
            Edit(
                "Resignation._release",
                "await self._delete(lease, keys, None, marks=False, in_order=lambda _: False)",
                "raise",
            ),
            Edit("Resignation.stuck", "self._since is not None", "False"),
        ),
        within=30_000,
    ),
    Mutation(
        "a clone's lease is taken for our own",
        (
            Edit(
                "Membership.register",
                "held.lease not in self._session.leases.earlier()",
                "_parse(held).get('machine') != self._identity.get('machine')",
            ),
            Edit(
                "Membership.register",
                "reply = await self._session.txn((IfCreateRevision(self.key, held.create_revision),), (put,), ())",
                ("await self._session.store.revoke(held.lease)\nreply = await self._session.txn((), (put,), ())\n"),
            ),
        ),
        within=10_000,
    ),
    # The operator
    one(
        "the drain is ignored",
        "Facts.withdrawals",
        "('drained by the operator',) if self.drained else ()",
        "()",
        within=2_000,
    ),
    one("the drain ends with the process", "Group.start", "self._parts.drain.is_set()", "False", within=30_000),
    one("a drain is lost while a group leaves to begin anew", "Daemon._named", "returning", "False", within=30_000),
    # Staying available
    Mutation(
        "every event is trusted to arrive",
        (
            Edit("election.claimant", "REREAD_S = 2.0", "REREAD_S = 1e9"),
            Edit("core.transitions", "REPEAT_S = 5.0", "REPEAT_S = 1e9"),
        ),
        within=10_000,
    ),
    one("a restart is an ordinary stop", "Daemon._ask_why", "await self._job_type() == 'restart'", "False", within=300),
    one(
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
                "AddressWatch.seen",
                "sorted(here, key=str)",
                "sorted(present, key=str)",
            ),
            Edit(
                "KernelAddresses._remove_from",
                "{address for address in there if address.ip in ips}",
                "{address for address in there if address in addresses}",
            ),
        ),
        within=10_000,
    ),
    # Several interfaces
    one(
        "the own interface is the only link of a group",
        "LinkMonitor._look",
        "{name: states[name] for name in watch.placement.interfaces}",
        "{name: states[name] for name in watch.placement.interfaces[:1]}",
        within=30_000,
    ),
    one(
        "the wire is asked on the own interface only",
        "LinkNeighbours._ears",
        "self._placement.by_interface(self._addresses).items()",
        "[*self._placement.by_interface(self._addresses).items()][:1]",
        within=30_000,
    ),
    one(
        "a machine with the VIP on another interface stands",
        "VipStateMachine.blockers",
        "(*self._faults(now), *self.facts.foreign_addresses(), *self.facts.withdrawals())",
        "(*self._faults(now), *self.facts.withdrawals())",
        within=30_000,
    ),
    one(
        "the fence is removed though the address is on the machine",
        "Group.close",
        "[each for each in found if not self._is_of_another(each.address)]",
        "()",
        within=10_000,
    ),
    one(
        "a reload starts anew",
        "Daemon._apply",
        "new is None or new.identity != group.plan.identity",
        "True",
        within=300,
    ),
    one(
        "which slot counts is not asked",
        "NftFence._counting",
        "self._tables.used(self.addresses, a)",
        "False",
        within=10_000,
    ),
    one(
        "handover: the claims are let go instead of handed over",
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
                "return () if kernel.missing() else await clear_orphans(kernel, fence_table(interface), owned, remove)",
                "return ()",
            ),
            Edit("KernelWorker._apply_addresses", "await self._guard_all()", ""),
        ),
        within=10_000,
    ),
    one(
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
    one(
        "addresses are held before they are claimed",
        "Claimant.grant",
        "(a in standing.ours and now >= self._grant_at.get(a, 0.0)) or (self._unclaimed and a not in standing.others)",
        "True",
        within=30_000,
    ),
    one(
        "a deposed leader deletes its key before its fence is closed",
        "Contender.run",
        "self._deposed",
        "False",
        within=30_000,
    ),
    Mutation(
        "a history that went back is not waited for",
        (
            Edit("EtcdSession._txn", "self.wait_out_the_forgotten()", ""),
            Edit(
                "Transitions._awaits_silence",
                "early or (self.question is not None and (not self.question.silent))",
                "early",
            ),
        ),
        within=30_000,
    ),
    one(
        "a history in which an earlier process's lease is missing is not waited for",
        "EtcdSession.end_earlier",
        "if unknown:\n    self.wait_out_the_forgotten()\n",
        "",
        within=30_000,
    ),
    one(
        "a member that was not free to take leaves a mark",
        "Contender._leave",
        "not_before is not None and now >= not_before",
        "True",
        within=30_000,
    ),
    one(
        "a claim is kept behind the member that is first in the queue",
        "Contender._stand",
        "await claimant.let_go(key, tuple(standing.ours), lambda _: False)",
        "",
        within=10_000,
        plan="brought back",
    ),
    one(
        "a proof from before a reload decides which addresses are held",
        "Group.handle",
        "tuple((address for address in event.addresses if address in self.plan.addresses))",
        "event.addresses",
        within=30_000,
        plan="read by the successor",
    ),
    one(
        "a drain passes by the groups that a reload brings meanwhile",
        "Daemon.drain",
        "if vip:\n    break\n",
        "break",
        within=30_000,
        plan="edited in a handover",
    ),
)

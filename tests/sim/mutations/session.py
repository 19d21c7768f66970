"""One lease for all groups of a process: no group takes, keeps or ends what is another group's."""

from tests.sim.mutations.mutation import one

SESSION = (
    one(
        "session: the lease is given up for one group",
        "Resignation.leave",
        "place.key, place.put_unanswered = (None, False)",
        "await self._session.store.revoke(lease)\nplace.key, place.put_unanswered = (None, False)\n",
        within=10_000,
    ),
    one(
        "session: another group's claim under our lease is taken for our own",
        "Claims.held_by",
        "claim.lease == lease and _field(claim.value, 'vip') == self._keys.vip",
        "claim.lease == lease",
        within=30_000,
    ),
    one(
        "session: what a group has left under the lease stays",
        "EtcdSession._keep_swept",
        "await sweep(self.store, lease, self._candidacies)",
        "pass",
        within=30_000,
    ),
    one(
        "session: a group's keys are swept by the groups beside it",
        "remains.sweep",
        "any((owner.owns(kv) for owner in owners))",
        "owners[0].owns(kv)",
        within=30_000,
    ),
)

# Tests of the adapters (test_session.py) and of the daemon see these. A schedule would need two groups of which the kernel
# refuses one for long, or two leases in one runtime directory. A group that leaves lets go of its claims before another
# group of the process holds its addresses, since they share the lease.
SESSION_NOT_FOUND = (
    one(
        "a group that leaves removes and guards what another group of the process has",
        "Daemon._apply",
        "group.others = self._addresses",
        "",
        within=30_000,
    ),
    one(
        "session: a group leaves the earlier process's queue before it is silent",
        "EtcdElection._take_part",
        "await self._silenced.wait()",
        "pass",
        within=30_000,
    ),
    one(
        "session: earlier leases are revoked before every group is silent",
        "EtcdSession.end_earlier",
        "await self._all_silent()",
        "pass",
        within=30_000,
    ),
    one(
        "session: two groups adopt two leases",
        "EtcdSession.adoptable",
        "self.lease == lease or (self.lease is None and (not self._granting))",
        "True",
        within=30_000,
    ),
)

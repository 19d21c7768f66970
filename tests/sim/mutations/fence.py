"""The fence and the gates."""

from tests.sim.mutate import Edit
from tests.sim.mutations.mutation import Mutation, one

# A member that is ineligible looks for what it may have left in etcd, which alone would hide what it forgets when it
# leaves.
_NO_NET = Edit("Contender.run", "await self._look_for_remains(lease)", "")

FENCE = (
    # The fence
    one(
        "the fence is renewed in two steps",
        "NftFence.open",
        "ready, self._ready = (self._ready, None)",
        ("ready, self._ready = (self._ready, None)\nawait self.close()\n"),
        within=300,
    ),
    one(
        "an element is added without being deleted first",
        "FenceElements.fills.make",
        (
            "yield timing(table.add_element(name, key, times_out=True), _LONG_MS)\n"
            "yield table.delete_element(name, key)\n"
        ),
        "",
        within=300,
    ),
    one(
        "time lost before the transaction is not looked at",
        "NftFence._fill",
        "ended - began <= allowance",
        "True",
        within=30_000,
    ),
    one(
        "the fence looks at elements before it is known when they end",
        "NftFence._fill",
        ("if ended - began <= allowance:\n    return idle\n"),
        ("self._tables.commit((self._using[idle],))\nif ended - began <= allowance:\n    return idle\n"),
        within=10_000,
    ),
    one(
        "elements for the next renewal are taken to end when it was planned",
        "NftFence._use",
        "expected + max(0.0, ended - began - _ALLOWANCES_S[0])",
        "expected",
        within=30_000,
    ),
    one(
        "elements for the next renewal are taken though they end later",
        "NftFence.open",
        "0 <= until - ready[1] <= loss_max",
        "until - ready[1] <= loss_max",
        within=10_000,
    ),
    # Fences that share tables
    one(
        "a group that a reload adds is guarded when another change comes",
        "FenceTables.join",
        "self._stated = None",
        "",
        within=30_000,
    ),
    one(
        "a group removes an address that another group holds",
        "KernelAddresses._remove",
        "address.ip not in spared",
        "True",
        within=300,
    ),
    one(
        "a group lets go of what another group guards",
        "FenceTables.let_go",
        "without(addresses, *(other.addresses for other in self._besides(fence)))",
        "addresses",
        within=30_000,
    ),
    one(
        "tables that are set up again state only the fences that are open",
        "FenceTables._whole",
        "(fence.guarding for fence in self._fences)",
        "(fence.guarding for fence in self._open())",
        within=30_000,
    ),
    # Health
    one("the probe is ignored", "Health._note_probe", "verdict = Verdict.UNHEALTHY", "", within=1_000),
    one("the unit is ignored", "Health.note", "event.active_state in SERVING", "True", within=1_000),
    one(
        "what is not known permits",
        "Health.against_campaigning",
        "(s for s in self._counted if s.verdict is not Verdict.HEALTHY)",
        "(s for s in self._counted if s.verdict is Verdict.UNHEALTHY)",
        within=30_000,
    ),
    one(
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
    one(
        "a deletion that was given up may hit a later key",
        "Resignation._delete",
        "self._session.txn(there, [*operations, *reads], reads, urgent=True)",
        "self._session.txn((), [*operations, *reads])",
        within=30_000,
    ),
)

# Each ends with the next transaction of any group, half a second later at most.
FENCE_NOT_FOUND = (
    one(
        "a closing closes what another group holds open",
        "FenceTables.closable",
        "without(addresses, *(other.addresses for other in self._besides(fence) if other.is_open))",
        "addresses",
        within=30_000,
    ),
    one(
        "the first group that ends takes the tables of all",
        "FenceTables.leave",
        "others or self.guarded() - {address.ip for address in fence.addresses}",
        "False",
        within=30_000,
    ),
)

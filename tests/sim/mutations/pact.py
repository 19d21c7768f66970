"""The pact."""

from tests.sim.mutate import Edit
from tests.sim.mutations.mutation import Mutation, one

# A leader whose fence has lapsed by the pact goes on, as in the model that the pact's rules are from. The product drops the
# VIP for good then, which alone would hide what happens without the rules of the successor.
_LAPSED = Edit("FenceDeadline.answers_until", "self.by_lease_and_pact()", "self.by_lease()")

PACT = (
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
    one(
        "the pact: back on the lease before the end is confirmed",
        "LeaderHalf.doubt",
        "self._doubted = self._doubted or due",
        ("self._doubted = self._doubted or due\nself._bound = self._bound and (not due)\n"),
        within=10_000,
    ),
    one(
        "the pact: counted from the answer's arrival",
        "PactLeader._answered",
        "PactAnswered(leading.pact.hex(), self._timeout, sent_at)",
        "PactAnswered(leading.pact.hex(), self._timeout, self._clock.now())",
        within=30_000,
    ),
    one(
        "the pact: the leader's time-out is the longer one",
        "LeaderHalf.limit",
        "self._acknowledged_at + self.timeout - self._margin",
        "self._acknowledged_at + self.timeout + 0.1",
        within=10_000,
    ),
    one(
        "the pact: its margin leaves the clocks out",
        "LeaderHalf.__init__",
        "CLOCKS_SHARE * timeout + KERNEL_S",
        "KERNEL_S",
        within=10_000,
    ),
    one(
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
    one(
        "the pact: an earlier process's is ended though the successor has taken over",
        "Contender._stand",
        "(IfCreateRevision(key.key, key.create_revision),)",
        "()",
        within=30_000,
        plan="ended as the pact begins",
    ),
    one(
        "the pact: an adopted VIP keeps the earlier process's",
        "Contender._stand",
        "pact and place.adopted",
        "False",
        within=30_000,
    ),
)

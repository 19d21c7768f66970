"""The safety rules, each broken on purpose: the simulation must notice, or it proves nothing.

A mutation is a change of the source in one function (tests.sim.mutate). One that does not fit any more is an error: a
rule that was rewritten needs its mutation rewritten.
"""

from tests.sim.mutations.claims import CLAIMS
from tests.sim.mutations.election import ELECTION
from tests.sim.mutations.fence import FENCE, FENCE_NOT_FOUND
from tests.sim.mutations.mutation import Mutation, one
from tests.sim.mutations.pact import PACT
from tests.sim.mutations.session import SESSION, SESSION_NOT_FOUND
from tests.sim.mutations.surroundings import SURROUNDINGS

__all__ = ["MUTATIONS", "NOT_FOUND_YET", "Mutation"]

MUTATIONS = (*ELECTION, *FENCE, *CLAIMS, *PACT, *SESSION, *SURROUNDINGS)

# Rules that tests of the adapters and of the daemon see, and that schedules find seldom or not: holes, to be closed.
# `python -m tests.sim --mutant NAME --first SEED` hunts one of them.
NOT_FOUND_YET = (
    *SESSION_NOT_FOUND,
    *FENCE_NOT_FOUND,
    one(
        "claims: another group's claim is no reason to wait",
        "Contender._stand",
        "standing.others and place.not_before is None",
        "False",
        within=30_000,
    ),
)

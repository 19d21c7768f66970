"""What a mutation is."""

from dataclasses import dataclass

from tests.sim.mutate import Edit


@dataclass(frozen=True, slots=True)
class Mutation:
    """A rule without which something breaks, and how it is taken away.

    Attributes:
        name: which rule is taken away.
        edits: of the source.
        within: in how many schedules it must be found; some ten times what it took when that was measured.
        plan: hunted in schedules of this plan only (plans.RARE); "": in all.
    """

    name: str
    edits: tuple[Edit, ...]
    within: int
    plan: str = ""


def one(name: str, where: str, before: str, after: str, within: int, *, plan: str = "") -> Mutation:
    return Mutation(name, (Edit(where, before, after),), within, plan)

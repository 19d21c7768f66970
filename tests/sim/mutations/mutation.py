"""What a mutation is."""

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


def one(name: str, where: str, before: str, after: str, within: int) -> Mutation:
    return Mutation(name, (Edit(where, before, after),), within)

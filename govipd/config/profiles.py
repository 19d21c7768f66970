"""Profiles: timings that belong together, as the defaults of keys. What the file says itself goes before them.

docs/operations.md has what each gives and costs; `make bench-probe` and the bench measure it. Durations in seconds.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

PROFILES: Mapping[str, Mapping[str, Mapping[str, float]]] = {
    "default": {},  # the defaults of config.model
    # haproxy and peers within a few milliseconds: two checks without an answer, a fifth of a second of silence.
    "fast": {
        "health": {"interval": 0.07, "timeout": 0.07},
        "pact": {"timeout": 0.2},
    },
    # Machines far from each other, etcd on slow disks: an answer may take long, and waiting is cheaper than moving.
    "relaxed": {
        "election": {"ttl": 10.0, "margin": 2.0},
        "health": {"interval": 2.0, "timeout": 2.0, "fall": 3, "link_debounce": 1.0},
    },
}


@dataclass(slots=True)
class Profile:
    """The chosen one, and which keys it has decided."""

    name: str
    decided: set[str] = field(default_factory=set)

    def fill(self, where: str, table: Mapping[str, object]) -> dict[str, object]:
        """The table with the profile's defaults filled in."""
        defaults = PROFILES[self.name].get(where, {})
        self.decided |= {f"{where}.{key}" for key in defaults if key not in table}
        return {**defaults, **table}

    def origin(self, key: str) -> str:
        """For a message about a key: where its value comes from, if not from the file."""
        return f' (of profile = "{self.name}")' if key in self.decided else ""

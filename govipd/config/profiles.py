"""Profiles: timings that belong together, as defaults of keys. A key in the file overrides the profile.

docs/operations.md says what each profile gives and costs; `make bench-probe` and the bench measure this. Durations are
seconds.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

PROFILES: Mapping[str, Mapping[str, Mapping[str, float]]] = {
    "default": {},  # the defaults of config.model
    # For haproxy and members that answer within milliseconds: two failed checks, or 0.2 s of silence, move the VIP.
    "fast": {
        "health": {"interval": 0.07, "timeout": 0.07},
        "pact": {"timeout": 0.2},
    },
    # For distant machines, or etcd on slow disks: an answer may take long, and a wait costs less than a move.
    "relaxed": {
        "election": {"ttl": 10.0, "margin": 2.0},
        "health": {"interval": 2.0, "timeout": 2.0, "fall": 3, "link_debounce": 1.0},
    },
}


@dataclass(slots=True)
class Profile:
    """The chosen profile, and the keys whose values come from it."""

    name: str
    decided: set[str] = field(default_factory=set)

    def fill(self, where: str, table: Mapping[str, object]) -> dict[str, object]:
        """The table `where` of the file, with the profile's defaults filled in."""
        defaults = PROFILES[self.name].get(where, {})
        self.decided |= {f"{where}.{key}" for key in defaults if key not in table}
        return {**defaults, **table}

    def origin(self, key: str) -> str:
        """A text for a message about a key: " (of profile = ...)" if the profile gave the value, else ""."""
        return f' (of profile = "{self.name}")' if key in self.decided else ""

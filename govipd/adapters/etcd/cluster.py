"""Which etcd cluster is believed: two clusters elect two leaders (docs/adr/0027).

An etcd that was rebuilt or restored has another cluster id. It may be believed only when no machine can hold the VIP by
what the old one confirmed. That is so a TTL after more than half of the endpoints were of the new one for the first
time: from then on the old one had no majority, so it confirmed no renewal, and every fence has ended.
"""

from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path

UNKNOWN = 0  # etcd 3.4 leaves some headers empty


class ClusterFile:
    """Keeps the believed id over restarts: a process that knew none would believe the first cluster that answers.

    Args:
        path: the file, in the unit's state directory; None (not run by systemd): nothing is kept.
        endpoints: where the cluster is. A list without any of them is of another etcd, as the operator wants.
    """

    def __init__(self, path: Path | None, endpoints: Sequence[str]) -> None:
        self._path = path
        self._endpoints = tuple(endpoints)

    def load(self) -> int:
        """The id; UNKNOWN where none is kept."""
        try:
            first, *endpoints = self._path.read_text(encoding="utf-8").split() if self._path else ("",)
            return int(first, 16) if set(endpoints) & set(self._endpoints) else UNKNOWN
        except (OSError, ValueError):
            return UNKNOWN

    def save(self, cluster: int) -> None:
        """Keep this id. On a full disk the next process believes the first cluster that answers."""
        if self._path is not None:
            aside = self._path.with_suffix(".new")
            with suppress(OSError):
                aside.write_text("\n".join((f"{cluster:x}", *self._endpoints, "")), encoding="utf-8")
                aside.replace(self._path)


class Believed:
    """The id of the cluster that this client talks to, and what may take its place.

    Args:
        known: the id that an earlier process believed.
        ttl: seconds of the leases that other members may have.
        learned: keeps an id for the next process.
    """

    def __init__(self, known: int = UNKNOWN, ttl: float = 0.0, learned: Callable[[int], None] = lambda _: None) -> None:
        self.id = known
        self._learned = learned
        self.members: tuple[str, ...] = ()  # where its members take clients, in the list of endpoints or not
        self._ttl = ttl  # of the longest lease: how long the old cluster may be believed by others
        self._home: tuple[str, ...] = ()  # the endpoints in use when it answered last
        self._next = UNKNOWN  # the cluster that every endpoint is of, as it seems,
        self._since = 0.0  # and when that was seen first

    def leased(self, ttl: float) -> None:
        """A lease of so many seconds was confirmed."""
        self._ttl = max(self._ttl, ttl)

    def refuses(self, endpoint: str, cluster: int, endpoints: tuple[str, ...]) -> str:
        """Why this endpoint's answer is not to be believed; empty where it is. The first to answer is believed."""
        if cluster == UNKNOWN:
            return ""
        if self.id in (UNKNOWN, cluster):
            if self.id == UNKNOWN:
                self._learned(cluster)
            self.id, self._home, self._next = cluster, endpoints, UNKNOWN
            return ""
        return (
            f"{endpoint}: is of another cluster ({cluster:x}) than before ({self.id:x}); next: it is believed when "
            f"more than half of the endpoints are of it, and none of another, for {self._ttl:g} s"
        )

    def asked(self, endpoints: tuple[str, ...]) -> tuple[str, ...]:
        """The endpoints to ask before another cluster may be believed.

        Also those of a list that is not in force any more, and the old cluster's members: where each machine lists its
        own member only, one that was made a cluster of its own must not be taken for a rebuilt etcd.
        """
        return tuple(dict.fromkeys([*endpoints, *self._home, *self.members]))

    def looked(self, answers: Mapping[str, int], endpoints: tuple[str, ...], began: float, now: float) -> bool:
        """Every endpoint was asked, between `began` and `now`; `answers` are the cluster ids of those that answered.

        True where another cluster is believed from now on.
        """
        clusters = set(answers.values()) - {UNKNOWN}
        of_it = sum(1 for endpoint in endpoints if answers.get(endpoint, UNKNOWN) != UNKNOWN)
        if len(clusters) != 1 or self.id in clusters or 2 * of_it <= len(endpoints):
            self._next = UNKNOWN
            return False
        (cluster,) = clusters
        if cluster != self._next:
            self._next, self._since = cluster, now
        if began < self._since + self._ttl:
            return False
        self.id, self._home, self._next, self.members = cluster, endpoints, UNKNOWN, ()
        self._learned(cluster)
        return True

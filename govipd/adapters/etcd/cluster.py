"""Which etcd cluster the client believes, that is, accepts: two clusters elect two leaders (docs/adr/0027).

An etcd that was rebuilt or restored has another cluster id. The client may believe the new cluster only when no machine
can hold the VIP by a confirmation of the old cluster. That is safe one TTL after more than half of the endpoints first
belonged to the new cluster: since then the old cluster has had no majority. So the old cluster has confirmed no
renewal, and every fence has ended.
"""

from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path

UNKNOWN = 0  # etcd 3.4 leaves some headers empty


class ClusterFile:
    """Keeps the believed cluster id over restarts. Without an id, a process believes the first cluster that answers.

    Args:
        path: the file, in the unit's state directory; None (not run by systemd): no id is kept.
        endpoints: the configured endpoints. If the file lists none of them, the operator has configured another etcd.
    """

    def __init__(self, path: Path | None, endpoints: Sequence[str]) -> None:
        self._path = path
        self._endpoints = tuple(endpoints)

    def load(self) -> int:
        """The cluster id that was kept for these endpoints; UNKNOWN where there is none."""
        try:
            first, *endpoints = self._path.read_text(encoding="utf-8").split() if self._path else ("",)
            return int(first, 16) if set(endpoints) & set(self._endpoints) else UNKNOWN
        except (OSError, ValueError):
            return UNKNOWN

    def save(self, cluster: int) -> None:
        """Write the id to the file. On a full disk, the next process believes the first cluster that answers."""
        if self._path is not None:
            aside = self._path.with_suffix(".new")
            with suppress(OSError):
                aside.write_text("\n".join((f"{cluster:x}", *self._endpoints, "")), encoding="utf-8")
                aside.replace(self._path)


class Believed:
    """The id of the believed cluster, and the rule by which another cluster may replace it.

    Args:
        known: the id that an earlier process believed.
        ttl: the TTL in seconds of the leases that other members may have.
        learned: called with a newly believed id, to keep it for the next process.
    """

    def __init__(self, known: int = UNKNOWN, ttl: float = 0.0, learned: Callable[[int], None] = lambda _: None) -> None:
        self.id = known
        self._learned = learned
        self.members: tuple[str, ...] = ()  # client URLs of the cluster's members, configured or not
        self._ttl = ttl  # of the longest lease: other members may rely on the old cluster so long
        self._home: tuple[str, ...] = ()  # the endpoints in use when the believed cluster answered last
        self._next = UNKNOWN  # another cluster that most endpoints were of at the last look
        self._since = 0.0  # when a look first saw that

    def leased(self, ttl: float) -> None:
        """Note that etcd confirmed a lease of `ttl` seconds."""
        self._ttl = max(self._ttl, ttl)

    def refuses(self, endpoint: str, cluster: int, endpoints: tuple[str, ...]) -> str:
        """Why to refuse this endpoint's answer, as a text; "" if not. The first cluster to answer is believed."""
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

        The list includes endpoints of an earlier configuration, and the members of the old cluster. Where each machine
        lists only its own etcd member, a member that was made a cluster of its own must not count as a rebuilt etcd.
        """
        return tuple(dict.fromkeys([*endpoints, *self._home, *self.members]))

    def looked(self, answers: Mapping[str, int], endpoints: tuple[str, ...], began: float, now: float) -> bool:
        """Note the `answers` (cluster ids by endpoint) of a look at every endpoint, between `began` and `now`.

        Returns whether another cluster is believed from now on.
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

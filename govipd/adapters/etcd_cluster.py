"""Which etcd cluster is believed: two clusters elect two leaders (docs/adr/0027).

An etcd that was rebuilt or restored has another cluster id. It may be believed only when no machine can hold the VIP by
what the old one confirmed. That is so a TTL after more than half of the endpoints were of the new one for the first
time: from then on the old one had no majority, so it confirmed no renewal, and every fence has ended.
"""

from collections.abc import Mapping

UNKNOWN = 0  # etcd 3.4 leaves some headers empty


class Believed:
    """The id of the cluster that this client talks to, and what may take its place."""

    def __init__(self) -> None:
        self.id = UNKNOWN
        self.members: tuple[str, ...] = ()  # where its members take clients, in the list of endpoints or not
        self._ttl = 0.0  # of the longest lease: how long the old cluster may be believed by others
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
            self.id, self._home, self._next = cluster, endpoints, UNKNOWN
            return ""
        return (
            f"{endpoint}: is of another cluster ({cluster:x}) than before ({self.id:x}); next: it is believed when "
            f"more than half of the endpoints are of it, and none of another, for {self._ttl:g} s"
        )

    def asked(self, endpoints: tuple[str, ...]) -> tuple[str, ...]:
        """Whom to ask before another cluster may be believed.

        Also those of a list that is not in force any more, and the old cluster's members: where each machine lists its
        own member only, one that was made a cluster of its own must not be taken for a rebuilt etcd.
        """
        return tuple(dict.fromkeys([*endpoints, *self._home, *self.members]))

    def looked(self, answers: Mapping[str, int], endpoints: tuple[str, ...], began: float, now: float) -> bool:
        """Every endpoint was asked, between `began` and `now`; `answers` are the cluster ids of those that told theirs.

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
        return True

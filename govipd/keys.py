"""The layout of the keys in etcd. Only this module composes keys.

| key | value | lives as long as |
|---|---|---|
| `<election>/<lease>` | the member's name | the candidacy; the lowest create revision leads |
| `<claims><ip>` | who may hold the address; empty: let go in order | the holder's lease; an empty claim stays |
| `<prefix>members/<vip>/<member>` | the member's record | its lease |
| `<prefix>released/<vip>` | create revision of the last key that was deleted in order | until it is overwritten |
| `<prefix>pact/<vip>/<lease>/offer`, `.../force` | the pact | the leader's lease |
| `<prefix>handover/<vip>/<lease>` | the offer of a handover: to which member | the old leader's lease |

`<lease>` is etcd's lease id in hexadecimal digits, as clientv3/concurrency writes it.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address

PARTS: Mapping[str, str] = {
    "members/": "where the members publish their state",
    "released/": "where a release leaves its mark",
    "pact/": "where pacts are made",
    "handover/": "where handovers are offered",
}
"""The keys below `etcd.prefix` other than elections: each part of the path, and what its keys are for."""


@dataclass(frozen=True, slots=True)
class GroupKeys:
    """The keys of one VIP group.

    Attributes:
        election: the election's name.
        vip: the group's name.
        prefix: prefix of the keys beside the election; ends in "/".
        claims: prefix of the addresses' claims; the same for every group of one network; ends in "/".
    """

    election: str
    vip: str
    prefix: str
    claims: str

    @property
    def queue(self) -> str:
        """Prefix of the candidates' keys."""
        return f"{self.election}/"

    @property
    def records(self) -> str:
        """Prefix of the members' records."""
        return f"{self.prefix}members/{self.vip}/"

    @property
    def release_marker(self) -> str:
        """The key of the marker."""
        return f"{self.prefix}released/{self.vip}"

    @property
    def pacts(self) -> str:
        """Prefix of the pacts' keys."""
        return f"{self.prefix}pact/{self.vip}/"

    @property
    def handovers(self) -> str:
        """Prefix of the offers of handovers."""
        return f"{self.prefix}handover/{self.vip}/"

    def candidate(self, lease: int) -> str:
        """A candidate's key."""
        return f"{self.queue}{lease:x}"

    def claim(self, ip: IPv4Address | IPv6Address) -> str:
        """The key that says who may hold an address."""
        return f"{self.claims}{ip}"

    def offer(self, lease: int) -> str:
        """The key of the pact that the leader with this lease offers."""
        return f"{self.pacts}{lease:x}/offer"

    def force(self, lease: int) -> str:
        """The key that says that this leader's pact is in force."""
        return f"{self.pacts}{lease:x}/force"

    def handover(self, lease: int) -> str:
        """The key of the handover that the leader with this lease offers."""
        return f"{self.handovers}{lease:x}"

    def under(self, lease: int) -> frozenset[str]:
        """The keys that a member puts under its lease, beside its record and its claims."""
        return frozenset((self.candidate(lease), self.handover(lease), *self.pact(lease)))

    def pact(self, lease: int) -> tuple[str, str]:
        """All keys of this leader's pact."""
        return self.force(lease), self.offer(lease)

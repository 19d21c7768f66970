"""Records of the pact in etcd: the leader's offer, and the UDP endpoint in a member's record."""

import json
from dataclasses import dataclass

from govipd.adapters.datagrams import Endpoint
from govipd.adapters.election.membership import RECORD_BYTES_MAX
from govipd.adapters.etcd.api import KeyValue


@dataclass(frozen=True, slots=True)
class Offer:
    """What the leader writes to `<prefix>pact/<vip>/<lease>/offer`, as JSON.

    Attributes:
        leader: create revision of the leader's key in the queue.
        successor: create revision of the successor's key.
        timeout: T in seconds.
        pact: the pact's id, 8 bytes.
        secret: key of the datagrams' authentication codes.
    """

    leader: int
    successor: int
    timeout: float
    pact: bytes
    secret: bytes

    def packed(self) -> bytes:
        """The value of the key."""
        return json.dumps({
            "leader": self.leader, "successor": self.successor, "timeout": self.timeout,
            "pact": self.pact.hex(), "secret": self.secret.hex(),
        }).encode()  # fmt: skip

    @classmethod
    def parsed(cls, value: bytes) -> "Offer | None":
        """Decode a member's offer; None where the value is not valid."""
        try:
            fields = json.loads(value)
            offer = cls(
                int(fields["leader"]), int(fields["successor"]), float(fields["timeout"]),
                bytes.fromhex(fields["pact"]), bytes.fromhex(fields["secret"]),
            )  # fmt: skip
        except (ValueError, KeyError, TypeError, RecursionError):
            return None
        return offer if offer.timeout > 0 and len(offer.pact) == 8 and offer.secret else None


def udp_endpoint(records: tuple[KeyValue, ...], member: KeyValue) -> Endpoint | None:
    """The UDP endpoint in a member's record; None where the record has no valid one.

    Args:
        records: all members' records.
        member: the member's key in the queue; key and record have the same lease.
    """
    for kv in records:
        if kv.lease == member.lease and len(kv.value) <= RECORD_BYTES_MAX:
            try:
                host, _, port = json.loads(kv.value)["pact"].rpartition(":")
                return (host.strip("[]"), int(port)) if host and 0 < int(port) < 65536 else None
            except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
                return None
    return None

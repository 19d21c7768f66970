"""What a session and a group's candidacy say to each other (docs/adr/0032)."""

from typing import Protocol

from govipd.adapters.election.remains import Owner
from govipd.adapters.election.troubles import Troubles
from govipd.core.events import Event, LeaseRenewed


class Candidacy(Owner, Protocol):
    """What a session asks of one group's candidacy.

    Attributes:
        silent: this kernel does not answer for the group by order of an earlier process, or the group has adopted that.
        adopted: the group has adopted what an earlier process held under the present lease.
        troubles: where the session reports its troubles.
    """

    silent: bool
    adopted: bool
    troubles: Troubles

    def candidate(self, lease: int) -> str:
        """The key of the candidacy under this lease."""

    def tell(self, event: Event) -> None:
        """Send an event to the group."""

    def renewed(self, renewal: LeaseRenewed, *, exists: bool | None) -> None:
        """Note a renewal, and whether its proof found the key of the candidacy; None: not read."""

    def stuck(self) -> bool:
        """Whether etcd does not let the group leave its queue, so that the lease must end by itself."""

    def lost(self, lease: int, detail: str) -> None:
        """Note that the lease is gone, and every key with it. Begins nothing that belongs to the next lease."""

"""Moments at which something is half done: a fault may wait for one of them."""

from enum import StrEnum


class Moment(StrEnum):
    """The event of a note (clockwork.Note) that begins with these words."""

    ADOPTING = "adopting"
    ADOPTED = "activating adopted"
    INELIGIBLE = "ineligible"
    RESIGNED = "ineligible resigned"
    WON = "activating won"
    ACTIVATED = "leader activated"
    DEACTIVATING = "deactivating"
    EXPIRED = "deactivating expired"
    RESIGNING = "resigning"
    GATE = "gate"
    PACT = "pact made"
    ANSWERS = "answers for 192"
    SILENT = "answers for nothing"
    LEASE_EXPIRED = "lease expired"
    ETCD_LEADER = "leads"
    STARTED = "govipd started"
    TOLD_TO_STOP = "govipd told to stop"
    KILLED = "govipd killed"
    POWER = "power"

    def begins(self, event: str) -> bool:
        """Whether an event is of this kind."""
        return event.startswith(self)

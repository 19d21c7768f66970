"""The numbers that the decisions depend on. Validated by govipd.config; all durations in seconds."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Settings:
    """One group's settings."""

    margin: float = 0.5  # the fence closes this long before etcd can give the VIP to another member
    rise: int = 2  # successes in a row before the probe counts as healthy
    fall: int = 2  # failures in a row before the probe counts as unhealthy
    unknown_limit: float = 3.0  # for a holder, a gate that is UNKNOWN for this long counts as unhealthy
    link_debounce: float = 0.2
    fenced: bool = True  # nf_tables fence (10 ms precision, addresses may be present); else address lifetimes
    unit_gate: bool = True
    probe_gate: bool = True
    flap_window: float = 60.0  # falls within this window lengthen the wait before the next campaign
    flap_wait: float = 1.0  # the wait after the second fall; it doubles with each further one
    flap_wait_max: float = 30.0
    stranger_waits: bool = False  # an activation also waits for a stranger that answers for the VIP

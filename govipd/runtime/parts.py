"""What a VIP group is made of: its configuration as a plan, and the adapters that the composition makes for it."""

from collections.abc import Callable, Hashable
from dataclasses import dataclass, field
from typing import Any

from govipd.core.events import Address
from govipd.core.settings import Settings
from govipd.runtime.ports import (
    Addresses,
    AddressMonitor,
    Announcer,
    DrainMark,
    Election,
    Fence,
    Neighbours,
    Pact,
    RestartStateStore,
    Sink,
)
from govipd.runtime.step_timing import StepTimings


@dataclass(frozen=True, slots=True)
class Parts:
    """What a group needs of the world, as the composition root makes it."""

    election: Election
    fence: Fence
    addresses: Addresses
    announcer: Announcer
    monitor: AddressMonitor
    neighbours: Neighbours
    restart_state: RestartStateStore
    drain: DrainMark
    pact: Pact
    timings: StepTimings
    reach: Callable[[Any], None] = lambda _: None  # etcd, as in GroupPlan.access


@dataclass(frozen=True, slots=True)
class GroupPlan:
    """One VIP group as configured. Another `identity` is another election: release, then start anew.

    `access` is how etcd is reached; another one is handed to `Parts.reach`, without letting go of the VIP.
    """

    name: str
    identity: Hashable
    addresses: tuple[Address, ...]
    settings: Settings
    make: Callable[[Sink], Parts] = field(compare=False)
    access: Hashable = None

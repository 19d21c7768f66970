"""What the daemon runs: the configuration as a plan, and the adapters that the composition makes for each VIP group."""

from collections.abc import Callable, Hashable, Mapping
from dataclasses import dataclass, field
from typing import Any

from govipd.core.events import Address
from govipd.core.journal_kinds import JournalKind
from govipd.core.settings import Settings
from govipd.core.status import NodeStatus
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
from govipd.runtime.process_ports import Operator, Service, Source
from govipd.runtime.step_timing import StepTimings


@dataclass(frozen=True, slots=True)
class Parts:
    """The adapters of one VIP group, as the composition makes them."""

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
    """One VIP group as configured. Another `identity` is another election: release, then start again.

    `access` is how etcd is reached; another one is handed to `Parts.reach`, without letting go of the VIP.
    """

    name: str
    identity: Hashable
    addresses: tuple[Address, ...]
    settings: Settings
    make: Callable[[Sink], Parts] = field(compare=False)
    access: Hashable = None


@dataclass(frozen=True, slots=True)
class Plan:
    """A validated configuration, in the daemon's terms.

    Two sources, or services, with the same key are the same one: a reload leaves it running. `node` is what the node's
    status begins with; it has no groups yet.
    """

    node: NodeStatus
    groups: Mapping[str, GroupPlan]
    sources: Mapping[Hashable, Callable[[Sink], Source]]
    services: Mapping[Hashable, Callable[[Operator], Service]] = field(default_factory=dict)
    warnings: tuple[tuple[JournalKind, str], ...] = ()

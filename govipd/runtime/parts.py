"""The plan that the daemon runs (the configuration in its terms), and the adapters of each VIP group."""

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
    Session,
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


@dataclass(frozen=True, slots=True)
class SessionPlan:
    """The process's session in etcd as configured.

    `identity`: a reload that changes it releases every VIP, then starts a new session.
    `access`: how to reach etcd. A reload that changes it calls `Session.reach`; the lease stays.
    """

    identity: Hashable
    make: Callable[[], Session] = field(compare=False)
    access: Hashable = None


@dataclass(frozen=True, slots=True)
class GroupPlan:
    """One VIP group as configured.

    `identity`: a reload that changes it releases the VIP, then starts the group anew.
    `make`: makes the group's adapters, on the process's session.
    """

    name: str
    election: str
    identity: Hashable
    addresses: tuple[Address, ...]
    settings: Settings
    make: Callable[[Sink, Any], Parts] = field(compare=False)


@dataclass(frozen=True, slots=True)
class Plan:
    """A validated configuration, in the daemon's terms.

    A reload leaves a source or a service running if the new plan has the same key. `node` is the node's status, without
    its groups.
    """

    node: NodeStatus
    session: SessionPlan
    groups: Mapping[str, GroupPlan]
    sources: Mapping[Hashable, Callable[[Sink], Source]]
    services: Mapping[Hashable, Callable[[Operator], Service]] = field(default_factory=dict)
    warnings: tuple[tuple[JournalKind, str], ...] = ()

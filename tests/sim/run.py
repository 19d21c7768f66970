"""Runs one schedule: builds the world, lets the faults strike, asks the oracle."""

import gc
import hashlib
import sys
import warnings
from collections import Counter
from dataclasses import dataclass
from random import Random

from govipd.adapters.etcd.api import KeyValue
from tests.sim.clockwork import Note, World
from tests.sim.compose import TTL
from tests.sim.etcd import Cluster
from tests.sim.fault import HOLDER, Fault
from tests.sim.faults import BROKEN_PROMISES, HISTORIES, KINDS, LATE, PROMPT, REFUSED
from tests.sim.files import PREFIXES, SECOND, file_of
from tests.sim.kernel import JIFFY_S, IPAddress
from tests.sim.kernel_adapters import COMMIT_S
from tests.sim.machine import Machine
from tests.sim.network import Network
from tests.sim.oracle import PROCESS, Oracle, Violation
from tests.sim.plans import CALM_BEGIN_S
from tests.sim.schedule import Schedule

STEP_S = 0.5  # between two looks at whether everything has settled
STEADY_S = 1.0  # and for how long it must have been
# How long after the last fault the VIP may be unserved: an etcd leader's election (2), the lease of a dead holder, anew
# (3, its scan 0.5, its clock), calls that run into their deadline (1.5), a re-read (2), damping (2), a start (1).
BOUND_S = 14.0


@dataclass(frozen=True, slots=True)
class Outcome:
    """The result of a schedule."""

    schedule: Schedule
    violation: Violation | None
    seconds: float  # of virtual time
    healed: float  # seconds from the last fault's end until everything was settled
    notes: tuple[Note, ...]
    faults: Counter[str]

    @property
    def detected(self) -> bool:
        """Whether the outcome finds a mutation. A mutant's crash proves nothing: the mutant's own code may be wrong."""
        return self.violation is not None and self.violation.promise != PROCESS

    def digest(self) -> str:
        """A hash of the transcript."""
        return hashlib.sha256(self.transcript().encode()).hexdigest()

    def transcript(self) -> str:
        """The schedule and every note, for people."""
        return "\n".join([str(self.schedule), "", *map(str, self.notes), ""])

    def events(self) -> str:
        """The events in their order, without times and prose, for comparison."""
        return "".join(
            " ".join(filter(None, (note.who, note.group, note.event))) + "\n" for note in self.notes if note.event
        )


class Simulation:
    """One world, and the faults of its schedule."""

    def __init__(self, schedule: Schedule) -> None:
        self.schedule = schedule
        self.random = Random(schedule.seed ^ 0x9E3779B9)
        self.world = World()
        self.oracle = Oracle(self.world)
        self.file = file_of(schedule.groups)  # what every machine's is meant to be
        steady = self.file.groups[1:] if schedule.of_one_group else self.file.groups
        self.oracle.steady = frozenset(a.ip for group in steady for a in group.addresses if a != SECOND)
        self.network = Network(self.world, Random(self.random.random()))
        rates = schedule.rates
        self.cluster = Cluster(self.world, self.network, Random(self.random.random()), rates[3:])
        self.machines = [
            Machine(
                index,
                self.world,
                Random(self.random.random()),
                network=self.network,
                cluster=self.cluster,
                oracle=self.oracle,
                file=self.file,
                margin=schedule.margin,
                pact=schedule.pact,
                watchdog=schedule.watchdog,
                rate=rates[index],
            )
            for index in range(3)
        ]
        self.oracle.machines = self.machines[: schedule.nodes]
        self._ends: dict[int, object] = {}
        self._struck: Counter[str] = Counter()
        self._waiting = [fault for fault in schedule.faults if fault.moment]
        self._seen: Counter[int] = Counter()  # by fault
        self._candidates: dict[str, tuple[Machine, frozenset[IPAddress]]] = {}  # by key: whose, and for which addresses

    def machine(self, fault: Fault) -> Machine:
        """The fault's target. Where several groups have holders, `place` chooses among them, too."""
        if fault.node != HOLDER:
            return self.machines[fault.node]
        groups = self.file.groups
        group = groups[int(fault.place * 1000) % len(groups)]
        holder = self.oracle.serving(group.addresses[0].ip) or self.oracle.serving()
        return next((m for m in self.machines if m.name == holder), self.machines[0])

    def agree(self) -> None:
        """Make the operator's file every machine's file."""
        for machine in self.oracle.machines:
            machine.agree(self.file)

    def run(self) -> Outcome:
        """Run the whole schedule."""
        world, schedule, oracle = self.world, self.schedule, self.oracle
        if self._waiting:
            world.noted = self._noted
        for fault in schedule.faults:
            if not fault.moment:
                world.at(fault.at, self._strike, fault)
        for machine in oracle.machines:
            world.at(0.05 * self.random.random(), machine.start)
        oracle.direct = not any(fault.kind in LATE for fault in schedule.faults)
        self.cluster.joined = self._joined
        self.cluster.gone = self._gone
        self.cluster.lost = self._lost
        oracle.prompt = all(fault.kind in PROMPT for fault in schedule.faults)
        if any(fault.kind == "etcd restored" for fault in schedule.faults):
            for at in range(1, int(schedule.end)):
                world.at(at + 0.5 * self.random.random(), self.cluster.snapshot)
        if all(fault.kind in REFUSED for fault in schedule.faults):
            world.after(0.0, self._look_for_deserted)
        oracle.leased = not any(fault.kind in (*BROKEN_PROMISES, *HISTORIES) for fault in schedule.faults)
        if schedule.calm or schedule.of_one_group:
            oracle.steady_from = CALM_BEGIN_S
        while world.now < schedule.end and oracle.violation is None:
            world.run(min(world.now + STEP_S, schedule.end))
        healed = self._heal() if oracle.violation is None else 0.0
        for machine in self.machines:
            machine.shut_down()
        return Outcome(schedule, oracle.violation, world.now, healed, tuple(world.notes), self._struck)

    def _heal(self) -> float:
        """End every fault, and wait until all is well. A wait that is too long is a violation."""
        world, oracle = self.world, self.oracle
        self._waiting.clear()
        for end in list(self._ends):
            self._end(end)
        world.note("world", "every fault has ended", "calm")
        if self.schedule.left_out is not None:
            oracle.left_out = self.machines[self.schedule.left_out]
            oracle.left_out.set_proxy("failed")
        began, well_since, trouble = world.now, None, ""
        while oracle.violation is None:
            world.run(world.now + STEP_S / 2)
            for machine in oracle.machines:
                machine.agree(machine.file)
            trouble = oracle.settled(self._queues(), set(self.cluster.leases)) or self._records()
            if trouble:
                well_since = None
                if world.now - began > BOUND_S:
                    oracle.fail("G2", f"{trouble}, {BOUND_S:g} s after the last fault")
            elif well_since is None:
                well_since = world.now
            elif world.now - well_since >= STEADY_S:
                return well_since - began
        return 0.0

    def _records(self) -> str:
        """Whether the members' records in etcd name the leaders."""
        for group in self.file.groups:
            holder = self.oracle.serving(group.addresses[0].ip)
            record = self.cluster.keys.get(f"{self.file.prefix}members/{group.name}/{holder}")
            if record is None or b'"state": "leader"' not in record.value:
                return "no record shows the leader"
        return ""

    # The queues

    def _queues(self) -> dict[str, list[tuple[int, Machine]]]:
        """For each election: the candidates' leases and machines, in the order of the queue."""
        queues: dict[str, list[tuple[int, Machine]]] = {}
        for kv in sorted(self.cluster.keys.values(), key=lambda kv: kv.create_revision):
            election = _election(kv)
            if election:
                queues.setdefault(election, []).append((kv.lease, self.machines[self.cluster.owners[kv.lease]]))
        return queues

    def _look_for_deserted(self) -> None:
        """For each address, a member could hold it, though etcd refuses some calls."""
        queues = self._queues()
        for group in self.file.groups:
            standing = [m for _, m in queues.get(group.election, ()) if m.index not in self.cluster.unwritable]
            for address in group.addresses:
                self.oracle.look_for_deserted(address.ip, standing)
        self.world.after(STEP_S, self._look_for_deserted)

    def _gone(self, kv: KeyValue) -> None:
        """A leader's key is gone: its kernel must be silent, unless a fault broke etcd's promise."""
        election = _election(kv)
        if (
            election
            and not any(fault.kind in BROKEN_PROMISES for fault in self.schedule.faults)
            and self._queues()[election][0][0] == kv.lease
        ):
            self.world.after(0.0, self._resigned, kv)

    def _resigned(self, kv: KeyValue) -> None:
        """The transaction that deleted the key has come to its end."""
        if kv.key not in self._candidates:
            return  # it joined before etcd was restored
        machine, addresses = self._candidates[kv.key]
        election = _election(kv)
        groups = (*machine.file.groups, *(machine.last_read.groups if machine.last_read else ()))
        others = {a.ip for group in groups if group.election != election for a in group.addresses}
        note = f"/{kv.lease:x}"
        handed_over = any(key.endswith(note) and "handover/" in key for key in self.cluster.keys)
        self.oracle.resigned(machine, addresses - others, handed_over=handed_over)

    def _lost(self, since: float) -> None:
        """etcd has no majority: members may hold only by what it has confirmed until now."""
        longest = (TTL - self.schedule.margin) / min(self.schedule.rates) + JIFFY_S + COMMIT_S
        self.world.after(longest, self._lost_for, since, longest)

    def _lost_for(self, since: float, longest: float) -> None:
        holder = self.oracle.serving()
        if self.cluster.lost_at == since and holder:
            self.oracle.fail("lease", f"{holder} answers {longest:.2f} s after etcd has lost its majority")

    def _joined(self, kv: KeyValue) -> None:
        election = _election(kv)
        if not election:
            return
        machine = self.machines[self.cluster.owners[kv.lease]]
        group = next((g for g in (machine.read or machine.file).groups if g.election == election), None)
        addresses = frozenset() if group is None else frozenset(address.ip for address in group.addresses)
        self._candidates[kv.key] = machine, addresses
        self.oracle.joined(machine, "" if group is None else group.name)

    def _noted(self, event: str) -> None:
        for fault in list(self._waiting):
            if fault.moment is not None and fault.moment.begins(event):
                self._seen[id(fault)] += 1
                if self._seen[id(fault)] >= fault.nth:
                    self._waiting.remove(fault)
                    self.world.after(fault.at, self._strike, fault)

    def _strike(self, fault: Fault) -> None:
        if self.world.now >= self.schedule.end:
            return
        name = self.machine(fault).name
        self.world.note("fault", f"{fault.kind} ({name}, {fault.seconds:.3f} s)", f"{fault.kind}: {name}")
        self._struck[fault.kind] += 1
        end = KINDS[fault.kind](self, fault)
        if end is not None:
            self._ends[id(fault)] = end
            self.world.after(fault.seconds, self._end, id(fault))

    def _end(self, fault: int) -> None:
        end = self._ends.pop(fault, None)
        if callable(end):
            end()


def _election(kv: KeyValue) -> str:
    """The election of a candidate's key; "" for any other key."""
    return "" if kv.key.startswith(PREFIXES) else kv.key.rpartition("/")[0]


def simulate(schedule: Schedule) -> Outcome:
    """Run one schedule.

    The coroutines of killed processes never ended, as those of real ones: when their memory is freed, Python complains
    that they will not.
    """
    before, sys.unraisablehook = sys.unraisablehook, lambda _: None
    gc.disable()  # not in the midst of it: it costs time, and frees at moments of its own
    gc.freeze()  # what was there before is not looked at: half of the time went into that
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # a task of a killed process that had not begun
        try:
            return Simulation(schedule).run()
        finally:
            while gc.collect():  # what the first one has ended may have been held by what it ended
                pass
            gc.unfreeze()
            gc.enable()
            sys.unraisablehook = before

"""What must hold at every instant, and in the end. It sees the kernels themselves, not what daemons say of them."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

from tests.sim.clockwork import World
from tests.sim.kernel import SECOND, interface_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from govipd.core.actions import Address
    from tests.sim.kernel import IPAddress
    from tests.sim.machine import Machine
    from tests.sim.systemd import Unit

UNIT_S = 0.6  # how long one whose proxy's unit has failed may answer, where nothing slows the verdict down
TAKEN_S = 2.0  # so long after its proxy broke, a machine must not begin to answer any more
UNHEALTHY_S = 4.5  # how long a machine with a dead proxy may answer at most: a lease, a probe and the verdict
HANDED_OVER_S = 0.1  # how long after its key was deleted a machine that hands the VIP over may answer
DESERTED_S = 7.0  # longest time without an answer while a healthy member is in the queue: two leases, and a retry
STREWN_S = 3.5  # after this, a machine knows its other interfaces' addresses, even if rtnetlink's events were lost
PROCESS = "process"  # the promise that no process crashes; a mutant's crash finds nothing
QUEUE_MAX = 200  # events that wait in a daemon which is up to date


@dataclass(frozen=True, slots=True)
class Violation:
    """A promise that was broken, when, and how."""

    promise: str
    when: float
    text: str


class Oracle:
    """Watches every machine. The first violation counts: what follows may follow from it.

    `undisturbed` schedules break nothing but daemons: from `steady_from` on `steady` must neither move nor pause.
    """

    def __init__(self, world: World) -> None:
        self.violation: Violation | None = None
        self.machines: list[Machine] = []
        self.steady_from: float | None = None
        self.prompt = False  # nothing in the schedule slows daemons or the kernel down
        self.direct = True  # and nothing lets a request arrive late
        self.leased = False  # etcd keeps each lease for as long as it says
        self.left_out: Machine | None = None  # whose proxy does not come back
        self.steady: frozenset[IPAddress] = frozenset()  # what must be served in a schedule that disturbs only daemons
        self._world = world
        self._answers: dict[str, set[IPAddress]] = {}
        self._began: dict[tuple[str, IPAddress], float] = {}  # to answer
        self._deserted_since: dict[IPAddress, float] = {}
        self._unhealthy_since: dict[str, float] = {}
        self._failed_since: dict[str, float] = {}  # the proxy's unit
        self._unplugged_since: dict[str, float] = {}  # the second link

    def fail(self, promise: str, text: str) -> None:
        """Note a violation."""
        self._world.note("oracle", f"{promise}: {text}", f"{promise} broken")
        if self.violation is None:
            self.violation = Violation(promise, self._world.now, text)

    # Every instant

    def look(self, machine: "Machine") -> None:
        """Something about the machine may have changed."""
        name, now = machine.name, self._world.now
        answers = machine.kernel.answers()
        before = self._answers.get(name, set())
        if answers != before:
            self._answers[name] = answers
            for address in answers - before:
                self._began[name, address] = now
                if not before & machine.siblings(address):
                    self._only_healthy_begins(machine)
            words = ", ".join(sorted(map(str, answers))) or "nothing"
            self._world.note(name, f"answers for {words}", f"answers for {words}")
            self._steady(name)
        if self.leased:
            self._within_lease(machine, answers)
        self._one_at_most()
        if machine.proxy.healthy:
            self._unhealthy_since.pop(name, None)
        elif name not in self._unhealthy_since:
            self._unhealthy_since[name] = now
            self._world.after(UNHEALTHY_S, self._only_healthy, self._unhealthy_since, machine, now)
        if machine.proxy.active_state != "failed":
            self._failed_since.pop(name, None)
        elif self.prompt and name not in self._failed_since:
            self._failed_since[name] = now
            self._world.after(UNIT_S, self._only_healthy, self._failed_since, machine, now)

    def _one_at_most(self) -> None:
        """G1."""
        seen: dict[IPAddress, str] = {}
        for machine in self.machines:
            for address in self._answers.get(machine.name, ()):
                if machine.kernel.flushed(address):  # the fence was taken away; a renewal sets it up
                    continue
                if address in seen:
                    self.fail("G1", f"{seen[address]} and {machine.name} answer for {address}")
                seen[address] = machine.name

    def _within_lease(self, machine: "Machine", answers: "Iterable[IPAddress]") -> None:
        """The fence closes by itself before another may take, if this instant were the daemon's last."""
        for address in answers:
            closes = machine.kernel.closes_at(address)
            for ends, what in machine.may_hold_until(address):
                if closes > ends and not machine.kernel.flushed(address):
                    self.fail("lease", f"{machine.name}'s fence would close {closes - ends:.3f} s after {what}")

    def _steady(self, name: str) -> None:
        """G3."""
        if self.steady_from is None or self._world.now < self.steady_from:
            return
        if not self.steady <= set().union(*self._answers.values()):
            self.fail("G3", f"{name} stopped answering though only daemons were disturbed")

    def _only_healthy(self, broken: dict[str, float], machine: "Machine", since: float) -> None:
        """G4: the machine has stopped answering, unless its proxy has recovered."""
        if broken.get(machine.name) == since and self._answers.get(machine.name):
            self.fail("G4", f"{machine.name} still answers {self._world.now - since:g} s after its proxy broke")

    def _only_healthy_begins(self, machine: "Machine") -> None:
        """G4: the machine does not begin to answer. A machine that was frozen may do so for a moment."""
        since, now = self._unhealthy_since.get(machine.name, self._world.now), self._world.now
        if now - since > TAKEN_S and now > machine.disturbed_until + TAKEN_S:
            self.fail("G4", f"{machine.name} begins to answer {now - since:.1f} s after its proxy broke")

    def unplugged(self, machine: "Machine") -> None:
        """G4: a machine whose second link is down holds no group that needs it. To be called when that begins."""
        self._unplugged_since[machine.name] = now = self._world.now
        self._world.after(UNHEALTHY_S, self._only_plugged, machine, now)

    def _only_plugged(self, machine: "Machine", since: float) -> None:
        if machine.kernel.carrier[SECOND] or self._unplugged_since[machine.name] != since:
            return
        for group in machine.file.groups:
            ips = {address.ip for address in group.addresses}
            if any(interface_of(ip) == SECOND for ip in ips) and ips & self._answers.get(machine.name, set()):
                self.fail("G4", f"{machine.name} answers for {group.name} {UNHEALTHY_S:g} s after its second link fell")

    def drained(self, machine: "Machine", since: float) -> None:
        """G4: a drained machine has stopped answering, and does not begin again."""
        names = [name for name, drained in machine.drained_since.items() if drained == since]
        if self._answers.get(machine.name, set()) & {ip for name in names for ip in machine.ips(name)}:
            self.fail("G4", f"{machine.name} answers {self._world.now - since:g} s after it was drained")

    def resigned(self, machine: "Machine", addresses: "Iterable[IPAddress]", *, handed_over: bool) -> None:
        """Order is contract: a leader's key goes only when its kernel has stopped answering for the group.

        In a handover, its kernel stops before a member may take that only waits for a time.
        """
        for address in addresses:
            if address in self._answers.get(machine.name, ()) and not machine.kernel.flushed(address):
                if handed_over:
                    began = self._began[machine.name, address]
                    self._world.after(HANDED_OVER_S, self._handed_over, machine, address, began)
                else:
                    self.fail("order", f"{machine.name}'s key is deleted while it answers")

    def _handed_over(self, machine: "Machine", address: "IPAddress", began: float) -> None:
        answers = address in self._answers.get(machine.name, ()) and self._began[machine.name, address] == began
        if answers and not machine.kernel.flushed(address):
            self.fail("order", f"{machine.name} answers {HANDED_OVER_S:g} s after it has handed the VIP over")

    def joined(self, machine: "Machine", group: str) -> None:
        """G4: a machine with a broken proxy, or a drained one, does not campaign."""
        now = self._world.now
        if not self.direct or now <= machine.disturbed_until + TAKEN_S:
            return
        since = self._unhealthy_since.get(machine.name, now)
        if now - since > TAKEN_S:
            self.fail("G4", f"{machine.name} campaigns {now - since:.1f} s after its proxy broke")
        drained = machine.drained_since.get(group, now)
        if now - drained > TAKEN_S:
            self.fail("G4", f"{machine.name} campaigns {now - drained:.1f} s after it was drained")

    def strewn(self, machine: "Machine", queue: list[str]) -> None:
        """A machine that has had the VIP on another interface for STREWN_S leads already, or is not in the queue."""
        if self.direct and machine.name in queue[1:] and self._world.now > machine.disturbed_until + TAKEN_S:
            self.fail("elsewhere", f"{machine.name} stands in the queue with the VIP on another interface")

    def announced(self, machine: "Machine", addresses: "set[IPAddress]") -> None:
        """G1: a machine announces only addresses for which no other machine answers."""
        for address in addresses - self._answers.get(machine.name, set()):
            others = [
                other.name
                for other in self.machines
                if address in self._answers.get(other.name, ()) and not other.kernel.flushed(address)
            ]
            if others:
                self.fail("G1", f"{machine.name} announces what {others[0]} answers for")

    def removes(self, machine: "Machine", address: "Address") -> None:
        """A daemon removes no address for which one of its groups answers.

        But with another prefix: IPv6 has an address once on an interface, so that one must make way.
        """
        meant = address in machine.file.addresses and machine.holds(address.ip)
        if meant and address.ip in machine.kernel.answers():
            self.fail("G2", f"{machine.name} removes {address}, which a group of its file holds")

    def broken(self, machine: "Unit", what: str) -> None:
        """A process did what no process may do."""
        self.fail(PROCESS, f"{machine.name}: {what}")

    def exited(self, machine: "Unit", status: int) -> None:
        """A daemon ended with a fault."""
        if not machine.task_broken:
            self.fail(PROCESS, f"{machine.name}: the daemon exited with status {status}")
        machine.task_broken = False

    def look_for_deserted(self, address: "IPAddress", standing: "Iterable[Machine]") -> None:
        """G2: a machine answers if a healthy member has been in the queue for DESERTED_S. To be called often."""
        able = [m for m in standing if m.proxy.healthy and m.daemon is not None and not m.job and not m.drained_since]
        if self.serving(address) or not able:
            self._deserted_since.pop(address, None)
        elif self._world.now - self._deserted_since.setdefault(address, self._world.now) > DESERTED_S:
            self.fail("G2", f"nobody answers for {address}, and {able[0].name} has stood in the queue for long")

    # The end

    def serving(self, address: "IPAddress | None" = None) -> str:
        """Which machines answer for an address, or for any address; "" when none does."""
        for machine in self.machines:
            answers = self._answers.get(machine.name)
            if answers and (address is None or address in answers):
                return machine.name
        return ""

    def settled(self, queues: "Mapping[str, Sequence[tuple[int, Machine]]]", leases: set[int]) -> str:
        """What is still wrong after a while without faults, as a text; "" when all is well.

        Args:
            queues: the candidates in etcd, by election: lease and machine.
            leases: those in etcd.
        """
        for machine in self.machines:
            trouble = self._machine_trouble(machine)
            if trouble:
                return trouble
        files = [machine.file for machine in self.machines]
        for address in set.intersection(*({a.ip for a in file.addresses} for file in files)):
            if not self.serving(address):
                return "nobody answers" if len(files[0].addresses) == 1 else f"nobody answers for {address}"
        if all(file == files[0] for file in files):
            for group in files[0].groups:
                if len({self.serving(address.ip) for address in group.addresses}) > 1:
                    return f"the addresses of {group.name} are on several machines"
        if len(leases) > len(self.machines):
            return f"{len(leases)} leases for {len(self.machines)} members"
        return self._queue_trouble(queues)

    def _machine_trouble(self, machine: "Machine") -> str:
        answers = self._answers.get(machine.name, set())
        for address in machine.kernel.addresses:
            if address.ip not in answers:
                return f"{machine.name} has the address though {self.serving(address.ip) or 'nobody'} holds it"
            if address not in machine.file.addresses:
                return f"{machine.name} answers for {address}, which its file does not name"
        if machine.daemon is None:
            return f"{machine.name} runs no daemon"
        if machine.daemon._queue.qsize() > QUEUE_MAX:
            return f"{machine.name} has {machine.daemon._queue.qsize()} events waiting"
        if machine.read != machine.file:
            return f"{machine.name} has not read its file"
        return ""

    def _queue_trouble(self, queues: "Mapping[str, Sequence[tuple[int, Machine]]]") -> str:
        if self.left_out is not None and self._answers.get(self.left_out.name):
            return f"{self.left_out.name} takes part, whose proxy is dead"
        for queue in queues.values():
            for lease, machine in queue:
                if machine is self.left_out:
                    return f"{machine.name} takes part, whose proxy is dead"
                if lease not in machine.leases():
                    return f"the queue has a dead candidate of {machine.name}"
        return ""

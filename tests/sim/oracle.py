"""What must hold at every instant, and in the end. It sees the kernels themselves, not what daemons say of them."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

from tests.sim.clockwork import World

if TYPE_CHECKING:
    from tests.sim.kernel import IPAddress
    from tests.sim.machine import Machine

UNIT_S = 0.6  # how long one whose proxy's unit has failed may answer, where nothing slows the verdict down
TAKEN_S = 2.0  # how long after its proxy broke nobody may begin to answer
UNHEALTHY_S = 4.5  # how long a machine with a dead proxy may answer at most: a lease, a probe and the verdict
PASSED_S = 0.1  # how long after its key was deleted a machine that passes the VIP on may answer
STREWN_S = 3.5  # after which a machine knows what its other interfaces have, whatever became of the kernel's news
QUEUE_MAX = 200  # events that wait in a daemon which is up to date


@dataclass(frozen=True, slots=True)
class Violation:
    """A promise that was broken, when, and how."""

    promise: str
    when: float
    text: str


class Oracle:
    """Watches every machine. The first violation counts: what follows may follow from it.

    `undisturbed` schedules break nothing but daemons: from `steady_from` on the VIP must neither move nor pause.
    """

    def __init__(self, world: World) -> None:
        self.violation: Violation | None = None
        self.machines: list[Machine] = []
        self.steady_from: float | None = None
        self.prompt = False  # nothing in the schedule slows daemons or the kernel down
        self.direct = True  # and nothing lets a request arrive late
        self.left_out: Machine | None = None  # whose proxy does not come back
        self.vip: IPAddress | None = None
        self._world = world
        self._answers: dict[str, set[IPAddress]] = {}
        self._began: dict[str, float] = {}  # to answer
        self._unhealthy_since: dict[str, float] = {}
        self._failed_since: dict[str, float] = {}  # the proxy's unit

    def fail(self, promise: str, text: str) -> None:
        """Note a violation."""
        self._world.note("oracle", f"{promise}: {text}")
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
            if self.vip in answers and self.vip not in before:
                self._began[name] = now
                self._only_healthy_begins(machine)
            words = ", ".join(sorted(map(str, answers))) or "nothing"
            self._world.note(name, f"answers for {words}")
            self._steady(name)
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
            if machine.kernel.flushed:  # somebody took the fence away; the next renewal sets it up again
                continue
            for address in self._answers.get(machine.name, ()):
                if address in seen:
                    self.fail("G1", f"{seen[address]} and {machine.name} answer for {address}")
                seen[address] = machine.name

    def _steady(self, name: str) -> None:
        """G3."""
        holders = [m.name for m in self.machines if self.vip in self._answers.get(m.name, ())]
        if self.steady_from is not None and self._world.now >= self.steady_from and not holders:
            self.fail("G3", f"{name} stopped answering though only daemons were disturbed")

    def _only_healthy(self, broken: dict[str, float], machine: "Machine", since: float) -> None:
        """G4: it has stopped, if it is still as broken as it was."""
        if broken.get(machine.name) == since and self._answers.get(machine.name):
            self.fail("G4", f"{machine.name} still answers {self._world.now - since:g} s after its proxy broke")

    def _only_healthy_begins(self, machine: "Machine") -> None:
        """G4: it does not begin. One that was frozen may know no better for a moment."""
        since, now = self._unhealthy_since.get(machine.name, self._world.now), self._world.now
        if now - since > TAKEN_S and now > machine.disturbed_until + TAKEN_S:
            self.fail("G4", f"{machine.name} begins to answer {now - since:.1f} s after its proxy broke")

    def drained(self, machine: "Machine", since: float) -> None:
        """What the operator has drained has stopped, and has not begun again."""
        if machine.drained_since == since and self._answers.get(machine.name):
            self.fail("G4", f"{machine.name} answers {self._world.now - since:g} s after it was drained")

    def resigned(self, machine: "Machine", *, passed: bool) -> None:
        """Order is contract: a leader's key goes only when its kernel has stopped answering.

        Where it passes the VIP on, its kernel stops before anybody may take for whom time alone has passed.
        """
        if self.vip in self._answers.get(machine.name, ()) and not machine.kernel.flushed:
            if passed:
                self._world.after(PASSED_S, self._passed, machine, self._began.get(machine.name))
            else:
                self.fail("order", f"{machine.name}'s key is deleted while it answers")

    def _passed(self, machine: "Machine", began: float) -> None:
        if self._answers.get(machine.name) and self._began.get(machine.name) == began and not machine.kernel.flushed:
            self.fail("order", f"{machine.name} answers {PASSED_S:g} s after it has passed the VIP on")

    def joined(self, machine: "Machine") -> None:
        """G4: whose proxy is broken, or whom the operator has drained, does not stand for election."""
        now = self._world.now
        if not self.direct or now <= machine.disturbed_until + TAKEN_S:
            return
        since = self._unhealthy_since.get(machine.name, now)
        if now - since > TAKEN_S:
            self.fail("G4", f"{machine.name} campaigns {now - since:.1f} s after its proxy broke")
        if machine.drained_since is not None and now - machine.drained_since > TAKEN_S:
            self.fail("G4", f"{machine.name} campaigns {now - machine.drained_since:.1f} s after it was drained")

    def strewn(self, machine: "Machine", queue: list[str]) -> None:
        """A machine whose other interfaces have had the VIP for STREWN_S: it leads already, or is not in the queue."""
        if self.direct and machine.name in queue[1:] and self._world.now > machine.disturbed_until + TAKEN_S:
            self.fail("elsewhere", f"{machine.name} stands in the queue with the VIP on another interface")

    def announced(self, machine: "Machine") -> None:
        """A machine told the neighbours that the VIP is there."""
        others = [m.name for m in self.machines if m is not machine and self._answers.get(m.name)]
        if others and not self._answers.get(machine.name):
            self.fail("G1", f"{machine.name} announces what {others[0]} answers for")

    def broken(self, machine: "Machine", what: str) -> None:
        """A process did what none may do."""
        self.fail("process", f"{machine.name}: {what}")

    def exited(self, machine: "Machine", status: int) -> None:
        """A daemon ended with a fault."""
        if not machine.task_broken:
            self.fail("process", f"{machine.name}: the daemon exited with status {status}")
        machine.task_broken = False

    # The end

    def serving(self) -> str:
        """Who answers for the VIP; "" when nobody does."""
        return next((m.name for m in self.machines if self.vip in self._answers.get(m.name, ())), "")

    def settled(self, keys: dict[str, str], leases: set[int]) -> str:
        """What is not yet as it should be when everything has been well for a while; "" when all is.

        Args:
            keys: the queue in etcd, key to member.
            leases: those in etcd.
        """
        holder = self.serving()
        if not holder:
            return "nobody answers"
        for machine in self.machines:
            if machine.name != holder and machine.kernel.addresses:
                return f"{machine.name} has the address though {holder} holds it"
            if machine.daemon is None:
                return f"{machine.name} runs no daemon"
            if machine.daemon._queue.qsize() > QUEUE_MAX:
                return f"{machine.name} has {machine.daemon._queue.qsize()} events waiting"
        live = {election._lease for machine in self.machines for election in machine.elections}
        if self.left_out is not None and self.left_out.name in (holder, *keys.values()):
            return f"{self.left_out.name} takes part, whose proxy is dead"
        for key, member in keys.items():
            if int(key.rpartition("/")[2], 16) not in live:
                return f"the queue has a dead candidate of {member}"
        if len(leases) > len(self.machines):
            return f"{len(leases)} leases for {len(self.machines)} members"
        return ""

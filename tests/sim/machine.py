"""One machine: kernel, haproxy, file and operator. The modelled systemd runs the real daemon on it."""

from functools import partial
from random import Random
from typing import TYPE_CHECKING, Any

from govipd.adapters.etcd.cluster import UNKNOWN
from govipd.adapters.kernel.instance import InstanceAdapters, instance_adapters
from govipd.adapters.pact.pact import EtcdPact
from govipd.core.pact import SuccessorPhase
from govipd.core.state import ANSWERING
from govipd.errors import RefusedError
from govipd.runtime.daemon import Daemon
from govipd.runtime.parts import Plan
from tests.sim import adapters as sim
from tests.sim import kernel_adapters
from tests.sim.clockwork import Process, World
from tests.sim.compose import clear_fences, plan
from tests.sim.etcd import Cluster
from tests.sim.files import File
from tests.sim.kernel import INTERFACE, Clock, Kernel
from tests.sim.network import Network
from tests.sim.oracle import UNHEALTHY_S, Oracle
from tests.sim.systemd import Unit

if TYPE_CHECKING:
    from collections.abc import Iterator

    from govipd.runtime.group import Group as DaemonGroup
    from tests.sim.kernel import IPAddress


class Machine(Unit):
    """A node and everything on it."""

    def __init__(
        self,
        index: int,
        world: World,
        random: Random,
        *,
        network: Network,
        cluster: Cluster,
        oracle: Oracle,
        file: File,
        margin: float,
        pact: float,
        watchdog: bool,
        rate: float,
    ) -> None:
        self.index = index
        self.network, self.cluster = network, cluster
        self.pact = pact
        clock, name = Clock(rate), f"node{index}"
        moves = random.random() < 0.5
        kernel = Kernel(world, name, clock, moves_timeouts=moves, changed=lambda: oracle.look(self))
        super().__init__(name, world, random, oracle=oracle, clock=clock, kernel=kernel, watchdog=watchdog)
        self.proxy = sim.Proxy()
        self.margin = margin
        self.lost_processor = 0.0  # seconds that the next transactions may be late by
        self.mutex_held = 0.0  # seconds for which another program holds nf_tables' mutex, time and again
        self.member = self.name  # election.member, and the machine's id
        self._adapters: tuple[Process, InstanceAdapters] | None = None
        self.file = file
        self.file_is_bad = False
        self.known_cluster = UNKNOWN  # in the unit's state directory, which outlives a boot
        self.asked_by: Process | None = None  # the process that has not answered a drain yet
        self.drain_marks: dict[str, sim.SimDrainMark] = {}  # by group
        self.drained_since: dict[str, float] = {}  # by group, as the operator was told

    # The file

    def plan(self, process: Process) -> Plan:
        """See Unit."""
        made = plan(self, process)
        if process is self.process:
            self.read = self.last_read = self.file
        return made

    async def clear_fences(self, process: Process, configured: Plan) -> None:
        """See Unit."""
        await clear_fences(self, process, configured)

    def instance_adapters(self, process: Process) -> InstanceAdapters:
        """The kernel adapters of a process, which its groups share."""
        if self._adapters is None or self._adapters[0] is not process:
            made = instance_adapters(
                INTERFACE,
                process,
                route=self.route(process),
                kernel=self.nftables(process),
                listen=lambda: kernel_adapters.SimEvents(process, self.kernel, self.random),
                transmit=lambda _, frames: process.do(self.oracle.announced, self, kernel_adapters.announced(frames)),
            )
            self._adapters = process, made
        return self._adapters[1]

    def route(self, process: Process) -> kernel_adapters.SimRoute:
        """A socket of a process for requests to rtnetlink."""
        removes = partial(self.oracle.removes, self)
        return kernel_adapters.SimRoute(process, self.kernel, self.random, self.index, removes)

    def nftables(self, process: Process) -> kernel_adapters.SimNfTables:
        """An nf_tables socket of a process."""
        return kernel_adapters.SimNfTables(process, self.kernel, self._late)

    def _late(self) -> float:
        """Seconds by which a transaction is late."""
        if self.mutex_held and self.random.random() < 0.7:
            return self.mutex_held * self.random.uniform(0.1, 1.0)
        if not self.lost_processor or self.random.random() < 0.5:
            return 0.0
        return self.random.random() * self.lost_processor

    def edit(self, file: File) -> None:
        """Replace the file. A running daemon has not read it yet."""
        self.file = file
        if self.powered:
            self.world.note(self.name, "another file", "another file")

    def agree(self, file: File) -> None:
        """Make this file the machine's, and reload until a running daemon has read it."""
        if self.file != file:
            self.edit(file)
        if self.process is not None and self.read is not None and self.read != file:
            self.reload()

    def drain_mark(self, group: str) -> sim.SimDrainMark:
        """The drain mark of a group."""
        return self.drain_marks.setdefault(group, sim.SimDrainMark())

    def ips(self, group: str) -> "set[IPAddress]":
        """A group's addresses, as the file has them."""
        found = self.file.named(group)
        return set() if found is None else {address.ip for address in found.addresses}

    def siblings(self, ip: "IPAddress") -> "set[IPAddress]":
        """The addresses of the group to which one belongs, as the file has them."""
        return next((ips for group in self.file.groups if ip in (ips := self.ips(group.name))), {ip})

    def leases(self) -> set[int]:
        """The leases that the machine's daemon holds."""
        session = self.daemon._session.session if self.daemon is not None else None
        return set() if session is None else {session.lease}  # type: ignore[attr-defined]  # the real one

    def may_hold_until(self, ip: "IPAddress") -> "Iterator[tuple[float, str]]":
        """For an address that this machine holds: the true times at which others may take it, and why."""
        for group in self._groups_that_hold(ip):
            lease = group._parts.election._session.lease  # type: ignore[attr-defined]  # the real one
            if lease in self.cluster.leases:
                yield self.cluster.leases[lease].expires, "its lease ends"
            for other in self.oracle.machines:
                for theirs in other._groups_of(ip):
                    pact = theirs._parts.pact
                    following = pact.successor._following if isinstance(pact, EtcdPact) else None
                    key = group._parts.election.candidate(lease)  # type: ignore[attr-defined]  # the real one
                    if following is not None and following.leader.key == key and _takes(following, self.cluster):
                        yield other.clock.instant(following.half.silent_at()), f"{other.name} may take it by the pact"

    def holds(self, ip: "IPAddress") -> bool:
        """Whether the daemon intends to answer for an address, by the file that it has read."""
        return any(group in self._groups_of(ip) for group in self._groups_that_hold(ip))

    def _groups_that_hold(self, ip: "IPAddress") -> "list[DaemonGroup]":
        """The groups that may hold an address, of this process or of the process whose lease it adopts.

        Where an address has moved to another group, the one that has let it go may not have looked into etcd since.
        """
        groups = self.daemon._all() if self.daemon is not None else ()
        held = [g for g in groups if ip in {a.ip for a in g._parts.election._contender.claimant._may_hold}]  # type: ignore[attr-defined]
        answering = [group for group in held if group.state_machine.state in ANSWERING]
        return [group for group in answering if group in self._groups_of(ip)] or answering

    def _groups_of(self, ip: "IPAddress") -> "list[DaemonGroup]":
        groups = self.daemon._all() if self.daemon is not None else ()
        return [group for group in groups if ip in {address.ip for address in group.plan.addresses}]

    # The operator

    def drain(self, *, wanted: bool, only: str = "") -> None:
        """govipctl drain or undrain, for every group or for one. Without a daemon, only the mark is written."""
        process, daemon = self.process, self.daemon

        def confirmed() -> None:
            names = [only] if only else [group.name for group in (self.read or self.file).groups]  # the daemon's
            self.drained_since = dict.fromkeys(names, self.world.now) if wanted else {}
            if wanted:
                self.world.after(UNHEALTHY_S, self.oracle.drained, self, self.world.now)

        async def ask(process: Process, daemon: Daemon) -> None:
            try:
                await daemon.drain(only, wanted=wanted)
            except RefusedError as e:
                self.world.note(self.name, f"drain refused: {e}", "drain refused")
            else:
                process.do(confirmed)
            self.asked_by = None

        if process is None or daemon is None:
            for name in [only] if only else [group.name for group in self.file.groups]:
                self.drain_mark(name).drained = wanted
            confirmed()
        else:
            self.asked_by = process
            process.call_soon(process.create_task, ask(process, daemon))

    def undrain(self) -> None:
        """govipctl undrain, repeated until a daemon has received it, as the drain may have reached no daemon."""
        for name in self.drain_marks.keys() - {group.name for group in self.file.groups}:
            self.drain_marks[name].drained = False  # of a group that no daemon knows any more: by hand
            self.drained_since.pop(name, None)
        drained = any(mark.drained for mark in self.drain_marks.values())
        if self.asked_by is not None and self.asked_by is self.process:
            self.world.after(0.1, self.undrain)  # one command after the other
        elif drained or (self.process is not None and self.process.frozen):
            self.drain(wanted=False)
            self.world.after(1.0, self.undrain)

    def hand_over(self, to: str, only: str = "") -> None:
        """govipctl handover, for every group or for one."""
        if self.process is not None and self.daemon is not None:
            for group in self.file.groups if not only else filter(None, [self.file.named(only)]):
                self.process.call_soon(self.process.create_task, self._hand_over(self.daemon, group.name, to))

    async def _hand_over(self, daemon: Daemon, group: str, to: str) -> None:
        try:
            await daemon.handover(group, to)
        except RefusedError as e:
            self.world.note(self.name, f"handover refused: {e}", "handover refused")

    def set_proxy(self, active_state: str | None = None, answers: str | None = None) -> None:
        """Change haproxy; not on a machine without power."""
        if not self.powered:
            return
        if active_state is not None:
            self.proxy.active_state = active_state
        if answers is not None:
            self.proxy.answers = answers
        self.oracle.look(self)
        for changed in self.proxy_changed:
            changed()

    # What happens to the machine

    def power_off(self) -> None:
        """Everything stops, and nothing of it was ever in the kernel."""
        if not self.powered:
            return
        self.powered = False
        self.world.note(self.name, "power off", "power off")
        self._forget_process()
        self.directory = sim.Directory()
        self.kernel.reboot()
        self.proxy.active_state = "inactive"
        self.oracle.look(self)

    def power_on(self) -> None:
        """Boot."""
        if self.powered:
            return
        self.powered = True
        self.clock.reboot(self.world.now)
        self.world.note(self.name, "power on", "power on")
        self.job = ""
        self.set_proxy("active", "yes")
        if self.wanted:
            self._exec()


def _takes(following: Any, cluster: Cluster) -> bool:
    """Whether etcd would let this successor take over once the leader has been silent for long enough."""
    half, leader, own = following.half, following.leader, following.own
    force = leader.key.rpartition("/")[2]
    there = {kv.key: kv.create_revision for kv in cluster.keys.values()}
    in_force = any(key.endswith(f"/{force}/force") and created == half.revision for key, created in there.items())
    known = all(there.get(kv.key) == kv.create_revision for kv in (leader, own))
    return in_force and known and half.phase in {SuccessorPhase.FOLLOWS, SuccessorPhase.TAKES_OVER}

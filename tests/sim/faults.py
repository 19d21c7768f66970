"""What can go wrong, by kind. Each begins at once, and returns how it ends (None: it ends by itself)."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from tests.sim.machine import ELECTION, SECOND, VIP

if TYPE_CHECKING:
    from tests.sim.run import Simulation

End = Callable[[], object] | None
HOLDER = -1


@dataclass(frozen=True, slots=True)
class Fault:
    """One thing that goes wrong.

    Attributes:
        kind: a key of KINDS.
        node: whom it befalls, also an etcd member's number; HOLDER is who holds the VIP then.
        seconds: for how long.
        place: in [0, 1): whatever else the kind has to choose.
        at: when; or, with `moment`, how long after it.
        moment: words of the transcript: the fault waits until they are written for the `nth` time.
        nth: from 1.
    """

    kind: str
    node: int
    seconds: float
    place: float
    at: float
    moment: str = ""
    nth: int = 1

    def __str__(self) -> str:
        when = f"{self.at:.4f} s after the {self.nth}. {self.moment!r}" if self.moment else f"at {self.at:.4f} s"
        who = "the holder" if self.node == HOLDER else f"node{self.node}"
        return f"{self.kind} of {who} {when}, for {self.seconds:.3f} s ({self.place:.3f})"


def _kill(sim: "Simulation", fault: Fault) -> End:
    sim.machine(fault).kill()
    return None


def _restart(sim: "Simulation", fault: Fault) -> End:
    sim.machine(fault).restart()
    return None


def _restart_unasked(sim: "Simulation", fault: Fault) -> End:
    """A restart while D-Bus does not answer why."""
    machine = sim.machine(fault)
    machine.job_type_hangs = True
    machine.restart()
    return lambda: setattr(machine, "job_type_hangs", False)


def _stop(sim: "Simulation", fault: Fault) -> End:
    machine = sim.machine(fault)
    machine.stop()
    return machine.start


def _freeze(sim: "Simulation", fault: Fault) -> End:
    sim.machine(fault).freeze(fault.seconds)
    return None


def _slow(sim: "Simulation", fault: Fault) -> End:
    machine = sim.machine(fault)
    process, longest = machine.process, 0.02 * fault.place
    if process is None:
        return None
    machine.disturbed_until = float("inf")
    process.slowness = lambda: sim.random.random() * longest

    def end() -> None:
        process.slowness = None
        machine.disturbed_until = sim.world.now + 1.0

    return end


def _lose_processor(sim: "Simulation", fault: Fault) -> End:
    machine = sim.machine(fault)
    machine.lost_processor = 0.3 * fault.place
    machine.disturbed_until = float("inf")

    def end() -> None:
        machine.lost_processor = 0.0
        machine.disturbed_until = sim.world.now + 1.0

    return end


def _break_task(sim: "Simulation", fault: Fault) -> End:
    sim.machine(fault).break_task()
    return None


def _power_off(sim: "Simulation", fault: Fault) -> End:
    machine = sim.machine(fault)
    if not machine.powered:
        return None
    machine.power_off()
    sim.cluster.fail(machine.index)

    def end() -> None:
        sim.cluster.start(machine.index)
        machine.power_on()

    return end


# The network


def _cut(sim: "Simulation", directions: list[tuple[int, int]]) -> End:
    for source, target in directions:
        sim.network.cut(source, target)
    sim.cluster.look()

    def end() -> None:
        for source, target in directions:
            sim.network.mend(source, target)
        sim.cluster.look()

    return end


def _isolate(sim: "Simulation", fault: Fault) -> End:
    """From both others: also its etcd member."""
    one = sim.machine(fault).index
    others = [host for host in range(3) if host != one]
    return _cut(sim, [pair for other in others for pair in ((one, other), (other, one))])


def _isolate_leader(sim: "Simulation", fault: Fault) -> End:
    """Together with etcd's leader, which runs on the same machine."""
    sim.cluster.lead(sim.machine(fault).index)
    return _isolate(sim, fault)


def _cut_pair(sim: "Simulation", fault: Fault) -> End:
    one = sim.machine(fault).index
    other = (one + 1 + int(2 * fault.place)) % 3
    return _cut(sim, [(one, other), (other, one)])


def _cut_one_way(sim: "Simulation", fault: Fault) -> End:
    one = sim.machine(fault).index
    other = (one + 1 + int(2 * fault.place)) % 3
    return _cut(sim, [(one, other)])


def _deaf(sim: "Simulation", fault: Fault) -> End:
    """What it sends arrives; what is sent to it does not."""
    one = sim.machine(fault).index
    return _cut(sim, [(host, one) for host in range(3) if host != one])


def _slow_network(sim: "Simulation", fault: Fault) -> End:
    one = sim.machine(fault).index
    pairs = [(one, host) for host in range(3)] + [(host, one) for host in range(3)]
    for pair in pairs:
        sim.network.slow(*pair, longest=0.5 * fault.place)

    def end() -> None:
        for pair in pairs:
            sim.network.slow(*pair, longest=0.0)

    return end


# etcd


def _member_fails(sim: "Simulation", fault: Fault) -> End:
    return _fail_member(sim, sim.machine(fault).index)


def _leader_fails(sim: "Simulation", fault: Fault) -> End:
    member = sim.cluster.leader
    return None if member is None else _fail_member(sim, member)


def _fail_member(sim: "Simulation", member: int) -> End:
    sim.cluster.fail(member)

    def end() -> None:
        if sim.machines[member].powered:
            sim.cluster.start(member)

    return end


def _member_pauses(sim: "Simulation", fault: Fault) -> End:
    member = sim.machine(fault).index
    sim.cluster.pause(member)
    return lambda: sim.cluster.resume(member)


def _leader_pauses(sim: "Simulation", fault: Fault) -> End:
    member = sim.cluster.leader
    if member is None:
        return None
    sim.cluster.pause(member)
    return lambda: sim.cluster.resume(member)


def _leader_cut_off(sim: "Simulation", fault: Fault) -> End:
    """From its peers; clients still reach it."""
    sim.cluster.cut_off = sim.cluster.leader
    sim.cluster.look()

    def end() -> None:
        sim.cluster.cut_off = None
        sim.cluster.look()

    return end


def _depose(sim: "Simulation", fault: Fault) -> End:
    sim.cluster.depose()
    return None


def _compact(sim: "Simulation", fault: Fault) -> End:
    sim.cluster.compact()
    return None


def _break_watches(sim: "Simulation", fault: Fault) -> End:
    sim.cluster.break_watches()
    return None


def _lose_watches(sim: "Simulation", fault: Fault) -> End:
    """Half-open: they say nothing any more."""
    sim.cluster.lose_watches()
    return None


def _lag(sim: "Simulation", fault: Fault) -> End:
    member = sim.cluster.members[sim.machine(fault).index]
    member.lag = 3.0 * fault.place
    return lambda: setattr(member, "lag", 0.0)


def _expire_tokens(sim: "Simulation", fault: Fault) -> End:
    store = sim.machine(fault).store
    if store is not None:
        store.expired_tokens += 1 + int(3 * fault.place)
    return None


def _revoke(sim: "Simulation", fault: Fault) -> End:
    sim.cluster.revoke_one(fault.place)
    return None


def _delete_key(sim: "Simulation", fault: Fault) -> End:
    sim.cluster.delete_one(fault.place, f"{ELECTION}/")
    return None


# The kernel


def _flush(sim: "Simulation", fault: Fault) -> End:
    machine = sim.machine(fault)
    if machine.process is not None:
        machine.kernel.flush()
    return None


def _refuse_fence(sim: "Simulation", fault: Fault) -> End:
    sim.machine(fault).kernel.refuses += 1 + int(8 * fault.place)
    return None


def _refuse_everything(sim: "Simulation", fault: Fault) -> End:
    kernel = sim.machine(fault).kernel
    kernel.refuses += 1 + int(8 * fault.place)
    kernel.route_refuses += 1 + int(8 * fault.place)
    return None


def _refuse_addresses(sim: "Simulation", fault: Fault) -> End:
    sim.machine(fault).kernel.route_refuses += 1 + int(8 * fault.place)
    return None


def _remove_address(sim: "Simulation", fault: Fault) -> End:
    sim.machine(fault).kernel.delete_address(VIP)
    return None


def _add_address(sim: "Simulation", fault: Fault) -> End:
    machine = sim.machine(fault)
    if machine.daemon is not None and not machine.job:  # where no daemon runs, nobody guards the address
        machine.kernel.add_address(VIP, 1e6, 0.0)
    return None


def _overrun(sim: "Simulation", fault: Fault) -> End:
    sim.machine(fault).kernel.overruns = True
    return None


def _late_events(sim: "Simulation", fault: Fault) -> End:
    kernel = sim.machine(fault).kernel
    kernel.event_delay = fault.place
    return lambda: setattr(kernel, "event_delay", 0.0)


def _link_down(sim: "Simulation", fault: Fault) -> End:
    kernel = sim.machine(fault).kernel
    kernel.set_link(carrier=False)
    return lambda: kernel.set_link(carrier=True)


# haproxy


def _proxy_fails(sim: "Simulation", fault: Fault) -> End:
    machine = sim.machine(fault)
    machine.set_proxy("failed")
    return lambda: machine.set_proxy("active")


def _proxy_errors(sim: "Simulation", fault: Fault) -> End:
    machine = sim.machine(fault)
    machine.set_proxy(answers="no")
    return lambda: machine.set_proxy(answers="yes")


def _proxy_reloads(sim: "Simulation", fault: Fault) -> End:
    machine = sim.machine(fault)
    if machine.proxy.active_state == "active":
        machine.set_proxy("reloading")

    def end() -> None:
        if machine.proxy.active_state == "reloading":
            machine.set_proxy("active")

    return end


def _bus_away(sim: "Simulation", fault: Fault) -> End:
    proxy = sim.machine(fault).proxy
    proxy.bus_away = True
    return lambda: setattr(proxy, "bus_away", False)


# The operator, the disk


def _reload(sim: "Simulation", fault: Fault) -> End:
    machine = sim.machine(fault)
    machine.addresses = (VIP, SECOND) if len(machine.addresses) == 1 else (VIP,)
    machine.reload()
    return None


def _reload_bad_file(sim: "Simulation", fault: Fault) -> End:
    machine = sim.machine(fault)
    machine.file_is_bad = machine.daemon is not None
    machine.reload()
    return lambda: setattr(machine, "file_is_bad", False)


def _full_disk(sim: "Simulation", fault: Fault) -> End:
    machine = sim.machine(fault)
    machine.directory.full = True
    return lambda: setattr(machine.directory, "full", False)


def _lose_file(sim: "Simulation", fault: Fault) -> End:
    sim.machine(fault).directory.holding = None
    return None


KINDS: dict[str, Callable[["Simulation", Fault], End]] = {
    "govipd killed": _kill,
    "govipd restarted": _restart,
    "govipd restarted without D-Bus": _restart_unasked,
    "govipd stopped": _stop,
    "govipd frozen": _freeze,
    "govipd slow": _slow,
    "govipd without processor": _lose_processor,
    "govipd fault": _break_task,
    "power off": _power_off,
    "isolated": _isolate,
    "isolated with etcd's leader": _isolate_leader,
    "pair cut": _cut_pair,
    "cut one way": _cut_one_way,
    "deaf": _deaf,
    "slow network": _slow_network,
    "etcd member killed": _member_fails,
    "etcd leader killed": _leader_fails,
    "etcd member paused": _member_pauses,
    "etcd leader paused": _leader_pauses,
    "etcd leader cut off": _leader_cut_off,
    "etcd leader deposed": _depose,
    "etcd compacted": _compact,
    "watches broken": _break_watches,
    "watches half-open": _lose_watches,
    "etcd member lags": _lag,
    "tokens expired": _expire_tokens,
    "lease revoked": _revoke,
    "key deleted": _delete_key,
    "nft flushed": _flush,
    "nft refuses": _refuse_fence,
    "rtnetlink refuses": _refuse_addresses,
    "kernel refuses": _refuse_everything,
    "address removed": _remove_address,
    "address added": _add_address,
    "netlink overrun": _overrun,
    "netlink late": _late_events,
    "link down": _link_down,
    "haproxy failed": _proxy_fails,
    "haproxy answers errors": _proxy_errors,
    "haproxy reloads": _proxy_reloads,
    "D-Bus away": _bus_away,
    "reload": _reload,
    "reload of a bad file": _reload_bad_file,
    "runtime directory full": _full_disk,
    "state file lost": _lose_file,
}
# What delays a decision, and what it is too late for: together, on whoever holds the VIP, they are worst.
DELAYS = (
    "slow network",
    "govipd slow",
    "govipd without processor",
    "kernel refuses",
    "nft refuses",
    "etcd member lags",
    "watches half-open",
)
BLOWS = (
    "isolated",
    "isolated with etcd's leader",
    "deaf",
    "cut one way",
    "pair cut",
    "govipd frozen",
    "govipd stopped",
    "govipd fault",
    "govipd killed",
    "govipd restarted",
    "etcd leader cut off",
    "etcd leader paused",
    "etcd leader killed",
    "haproxy failed",
    "haproxy answers errors",
    "link down",
    "state file lost",
)
# G3: these must neither move the VIP nor pause it.
DAEMON_ONLY = (
    "reload",
    "govipd killed",
    "govipd restarted",
    "govipd frozen",
    "haproxy reloads",
    "reload of a bad file",
    "tokens expired",
    "watches broken",
    "watches half-open",
    "etcd compacted",
    "etcd leader deposed",
    "etcd member lags",
    "netlink overrun",
    "netlink late",
)
# Somebody takes the lease away from a holder that did not ask for it. That breaks etcd's promise, on which G1 stands:
# what remains is that a holder which hears of it closes its fence before the next may open (docs/adr/0004).
BROKEN_PROMISES = ("lease revoked", "key deleted")
BESIDE_BROKEN_PROMISES = (
    "haproxy failed",
    "haproxy answers errors",
    "haproxy reloads",
    "reload of a bad file",
    "link down",
)
# These let a message arrive long after it was sent.
LATE = (
    "isolated",
    "isolated with etcd's leader",
    "pair cut",
    "cut one way",
    "deaf",
    "slow network",
    "etcd member paused",
    "etcd leader paused",
    "power off",
    "etcd leader killed",
    "etcd leader cut off",
    "etcd member killed",
)
# Beside these, a verdict takes no longer than usual.
PROMPT = (
    "isolated",
    "pair cut",
    "etcd member killed",
    "etcd leader killed",
    "etcd leader deposed",
    "etcd member lags",
    "haproxy failed",
    "haproxy answers errors",
    "haproxy reloads",
    "reload of a bad file",
    *BROKEN_PROMISES,
)

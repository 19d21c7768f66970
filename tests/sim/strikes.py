"""How each kind of fault begins; what is returned ends it (None: it ends by itself)."""

from typing import TYPE_CHECKING

from tests.sim.compose import ELECTION, SECOND, TWIN, VIP
from tests.sim.fault import End, Fault
from tests.sim.oracle import STREWN_S

if TYPE_CHECKING:
    from tests.sim.run import Simulation


def kill(sim: "Simulation", fault: Fault) -> End:
    sim.machine(fault).kill()
    return None


def restart(sim: "Simulation", fault: Fault) -> End:
    sim.machine(fault).restart()
    return None


def restart_unasked(sim: "Simulation", fault: Fault) -> End:
    """A restart while D-Bus does not answer why."""
    machine = sim.machine(fault)
    machine.job_type_hangs = True
    machine.restart()
    return lambda: setattr(machine, "job_type_hangs", False)


def stop(sim: "Simulation", fault: Fault) -> End:
    machine = sim.machine(fault)
    machine.stop()
    return machine.start


def freeze(sim: "Simulation", fault: Fault) -> End:
    sim.machine(fault).freeze(fault.seconds)
    return None


def slow(sim: "Simulation", fault: Fault) -> End:
    machine = sim.machine(fault)
    process, longest = machine.process, 0.02 * fault.place
    if process is None:
        return None
    machine.disturb()
    process.slowness = lambda: sim.random.random() * longest

    def end() -> None:
        process.slowness = None
        machine.disturbed()

    return end


def lose_processor(sim: "Simulation", fault: Fault) -> End:
    machine = sim.machine(fault)
    machine.lost_processor = 0.5 * fault.place
    machine.disturb()

    def end() -> None:
        machine.lost_processor = 0.0
        machine.disturbed()

    return end


def break_task(sim: "Simulation", fault: Fault) -> End:
    sim.machine(fault).break_task()
    return None


def power_off(sim: "Simulation", fault: Fault) -> End:
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


def isolate(sim: "Simulation", fault: Fault) -> End:
    """From both others: also its etcd member."""
    one = sim.machine(fault).index
    others = [host for host in range(3) if host != one]
    return _cut(sim, [pair for other in others for pair in ((one, other), (other, one))])


def isolate_leader(sim: "Simulation", fault: Fault) -> End:
    """Together with etcd's leader, which runs on the same machine."""
    sim.cluster.lead(sim.machine(fault).index)
    return isolate(sim, fault)


def cut_pair(sim: "Simulation", fault: Fault) -> End:
    one = sim.machine(fault).index
    other = (one + 1 + int(2 * fault.place)) % 3
    return _cut(sim, [(one, other), (other, one)])


def cut_one_way(sim: "Simulation", fault: Fault) -> End:
    one = sim.machine(fault).index
    other = (one + 1 + int(2 * fault.place)) % 3
    return _cut(sim, [(one, other)])


def deaf(sim: "Simulation", fault: Fault) -> End:
    """What it sends arrives; what is sent to it does not."""
    one = sim.machine(fault).index
    return _cut(sim, [(host, one) for host in range(3) if host != one])


def slow_network(sim: "Simulation", fault: Fault) -> End:
    pairs = _around(sim, fault)
    for pair in pairs:
        sim.network.slow(*pair, longest=0.5 * fault.place)

    def end() -> None:
        for pair in pairs:
            sim.network.slow(*pair, longest=0.0)

    return end


def lossy_network(sim: "Simulation", fault: Fault) -> End:
    """Requests and answers get lost; who asked does not know which."""
    pairs = _around(sim, fault)
    for pair in pairs:
        sim.network.lossy(*pair, share=0.6 * fault.place)

    def end() -> None:
        for pair in pairs:
            sim.network.lossy(*pair, share=0.0)

    return end


def wild_datagrams(sim: "Simulation", fault: Fault) -> End:
    """Lost, late, out of order, and repeated."""
    return _wild(sim, _around(sim, fault), 0.99 * fault.place)


def block_datagrams(sim: "Simulation", fault: Fault) -> End:
    """A firewall between this machine and the others; TCP passes."""
    return _wild(sim, _around(sim, fault), 1.0)


def block_datagrams_one_way(sim: "Simulation", fault: Fault) -> End:
    """What the machine sends gets lost, or what is sent to it."""
    pairs = _around(sim, fault)
    return _wild(sim, pairs[:3] if fault.place < 0.5 else pairs[3:], 1.0)


def _wild(sim: "Simulation", pairs: list[tuple[int, int]], share: float) -> End:
    for pair in pairs:
        sim.network.wild(*pair, share=share)

    def end() -> None:
        for pair in pairs:
            sim.network.wild(*pair, share=0.0)

    return end


def _around(sim: "Simulation", fault: Fault) -> list[tuple[int, int]]:
    """Both directions of every link of the machine, its own included."""
    one = sim.machine(fault).index
    return [(one, host) for host in range(3)] + [(host, one) for host in range(3)]


# etcd


def member_fails(sim: "Simulation", fault: Fault) -> End:
    return _fail_member(sim, sim.machine(fault).index)


def leader_fails(sim: "Simulation", fault: Fault) -> End:
    member = sim.cluster.leader
    return None if member is None else _fail_member(sim, member)


def _fail_member(sim: "Simulation", member: int) -> End:
    sim.cluster.fail(member)

    def end() -> None:
        if sim.machines[member].powered:
            sim.cluster.start(member)

    return end


def member_pauses(sim: "Simulation", fault: Fault) -> End:
    member = sim.machine(fault).index
    sim.cluster.pause(member)
    return lambda: sim.cluster.resume(member)


def leader_pauses(sim: "Simulation", fault: Fault) -> End:
    member = sim.cluster.leader
    if member is None:
        return None
    sim.cluster.pause(member)
    return lambda: sim.cluster.resume(member)


def leader_cut_off(sim: "Simulation", fault: Fault) -> End:
    """From its peers; clients still reach it."""
    sim.cluster.cut_off = sim.cluster.leader
    sim.cluster.look()

    def end() -> None:
        sim.cluster.cut_off = None
        sim.cluster.look()

    return end


def depose(sim: "Simulation", fault: Fault) -> End:
    sim.cluster.depose()
    return None


def compact(sim: "Simulation", fault: Fault) -> End:
    sim.cluster.compact()
    return None


def break_watches(sim: "Simulation", fault: Fault) -> End:
    sim.cluster.break_watches()
    return None


def lose_watches(sim: "Simulation", fault: Fault) -> End:
    """Half-open: they say nothing any more."""
    sim.cluster.lose_watches()
    return None


def lag(sim: "Simulation", fault: Fault) -> End:
    member = sim.cluster.members[sim.machine(fault).index]
    member.lag = 3.0 * fault.place
    return lambda: setattr(member, "lag", 0.0)


def expire_tokens(sim: "Simulation", fault: Fault) -> End:
    store = sim.machine(fault).store
    if store is not None:
        store.expired_tokens += 1 + int(3 * fault.place)
    return None


def revoke(sim: "Simulation", fault: Fault) -> End:
    sim.cluster.revoke_one(fault.place)
    return None


def delete_key(sim: "Simulation", fault: Fault) -> End:
    sim.cluster.delete_one(fault.place, f"{ELECTION}/")
    return None


# The kernel


def flush(sim: "Simulation", fault: Fault) -> End:
    machine = sim.machine(fault)
    if machine.process is not None:
        machine.kernel.flush()
    return None


def refuse_fence(sim: "Simulation", fault: Fault) -> End:
    sim.machine(fault).kernel.refuses += 1 + int(8 * fault.place)
    return None


def refuse_everything(sim: "Simulation", fault: Fault) -> End:
    kernel = sim.machine(fault).kernel
    kernel.refuses += 1 + int(8 * fault.place)
    kernel.route_refuses += 1 + int(8 * fault.place)
    return None


def refuse_addresses(sim: "Simulation", fault: Fault) -> End:
    sim.machine(fault).kernel.route_refuses += 1 + int(8 * fault.place)
    return None


def remove_address(sim: "Simulation", fault: Fault) -> End:
    sim.machine(fault).kernel.delete_address(VIP)
    return None


def add_address(sim: "Simulation", fault: Fault) -> End:
    machine = sim.machine(fault)
    if machine.daemon is not None and not machine.job:  # where no daemon runs, nobody guards the address
        machine.kernel.add_by_hand(VIP if fault.place < 0.5 else TWIN)
    return None


def add_elsewhere(sim: "Simulation", fault: Fault) -> End:
    """On an interface that is not govipd's: govipd may only see to it that it is silent."""
    machine = sim.machine(fault)
    if machine.daemon is None or machine.job:
        return None
    where = TWIN if fault.place < 0.5 else VIP
    machine.kernel.add_elsewhere(where)
    since, daemon = machine.kernel.elsewhere[where], machine.daemon

    def look() -> None:
        if machine.kernel.elsewhere.get(where) == since and machine.daemon is daemon:
            queue = [kv for kv in sim.cluster.keys.values() if kv.key.startswith(f"{ELECTION}/")]
            queue.sort(key=lambda kv: kv.create_revision)
            sim.oracle.strewn(machine, [kv.value.decode() for kv in queue])

    sim.world.after(STREWN_S, look)
    return lambda: machine.kernel.delete_elsewhere(where)


def overrun(sim: "Simulation", fault: Fault) -> End:
    sim.machine(fault).kernel.overruns = True
    return None


def late_events(sim: "Simulation", fault: Fault) -> End:
    kernel = sim.machine(fault).kernel
    kernel.event_delay = fault.place
    return lambda: setattr(kernel, "event_delay", 0.0)


def link_down(sim: "Simulation", fault: Fault) -> End:
    kernel = sim.machine(fault).kernel
    kernel.set_link(carrier=False)
    return lambda: kernel.set_link(carrier=True)


# haproxy


def proxy_fails(sim: "Simulation", fault: Fault) -> End:
    machine = sim.machine(fault)
    machine.set_proxy("failed")
    return lambda: machine.set_proxy("active")


def proxy_errors(sim: "Simulation", fault: Fault) -> End:
    machine = sim.machine(fault)
    machine.set_proxy(answers="no")
    return lambda: machine.set_proxy(answers="yes")


def proxy_reloads(sim: "Simulation", fault: Fault) -> End:
    machine = sim.machine(fault)
    if machine.proxy.active_state == "active":
        machine.set_proxy("reloading")

    def end() -> None:
        if machine.proxy.active_state == "reloading":
            machine.set_proxy("active")

    return end


def bus_away(sim: "Simulation", fault: Fault) -> End:
    proxy = sim.machine(fault).proxy
    proxy.bus_away = True
    return lambda: setattr(proxy, "bus_away", False)


# The operator, the disk


def reload(sim: "Simulation", fault: Fault) -> End:
    machine = sim.machine(fault)
    machine.addresses = (VIP, SECOND) if len(machine.addresses) == 1 else (VIP,)
    machine.reload()
    return None


def reload_bad_file(sim: "Simulation", fault: Fault) -> End:
    machine = sim.machine(fault)
    machine.file_is_bad = machine.daemon is not None
    machine.reload()
    return lambda: setattr(machine, "file_is_bad", False)


def drain(sim: "Simulation", fault: Fault) -> End:
    machine = sim.machine(fault)
    machine.drain(wanted=True)
    return machine.undrain


def hand_over(sim: "Simulation", fault: Fault) -> End:
    """To the next in the queue, or to one that is named, whether it stands or not."""
    names = ["", *(machine.name for machine in sim.machines)]
    sim.machine(fault).hand_over(names[int(len(names) * fault.place)])
    return None


def full_disk(sim: "Simulation", fault: Fault) -> End:
    machine = sim.machine(fault)
    machine.directory.full = True
    return lambda: setattr(machine.directory, "full", False)


def lose_file(sim: "Simulation", fault: Fault) -> End:
    sim.machine(fault).directory.holding = None
    return None

"""The shell: what it does with the supervisor's decisions, a reload, a fault and a stop."""

import asyncio
import json
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from ipaddress import ip_interface

import pytest

from govipd.core import events as ev
from govipd.core.actions import Hold, Holding, Prepare
from govipd.core.messages import Message
from govipd.core.settings import Settings
from govipd.core.state import State
from govipd.core.status import NodeStatus
from govipd.daemon import Daemon, Plan
from govipd.errors import ConfigError, RefusedError
from govipd.group import GroupPlan, Parts
from govipd.ports import Operator, Sink, Source
from govipd.timeline import Timeline
from tests import fakes

PASSED = ev.ProbeResult(passed=True, detail="200")
RUNNING = ev.UnitState("active", "running")


class World:
    """A daemon over fakes, and everything a test wants to look at."""

    def __init__(self) -> None:
        self.calls: list[str] = []
        self.clock, self.journal, self.notifier = fakes.FakeClock(), fakes.FakeJournal(), fakes.FakeNotifier()
        self.elections: list[fakes.FakeElection] = []
        self.kernels: list[fakes.FakeKernel] = []
        self.sources: list[fakes.FakeSource] = []
        self.plan = Plan(
            NodeStatus("1", "node1", "eth0", groups=()),
            {"api": self.group("api")},
            {"probe": self.source(PASSED), "unit": self.source(RUNNING)},
        )
        self.next_plan: Plan | str = self.plan
        self.memory = fakes.FakeMemory()
        self.drain = fakes.FakeDrain()
        self.pact_calls: list[str] = []
        self.job = "stop"
        self.lease_given_back = True  # what must have become of it in the end
        self.daemon = Daemon(
            self.plan,
            load=self._load,
            clock=self.clock,
            journal=self.journal,
            notifier=self.notifier,
            watchdog=0.5,
            job_type=self._job_type,
        )

    async def _job_type(self) -> str:
        return self.job

    def group(self, name: str, address: str = "192.0.2.100/32", identity: str = "one") -> GroupPlan:
        return GroupPlan(name, identity, (ip_interface(address),), Settings(rise=1), self._make)

    def source(self, event: ev.Event) -> Callable[[Sink], Source]:
        def make(sink: Sink) -> Source:
            self.sources.append(fakes.FakeSource(sink, event))
            return self.sources[-1]

        return make

    def _make(self, sink: Sink) -> Parts:
        self.elections.append(fakes.FakeElection(sink, self.clock, self.calls))
        kinds = (fakes.FakeFence, fakes.FakeAddresses, fakes.FakeAnnouncer, fakes.FakeMonitor)
        fence, addresses, announcer, monitor = (kind(sink, self.calls) for kind in kinds)
        self.kernels += [fence, addresses, announcer, monitor]
        return Parts(
            election=self.elections[-1],
            fence=fence,  # type: ignore[arg-type]  # the tuple above loses the four types
            addresses=addresses,  # type: ignore[arg-type]
            announcer=announcer,  # type: ignore[arg-type]
            monitor=monitor,  # type: ignore[arg-type]
            memory=self.memory,
            drain=self.drain,
            pact=fakes.FakePact(self.pact_calls),
            timeline=Timeline(self.clock),
        )

    def _load(self) -> Plan:
        if isinstance(self.next_plan, str):
            raise ConfigError(self.next_plan)
        return self.next_plan

    async def until(self, condition: Callable[[], bool]) -> None:
        async with asyncio.timeout(10):
            while not condition():
                await asyncio.sleep(0.002)

    def says(self, words: str) -> Callable[[], bool]:
        return lambda: any(words in line for line in self.journal.lines)

    def leads(self) -> bool:
        return bool(self.notifier.statuses) and "leader of" in self.notifier.statuses[-1]


@asynccontextmanager
async def running(expected_status: int = 0, prepare: Callable[[World], None] = lambda _: None) -> AsyncIterator[World]:
    world = World()
    prepare(world)
    task = asyncio.ensure_future(world.daemon.run())
    try:
        yield world
        world.daemon.stop()
        assert await asyncio.wait_for(task, 10) == expected_status
        assert all(e.closed is world.lease_given_back for e in world.elections)
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def test_from_start_to_leader_to_stop_in_the_order_of_the_contract() -> None:
    """Clean, campaign, open, add, announce; on stop another is made ready, then silence, close, then resign."""
    async with running() as w:
        await w.until(w.leads)
        assert w.calls[:7] == ["silence", "close", "remove", "campaign", "open", "add", "announce"]
        assert w.notifier.said.count("ready") == 1
        before = len(w.calls)
    end = [c for c in w.calls[before:] if c not in {"open", "add"}]
    assert end == ["pass on", "silence", "close", "resign", "remove", "remove fence", "close addresses"]
    assert "stopping" in w.notifier.said
    assert w.elections[0].records[-1]["state"] == "stopped"


async def test_each_step_of_a_move_is_told_after_it() -> None:
    """What a take-over took once it has been announced, what a release took once the key is gone."""
    async with running() as w:
        await w.until(w.leads)
        next(iter(w.daemon._groups.values())).handle(ev.Announced(3))
        await w.until(w.says("take-over in"))
        steps = next(fields["GOVIP_STEPS"] for fields in w.journal.fields if "GOVIP_STEPS" in fields)
        assert [step for step, _ in json.loads(steps)] == ["won", "fence open", "addresses there", "leader"]
    assert w.says("release in")()
    released = [fields["GOVIP_STEPS"] for fields in w.journal.fields if "GOVIP_STEPS" in fields][-1]
    names = [step for step, _ in json.loads(released)]
    assert names[:4] == ["told to stop", "passing", "fence open", "addresses there"]
    assert names[4:7] == ["decided", "fence closed", "leaving"]


async def test_a_move_is_not_held_up_by_telling_of_it() -> None:
    """While the fence is being closed nothing is written; a move that lasts is told before it ends."""
    async with running() as w:
        await w.until(w.leads)
        group = next(iter(w.daemon._groups.values()))
        fence = w.kernels[0]
        fence.refuses.add("close")
        before = len(w.journal.lines)
        w.sources[1].event = ev.UnitState("failed", "failed")
        group.handle(w.sources[1].event)
        assert group.supervisor.state is State.CLOSING
        assert w.journal.lines[before:] == []
        await w.until(w.says("gate unit unhealthy (failed)"))
        assert group.supervisor.state is State.CLOSING
        fence.refuses.clear()


async def test_every_transition_and_gate_has_its_line() -> None:
    """What, why, what next; and the gates by name."""
    async with running() as w:
        await w.until(w.leads)
        for words in ("leader (the kernel answers", "gate unit healthy (running)", "gate probe healthy (200)"):
            assert w.says(words)(), words


async def test_a_bad_configuration_changes_nothing_and_says_so() -> None:
    """SIGHUP with a bad file."""
    async with running() as w:
        await w.until(w.leads)
        before = [c for c in w.calls if c not in {"open", "add"}]
        w.next_plan = "govip.toml: health.rise: 0: at least 1"
        w.daemon.reload()
        await w.until(w.says("configuration not applied, nothing changed: govip.toml: health.rise"))
        assert w.leads()
        assert [c for c in w.calls if c not in {"open", "add"}] == before


async def test_new_addresses_are_applied_without_letting_go() -> None:
    """The difference only: no release, no resignation."""
    async with running() as w:
        await w.until(w.leads)
        w.next_plan = replace(w.plan, groups={"api": w.group("api", "192.0.2.101/32")})
        w.daemon.reload()
        await w.until(lambda: "192.0.2.101" in w.notifier.statuses[-1] and "replace monitor" in w.calls)
        assert [c for c in w.calls if c.startswith("replace")] == [
            "replace addresses", "replace fence", "replace announcer", "replace monitor",
        ]  # fmt: skip
        assert "resign" not in w.calls
        assert len(w.sources) == 2


async def test_refused_new_addresses_are_tried_again() -> None:
    """The kernel refuses once: told, and repeated."""
    async with running() as w:
        await w.until(w.leads)
        w.kernels[1].refuses.add("replace addresses")
        w.next_plan = replace(w.plan, groups={"api": w.group("api", "192.0.2.101/32")})
        w.daemon.reload()
        await w.until(w.says("Readdress failed: replace addresses refused; next: try again"))
        w.kernels[1].refuses.clear()
        await w.until(lambda: "replace monitor" in w.calls)


async def test_another_election_releases_and_starts_anew() -> None:
    """The identity changed: the old group leaves completely before the new one begins."""
    async with running() as w:
        await w.until(w.leads)
        w.next_plan = replace(w.plan, groups={"api": w.group("api", identity="two")})
        w.daemon.reload()
        await w.until(lambda: len(w.elections) == 2 and w.calls.count("announce") == 2)
        assert w.calls.index("resign") < len(w.calls) - w.calls[::-1].index("campaign") - 1
        assert w.elections[0].closed


async def test_groups_and_sources_come_and_go_with_the_configuration() -> None:
    """A new VIP starts beside the old one; a removed one releases; a changed source is replaced."""
    async with running() as w:
        await w.until(w.leads)
        w.next_plan = replace(
            w.plan,
            groups={"api": w.group("api"), "web": w.group("web", "192.0.2.101/32")},
            sources={"probe 2": w.source(PASSED), "unit": w.source(RUNNING)},
        )
        w.daemon.reload()
        await w.until(lambda: w.notifier.statuses[-1].count("leader of") == 2)
        assert len(w.sources) == 3
        w.next_plan = w.plan
        w.daemon.reload()
        await w.until(lambda: w.notifier.statuses[-1].count("leader of") == 1)
        await w.until(lambda: w.elections[1].closed)


async def test_a_plan_s_warnings_are_told() -> None:
    """Loudly: what the configuration asked for and this machine cannot do."""
    async with running() as w:
        await w.until(w.leads)
        w.next_plan = replace(w.plan, warnings=((Message.NO_NFTABLES, "this kernel has no nf_tables"),))
        w.daemon.reload()
        await w.until(w.says("this kernel has no nf_tables"))


async def test_a_failing_kernel_is_tried_again() -> None:
    """A refused Hold is repeated, then holds."""
    async with running() as w:
        await w.until(lambda: bool(w.kernels))
        w.kernels[1].refuses.add("add")
        await w.until(lambda: w.calls.count("add") >= 3)
        assert sum("Hold failed: add refused" in line for line in w.journal.lines) == 1
        w.kernels[1].refuses.clear()
        await w.until(w.leads)


async def test_a_task_that_breaks_releases_the_vip_and_ends_with_a_fault() -> None:
    """No task dies silently: the VIP goes, the trace is in the journal, the exit status says so."""
    async with running(expected_status=1) as w:
        await w.until(w.leads)
        w.kernels[3].monitor_fails.set()
        await w.until(w.says("the monitor broke"))
        await w.until(lambda: "remove" in w.calls[w.calls.index("announce") :])


async def test_a_fault_whose_release_fails_keeps_the_lease() -> None:
    """Never resign while this kernel may answer: the fence ends before the lease does, by itself."""
    async with running(expected_status=1) as w:
        await w.until(w.leads)
        w.lease_given_back = False
        w.kernels[0].refuses.add("close")
        w.kernels[3].monitor_fails.set()
        await w.until(w.says("not released: close refused"))


async def test_nothing_opens_the_fence_again_after_a_fault() -> None:
    """A renewal that waits for the kernel worker must not undo the release."""
    async with running(expected_status=1) as w:
        await w.until(w.leads)
        group = next(iter(w.daemon._groups.values()))
        w.daemon._post(None, ev.Reconfigured(settings=None))  # type: ignore[arg-type]  # the fault
        released = w.calls.index("announce")
        await w.until(lambda: "close" in w.calls[released:])
        group._queue(Hold(w.clock.now() + 2))
    assert "open" not in w.calls[w.calls.index("close", released) :]


async def test_any_fault_of_a_step_releases_the_vip() -> None:
    """Not only those that were thought of: the fence is closed before the lease is given back."""
    async with running(expected_status=1) as w:
        await w.until(w.leads)
        w.daemon._post(None, ev.Reconfigured(settings=None))  # type: ignore[arg-type]  # the fault
        await w.until(w.says("AttributeError"))
        await w.until(lambda: "remove" in w.calls[w.calls.index("announce") :])


async def test_a_stall_past_the_deadline_drops_the_vip_first() -> None:
    """The clock jumps (the machine slept): the fence is closed before anything else is done."""
    async with running() as w:
        await w.until(w.leads)
        before = len(w.calls)
        w.clock.offset += 60
        await w.until(lambda: "resign" in w.calls[before:])
        after = [c for c in w.calls[before:] if c not in {"open", "add"}]
        assert after[:2] == ["silence", "close"]
        await w.until(w.leads)


async def test_a_short_stall_verifies_and_announces_anew() -> None:
    """Stopped for a second: still ours, so proven and announced again."""
    async with running() as w:
        await w.until(w.leads)
        before = len(w.calls)
        w.clock.offset += 1.6
        await w.until(lambda: {"verify", "announce"} <= set(w.calls[before:]))
        assert "resign" not in w.calls[before:]


async def test_the_watchdog_is_pinged_while_all_is_well() -> None:
    """Four times per time-out."""
    async with running() as w:
        await w.until(lambda: w.notifier.said.count("watchdog") >= 5)


async def test_etcd_trouble_and_disagreement_are_told_once_each() -> None:
    """One line when it begins, one when it ends."""
    async with running() as w:
        await w.until(w.leads)
        group = next(iter(w.daemon._groups.values()))
        for _ in range(3):
            group.handle(ev.EtcdState(usable=False, detail="no answer"))
        group.handle(ev.EtcdState(usable=True, detail=""))
        group.handle(ev.ClusterFault(warning="members disagree"))
        group.handle(ev.ClusterFault())
        for words in ("not answer usefully: no answer", "etcd answers again", "members disagree", "agree again"):
            assert sum(words in line for line in w.journal.lines) == 1, words
        assert group.supervisor.state is State.LEADER


async def test_an_outage_of_etcd_is_told_from_time_to_time() -> None:
    """With its age and the number of calls that failed."""
    async with running() as w:
        await w.until(w.leads)
        group = next(iter(w.daemon._groups.values()))
        group.handle(ev.EtcdState(usable=False, detail="no answer"))
        w.clock.offset += 40
        group.handle(ev.EtcdFailed("http://192.0.2.11:2379", "timeout"))
        await w.until(w.says("api: still: etcd does not answer usefully: no answer, 40 s, 2 tries"))


async def test_a_restart_hands_the_vip_over() -> None:
    """SIGTERM under a restart job (FIELD 11): nothing is closed, resigned or removed; the memory is kept."""
    async with running() as w:
        await w.until(w.leads)
        before = len(w.calls)
        w.job = "restart"
        w.lease_given_back = False
    assert [c for c in w.calls[before:] if c not in {"open", "add"}] == ["silence", "close addresses"]
    assert isinstance(w.memory.left, Holding)
    assert w.says("a restart: the VIP stays")()


async def test_the_next_process_adopts_what_was_handed_over() -> None:
    """The fence is not closed in between."""

    def prepare(w: World) -> None:
        w.memory.left = Holding(1, 5, w.clock.now() + 2.5)

    async with running(prepare=prepare) as w:
        await w.until(w.leads)
        assert w.calls[:4] == ["adopt", "open", "add", "announce"]


async def test_a_memory_that_is_refused_starts_clean_and_says_why() -> None:
    """Torn, foreign, stale: told, and everything an earlier process left goes."""

    def prepare(w: World) -> None:
        w.memory.left = "it is of another group"

    async with running(prepare=prepare) as w:
        await w.until(w.leads)
        assert w.calls[:3] == ["silence", "close", "remove"]
        assert w.says("nothing of an earlier process is adopted: it is of another group")()


async def test_a_full_disk_is_told_once_and_costs_nothing_else() -> None:
    """The memory cannot be written: the VIP stays, one line says what that means."""
    async with running(prepare=lambda w: setattr(w.memory, "full", True)) as w:
        await w.until(w.leads)
        await w.until(lambda: w.calls.count("open") > 3)
        assert sum("a restart will move the VIP: no space" in line for line in w.journal.lines) == 1


async def test_an_unanswered_question_why_is_a_stop() -> None:
    """systemd does not say why it ends us: release."""
    async with running() as w:
        await w.until(w.leads)

        async def hang() -> str:
            await asyncio.Event().wait()
            return ""

        w.daemon._job_type = hang
    assert "resign" in w.calls


async def test_a_drain_is_kept_and_ends_with_an_undrain() -> None:
    """The VIP goes, the word is kept before; undrained, the node stands again."""
    async with running() as w:
        await w.until(w.leads)
        w.daemon.drain("", wanted=True)
        assert w.drain.kept
        await w.until(lambda: "standing aside" in w.notifier.statuses[-1])
        assert w.daemon.status().groups[0].blockers == ("drained by the operator",)
        w.daemon.drain("api", wanted=False)
        await w.until(w.leads)
        assert not w.drain.kept


async def test_a_node_that_was_drained_starts_aside() -> None:
    """Also where an earlier process held the VIP."""

    def prepare(w: World) -> None:
        w.memory.left = Holding(1, 5, w.clock.now() + 2.5)
        w.drain.kept = True

    async with running(prepare=prepare) as w:
        await w.until(lambda: bool(w.notifier.statuses) and "standing aside" in w.notifier.statuses[-1])
        assert "open" not in w.calls


async def test_a_drain_that_cannot_be_kept_is_refused_and_changes_nothing() -> None:
    """Half a drain would end with the next boot."""
    async with running() as w:
        await w.until(w.leads)
        w.drain.full = True
        with pytest.raises(RefusedError, match="so nothing was done: no space left"):
            w.daemon.drain("api", wanted=True)
        with pytest.raises(RefusedError, match="web is no VIP of eth0; those are api"):
            w.daemon.drain("web", wanted=True)
        assert w.leads()


async def test_addresses_are_prepared_behind_a_fence_that_is_closed_anew() -> None:
    """`systemctl restart nftables` may have taken it away since."""
    async with running() as w:
        await w.until(w.leads)
        before = len(w.calls)
        next(iter(w.daemon._groups.values()))._queue(Prepare(w.clock.now() + 1.0))
        await w.until(lambda: "add" in w.calls[before:])
        assert w.calls[before : before + 2] == ["close", "add"]


async def test_a_handover_names_the_heir_to_the_election() -> None:
    """In the order of the contract: pass on, silence, close, resign."""
    async with running() as w:
        await w.until(w.leads)
        before = len(w.calls)
        await w.daemon.handover("api", "node3")
        await w.until(lambda: "resign for node3" in w.calls[before:])
        after = [c for c in w.calls[before:] if c not in {"open", "add"}]
        assert after[:4] == ["pass on to node3", "silence", "close", "resign for node3"]


async def test_a_handover_that_nobody_could_take_is_refused() -> None:
    """Nobody in the queue, not the one who is named, an etcd that does not tell, a node that does not lead."""
    async with running() as w:
        await w.until(w.leads)
        with pytest.raises(RefusedError, match="node9 does not stand in the queue, but node2, node3"):
            await w.daemon.handover("", "node9")
        w.elections[0].queue = []
        with pytest.raises(RefusedError, match="no other member stands in the queue"):
            await w.daemon.handover("", "")
        w.elections[0].silent = True
        with pytest.raises(RefusedError, match="nobody knows who could take over"):
            await w.daemon.handover("", "")
        assert w.leads()
        w.daemon.drain("", wanted=True)
        await w.until(lambda: "standing aside" in w.notifier.statuses[-1])
        with pytest.raises(RefusedError, match="this node does not lead; type it on the one that does"):
            await w.daemon.handover("", "")


async def test_the_status_tells_what_is_known() -> None:
    """Gates, lease, and how the node came here."""
    async with running() as w:
        await w.until(w.leads)
        status = w.daemon.status()
        (api,) = status.groups
        assert (status.member, status.interface, api.vip, api.state) == ("node1", "eth0", "api", "leader")
        assert [t.state for t in api.transitions] == ["aside", "candidate", "taking", "leader"]
        assert {g.gate: g.verdict for g in api.gates} == dict.fromkeys(("unit", "probe", "link"), "healthy")
        assert api.lease_left is not None
        assert 0 < api.lease_left <= 2.5
        assert abs(api.since - time.time()) < 60


async def test_services_see_every_step_and_come_and_go_with_the_configuration() -> None:
    """A control socket, metrics, hooks: beside the groups, by key."""
    async with running() as w:
        await w.until(w.leads)
        services: list[fakes.FakeService] = []

        def make(operator: Operator) -> fakes.FakeService:
            assert operator.status().groups[0].state == "leader"
            services.append(fakes.FakeService())
            return services[-1]

        w.next_plan = replace(w.plan, services={"one": make})
        w.daemon.reload()
        await w.until(lambda: bool(services))
        w.daemon.drain("", wanted=True)
        await w.until(lambda: ("api", "aside") in services[0].seen)
        w.next_plan = w.plan
        w.daemon.reload()
        await w.until(lambda: services[0].ended)


@pytest.mark.parametrize(
    ("job", "ending_s", "ended"), [("stop", 0.1, True), ("stop", 1000.0, False), ("restart", 0.1, False)]
)
async def test_a_service_may_end_what_it_has_begun_but_not_for_ever(job: str, ending_s: float, *, ended: bool) -> None:
    """After the VIP is released and the lease given back; not where the next process must adopt them in time."""
    service = fakes.FakeService(ending_s)

    def prepare(w: World) -> None:
        w.daemon._plan = replace(w.plan, services={"one": lambda _: service})

    async with running(prepare=prepare) as w:
        await w.until(w.leads)
        w.job = job
        w.lease_given_back = job == "stop"
    assert service.seen[-1] == ("api", "stopped" if job == "stop" else "leader")
    assert service.ended is ended

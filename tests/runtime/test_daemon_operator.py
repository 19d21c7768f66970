"""The shell: restart and stop, drain, handover, and its status."""

import asyncio
import time
from dataclasses import replace

import pytest

from govipd.core.actions import Prepare, RestartState
from govipd.errors import RefusedError
from govipd.runtime.process_ports import Operator
from tests import fakes
from tests.world import World, running


async def test_a_restart_hands_the_vip_over() -> None:
    """SIGTERM under a restart job (FIELD 11): nothing is closed, resigned or removed; the memory is kept."""
    async with running() as w:
        await w.until(w.leads)
        before = len(w.calls)
        w.job = "restart"
        w.lease_given_back = False
    assert [c for c in w.calls[before:] if c not in {"open", "add"}] == ["silence", "close monitor"]
    assert isinstance(w.memory.left, RestartState)
    assert w.says("a restart: the VIP stays")()


async def test_the_next_process_adopts_what_was_handed_over() -> None:
    """The fence is not closed in between."""

    def prepare(w: World) -> None:
        w.memory.left = RestartState(1, 5, w.clock.now() + 2.5)

    async with running(prepare=prepare) as w:
        await w.until(w.leads)
        assert w.calls[:5] == ["adopt", "open", "add", "announce first", "announce"]


async def test_a_memory_that_is_refused_starts_clean_and_says_why() -> None:
    """A torn, foreign or stale restart state is reported, and everything of the earlier process is removed."""

    def prepare(w: World) -> None:
        w.memory.left = "it is of another group"

    async with running(prepare=prepare) as w:
        await w.until(w.leads)
        assert w.calls[:3] == ["silence", "close", "remove"]
        assert w.says("nothing of an earlier process is adopted: it is of another group")()


async def test_a_memory_of_another_lease_than_the_session_s_starts_clean(monkeypatch: pytest.MonkeyPatch) -> None:
    """A process has one lease, and another group has adopted it."""
    monkeypatch.setattr(fakes.FakeElection, "adoptable", lambda *_: False)

    def prepare(w: World) -> None:
        w.memory.left = RestartState(2, 5, w.clock.now() + 2.5)

    async with running(prepare=prepare) as w:
        await w.until(w.leads)
        assert w.calls[:4] == ["silence", "close", "remove", "campaign"]
        assert w.says("its lease is not the one that another VIP of this process has adopted")()


async def test_a_full_disk_is_reported_once_and_costs_nothing_else() -> None:
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
    """The drain is saved before the VIP is released. After the undrain, the node campaigns again."""
    async with running() as w:
        await w.until(w.leads)
        await w.daemon.drain("", wanted=True)
        assert w.drain.kept
        await w.until(lambda: "ineligible" in w.notifier.statuses[-1])
        assert w.daemon.status().groups[0].blockers == ("drained by the operator",)
        await w.daemon.drain("api", wanted=False)
        await w.until(w.leads)
        assert not w.drain.kept


async def test_a_node_that_was_drained_starts_ineligible() -> None:
    """Also where an earlier process held the VIP."""

    def prepare(w: World) -> None:
        w.memory.left = RestartState(1, 5, w.clock.now() + 2.5)
        w.drain.kept = True

    async with running(prepare=prepare) as w:
        await w.until(lambda: bool(w.notifier.statuses) and "ineligible" in w.notifier.statuses[-1])
        assert "open" not in w.calls


async def test_a_drain_that_cannot_be_kept_is_refused_and_changes_nothing() -> None:
    """Half a drain would end with the next boot."""
    async with running() as w:
        await w.until(w.leads)
        w.drain.full = True
        with pytest.raises(RefusedError, match="so nothing was done: no space left"):
            await w.daemon.drain("api", wanted=True)
        with pytest.raises(RefusedError, match="web is no VIP of eth0; those are api"):
            await w.daemon.drain("web", wanted=True)
        assert w.leads()


async def test_addresses_are_prepared_behind_a_fence_that_is_closed_anew() -> None:
    """`systemctl restart nftables` may have taken it away since."""
    async with running() as w:
        await w.until(w.leads)
        before = len(w.calls)
        next(iter(w.daemon._groups.values()))._worker.queue(Prepare(w.clock.now() + 1.0))
        await w.until(lambda: "add" in w.calls[before:])
        assert w.calls[before : before + 2] == ["close", "add"]


async def test_a_handover_names_the_successor_to_the_election() -> None:
    """In the order of the contract: hand over, silence, close, resign."""
    async with running() as w:
        await w.until(w.leads)
        before = len(w.calls)
        await w.daemon.handover("api", "node3")
        await w.until(lambda: "resign for node3" in w.calls[before:])
        after = [c for c in w.calls[before:] if c not in {"open", "add"}]
        assert after[:4] == ["hand over to node3", "silence", "close", "resign for node3"]
        assert w.elections[0].told_closed[-1] == "close"


async def test_a_fence_that_the_kernel_does_not_close_is_not_told_closed() -> None:
    """Else the successor would answer beside this node."""
    async with running() as w:
        await w.until(w.leads)
        w.elections[0].told_closed.clear()
        w.kernels[0].refuses.add("close")
        await w.daemon.handover("api", "node3")
        await w.until(lambda: "close" in w.calls[-2:])
        assert w.elections[0].told_closed == []
        w.kernels[0].refuses.clear()
        await w.until(lambda: w.elections[0].told_closed != [])


async def test_a_handover_that_no_member_could_take_is_refused() -> None:
    """Refused: an empty queue, a member that is not in it, an etcd without an answer, a node that does not lead."""
    async with running() as w:
        await w.until(w.leads)
        with pytest.raises(RefusedError, match="node9 does not stand in the queue, but node2, node3"):
            await w.daemon.handover("", "node9")
        w.elections[0].queue = []
        with pytest.raises(RefusedError, match="no other member stands in the queue"):
            await w.daemon.handover("", "")
        w.elections[0].silent = True
        with pytest.raises(RefusedError, match="etcd does not say which member could take over"):
            await w.daemon.handover("", "")
        assert w.leads()
        await w.daemon.drain("", wanted=True)
        await w.until(lambda: "ineligible" in w.notifier.statuses[-1])
        with pytest.raises(RefusedError, match="this node does not lead; type it on the one that does"):
            await w.daemon.handover("", "")


async def test_the_status_reports_what_is_known() -> None:
    """Gates, lease, and how the node came here."""
    async with running() as w:
        await w.until(w.leads)
        status = w.daemon.status()
        (api,) = status.groups
        assert (status.member, status.interface, api.vip, api.state) == ("node1", "eth0", "api", "leader")
        assert [t.state for t in api.transitions] == ["ineligible", "candidate", "activating", "leader"]
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
        await w.daemon.drain("", wanted=True)
        await w.until(lambda: ("api", "ineligible") in services[0].seen)
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

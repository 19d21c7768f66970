"""The shell: what it does with the supervisor's decisions, a reload and a fault."""

import json
from dataclasses import replace
from ipaddress import ip_interface

from govipd.core import events as ev
from govipd.core.actions import Hold
from govipd.core.journal_kinds import JournalKind
from govipd.core.state import State
from tests.fakes import FakeAddresses
from tests.world import PASSED, RUNNING, running


async def test_from_start_to_leader_to_stop_in_the_order_of_the_contract() -> None:
    """Clean, campaign, open, add, announce; on stop another is made ready, then silence, close, then resign."""
    async with running() as w:
        await w.until(w.leads)
        assert w.calls[:6] == ["silence", "close", "remove", "campaign", "open", "add"]
        assert w.calls[6:8] == ["announce first", "announce"]
        assert w.notifier.said.count("ready") == 1
        before = len(w.calls)
    end = [c for c in w.calls[before:] if c not in {"open", "add"}]
    assert end == ["hand over", "silence", "close", "resign", "remove", "close monitor", "remove fence"]
    assert "stopping" in w.notifier.said
    assert w.elections[0].records[-1]["state"] == "stopped"


async def test_the_fence_stays_while_an_address_is_on_another_interface() -> None:
    """Without the fence the kernel would answer for the address. The journal says what to do."""
    async with running() as w:
        await w.until(w.leads)
        addresses = next(kernel for kernel in w.kernels if isinstance(kernel, FakeAddresses))
        addresses.left = (ev.Elsewhere(ip_interface("192.0.2.100/24"), "lo"),)
    assert "remove fence" not in w.calls
    assert w.says("192.0.2.100/24 on lo: the fence stays, closed")()


async def test_each_step_of_a_move_is_reported_after_it() -> None:
    """What a take-over took once it has been announced, what a release took once the key is gone."""
    async with running() as w:
        await w.until(w.leads)
        next(iter(w.daemon._groups.values())).handle(ev.Announced(3))
        assert w.says("take-over in")()
        steps = next(fields["GOVIP_STEPS"] for fields in w.journal.fields if "GOVIP_STEPS" in fields)
        assert [step for step, _ in json.loads(steps)] == ["won", "fence open", "addresses there", "leader"]
    assert w.says("release in")()
    released = [fields["GOVIP_STEPS"] for fields in w.journal.fields if "GOVIP_STEPS" in fields][-1]
    names = [step for step, _ in json.loads(released)]
    assert names[:4] == ["told to stop", "handing over", "fence open", "addresses there"]
    assert names[4:7] == ["decided", "fence closed", "resigning"]


async def test_a_move_is_not_held_up_by_telling_of_it() -> None:
    """No report is written while the fence closes. A long release is reported before it ends."""
    async with running() as w:
        await w.until(w.leads)
        group = next(iter(w.daemon._groups.values()))
        fence = w.kernels[0]
        fence.refuses.add("close")
        before = len(w.journal.lines)
        w.sources[1].event = ev.UnitState("failed", "failed")
        group.handle(w.sources[1].event)
        assert group.state_machine.state is State.DEACTIVATING
        assert w.journal.lines[before:] == []
        await w.until(w.says("gate unit unhealthy (failed)"))
        assert group.state_machine.state is State.DEACTIVATING
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
        away = ["replace fence", "replace addresses", "replace addresses", "replace fence"]
        ends = ["replace announcer", "replace monitor"]
        await w.eventually(lambda: w.calls.count("replace monitor") == 2)
        # Guarded before it goes; not added before etcd has granted it.
        assert [c for c in w.calls if c.startswith(("replace", "claim", "unclaim"))] == [
            "claim", *away, *ends, "unclaim", *away, *ends
        ]  # fmt: skip
        assert "resign" not in w.calls
        assert len(w.sources) == 2


async def test_refused_new_addresses_are_tried_again() -> None:
    """The kernel refuses once: the refusal is reported, and the change is repeated."""
    async with running() as w:
        await w.until(w.leads)
        w.kernels[1].refuses.add("replace addresses")
        w.next_plan = replace(w.plan, groups={"api": w.group("api", "192.0.2.101/32")})
        w.daemon.reload()
        await w.until(w.says("Readdress failed: replace addresses refused; next: try again"))
        w.kernels[1].refuses.clear()
        await w.until(lambda: "replace monitor" in w.calls)


async def test_another_way_to_etcd_is_applied_without_letting_go() -> None:
    """Endpoints, certificates, user: handed to the client that runs, once."""
    async with running() as w:
        await w.until(w.leads)
        w.next_plan = replace(w.plan, session=replace(w.plan.session, access="another"))
        for times in (1, 2):
            w.daemon.reload()
            await w.until(lambda times=times: w.notifier.said.count("reloading") == times)  # type: ignore[misc]
        assert w.sessions[0].reached == ["another"]
        assert "resign" not in w.calls
        assert len(w.elections) == 1


async def test_another_election_releases_and_starts_anew() -> None:
    """The identity changed: the old group leaves completely before the new one begins."""
    async with running() as w:
        await w.until(w.leads)
        w.next_plan = replace(w.plan, groups={"api": w.group("api", identity="two")})
        w.daemon.reload()
        await w.until(lambda: len(w.elections) == 2 and w.calls.count("announce") == 2)
        assert w.calls.index("resign") < len(w.calls) - w.calls[::-1].index("campaign") - 1
        assert w.elections[0].closed


async def test_another_session_begins_when_every_group_has_left_the_earlier_one() -> None:
    """A process has one lease: it is given back before the next one is granted."""
    async with running() as w:
        await w.until(w.leads)
        w.next_plan = replace(
            w.plan,
            session=replace(w.plan.session, identity="two"),
            groups={name: w.group(name, f"192.0.2.{n}/32", "two") for n, name in ((100, "api"), (101, "web"))},
        )
        w.daemon.reload()
        assert not w.sessions[0].closed
        await w.until(lambda: w.notifier.statuses[-1].count("leader of") == 2)
        assert len(w.sessions) == 2
        assert w.sessions[0].closed
        assert not w.sessions[1].closed
        assert w.calls.index("resign") < len(w.calls) - w.calls[::-1].index("campaign") - 1


async def test_a_group_that_leaves_keeps_no_fence_for_what_another_group_has() -> None:
    """The group was renamed: its address is on the machine, and the new group guards it."""
    async with running() as w:
        await w.until(w.leads)
        address = ip_interface("192.0.2.100/32")
        for kernel in w.kernels:
            if isinstance(kernel, FakeAddresses):
                kernel.left = (ev.Elsewhere(address, "eth0"),)
        w.next_plan = replace(w.plan, groups={"www": w.group("www", str(address))})
        w.daemon.reload()
        await w.until(lambda: "remove fence" in w.calls)


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


async def test_the_status_of_many_groups_counts_them_and_shows_those_in_trouble() -> None:
    """systemctl shows one line: twenty groups would not fit."""
    async with running() as w:
        await w.until(w.leads)
        groups = {f"g{n}": w.group(f"g{n}", f"192.0.2.{n}/32") for n in range(1, 20)}
        w.next_plan = replace(w.plan, groups={"api": w.group("api"), **groups})
        w.daemon.reload()
        await w.until(lambda: w.notifier.statuses[-1] == "20 VIPs: 20 leader")
        for name in ("g7", "g8", "g9", "g10"):
            await w.daemon.drain(name, wanted=True)
        await w.until(lambda: w.notifier.statuses[-1].startswith("20 VIPs: 16 leader, 4 ineligible | g7: ineligible"))
        assert w.notifier.statuses[-1].count("drained by the operator") == 3
        assert w.notifier.statuses[-1].endswith(" | 1 more in trouble")


async def test_a_plan_s_warnings_are_reported() -> None:
    """Loudly: what the configuration asked for and this machine cannot do."""
    async with running() as w:
        await w.until(w.leads)
        w.next_plan = replace(w.plan, warnings=((JournalKind.NO_NFTABLES, "this kernel has no nf_tables"),))
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
    """No task ends silently: the VIP is released, the journal has the trace, the exit status is 1."""
    async with running(expected_status=1) as w:
        await w.until(w.leads)
        w.kernels[2].announcer_fails.set()
        await w.until(w.says("the announcer broke"))
        await w.eventually(lambda: "remove" in w.calls[w.calls.index("announce") :])


async def test_a_fault_whose_release_fails_keeps_the_lease() -> None:
    """Never resign while this kernel may answer: the fence ends before the lease does, by itself."""
    async with running(expected_status=1) as w:
        await w.until(w.leads)
        w.lease_given_back = False
        w.kernels[0].refuses.add("close")
        w.kernels[2].announcer_fails.set()
        await w.until(w.says("not released: close refused"))


async def test_nothing_opens_the_fence_again_after_a_fault() -> None:
    """A renewal that waits for the kernel worker must not undo the release."""
    async with running(expected_status=1) as w:
        await w.until(w.leads)
        group = next(iter(w.daemon._groups.values()))
        w.daemon._post(None, ev.Reconfigured(settings=None))  # type: ignore[arg-type]  # the fault
        released = w.calls.index("announce")
        await w.until(lambda: "close" in w.calls[released:])
        group._worker.queue(Hold(w.clock.now() + 2))
    assert "open" not in w.calls[w.calls.index("close", released) :]


async def test_any_fault_of_a_step_releases_the_vip() -> None:
    """After an unexpected exception, too: the fence is closed before the lease is given back."""
    async with running(expected_status=1) as w:
        await w.until(w.leads)
        w.daemon._post(None, ev.Reconfigured(settings=None))  # type: ignore[arg-type]  # the fault
        await w.until(w.says("AttributeError"))
        await w.eventually(lambda: "remove" in w.calls[w.calls.index("announce") :])


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


async def test_etcd_trouble_and_disagreement_are_reported_once_each() -> None:
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
        assert group.state_machine.state is State.LEADER


async def test_an_outage_of_etcd_is_reported_from_time_to_time() -> None:
    """With its age and the number of calls that failed."""
    async with running() as w:
        await w.until(w.leads)
        group = next(iter(w.daemon._groups.values()))
        group.handle(ev.EtcdState(usable=False, detail="no answer"))
        w.clock.offset += 40
        group.handle(ev.EtcdFailed("http://192.0.2.11:2379", "timeout"))
        await w.until(w.says("api: still: etcd does not answer usefully: no answer, 40 s, 2 tries"))

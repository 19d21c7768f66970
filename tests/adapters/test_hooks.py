"""The operator's commands: real ones, run by the real thing."""

import asyncio
import os
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from govipd.adapters.outputs import hooks as module
from govipd.adapters.outputs.hooks import OUTPUT_MAX, WAITING_MAX, Hooks
from govipd.core import events as ev
from govipd.core.actions import Action, CloseFence, Report
from govipd.core.state import State, Trigger
from tests import fakes
from tests.adapters.node import FakeOperator


def sh(script: str) -> tuple[str, ...]:
    return ("/bin/sh", "-c", script)


SAY = sh('echo "$GOVIP_STATE"')


class World:
    def __init__(self, timeout_s: float, commands: Mapping[str, Sequence[str]]) -> None:
        self.operator, self.journal = FakeOperator(), fakes.FakeJournal()
        self.hooks = Hooks(
            commands, timeout_s=timeout_s, operator=self.operator, journal=self.journal, clock=fakes.FakeClock()
        )

    def comes_into(self, state: State, trigger: Trigger, detail: str = "", vip: str = "api") -> None:
        actions: list[Action] = [CloseFence(), Report(state, trigger, detail, 0.0)]
        self.hooks.stepped(vip, ev.Tick(), actions, 0.0)

    def leads(self) -> None:
        self.comes_into(State.CANDIDATE, Trigger.ELIGIBLE)
        self.comes_into(State.ACTIVATING, Trigger.WON)
        self.comes_into(State.LEADER, Trigger.ACTIVATED)

    def drops(self, trigger: Trigger, detail: str = "") -> None:
        self.comes_into(State.DEACTIVATING, trigger, detail)
        self.comes_into(State.RESIGNING, Trigger.CLOSED)
        self.comes_into(State.INELIGIBLE, Trigger.RESIGNED)

    def passes_on(self, trigger: Trigger, detail: str = "") -> None:
        self.comes_into(State.HANDING_OVER, trigger, detail)
        self.drops(Trigger.SUCCESSOR_READY)

    async def until(self, words: str) -> str:
        async with asyncio.timeout(30):
            while not (found := [line for line in self.journal.lines if words in line]):
                await asyncio.sleep(0.005)
        return found[0]

    def said(self) -> list[str]:
        """What the commands printed, in order."""
        texts = [line.split(" hook: ")[1] for line in self.journal.lines]
        return [text for text in texts if not text.startswith("done after")]


@asynccontextmanager
async def running(timeout_s: float = 20.0, **commands: tuple[str, ...]) -> AsyncIterator[World]:
    world = World(timeout_s, commands)
    task = asyncio.ensure_future(world.hooks.run())
    try:
        yield world
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def roles(*acts: str) -> list[str]:
    """Which commands run when a node leads and then ...; the last one is awaited."""
    async with running(leader=SAY, standby=SAY, fault=SAY) as w:
        w.leads()
        for act in acts:
            match act:
                case "haproxy fails":
                    w.operator.unhealthy("unit")
                    w.drops(Trigger.INELIGIBLE, "unit unhealthy")
                case "haproxy returns":
                    w.operator = w.hooks._operator = FakeOperator()
                    w.comes_into(State.CANDIDATE, Trigger.ELIGIBLE)
                case "drained" | "stopped":
                    w.passes_on(Trigger.WITHDRAWN, "drained by the operator")
                case "handed over":
                    w.passes_on(Trigger.HANDOVER)
                case "lease expires":
                    w.drops(Trigger.EXPIRED)
        async with asyncio.timeout(30):
            await w.hooks._queue.join()
        return w.said()


@pytest.mark.parametrize(
    ("acts", "expected"),
    [
        ((), ["standby", "leader"]),
        (("haproxy fails", "haproxy returns"), ["standby", "leader", "fault", "standby"]),
        (("drained",), ["standby", "leader", "standby"]),
        (("handed over",), ["standby", "leader", "standby"]),
        (("lease expires",), ["standby", "leader", "fault"]),
    ],
)
async def test_roles_are_those_that_users_of_keepalived_know(acts: tuple[str, ...], expected: list[str]) -> None:
    """In order, and each change once."""
    assert await roles(*acts) == expected


async def test_a_candidate_that_becomes_unhealthy_is_at_fault_and_a_drained_one_is_not() -> None:
    """It never held the VIP; nobody needs to know whether it could have."""
    async with running(leader=SAY, standby=SAY, fault=SAY) as w:
        w.comes_into(State.CANDIDATE, Trigger.ELIGIBLE)
        w.comes_into(State.RESIGNING, Trigger.INELIGIBLE)
        w.operator.unhealthy("probe")
        w.comes_into(State.CANDIDATE, Trigger.ELIGIBLE)
        w.comes_into(State.RESIGNING, Trigger.INELIGIBLE)
        await w.until("api: fault hook: done")
        assert w.said() == ["standby", "fault"]


async def test_a_node_that_was_never_fit_is_at_fault_once_that_is_known() -> None:
    """A haproxy that is dead when the machine boots; before anything is known, nothing is said."""
    async with running(fault=sh('echo "$GOVIP_REASON: $GOVIP_DETAIL"'), standby=SAY) as w:
        w.operator.group = replace(w.operator.group, state="ineligible")
        w.comes_into(State.INELIGIBLE, Trigger.CLEANED)
        w.operator.unhealthy("unit")
        for _ in range(3):
            w.hooks.stepped("api", ev.Tick(), [], 0.0)
        w.operator.group = replace(w.operator.group, state="candidate")
        w.comes_into(State.CANDIDATE, Trigger.ELIGIBLE)
        await w.until("standby hook: done")
        assert w.said() == ["ineligible: unit unhealthy (up)", "standby"]


async def test_the_environment_says_what_happened() -> None:
    """And holds nothing of the daemon's own."""
    async with running(fault=("/usr/bin/env",)) as w:
        w.leads()
        w.drops(Trigger.LOST, "etcd does not have our key\nany more")
        await w.until("done")
        assert set(w.said()) == {
            "GOVIP_VIP=api", "GOVIP_STATE=fault", "GOVIP_REASON=lost",
            "GOVIP_ADDRESSES=192.0.2.100/32 2001:db8::100/128",
            "GOVIP_DETAIL=etcd does not have our key\N{REPLACEMENT CHARACTER}any more",
            "GOVIP_INTERFACE=eth0", "GOVIP_MEMBER=node1", f"PATH={module.PATH}",
        }  # fmt: skip


async def test_a_vip_that_is_no_longer_configured_has_its_last_hook() -> None:
    """The node's status does not have it any more."""
    async with running(standby=sh('echo "$GOVIP_VIP: $GOVIP_ADDRESSES"')) as w:
        w.leads()
        w.operator.group = replace(w.operator.group, vip="other")
        w.drops(Trigger.INELIGIBLE)
        await w.until("done")
        assert w.said()[-1] == "api: 192.0.2.100/32 2001:db8::100/128"


async def test_a_failure_is_reported_with_what_it_printed() -> None:
    """Standard error too."""
    async with running(leader=sh("echo no route >&2; exit 3")) as w:
        w.leads()
        await w.until("api: leader hook: exit status 3 after ")
        assert "api: leader hook: no route" in w.journal.lines


async def test_a_program_that_cannot_be_started_is_reported(tmp_path: Path) -> None:
    """It has gone since the configuration was read."""
    async with running(leader=(str(tmp_path / "gone"),)) as w:
        w.leads()
        assert await w.until("not started") == "api: leader hook: not started: No such file or directory"


async def test_one_that_hangs_is_killed_with_its_children(tmp_path: Path) -> None:
    """And the next one runs."""
    async with running(0.3, standby=sh(f"sleep 1000 & echo $! > {tmp_path}/child; sleep 1000"), leader=SAY) as w:
        w.leads()
        await w.until("standby hook: killed: took longer than 0.3 s")
        await w.until("leader hook: leader")
        child = int((tmp_path / "child").read_text())
        async with asyncio.timeout(10):
            while _alive(child):
                await asyncio.sleep(0.01)


def _alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


async def test_a_background_process_of_a_hook_does_not_block_the_next(tmp_path: Path) -> None:
    """Though it keeps the output open."""
    async with running(leader=sh(f"sleep 1000 & echo $! > {tmp_path}/child")) as w:
        w.leads()
        await w.until("leader hook: done")
        os.kill(int((tmp_path / "child").read_text()), 9)


async def test_a_flood_of_output_is_cut() -> None:
    """By bytes and by lines; the command is not held up by it."""
    async with running(leader=sh("yes x | head -c 1000000; echo end >&2")) as w:
        w.leads()
        await w.until("done")
        assert len(w.said()) == module.LINES_MAX
    async with running(leader=sh("head -c 1000000 /dev/zero | tr '\\0' x")) as w:
        w.leads()
        await w.until("done")
        assert len("".join(w.said())) < OUTPUT_MAX


async def test_stepped_only_takes_note() -> None:
    """With a hook that never ends: a thousand changes take no time, and the newest are kept."""
    async with running(leader=sh("sleep 1000"), standby=sh("sleep 1000")) as w:
        began = time.monotonic()
        for _ in range(500):
            w.leads()
        assert time.monotonic() - began < 5
        assert sum("left out" in line for line in w.journal.lines) == 1000 - WAITING_MAX
        assert w.hooks._queue.qsize() == WAITING_MAX


async def test_the_last_hook_may_end_when_the_daemon_does() -> None:
    """A daemon that stops has released the VIP, and its hook runs."""
    async with running(standby=SAY) as w:
        w.leads()
        w.drops(Trigger.INELIGIBLE, "the daemon was told to stop")
        await asyncio.sleep(0)  # the task has begun
    assert w.said()[-1:] == ["standby"]


async def test_a_hook_that_hangs_holds_the_daemon_s_end_up_for_a_moment_only(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Then it is killed."""
    monkeypatch.setattr(module, "FINISH_S", 0.2)
    async with running(leader=sh(f"echo $$ > {tmp_path}/hook; exec sleep 1000")) as w:
        w.leads()
        async with asyncio.timeout(10):
            while not (tmp_path / "hook").exists() or not (tmp_path / "hook").read_text():
                await asyncio.sleep(0.005)
        began = time.monotonic()
    assert time.monotonic() - began < 10
    assert not _alive(int((tmp_path / "hook").read_text()))

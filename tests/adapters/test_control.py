"""The control socket of a real daemon over fakes: what it answers, to whom, and what it does not let anybody do."""

import asyncio
import contextlib
import itertools
import json
import re
import socket
import stat
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, closing
from dataclasses import fields, replace
from functools import partial
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from govipd.adapters import control, varlink
from govipd.adapters.control import ControlSocket
from govipd.adapters.varlink_server import LIMITS, Limits, VarlinkServer
from govipd.core import status as core_status
from govipd.ctl import client
from govipd.errors import NoDaemonError, RefusedError
from govipd.ports import Operator
from tests.fuzz.strategies import fuzz, json_values, mutated, nested, raw
from tests.test_daemon import World, running

CHECKOUT = Path(__file__).resolve().parents[2]
STATUS = json.dumps({"method": "org.govipd.Node.Status"}).encode() + b"\0"
NOBODY = 65534


class Node:
    """A daemon with a control socket, and the ways to it."""

    def __init__(self, world: World, runtime: Path) -> None:
        self.world = world
        self.runtime = runtime
        self.path = runtime / "eth0" / "control"

    def server(self) -> VarlinkServer:
        """The one behind the socket."""
        ((service, _),) = self.world.daemon._services.values()
        assert isinstance(service, ControlSocket)
        return service._server

    def pings(self) -> int:
        """Of the watchdog, so far."""
        return self.world.notifier.said.count("watchdog")

    def pauses(self) -> Callable[[], float]:
        """Counts from here on; the longest time between two pings, in seconds."""
        at = [time.monotonic()]
        n = self.world.notifier
        watchdog = n.watchdog

        def noted() -> None:
            at.append(time.monotonic())
            watchdog()

        n.watchdog = noted  # type: ignore[method-assign]  # beside what the fake does
        return lambda: max(b - a for a, b in itertools.pairwise([*at, time.monotonic()]))

    async def ask(self, method: str, **parameters: str) -> Any:
        """As govipctl does, from another thread; the reply's parameters."""
        asking = partial(client.call, "eth0", method, self.runtime, client.REPLY_S, **parameters)
        return json.loads(await asyncio.to_thread(asking))

    async def send(self, *messages: bytes) -> list[dict[str, Any]]:
        """Raw messages on one connection; the replies until the daemon closes it or every message has one."""
        reader, writer = await asyncio.open_unix_connection(self.path)
        with closing(writer):
            try:
                writer.write(b"".join(messages))
                return [json.loads((await reader.readuntil(b"\0"))[:-1]) for _ in messages]
            except (asyncio.IncompleteReadError, ConnectionError):
                return []


@asynccontextmanager
async def node(expected_status: int = 0, limits: Limits = LIMITS) -> AsyncIterator[Node]:
    """It leads, and its socket is there."""
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory, "eth0", "control")
        path.parent.mkdir()

        def make(operator: Operator) -> ControlSocket:
            return ControlSocket(path=path, operator=operator, journal=world[0].journal, version="1", limits=limits)

        def add(w: World) -> None:
            world.append(w)
            w.daemon._plan = w.plan = w.next_plan = replace(w.plan, services={"control": make})

        world: list[World] = []
        async with running(expected_status, add) as w:
            await w.until(w.leads)
            await w.until(path.exists)
            yield Node(w, Path(directory))


# What it answers


async def test_the_status_comes_as_the_daemon_knows_it() -> None:
    """Through the socket and back, nothing is lost."""
    async with node() as n:
        seen = await asyncio.to_thread(client.status, "eth0", n.runtime)
        known = n.world.daemon.status()
        assert (seen.member, seen.interface, seen.version) == ("node1", "eth0", "1")
        (api,) = seen.groups
        assert api.lease_left is not None
        same = {"lease_left": None, "since": 0.0, "gates": (), "transitions": ()}
        assert replace(api, **same) == replace(known.groups[0], **same)  # type: ignore[arg-type]
        assert [t.state for t in api.transitions] == ["aside", "candidate", "taking", "leader"]


async def test_drain_and_undrain() -> None:
    """Of one VIP, or of every one."""
    async with node() as n:
        await n.ask("Drain", vip="api")
        assert n.world.drain.kept
        await n.world.until(lambda: "standing aside" in n.world.notifier.statuses[-1])
        await n.ask("Undrain")
        await n.world.until(n.world.leads)
        assert not n.world.drain.kept


async def test_a_handover_to_a_member() -> None:
    """Begun when the reply comes."""
    async with node() as n:
        await n.ask("Handover", to="node3")
        await n.world.until(lambda: "resign for node3" in n.world.calls)


async def test_a_refusal_says_why() -> None:
    """In the daemon's words."""
    async with node() as n:
        with pytest.raises(RefusedError, match="web is no VIP of eth0; those are api"):
            await n.ask("Drain", vip="web")
        with pytest.raises(RefusedError, match="node9 does not stand in the queue, but node2, node3"):
            await n.ask("Handover", to="node9")


@pytest.mark.parametrize(
    ("call", "error", "parameters"),
    [
        ({"method": "org.govipd.Node.Fly"}, "MethodNotFound", {"method": "org.govipd.Node.Fly"}),
        ({"method": "org.example.Other.Fly"}, "InterfaceNotFound", {"interface": "org.example.Other"}),
        ({"method": "Fly"}, "InterfaceNotFound", {"interface": ""}),
        ({"method": "org.govipd.Node.Drain", "parameters": {"vip": 1}}, "InvalidParameter", {"parameter": "vip"}),
        ({"method": "org.govipd.Node.Drain", "parameters": {"vpi": ""}}, "InvalidParameter", {"parameter": "vpi"}),
        ({"method": "org.govipd.Node.Status", "parameters": []}, "InvalidParameter", None),
    ],
)
async def test_the_errors_of_the_protocol(call: object, error: str, parameters: object) -> None:
    """As org.varlink.service names them; the connection lives on."""
    async with node() as n:
        answer, status = await n.send(json.dumps(call).encode() + b"\0", STATUS)
        assert answer["error"] == f"org.varlink.service.{error}"
        assert parameters in (None, answer["parameters"])
        assert status["parameters"]["member"] == "node1"


async def test_a_call_that_wants_no_reply_gets_none() -> None:
    """oneway."""
    async with node() as n:
        oneway = json.dumps({"method": "org.govipd.Node.Drain", "oneway": True}).encode() + b"\0"
        reader, writer = await asyncio.open_unix_connection(n.path)
        with closing(writer):
            writer.write(oneway + STATUS)
            assert b'"drained":true' in await reader.readuntil(b"\0")


async def test_null_stands_for_a_parameter_that_is_left_out() -> None:
    """?string."""
    async with node() as n:
        call = {"method": "org.govipd.Node.Drain", "parameters": {"vip": None}}
        none = {"method": "org.govipd.Node.Status", "parameters": None}
        assert await n.send(json.dumps(call).encode() + b"\0") == [{"parameters": {}}]
        assert "parameters" in (await n.send(json.dumps(none).encode() + b"\0"))[0]
        assert n.world.drain.kept


async def test_another_client_understands_it() -> None:
    """varlink's reference client, which parses our descriptions and checks calls and replies against them."""
    asking = """
import sys, varlink
client = varlink.Client(address=f"unix:{sys.argv[1]}")
print(client.info["product"] if hasattr(client, "info") else "", sorted(client.get_interfaces()))
with client.open("org.govipd.Node", namespaced=True) as node:
    group = node.Status().groups[0]
    print(group.vip, group.state, group.gates[0].verdict)
    node.Drain("api")
    try:
        node.Handover(None, "node2")
    except varlink.VarlinkError as e:
        print(e.error(), e.parameters()["reason"])
with client.open("org.varlink.service") as service:
    print(len(service.GetInterfaceDescription("org.varlink.service")["description"]) > 100)
"""
    async with node() as n:
        ran = await asyncio.create_subprocess_exec(
            sys.executable, "-c", asking, str(n.path), stdout=subprocess.PIPE, stderr=subprocess.PIPE
        )
        out, err = await ran.communicate()
        assert ran.returncode == 0, err.decode()
        assert "['org.govipd.Node', 'org.varlink.service']" in out.decode()
        assert "api leader healthy" in out.decode()
        assert "org.govipd.Node.Refused api: this node does not lead" in out.decode()


@pytest.mark.parametrize(
    ("type_", "kind"),
    [("Gate", core_status.GateReport), ("Transition", core_status.Transition), ("Group", core_status.GroupStatus)],
)
def test_the_description_has_the_status_s_fields(type_: str, kind: type[Any]) -> None:
    """In the same order."""
    block = re.search(rf"^type {type_} \((.*?)\)$", control.DESCRIPTION, flags=re.MULTILINE | re.DOTALL)
    assert block
    assert re.findall(r"(\w+):", block[1]) == [f.name for f in fields(kind)]


# Who may


async def test_the_socket_is_root_s_and_its_group_s() -> None:
    """0660, whatever the umask."""
    async with node() as n:
        assert stat.S_IMODE(n.path.stat().st_mode) == 0o660


@pytest.mark.root
async def test_others_may_read_and_change_nothing() -> None:
    """A process of another user, which may open the socket."""
    asking = """
import sys
from functools import partial
from pathlib import Path
from govipd.ctl import client
from govipd.errors import DeniedError
runtime = Path(sys.argv[1])
print(client.status("eth0", runtime).member)
for method in ("Drain", "Undrain", "Handover"):
    try:
        client.call("eth0", method, runtime)
    except DeniedError as e:
        print(method, e)
"""
    async with node() as n:
        for path in (n.runtime, n.path.parent):
            path.chmod(0o755)
        n.path.chmod(0o666)
        ran = await asyncio.create_subprocess_exec(
            sys.executable, "-c", asking, str(n.runtime), cwd=CHECKOUT, user=NOBODY, group=NOBODY, extra_groups=(),
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, env={"PYTHONDONTWRITEBYTECODE": "1"},
        )  # fmt: skip
        out, err = await ran.communicate()
        assert out.decode().splitlines() == [
            "node1", *(f"{m} govipd@eth0: only root may do that" for m in ("Drain", "Undrain", "Handover")),
        ], err.decode()  # fmt: skip
        assert n.world.leads()
        assert not n.world.drain.kept


# What nobody can do


async def closed(reader: asyncio.StreamReader) -> bool:
    """Until the daemon closes a connection; whether it did."""
    with contextlib.suppress(ConnectionError):
        while await reader.read(65536):
            pass
    return True


async def test_a_message_that_is_too_long_ends_its_connection() -> None:
    """Without its end in sight, and with it."""
    async with node() as n:
        for message in (b"x" * (LIMITS.message + 1), b'"' + b" " * LIMITS.message + b'"\0'):
            reader, writer = await asyncio.open_unix_connection(n.path)
            with closing(writer):
                writer.write(message)
                assert await asyncio.wait_for(closed(reader), 4)
        assert (await n.ask("Status"))["member"] == "node1"


async def test_a_message_that_does_not_come_to_its_end_ends_its_connection() -> None:
    """Slow-loris: a byte now and then does not keep it open."""
    async with node(limits=Limits(patience_s=0.3)) as n:
        reader, writer = await asyncio.open_unix_connection(n.path)

        async def drip() -> None:
            with contextlib.suppress(ConnectionError):
                for byte in STATUS[:-1]:
                    writer.write(bytes([byte]))
                    await writer.drain()
                    await asyncio.sleep(0.05)

        with closing(writer):
            dripping = asyncio.ensure_future(drip())
            assert await asyncio.wait_for(closed(reader), 4)
            await dripping


async def test_one_who_does_not_read_is_left() -> None:
    """Replies do not pile up in the daemon."""
    async with node(limits=Limits(patience_s=0.3)) as n:
        with socket.socket(socket.AF_UNIX) as peer:
            peer.connect(str(n.path))
            peer.setblocking(False)
            server = n.server()
            with contextlib.suppress(BlockingIOError, ConnectionError):
                while True:
                    peer.send(STATUS * 100)
            await n.world.until(lambda: server._connections[0] == 0)


async def test_connections_per_user_are_bounded() -> None:
    """What is too much is closed at once, and there is room again once one has gone."""
    async with node() as n:
        open_ = [await asyncio.open_unix_connection(n.path) for _ in range(LIMITS.of_one_user)]
        with pytest.raises(NoDaemonError, match="govipd@eth0 does not answer: "):
            await n.ask("Status")
        open_.pop()[1].close()
        await n.world.until(lambda: n.server()._connections[0] < LIMITS.of_one_user)
        assert (await n.ask("Status"))["member"] == "node1"
        for _, writer in open_:
            writer.close()


async def test_root_is_let_in_however_many_others_are_there() -> None:
    """Their number has a bound of its own."""
    async with node() as n:
        n.server()._connections[NOBODY] = LIMITS.of_others
        assert (await n.ask("Status"))["member"] == "node1"


async def test_file_descriptors_that_are_passed_go_nowhere() -> None:
    """The kernel closes them: the daemon asks for none."""
    async with node() as n:
        before = open_files()
        with socket.socket(socket.AF_UNIX) as peer, tempfile.TemporaryFile() as file:
            peer.connect(str(n.path))
            peer.setblocking(False)
            for _ in range(20):
                socket.send_fds(peer, [STATUS], [file.fileno()] * 50)
            with contextlib.closing(await asyncio.to_thread(client_of, n.path)):
                pass
        await n.world.until(lambda: n.server()._connections[0] == 0)
        assert open_files() <= before


def open_files() -> int:
    """Of this process."""
    return sum(1 for _ in Path("/proc/self/fd").iterdir())


def client_of(path: Path) -> socket.socket:
    """One whole exchange: what was sent before on other connections has been taken in."""
    peer = socket.socket(socket.AF_UNIX)
    peer.connect(str(path))
    peer.sendall(STATUS)
    peer.recv(65536)
    return peer


# What goes wrong with the socket itself


async def test_a_file_that_is_in_the_socket_s_place_is_replaced() -> None:
    """Left by an earlier process, or put there since."""
    async with node(limits=Limits(check_s=0.02)) as n:
        n.path.unlink()
        n.path.write_text("what is this?")
        await n.world.until(n.path.is_socket)
        assert (await n.ask("Status"))["member"] == "node1"


async def test_a_place_where_no_socket_can_be_made_is_told_once_and_tried_again() -> None:
    """The VIP does not care."""
    async with node(limits=Limits(check_s=0.02)) as n:
        aside = n.path.parent.rename(n.runtime / "aside")
        await n.world.until(n.world.says("control: no control socket, tried again: "))
        await asyncio.sleep(0.1)
        aside.rename(n.path.parent)
        await n.world.until(n.path.is_socket)
        assert sum("no control socket" in text for text in n.world.journal.lines) == 1
        assert n.world.leads()


async def test_a_fault_of_the_daemon_that_a_call_finds_ends_it_in_order() -> None:
    """Not swallowed with the connection: the VIP is released."""
    async with node(expected_status=1) as n:
        n.world.daemon.drain = None  # type: ignore[method-assign,assignment]  # the fault
        assert await n.send(b'{"method": "org.govipd.Node.Drain"}\0') == []
        await n.world.until(n.world.says("TypeError: 'NoneType' object is not callable"))


# Anything


calls = st.fixed_dictionaries(
    {
        "method": st.sampled_from(("org.govipd.Node.Status", "org.govipd.Node.Undrain", "org.varlink.service.GetInfo"))
        | st.text(max_size=40)
        | json_values()
    },
    optional={"parameters": json_values(), "oneway": json_values(), "more": json_values(), "x": json_values()},
).map(lambda call: json.dumps(call).encode())


@given(st.lists(calls | raw | nested | mutated(STATUS[:-1]), min_size=1, max_size=4))
@fuzz(300)
def test_any_bytes_are_a_call_or_end_their_connection(messages: list[bytes]) -> None:
    """Each reply is an object with parameters; what is refused has an error's name."""
    for message in messages:
        try:
            call = varlink.parse(message)
        except ValueError:
            continue
        for kind in (varlink.NoParameters, varlink.Interface, control._Which, control._Handover):
            answer = varlink.error(taken(call, kind))
            assert msgspec.json.decode(answer[:-1])["error"].startswith("org.varlink.service.")
            assert len(answer) < 1000


def taken(call: varlink.Call, kind: type[msgspec.Struct]) -> varlink.ErrorReply:
    """What is said of the parameters; of the method, where they are as they should be."""
    try:
        varlink.parameters(call, kind)
    except varlink.ErrorReply as e:
        return e
    return varlink.method_not_found(call)


async def test_a_flood_disturbs_neither_watchdog_nor_lease() -> None:
    """100 000 messages, of which many are none; slow ones; 1000 connections: from a process of its own."""
    async with node() as n:
        longest = n.pauses()
        began, pings, opened = n.world.clock.now(), n.pings(), n.world.calls.count("open")
        ran = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "tests.adapters.hostile", str(n.path), cwd=CHECKOUT, stdout=subprocess.PIPE
        )
        out, _ = await ran.communicate()
        assert ran.returncode == 0
        sent, answered = map(int, out.split())
        took = n.world.clock.now() - began
        print(f"sent={sent} answered={answered} took_s={took:.1f} pings={n.pings() - pings} longest={longest():.3f}")
        assert sent >= 100_000
        assert answered >= 1000
        # A ping each 0.125 s, a renewal each 0.1 s, when nothing disturbs; a watchdog of 0.5 s would have struck.
        assert n.pings() - pings >= took / 0.5
        assert longest() < 0.5
        assert n.world.calls.count("open") - opened >= took / 0.5
        assert n.world.leads()
        assert "resign" not in n.world.calls

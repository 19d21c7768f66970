"""The control socket of a real daemon over fakes: what it refuses to every user."""

import asyncio
import contextlib
import json
import socket
import subprocess
import sys
import tempfile
from contextlib import closing
from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from govipd.adapters.control import service, varlink
from govipd.adapters.control.varlink_server import LIMITS, Limits
from govipd.errors import NoDaemonError
from tests.adapters.control_node import CHECKOUT, NOBODY, STATUS, node
from tests.fuzz.strategies import fuzz, json_values, mutated, nested, raw


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


async def test_a_client_that_does_not_read_is_disconnected() -> None:
    """Replies do not pile up in the daemon."""
    async with node(limits=Limits(patience_s=0.3)) as n:
        with socket.socket(socket.AF_UNIX) as peer:
            peer.connect(str(n.path))
            peer.setblocking(False)
            server = n.server()
            await n.world.until(lambda: server._connections[0] == 1)
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
        await n.world.eventually(n.path.is_socket)
        assert (await n.ask("Status"))["member"] == "node1"


async def test_a_place_where_no_socket_can_be_made_is_reported_once_and_tried_again() -> None:
    """The VIP does not care."""
    async with node(limits=Limits(check_s=0.02)) as n:
        aside = n.path.parent.rename(n.runtime / "aside")
        await n.world.until(n.world.says("control: no control socket, tried again: "))
        await asyncio.sleep(0.1)
        aside.rename(n.path.parent)
        await n.world.eventually(n.path.is_socket)
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
        for kind in (varlink.NoParameters, varlink.Interface, service._Which, service._Handover):
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

"""The control socket of a real daemon over fakes: what it answers, and to whom."""

import asyncio
import json
import re
import stat
import subprocess
import sys
from contextlib import closing
from dataclasses import fields, replace
from typing import Any

import pytest

from govipd.adapters.control import service
from govipd.core import status as core_status
from govipd.ctl import client
from govipd.errors import RefusedError
from tests.adapters.control_node import CHECKOUT, NOBODY, STATUS, node


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
        assert [t.state for t in api.transitions] == ["ineligible", "candidate", "activating", "leader"]


async def test_drain_and_undrain() -> None:
    """Of one VIP, or of every one."""
    async with node() as n:
        await n.ask("Drain", vip="api")
        assert n.world.drain.kept
        await n.world.eventually(lambda: "ineligible" in n.world.notifier.statuses[-1])
        await n.ask("Undrain")
        await n.world.eventually(n.world.leads)
        assert not n.world.drain.kept


async def test_a_handover_to_a_member() -> None:
    """Begun when the reply comes."""
    async with node() as n:
        await n.ask("Handover", to="node3")
        await n.world.eventually(lambda: "resign for node3" in n.world.calls)


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
    block = re.search(rf"^type {type_} \((.*?)\)$", service.DESCRIPTION, flags=re.MULTILINE | re.DOTALL)
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

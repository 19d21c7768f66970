"""What comes from netlink sockets: damaged messages end in the documented errors, and never in a loop."""

import signal
import socket
import struct
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from ipaddress import ip_interface
from typing import Any, NoReturn

from hypothesis import example, given
from hypothesis import strategies as st
from pyroute2.netlink.rtnl.ifaddrmsg import ifaddrmsg
from pyroute2.netlink.rtnl.ifinfmsg import ifinfmsg

from govipd.adapters.kernel.link_monitor import LinkMonitor
from govipd.adapters.kernel.nftables import NfTables
from govipd.adapters.kernel.route_events import RouteEvents
from govipd.adapters.kernel.rtnetlink import RouteSocket
from govipd.core.events import AddressLost, LinkState
from govipd.core.placement import Placement
from govipd.errors import KernelError
from tests.fakes import FakeClock
from tests.fuzz.memory_store import Collected
from tests.fuzz.strategies import LARGE_EXAMPLES, finish, fuzz, is_line, mutated

pytestmark = LARGE_EXAMPLES

NLMSG_ERROR = 2
RTM_NEWLINK, RTM_DELLINK, RTM_NEWADDR, RTM_DELADDR = 16, 17, 20, 21
OURS = (ip_interface("192.0.2.100/32"), ip_interface("2001:db8::100/128"))


@contextmanager
def within(seconds: float) -> Iterator[None]:
    """Ends a loop that never would."""

    def hangs(*_: object) -> NoReturn:
        raise AssertionError("hangs")

    before = signal.signal(signal.SIGALRM, hangs)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def acknowledgement(number: int, code: int = 0, length: int = 36, kind: int = NLMSG_ERROR) -> bytes:
    return struct.pack("=LHHLL", length, kind, 0, number, 0) + struct.pack("=l", -code) + bytes(16)


def refusal(*answers: bytes, messages: int = 1, generation: int | None = 7) -> str:
    """Why a transaction fails to which a peer that is no kernel has answered already; "" when it does not.

    Without a generation, the first answers are to the question for it.
    """
    ours, peer = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
    with ours, peer, within(0.5):
        for answer in answers:
            peer.send(answer)
        tables = NfTables()
        tables._socket = ours
        try:
            tables._generation = generation
            tables.commit([struct.pack("=LHHLL4x", 20, 0, 0, 0, 0)] * messages)
        except KernelError as error:
            return str(error) or "?"
        finally:
            tables.close()
    return ""


lengths = st.sampled_from((0, 1, 3, 4, 15, 16, 19, 20, 35, 36, 37, 40, 2**16, 2**31, 2**32 - 1))
codes = st.sampled_from((0, 1, 2, 13, 95, 4000, -1, 2**31 - 1, -(2**31) + 1))
answers = st.builds(acknowledgement, st.integers(0, 3), codes, lengths, st.integers(0, 4))
packets = answers | st.binary(max_size=60) | mutated(acknowledgement(1) * 2).map(lambda b: b[:60_000])


@given(st.lists(packets, max_size=4))
@example([acknowledgement(1, length=0)])
@example([acknowledgement(1, kind=3, length=0)])
@example([acknowledgement(1)[:10]])
@example([acknowledgement(1)[:18]])
@example([acknowledgement(1, code=2**31)])
@fuzz(300)
def test_a_damaged_answer_of_the_kernel_is_at_most_a_refusal(packets: list[bytes]) -> None:
    assert is_line(refusal(*packets))
    assert is_line(refusal(*packets, generation=None))


def test_an_answer_of_length_zero_does_not_loop_for_ever() -> None:
    assert is_line(refusal(acknowledgement(1, length=0)))


def test_a_truncated_answer_is_a_refusal() -> None:
    assert refusal(acknowledgement(1)[:10])
    assert refusal(acknowledgement(1)[:18])


@given(
    st.lists(st.builds(acknowledgement, st.sampled_from((0, 2, 3)), codes, st.just(36), st.integers(0, 4)), max_size=4)
)
@fuzz(100)
def test_what_is_no_acknowledgement_does_not_count_as_one(answers: list[bytes]) -> None:
    """They have other numbers than the message, which is 1."""
    assert refusal(*answers)


def test_an_acknowledgement_counts() -> None:
    """Else the tests above test little."""
    assert not refusal(acknowledgement(0) + acknowledgement(1), messages=2)
    assert refusal(acknowledgement(0), messages=2)


def asked(*answers: bytes) -> str:
    """Why a question to rtnetlink fails to which a peer that is no kernel has answered; "" when it does not."""
    ours, peer = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
    route = RouteSocket()
    route._socket = ours
    with ours, peer, within(0.5):
        for answer in answers:
            peer.send(answer)
        try:
            route.addresses(1)
        except KernelError as error:
            return str(error)
        finally:
            route.close()
    return ""


def told(number: int, body: bytes, kind: int = RTM_NEWADDR) -> bytes:
    return struct.pack("=LHHLL", 16 + len(body), kind, 2, number, 0) + body


@given(st.lists(packets | st.builds(told, st.integers(0, 2), st.binary(max_size=40)), max_size=4))
@example([told(1, b"")])
@example([told(1, bytes(8) + b"\1\0")])
@fuzz(300)
def test_a_damaged_answer_of_rtnetlink_is_at_most_a_refusal(answers: list[bytes]) -> None:
    assert is_line(asked(*answers))


def test_an_end_of_the_answer_is_needed() -> None:
    """Half of the addresses is not taken for all of them."""
    assert asked(told(1, bytes(8)))
    assert not asked(told(1, bytes(8)) + told(1, bytes(4), kind=3))


def encoded(message: Any, kind: int, attributes: list[tuple[str, Any]], **fields: Any) -> bytes:
    message["header"]["type"] = kind
    for name, value in fields.items():
        message[name] = value
    message["attrs"] = attributes
    message.encode()
    return bytes(message.data)


addresses = [
    encoded(
        ifaddrmsg(),
        kind,
        [(f"IFA_{part}", str(address.ip)) for part in parts],
        family={4: socket.AF_INET, 6: socket.AF_INET6}[address.version],
        prefixlen=address.network.prefixlen,
        index=1,
    )
    for kind in (RTM_NEWADDR, RTM_DELADDR)
    for address in OURS
    for parts in (("LOCAL", "ADDRESS"), ("ADDRESS",), ())
]
links = [
    encoded(ifinfmsg(), kind, attributes, index=1)
    for kind in (RTM_NEWLINK, RTM_DELLINK)
    for attributes in (
        [("IFLA_IFNAME", "govip-none")],
        [("IFLA_IFNAME", "other"), ("IFLA_ADDRESS", "02:00:00:00:00:01")],
        [],
    )
]
messages = st.sampled_from(addresses + links)
damaged = messages | messages.flatmap(
    lambda m: st.builds(
        lambda at, bit: m[:at] + bytes([m[at] ^ (1 << bit)]) + m[at + 1 :],
        st.integers(4, len(m) - 1),
        st.integers(0, 7),
    )
)


async def follow(data: bytes) -> None:
    """The messages as they come from the socket, handled as run() does: what it does not suppress ends the daemon."""
    told = Collected()
    monitor = LinkMonitor(clock=FakeClock())
    watch = monitor.watch(Placement("govip-none"), OURS, told)
    monitor._indexes, watch._present = {"govip-none": 1}, frozenset(OURS)
    ours, peer = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
    ours.setblocking(False)
    events = RouteEvents()
    events._socket = ours
    with ours, peer:
        peer.send(data)
        with suppress(OSError, KernelError):
            async for message in events.get():
                monitor._handle(message)
    monitor._route.close()
    assert {type(event) for event in told} <= {AddressLost, LinkState}


@given(st.lists(damaged, min_size=1, max_size=3))
@fuzz(120)
def test_a_damaged_message_about_links_and_addresses_is_survived(data: list[bytes]) -> None:
    finish(follow(b"".join(data)))


@given(st.lists(damaged | packets, min_size=1, max_size=3))
@fuzz(120)
def test_a_damaged_message_of_any_kind_is_survived(data: list[bytes]) -> None:
    finish(follow(b"".join(data)))


def test_an_address_without_an_address_is_survived() -> None:
    """The attributes are optional, and other software's networks may be of any kind."""
    finish(follow(addresses[2]))
    finish(follow(addresses[-1]))

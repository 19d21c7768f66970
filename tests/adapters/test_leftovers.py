"""What stays on a machine when govipd starts, refuses to, or has stopped: the VIP as somebody's own address."""

import os
import subprocess
import sys
from collections.abc import Iterator
from ipaddress import ip_address
from pathlib import Path

import pytest

from govipd.adapters.kernel.fence import NftFence
from govipd.adapters.kernel.fence_tables import FenceTables
from govipd.adapters.kernel.neighbours import who_has, wire
from govipd.adapters.kernel.nftables import NfTables
from tests.adapters.conftest import BootClock, Wire
from tests.adapters.fencing import V4, V6

pytestmark = pytest.mark.root


@pytest.fixture
def file(tmp_path: Path) -> Path:
    file = tmp_path / "govip.toml"
    file.write_text(
        f'[election]\nmember = "node1"\n[[vip]]\nname = "api"\ninterface = "eth0"\naddresses = ["{V4.ip}", "{V6.ip}"]\n'
    )
    return file


@pytest.fixture
def kernel(net: Wire) -> Iterator[NfTables]:
    """Of an earlier process, which owns nothing any more."""
    kernel = NfTables(owns=False)
    yield kernel
    kernel.close()


def left_by_another(kernel: NfTables) -> NftFence:
    return NftFence(addresses=(V4, V6), clock=BootClock(), tables=FenceTables("eth0", kernel))


def govipd(net: Wire, file: Path, *options: str) -> tuple[int, str]:
    """Run govipd. Returns its exit status and its output."""
    environment = {k: v for k, v in os.environ.items() if k != "NOTIFY_SOCKET"}
    command = [sys.executable, "-m", "govipd", "--interface", "eth0", "--config", str(file), *options]
    with net.host.inside():
        done = subprocess.run(command, check=False, capture_output=True, text=True, timeout=30, env=environment)
    return done.returncode, done.stderr


async def answers(net: Wire) -> bool:
    """Whether the host answers its neighbour for the VIP."""
    with net.peer.inside():
        heard = await who_has(await wire("eth0", avoid=()), {V4.ip, V6.ip}, listen_s=0.2)
    return any(heard.values())


async def test_a_start_that_refuses_a_static_vip_closes_the_fence_first(net: Wire, file: Path) -> None:
    """It would answer beside the machine that leads, for as long as nobody mends the file."""
    net.host.ip("address add 192.0.2.10/24 dev eth0")
    net.host.ip(f"address add {V4.ip}/24 dev eth0")
    assert await answers(net)
    status, text = govipd(net, file)
    assert status == os.EX_CONFIG
    assert f"does not answer for {V4.ip} any more: the fence is closed" in text
    assert not await answers(net)
    assert govipd(net, file, "--clean-up")[0] == os.EX_CONFIG
    assert not await answers(net)


async def test_each_of_several_static_vips_is_closed(net: Wire, tmp_path: Path) -> None:
    """Their fences share tables that one socket owns."""
    file = tmp_path / "several.toml"
    vips = [f'[[vip]]\nname = "v{n}"\ninterface = "eth0"\naddresses = ["192.0.2.10{n}"]\n' for n in range(3)]
    file.write_text('[election]\nmember = "node1"\n' + "".join(vips))
    net.host.ip("address add 192.0.2.10/24 dev eth0")
    for n in range(3):
        net.host.ip(f"address add 192.0.2.10{n}/24 dev eth0")
    status, text = govipd(net, file)
    assert status == os.EX_CONFIG
    assert text.count("the fence is closed") == 3
    with net.peer.inside():
        heard = await who_has(await wire("eth0", avoid=()), {ip_address(f"192.0.2.10{n}") for n in range(3)}, 0.2)
    assert not any(heard.values())


async def test_checking_the_file_closes_nothing(net: Wire, file: Path) -> None:
    """It looks, and changes nothing."""
    net.host.ip("address add 192.0.2.10/24 dev eth0")
    net.host.ip(f"address add {V4.ip}/24 dev eth0")
    assert govipd(net, file, "--check-config")[0] == os.EX_CONFIG
    assert await answers(net)


async def test_the_address_by_which_the_host_is_reached_is_not_closed(net: Wire, file: Path) -> None:
    """That would cut the operator off who is to mend it; why two may answer is said."""
    net.host.ip(f"address add {V4.ip}/24 dev eth0")
    status, text = govipd(net, file)
    assert status == os.EX_CONFIG
    assert "is reached by it: so the fence is not closed" in text
    assert await answers(net)


async def test_a_file_that_cannot_be_read_leaves_closed_what_is_closed(net: Wire, kernel: NfTables, file: Path) -> None:
    """The kernel keeps it, and nothing here takes it away."""
    net.host.ip(f"address add {V4.ip}/24 dev eth0")
    fence = left_by_another(kernel)
    await fence.close()
    file.write_text("not toml")
    for options in ((), ("--clean-up",)):
        assert govipd(net, file, *options)[0] == os.EX_CONFIG
        assert not await answers(net)
    await fence.remove()


async def test_the_fence_stays_after_the_end_while_the_address_is_elsewhere(
    net: Wire, kernel: NfTables, file: Path
) -> None:
    """A kernel answers for what lo has; when it is gone, so is the fence."""
    fence = left_by_another(kernel)
    await fence.close()
    # As one that an earlier process put there: with a preferred lifetime of 0 it is not this host's own.
    net.host.ip(f"address add {V4} dev lo preferred_lft 0 valid_lft 100")
    net.host.ip("address add 192.0.2.100/24 dev eth0 preferred_lft 0 valid_lft 100")
    status, text = govipd(net, file, "--clean-up")
    assert status == 0
    assert f"{V4} on lo: the fence stays, closed" in text
    assert "on eth0" not in text
    assert not await answers(net)
    net.host.ip(f"address delete {V4} dev lo")
    assert govipd(net, file, "--clean-up") == (0, "")
    assert net.host.run("nft", "list", "tables") == ""

"""`govipctl doctor` on interfaces, sysctls, firewalls and neighbours, each of them real, in a namespace."""

from ipaddress import ip_interface
from pathlib import Path

import pytest

from govipd.adapters.kernel.fence import NftFence
from govipd.config.model import Config
from govipd.core.events import Address
from govipd.ctl.doctor import check_answers, check_link, check_packets
from govipd.ctl.doctor.finding import Cluster, Finding, Queue, Severity
from tests.adapters.conftest import BootClock, Wire
from tests.adapters.doctor_config import bad, configured
from tests.adapters.fencing import own_tables
from tests.adapters.namespaces import Namespace

pytestmark = pytest.mark.root

EMPTY: Cluster = {"api": Queue((), {})}
OURSELVES: Cluster = {"api": Queue(("node1", "node2"), {})}
ANOTHER: Cluster = {"api": Queue(("node2", "node1"), {"node2": {"node": "192.0.2.12, 2001:db8::12"}})}
VIPS: tuple[Address, ...] = (ip_interface("192.0.2.100/32"), ip_interface("2001:db8::100/128"))


@pytest.fixture
def config(tmp_path: Path) -> Config:
    return configured(tmp_path)


def add_vips(namespace: Namespace) -> None:
    namespace.ip("addr add 192.0.2.100/32 dev eth0")
    namespace.ip("addr add 2001:db8::100/128 dev eth0 nodad")


async def only(findings: list[Finding], verdict: Severity) -> str:
    """The text of the only finding that is not all right."""
    (finding,) = bad(findings)
    assert finding.verdict is verdict
    assert finding.remedy
    return f"{finding.check}: {finding.detail}"


@pytest.fixture
def sound(net: Wire) -> Wire:
    """As a machine is that follows README.md."""
    net.host.run("sysctl", "-qw", "net.ipv4.ip_nonlocal_bind=1", "net.ipv6.ip_nonlocal_bind=1")
    return net


async def test_a_sound_link_has_nothing_to_mend(sound: Wire, config: Config) -> None:
    """No VIP here while no member leads; both here while this member does."""
    assert bad(await check_link.examine(config, EMPTY)) == []
    add_vips(sound.host)
    assert bad(await check_link.examine(config, OURSELVES)) == []


async def test_what_is_wrong_with_an_interface(sound: Wire, config: Config) -> None:
    """No carrier, set down, not there: each in its own words."""
    sound.peer.ip("link set eth0 down")
    assert await only(await check_link.examine(config, EMPTY), Severity.FAILED) == "interface eth0: has no carrier"
    sound.host.ip("link set eth0 down")
    assert await only(await check_link.examine(config, EMPTY), Severity.FAILED) == "interface eth0: is set down"
    sound.host.ip("link del eth0")
    text = "interface eth0: interface eth0 does not exist"
    assert await only(await check_link.examine(config, EMPTY), Severity.FAILED) == text


async def test_a_vip_must_be_where_the_election_says(sound: Wire, config: Config) -> None:
    """Here without leading, and leading without being here."""
    text = await only(await check_link.examine(config, OURSELVES), Severity.FAILED)
    assert "leads, but 192.0.2.100/32, 2001:db8::100/128 is not here" in text
    add_vips(sound.host)
    text = await only(await check_link.examine(config, ANOTHER), Severity.FAILED)
    assert "is here, though this member does not lead" in text


@pytest.mark.parametrize(
    ("setting", "verdict", "text"),
    [
        ("net.ipv4.ip_nonlocal_bind=0", Severity.WARNING, "ipv4.ip_nonlocal_bind"),
        ("net.ipv6.ip_nonlocal_bind=0", Severity.WARNING, "ipv6.ip_nonlocal_bind"),
        ("net.ipv4.conf.eth0.arp_ignore=8", Severity.FAILED, "arp_ignore = 8"),
        ("net.ipv4.conf.all.arp_ignore=2", Severity.FAILED, "arp_ignore = 2"),
        ("net.ipv6.conf.eth0.disable_ipv6=1", Severity.FAILED, "IPv6 is off on eth0"),
    ],
)
async def test_sysctls(sound: Wire, config: Config, setting: str, verdict: Severity, text: str) -> None:
    """Each that keeps a VIP from working."""
    sound.host.run("sysctl", "-qw", setting)
    assert text in await only(await check_link.examine(config, EMPTY), verdict)


async def test_a_vip_on_another_interface_or_with_another_prefix(sound: Wire, config: Config) -> None:
    """The kernel answers for it there, too."""
    sound.host.ip("address add 192.0.2.100/24 dev lo")
    text = await only(await check_link.examine(config, EMPTY), Severity.FAILED)
    assert text.startswith("api: on lo: 192.0.2.100/24 is there")
    sound.host.ip("address delete 192.0.2.100/24 dev lo")
    sound.host.ip("address add 192.0.2.100/24 dev eth0")
    text = await only(await check_link.examine(config, ANOTHER), Severity.FAILED)
    assert text == "api: on eth0: 192.0.2.100/24 is here, though this member does not lead"


async def test_promote_secondaries_matters_to_a_prefix_of_the_subnet(sound: Wire, tmp_path: Path) -> None:
    """With /32 the VIP is alone in its subnet."""
    sound.host.run("sysctl", "-qw", "net.ipv4.conf.all.promote_secondaries=0")
    sound.host.run("sysctl", "-qw", "net.ipv4.conf.eth0.promote_secondaries=0")
    config = configured(tmp_path)
    assert bad(await check_link.examine(config, EMPTY)) == []
    vip = '[[vip]]\nname = "web"\ninterface = "eth0"\naddresses = ["192.0.2.200/24"]'
    config = configured(tmp_path, rest=vip)
    found = await check_link.examine(config, {**EMPTY, "web": Queue((), {})})
    assert "promote_secondaries" in await only(found, Severity.WARNING)


@pytest.mark.parametrize(
    ("text", "keeps"),
    [
        ("[Match]\nName=eth0\n[Network]\nDHCP=yes\n", "no"),
        ("[Network]\nAddress=192.0.2.1/24\nAddress=192.0.2.2/24\nKeepConfiguration=true\n", "yes"),
        ("[Network]\nKeepConfiguration=static\n[Network]\nDHCP=no\n", "static"),
    ],
)
def test_what_a_network_file_says(tmp_path: Path, text: str, keeps: str) -> None:
    """systemd-networkd's files repeat sections and keys."""
    file = tmp_path / "10-eth0.network"
    file.write_text(text)
    assert check_link._keep_configuration(file) == keeps


async def test_only_the_leader_answers(sound: Wire, config: Config) -> None:
    """Silence while no member leads, or this member does; the leader's own hardware address while another does."""
    assert bad(await check_answers.examine(config, EMPTY)) == []
    assert bad(await check_answers.examine(config, OURSELVES)) == []
    sound.peer.ip("addr add 192.0.2.12/24 dev eth0")
    add_vips(sound.peer)
    assert bad(await check_answers.examine(config, ANOTHER)) == []


@pytest.mark.parametrize("cluster", [EMPTY, OURSELVES], ids=["no member leads", "this member leads"])
async def test_a_foreign_host_that_answers(sound: Wire, config: Config, cluster: Cluster) -> None:
    """For IPv4 and for IPv6, with the hardware address by which it is found."""
    add_vips(sound.peer)
    found = bad(await check_answers.examine(config, cluster))
    mac = sound.peer.ip("-br link show eth0").split()[2]
    assert [finding.check for finding in found] == ["api: 192.0.2.100", "api: 2001:db8::100"]
    assert all(f"a foreign host answers for it, {mac}" in finding.detail for finding in found)
    assert all(finding.verdict is Severity.FAILED for finding in found)


async def test_a_foreign_host_beside_another_leader(sound: Wire, config: Config) -> None:
    """The doctor tells the foreign host and the leader apart, whether the leader answers or not."""
    foreign = Namespace()
    try:
        sound.peer.ip(f"link add link eth0 name eth1 netns {foreign.path} type macvlan mode bridge")
        foreign.ip("link set eth1 up")
        foreign.ip("addr add 192.0.2.100/32 dev eth1")
        foreign.ip("addr add 2001:db8::100/128 dev eth1 nodad")
        sound.peer.ip("addr add 192.0.2.12/24 dev eth0")
        mac = foreign.ip("-br link show eth1").split()[2]
        found = bad(await check_answers.examine(config, ANOTHER))
        assert [f.detail for f in found] == [f"a foreign host answers for it, {mac}, and not node2, which leads"] * 2
        add_vips(sound.peer)
        found = bad(await check_answers.examine(config, ANOTHER))
        assert [f.detail for f in found] == [f"a foreign host answers for it, {mac}, beside node2, which leads"] * 2
        stranger: Cluster = {"api": Queue(("node2", "node1"), {"node2": {"node": "nowhere"}})}
        found = bad(await check_answers.examine(config, stranger))
        assert all("more than one host answers for it" in f.detail and mac in f.detail for f in found)
        assert len(found) == 2
    finally:
        foreign.close()


async def test_a_leader_that_does_not_answer(sound: Wire, config: Config) -> None:
    """It is on another link, or something drops ARP."""
    found = bad(await check_answers.examine(config, ANOTHER))
    assert [f.detail for f in found] == ["node2 leads, but no machine answers for it on eth0"] * 2


async def test_without_etcd_it_is_not_known_which_machine_should_answer(sound: Wire, config: Config) -> None:
    """The check is skipped, and says why."""
    (finding,) = await check_answers.examine(config, None)
    assert finding.verdict is Severity.SKIPPED


async def test_the_fence_of_a_leader(sound: Wire, config: Config) -> None:
    """Open: all right; closed, or not there: failed. Where another leads, it does not matter."""
    clock = BootClock()
    fence = NftFence(addresses=VIPS, clock=clock, tables=own_tables())
    text = "api: fence: this member leads, but table govipd_eth0 is not there in inet and arp"
    assert await only(await check_packets.examine(config, OURSELVES), Severity.FAILED) == text
    await fence.open(clock.now() + 60)
    assert bad(await check_packets.examine(config, OURSELVES)) == []
    await fence.close()
    text = await only(await check_packets.examine(config, OURSELVES), Severity.FAILED)
    assert "the fence is closed for 192.0.2.100, 2001:db8::100" in text
    assert bad(await check_packets.examine(config, ANOTHER)) == []
    await fence.remove()


async def test_a_fence_that_no_vip_of_the_file_owns_is_named(sound: Wire, config: Config) -> None:
    """What it guards is dead on this machine; another interface's is not this file's."""
    for interface, address in (("eth0", "192.0.2.177/32"), ("eth0.5", "192.0.2.178/32")):
        await NftFence(addresses=(ip_interface(address),), clock=BootClock(), tables=own_tables(interface)).close()
    text = await only(await check_packets.examine(config, ANOTHER), Severity.WARNING)
    assert text == "fence: 192.0.2.177 is closed on this machine, and belongs to no VIP here"


@pytest.mark.parametrize(
    ("rules", "verdict", "text"),
    [
        ("table arp t { chain c { type filter hook input priority 0; policy drop; }; }", Severity.WARNING, "drops ARP"),
        (
            "table arp t { chain c { type filter hook output priority 0; arp saddr ip 192.0.2.100 drop; }; }",
            Severity.WARNING,
            "drops ARP",
        ),
        (
            "table inet t { chain c { type filter hook input priority 0; policy drop; tcp dport 443 accept; }; }",
            Severity.FAILED,
            "drops neighbour solicitations",
        ),
    ],
)
async def test_a_firewall_in_the_way(sound: Wire, config: Config, rules: str, verdict: Severity, text: str) -> None:
    """ARP that is dropped, and neighbour discovery that a policy drops."""
    sound.host.run("nft", rules)
    assert text in await only(await check_packets.examine(config, EMPTY), verdict)


async def test_an_ordinary_firewall_is_none(sound: Wire, config: Config) -> None:
    """A policy of drop that lets neighbour discovery pass; drops in chains that see no ARP."""
    sound.host.run(
        "nft",
        "table inet t { chain c { type filter hook input priority 0; policy drop; ct state established accept; "
        "ct state invalid drop; meta l4proto ipv6-icmp accept; tcp dport 443 accept; }; }",
    )
    assert bad(await check_packets.examine(config, EMPTY)) == []

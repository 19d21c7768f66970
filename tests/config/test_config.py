"""The configuration: accepted values, and refusals that name file, key, value and remedy."""

from ipaddress import ip_interface
from pathlib import Path

import pytest

from govipd.adapters.election.session import RENEWALS_PER_TTL
from govipd.config.profiles import PROFILES
from govipd.config.reader import load
from govipd.config.rules import least_margin
from govipd.core.lease import KERNEL_S, SLEW
from govipd.core.liveness import START_S
from govipd.errors import ConfigError
from tests.config.reading import VIP, WEB, read, refusal

CHECKOUT = Path(__file__).resolve().parents[2]


def test_everything_has_a_default_but_vip(tmp_path: Path) -> None:
    """The smallest file."""
    config = read(tmp_path, VIP)
    assert config.etcd.endpoints == ("http://127.0.0.1:2379",)
    assert (config.election.ttl, config.election.margin, config.election.member) == (3.0, 0.6, "node1")
    assert config.vip[0].addresses == (ip_interface("192.0.2.100/32"),)
    assert config.vip[0].election == "govip/election/api"
    assert config.settings().unknown_limit == 3.0


def test_the_shipped_example_is_valid_and_shows_every_key_with_its_default(tmp_path: Path) -> None:
    """As it is, and with every commented default written out."""
    text = (CHECKOUT / "conf/govip.toml").read_text()
    plain = read(tmp_path, text)
    skipped = ("#ca ", "#cert ", "#key ", "#user ", "#password_file ")  # these have no default
    defaults = [line[1:] for line in text.splitlines() if line.startswith("#") and " = " in line]
    for line in defaults:
        if not f"#{line}".startswith(skipped):
            text = text.replace(f"#{line}", line)
    assert read(tmp_path, text) == plain


def test_integers_are_durations_too(tmp_path: Path) -> None:
    """`ttl = 5` is five seconds."""
    assert read(tmp_path, f"[election]\nttl = 5\nmargin = 1\n{VIP}").election.ttl == 5.0


def test_a_key_of_the_file_goes_before_the_profile(tmp_path: Path) -> None:
    """The profile gives defaults, also in a table that the file does not have."""
    config = read(tmp_path, f'profile = "fast"\n[health]\ninterval = 0.3\n{VIP}')
    assert (config.health.interval, config.health.timeout, config.pact.timeout) == (0.3, 0.07, 0.2)
    assert read(tmp_path, f'profile = "default"\n{VIP}') == read(tmp_path, VIP)


@pytest.mark.parametrize("profile", PROFILES)
def test_every_profile_is_safe_as_it_is(tmp_path: Path, profile: str) -> None:
    """Its timings are accepted, under the unit's watchdog too."""
    config = read(tmp_path, f'profile = "{profile}"\n{VIP}')
    assert config.health.timeout <= config.health.interval
    assert config.election.ttl * (1 - 1 / RENEWALS_PER_TTL) - config.election.margin >= 1.0 + START_S


def test_the_interfaces_vips(tmp_path: Path) -> None:
    """Those of the interface; without any, the interfaces of the file are named."""
    two = VIP + VIP.replace("api", "web").replace("eth0", "eth1").replace(".100", ".101")
    config = read(tmp_path, two)
    assert [v.name for v in config.for_interface("eth1")] == ["web"]
    with pytest.raises(ConfigError, match="'eth7'; the file has eth0, eth1"):
        config.for_interface("eth7")


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("", ["vip is missing", "[[vip]]"]),
        ("vip = 3", ["vip is missing"]),
        ("[vipp]\n" + VIP, ["vipp = {}", "did you mean vip?"]),
        ("x = 1\n" + VIP, ["x = 1", "allowed are profile, etcd, election, health, pact, metrics, hooks, vip"]),
        ('profile = "quick"\n' + VIP, ['profile = \'quick\': must be one of "default", "fast", "relaxed"']),
        ("profile = 3\n" + VIP, ["profile = 3: must be one of"]),
        (VIP + 'profile = "fast"\n', ["vip[0].profile = 'fast'", "at the top of the file, before the first [table]"]),
        ('profile = "relaxed"\n[election]\nttl = 100\n' + VIP, ['2.0 (of profile = "relaxed"): must be from 16.667']),
        (
            'profile = "fast"\n[election]\nfence = "address"\nmargin = 1.5\n' + VIP,
            ['pact.timeout = 0.2 (of profile = "fast"): needs election.fence = "nftables"', "or 0 for none"],
        ),
        ("etcd = 1\n" + VIP, ["etcd = 1", "must be a table, written [etcd]"]),
        ("[etcd]\nendpoint = []\n" + VIP, ["etcd.endpoint = []", "did you mean endpoints?"]),
        ("[etcd]\nendpoints = []\n" + VIP, ["etcd.endpoints = []", "length >= 1"]),
        ('[etcd]\nendpoints = ["h:1"]\n' + VIP, ["etcd.endpoints[0] = 'h:1'", "must be http://HOST:PORT"]),
        ('[etcd]\nendpoints = ["http://h"]\n' + VIP, ["etcd.endpoints[0]", "must be http://HOST:PORT"]),
        ('[etcd]\nendpoints = ["http://h:x"]\n' + VIP, ["etcd.endpoints[0]", "must be http://HOST:PORT"]),
        ('[etcd]\nendpoints = ["http://h:1", "https://h:2"]\n' + VIP, ["endpoints[1]", "the same scheme"]),
        ('[etcd]\nca = "/x"\n' + VIP, ["etcd.endpoints[0]", "https://", "etcd.ca = '/x': cannot be read"]),
        ('[etcd]\ncert = "/x"\n' + VIP, ["etcd.cert = '/x'", "cert and key go together"]),
        ('[etcd]\nuser = "u"\n' + VIP, ["etcd.user = 'u'", "user and password_file go together"]),
        ('[etcd]\npassword = "secret"\n' + VIP, ["etcd.password = '...'", "mode 0600", "password_file"]),
        ('[etcd]\nprefix = "govip"\n' + VIP, ["etcd.prefix = 'govip'"]),
        ("[election]\nttl = 2.5\n" + VIP, ["election.ttl = 2.5", "whole seconds from 2 to 300"]),
        ("[election]\nttl = 1\n" + VIP, ["election.ttl = 1.0", "whole seconds from 2"]),
        ("[election]\nttl = true\n" + VIP, ["election.ttl = True", "must be float, not bool"]),
        ("[election]\nttl = nan\n" + VIP, ["election.ttl = nan", "finite"]),
        ("[election]\nmargin = 2\n" + VIP, ["election.margin = 2.0", "from 0.5 to 1.5", "ttl / 6 = 0.5, as"]),
        ("[election]\nmargin = 0.499\n" + VIP, ["election.margin = 0.499", "slewed by a twelfth each", "2/13 of ttl"]),
        ("[election]\nttl = 100\n" + VIP, ["election.margin = 0.6", "from 16.667 to 50"]),
        ('[election]\nfence = "address"\n' + VIP, ["election.margin = 0.6", "from 1.5 to 1.5: at least 1 + ttl / 6"]),
        ('[election]\nttl = 2\nfence = "address"\n' + VIP, ["election.ttl = 2.0", "at least 3 with fence"]),
        ('[election]\nfence = "none"\n' + VIP, ["election.fence = 'none'"]),
        ('[election]\nmember = "a b"\n' + VIP, ["election.member = 'a b'"]),
        ("[health]\nrise = 0\n" + VIP, ["health.rise = 0", "must be int >= 1"]),
        ("[health]\nfall = 1.5\n" + VIP, ["health.fall = 1.5", "must be int, not float"]),
        ('[health]\ninterval = "1s"\n' + VIP, ["health.interval = '1s'", "must be float, not str"]),
        ("[health]\ninterval = 0\n" + VIP, ["health.interval = 0", ">= 0.05"]),
        ("[health]\ntimeout = inf\n" + VIP, ["health.timeout = inf"]),
        ('[health]\nunit = "haproxy"\n' + VIP, ["health.unit = 'haproxy'"]),
        ('[health]\nurl = "http://u:secret@localhost/"\n' + VIP, ["health.url = '...'", "without user and password"]),
        ('[health]\nurl = "localhost"\n' + VIP, ["health.url = 'localhost'"]),
        (VIP.replace("name", "nam"), ["vip[0].nam = 'api'", "did you mean name?", "vip[0].name is missing"]),
        (VIP.replace('"api"', '"a b"'), ["vip[0].name = 'a b'"]),
        (VIP.replace("eth0", "a-name-that-is-long"), ["vip[0].interface"]),
        (VIP.replace("eth0", "\u00e9" * 8), ["vip[0].interface", "fewer than 16 bytes"]),
        (VIP.replace('["192.0.2.100/32"]', "[]"), ["vip[0].addresses = []", "1 to 30 addresses"]),
        (VIP.replace("192.0.2.100/32", "192.0.2.300"), ["vip[0].addresses[0] = '192.0.2.300'", "2001:db8::100/128"]),
        (VIP.replace('"192.0.2.100/32"', "5"), ["vip[0].addresses[0] = 5", "must be an address"]),
        (
            VIP.replace('"192.0.2.100/32"', '{address = "192.0.2.100"}'),
            ["vip[0].addresses[0].interface = ''", 'such as "eth1"'],
        ),
        (
            VIP.replace('"192.0.2.100/32"', '{address = "192.0.2.100", interface = "a/b", label = "x"}'),
            ["vip[0].addresses[0].interface = 'a/b'", "vip[0].addresses[0].label = 'x': no such key"],
        ),
        (VIP.replace('"192.0.2.100/32"', '{interface = "eth1"}'), ["vip[0].addresses[0] = {'interface': 'eth1'}"]),
        (VIP + "others = []\n", ["vip[0].others = []: no such key"]),
        (VIP.replace("192.0.2.100/32", "224.0.0.1"), ["vip[0].addresses[0]", "unicast"]),
        (VIP.replace("192.0.2.100/32", "240.0.0.1"), ["vip[0].addresses[0]", "reserved"]),
        (VIP.replace("192.0.2.100/32", "127.0.0.2"), ["vip[0].addresses[0]", "unicast"]),
        (VIP.replace("192.0.2.100/32", "fe80::1"), ["vip[0].addresses[0]", "unicast"]),
        (VIP + VIP.replace(".100", ".101"), ["vip[1].name = 'api'", "is the name of vip[0] too"]),
        (VIP + VIP.replace("api", "web"), ["vip[1].addresses[0]", "stands in vip[0].addresses[0] already"]),
        (
            VIP + 'election = "e"\n' + VIP.replace("api", "web").replace(".100", ".101") + 'election = "e"\n',
            ["vip[1].election = 'e'", "must be apart from 'e', the election of vip[0]", "another name"],
        ),
        # Below one another: each queue would see the other's candidates.
        (
            VIP + 'election = "govip/election"\n' + WEB,
            ["vip[1].election = 'govip/election/web'", "the election of vip[0]"],
        ),
        (VIP + 'election = "govip"\n', ["vip[0].election = 'govip'", "apart from govip/members/"]),
        (VIP + 'election = "govip/members/api"\n', ["vip[0].election", "apart from govip/members/"]),
        (VIP + 'election = "govip/released"\n', ["vip[0].election", "apart from govip/released/"]),
        (VIP + 'election = "govip/pact/api"\n', ["vip[0].election", "apart from govip/pact/"]),
        (VIP + 'election = "govip/handover/api"\n', ["vip[0].election", "apart from govip/handover/"]),
        (VIP + 'election = "govip/claims"\n', ["vip[0].election", "apart from govip/claims/", "etcd.claims moves"]),
        ('[etcd]\nclaims = "q/"\n' + VIP + 'election = "q/api"\n', ["vip[0].election", "apart from q/"]),
        ('[etcd]\nclaims = "govip/"\n' + VIP, ["etcd.claims = 'govip/'", "apart from govip/members/"]),
        ('[etcd]\nclaims = "govip/handover/x/"\n' + VIP, ["etcd.claims", "apart from govip/handover/"]),
        ('[etcd]\nclaims = "govip/election/"\n' + VIP, ["vip[0].election", "apart from govip/election/"]),
        ('[etcd]\nclaims = "claims"\n' + VIP, ["etcd.claims = 'claims'"]),
        (VIP.replace('"api"', '"api\\n"'), ["vip[0].name = 'api\\n'"]),
        (VIP.replace('"eth0"', '"eth0\\n"'), ["vip[0].interface = 'eth0\\n'"]),
        (VIP.replace("192.0.2.100/32", "0.1.2.3"), ["vip[0].addresses[0] = '0.1.2.3/32'", "unicast"]),
        (VIP.replace("192.0.2.100/32", "::ffff:192.0.2.100"), ["vip[0].addresses[0]", "reserved"]),
        (VIP.replace("192.0.2.100/32", "2001:db8::1%eth0"), ["vip[0].addresses[0]", "without %SCOPE"]),
        (VIP.replace(".100/32", ".100/0"), ["vip[0].addresses[0] = '192.0.2.100/0'", "leave the prefix out"]),
        (VIP.replace(".100/32", ".255/24"), ["'192.0.2.255/24'", "broadcast address of 192.0.2.0/24", "hosts"]),
        (VIP.replace(".100/32", ".0/24"), ["'192.0.2.0/24'", "the network or broadcast address"]),
        ('[health]\nurl = "http://127.0.0.1:99999/x"\n' + VIP, ["health.url", "must be a URL, such as"]),
        ('[health]\nurl = "http://[::1/x"\n' + VIP, ["health.url", "must be a URL, such as"]),
        ("[health]\nflap_wait = 31\n" + VIP, ["health.flap_wait_max = 30.0", "at least flap_wait = 31"]),
        ('[etcd]\nendpoints = ["http://192.0.2.1:2379#x"]\n' + VIP, ["etcd.endpoints[0]", "http://HOST:PORT"]),
        ('[etcd]\nendpoints = ["HTTP://192.0.2.1:2379"]\n' + VIP, ["etcd.endpoints[0]", "http://HOST:PORT"]),
        ('[etcd]\nca = "/dev/null"\n' + VIP, ["etcd.ca = '/dev/null'", "must be a regular file"]),
        ('"a\\nb" = 1\n' + VIP, ["'a\\nb' = 1", "no such key"]),
        ("[election]\nttl = " + "9" * 5000 + "\n" + VIP, ["not TOML", "digits"]),
        (VIP.replace("192.0.2.100", "198.51.100.1"), ["is an address of this host"]),
        (VIP + '[etcd]\nendpoints = ["http://192.0.2.100:2379"]\n', ["is an etcd endpoint"]),
        ('[metrics]\nlisten = "9177"\n' + VIP, ["metrics.listen = '9177'", 'ADDRESS:PORT, such as "127.0.0.1:9177"']),
        ('[metrics]\nlisten = "::1:9177"\n' + VIP, ["metrics.listen", '"[::]:9177"']),
        ('[metrics]\nlisten = "[192.0.2.1]:9177"\n' + VIP, ["metrics.listen", "ADDRESS:PORT"]),
        ('[metrics]\nlisten = "localhost:9177"\n' + VIP, ["metrics.listen = 'localhost:9177'", "ADDRESS:PORT"]),
        ('[metrics]\nlisten = "127.0.0.1:80"\n' + VIP, ["metrics.listen", "a port from 1024 to 65535"]),
        ('[metrics]\nlisten = "127.0.0.1:65535"\n' + VIP + WEB.replace("eth0", "eth1"), ["takes the next one"]),
        ('[metrics]\nlisten = "192.0.2.100:9177"\n' + VIP, ["is a VIP", "the machine's own address"]),
        ('[hooks]\nleader = "/bin/true"\n' + VIP, ["hooks.leader = '/bin/true'", "must be array, not str"]),
        ('[hooks]\nfault = ["/no/such"]\n' + VIP, ["hooks.fault[0] = '/no/such'", "No such file or directory"]),
        ('[hooks]\nfault = ["../etc/passwd"]\n' + VIP, ["hooks.fault[0]", "cannot be run"]),
        ('[hooks]\nstandby = ["/etc/passwd"]\n' + VIP, ["hooks.standby[0]", "a regular file that may be executed"]),
        ('[hooks]\nleader = ["/bin/true", "a\\u0000b"]\n' + VIP, ["hooks.leader", "without NUL characters"]),
        ("[pact]\ntimeout = 0.05\n" + VIP, ["pact.timeout = 0.05", "from 0.1 to 1, or 0 for none"]),
        (
            '[pact]\ntimeout = 0.2\n[election]\nfence = "address"\nmargin = 1.5\n' + VIP,
            ["pact.timeout = 0.2", 'needs election.fence = "nftables"'],
        ),
        ("[pact]\nport = 80\n" + VIP, ["pact.port = 80", "from 1024 to 65535; each further [[vip]] takes the next"]),
        ("[hooks]\ntimeout = 0\n" + VIP, ["hooks.timeout = 0", "0.1"]),
        ("[[vip]", ["not TOML", "line 1"]),
        ("a = " + "[" * 5000, ["not TOML"]),
    ],
)
def test_refusals_say_what_and_why(tmp_path: Path, text: str, parts: list[str]) -> None:
    """Key, value, what is allowed, what to do (FIELD 25 among them)."""
    message = refusal(tmp_path, text)
    for part in parts:
        assert part in message, message


def test_only_root_may_be_able_to_change_a_hook(tmp_path: Path) -> None:
    """It runs with the daemon's rights."""
    hook = tmp_path / "hook"
    hook.write_text("#!/bin/sh\n")
    hook.chmod(0o755)
    text = f'[hooks]\nleader = ["{hook}", "--quiet"]\n{VIP}'
    assert read(tmp_path, text).hooks.leader == (str(hook), "--quiet")
    hook.chmod(0o775)
    message = refusal(tmp_path, text)
    assert "mode 0775, owner" in message
    assert "others could change what runs with govipd's rights; chown root, chmod go-w" in message


def test_a_relative_hook_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Even where it is found."""
    monkeypatch.chdir("/")
    assert "must be an absolute path" in refusal(tmp_path, f'[hooks]\nleader = ["bin/sh"]\n{VIP}')


def test_each_interface_s_metrics_have_a_port_of_their_own(tmp_path: Path) -> None:
    """One line for all of them, in the file's order."""
    metrics = read(tmp_path, f'[metrics]\nlisten = "[::1]:9177"\n{VIP}').metrics
    assert (metrics.address(0), metrics.address(1)) == (("::1", 9177), ("::1", 9178))
    assert read(tmp_path, VIP).metrics.address(0) is None


def test_all_faults_are_reported_at_once(tmp_path: Path) -> None:
    """One line each."""
    text = "[election]\nttl = 2.5\n[health]\nrise = 0\nfall = 0\n" + VIP.replace("192.0.2.100/32", "x")
    assert len(refusal(tmp_path, text).splitlines()) == 4


def test_a_fault_is_reported_under_its_own_number_and_makes_no_others(tmp_path: Path) -> None:
    """The first [[vip]] or the endpoints being faulty neither moves nor invents faults of the second [[vip]]."""
    message = refusal(tmp_path, VIP.replace("api", "a b") + WEB.replace("192.0.2.101", "127.0.0.1"))
    assert "vip[1].addresses[0] = '127.0.0.1/32'" in message
    assert len(message.splitlines()) == 2
    assert len(refusal(tmp_path, "[etcd]\nendpoints = []\n" + VIP + WEB).splitlines()) == 1
    assert len(refusal(tmp_path, VIP + VIP.replace(".100", ".101")).splitlines()) == 1
    message = refusal(tmp_path, '[etcd]\nendpoints = ["http://192.0.2.100:2379"]\n[health]\nrise = 0\n' + VIP)
    assert "health.rise" in message
    assert "is an etcd endpoint" in message


def test_the_bounds_of_the_margin_are_allowed(tmp_path: Path) -> None:
    """The least value that the message names is accepted, in spite of the rounding of binary fractions."""
    for ttl in range(2, 301):
        least = least_margin(ttl, "nftables")
        assert f"must be from {least:g} to" in refusal(tmp_path, f"[election]\nttl = {ttl}\nmargin = 0.1\n{VIP}")
        for margin in (least, ttl / 2):
            assert read(tmp_path, f"[election]\nttl = {ttl}\nmargin = {margin}\n{VIP}").election.margin == margin


def test_the_least_margin_covers_two_clocks_and_a_kernel_that_is_late() -> None:
    """A holder whose clock is slow by a twelfth is silent before etcd's leader, fast by a twelfth, ends its lease."""
    for ttl in range(2, 301):
        silent = (ttl - least_margin(ttl, "nftables") + KERNEL_S) / (1 - SLEW)
        assert silent < ttl / (1 + SLEW)


@pytest.mark.parametrize("profile", PROFILES)
def test_every_profile_covers_what_the_kernel_allows(tmp_path: Path, profile: str) -> None:
    """adjtimex(2): the tick by a tenth, and the frequency by 500 ppm. So no daemon's setting breaks the promise."""
    most, election = 0.1 + 500e-6, read(tmp_path, f'profile = "{profile}"\n{VIP}').election
    assert (election.ttl - election.margin + KERNEL_S) / (1 - most) < election.ttl / (1 + most)


@pytest.mark.parametrize("hostname", ["", "a/b", "with space", "x" * 65, "localhost", "localhost.localdomain"])
def test_a_host_name_that_cannot_be_a_members_name(tmp_path: Path, hostname: str) -> None:
    """It is refused, unless the file gives a name."""
    path = tmp_path / "govip.toml"
    path.write_text(VIP)
    with pytest.raises(ConfigError, match=r"election\.member = .*this host.s name .* cannot be .*; name the host, or"):
        load(path, hostname=hostname)
    path.write_text(f'[election]\nmember = "a"\n{VIP}')
    assert load(path, hostname=hostname).election.member == "a"


def test_an_address_may_be_on_another_interface(tmp_path: Path) -> None:
    """The group belongs to its own interface's instance, and knows where each address is."""
    listed = '["192.0.2.100/32", {address = "198.51.100.7/24", interface = "eth1"}]'
    config = read(tmp_path, VIP.replace('["192.0.2.100/32"]', listed))
    (vip,) = config.for_interface("eth0")
    assert [str(address) for address in vip.addresses] == ["192.0.2.100/32", "198.51.100.7/24"]
    assert [vip.placement.of(address) for address in vip.addresses] == ["eth0", "eth1"]
    assert config.interfaces() == ("eth0", "eth1")
    with pytest.raises(ConfigError, match="has interface = 'eth1'"):
        config.for_interface("eth1")

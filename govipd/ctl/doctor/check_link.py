"""Checks the interface: its state, sysctls that concern a VIP, and programs that could remove a VIP."""

from collections.abc import Sequence
from configparser import ConfigParser
from configparser import Error as NotIni
from itertools import chain
from pathlib import Path

from govipd.adapters.kernel.rtnetlink import Link, RouteSocket
from govipd.config.model import Config, VipConfig
from govipd.core.events import Address
from govipd.ctl.doctor.finding import Cluster, Finding, failed, ok, skipped, warning
from govipd.ctl.doctor.tools import ToolError, ask
from govipd.errors import InterfaceMissingError, KernelError

_SYSCTL = Path("/proc/sys/net")
_NETWORKD_LINKS = Path("/run/systemd/netif/links")
_NETWORKD_DIRECTORIES = tuple(Path(p) for p in ("/etc", "/run", "/usr/local/lib", "/usr/lib"))


async def examine(config: Config, cluster: Cluster | None) -> list[Finding]:
    """Check each interface that has a VIP, and the VIP's addresses on all interfaces."""
    findings = []
    for interface in config.interfaces():
        placed = config.placed_on(interface)
        route = RouteSocket()
        try:
            link = route.link(interface)
            where = route.where({address.ip for addresses in placed.values() for address in addresses})
            names = {index: route.name(index) for index, _ in where}
        except InterfaceMissingError as e:
            findings.append(failed(f"interface {interface}", str(e), "ip link; mend its name in govip.toml"))
            continue
        except KernelError as e:
            findings.append(failed(f"interface {interface}", str(e), "try again"))
            continue
        finally:
            route.close()
        findings += [_link(interface, link), *_sysctls(interface, [*chain(*placed.values())])]
        findings += [_networkd(interface, link.index), await _network_manager(interface)]
        for vip in (vip for vip in config.vip if vip.name in placed):
            addresses = placed[vip.name]
            ips = {address.ip for address in addresses}
            held = sorted(str(a) for index, a in where if index == link.index and a.ip in ips)
            findings += _held(config.election.member, vip, interface, addresses, held, cluster)
            findings += [_strewn(vip, a, names[index]) for index, a in where if index != link.index and a.ip in ips]
    return findings


def _link(interface: str, link: Link) -> Finding:
    check = f"interface {interface}"
    if not link.admin_up:
        return failed(check, "is set down", f"ip link set {interface} up")
    if not link.carrier:
        return failed(check, "has no carrier", "cable, switch port, or the other end of it")
    return ok(check, f"up, with carrier, {link.mac.hex(':') or 'without a hardware address'}")


def _strewn(vip: VipConfig, address: Address, interface: str) -> Finding:
    """A VIP's address on another interface: this kernel answers for it without a fence, so the node is ineligible."""
    text = f"{address} is there, where this kernel answers for it too; this machine does not stand for election"
    remedy = f"ip address delete {address} dev {interface}; then find out who put it there"
    return failed(f"{vip.name}: on {interface}", text, remedy)


def _held(
    member: str,
    vip: VipConfig,
    interface: str,
    addresses: Sequence[Address],
    held: list[str],
    cluster: Cluster | None,
) -> list[Finding]:
    """Check that the VIP's addresses on this interface are there if, and only if, this member leads."""
    check = f"{vip.name}: on {interface}"
    if cluster is None:
        return []
    leads = cluster[vip.name].leader == member
    if leads and len(held) < len(addresses):
        missing = ", ".join(sorted({str(a) for a in addresses} - set(held)))
        remedy = "journalctl -u govipd -n 20: the kernel refuses it, or something removes it"
        return [failed(check, f"this member leads, but {missing} is not here", remedy)]
    if held and not leads:
        text = f"{', '.join(held)} is here, though this member does not lead"
        stop = f"systemctl stop govipd@{vip.interface}; govipd --interface {vip.interface} --clean-up"
        remedy = f"a running govipd removes it; where that does not run, or does not: {stop}"
        return [failed(check, text, remedy)]
    return [ok(check, f"{', '.join(held)} is here, as it should be" if leads else "nothing, as it should be")]


def _sysctls(interface: str, addresses: Sequence[Address]) -> list[Finding]:
    v4 = [address for address in addresses if address.version == 4]
    v6 = [address for address in addresses if address.version == 6]
    findings = []
    for family, some in (("ipv4", v4), ("ipv6", v6)):
        if some and _sysctl(family, "ip_nonlocal_bind") == 0:
            text = f"net.{family}.ip_nonlocal_bind = 0: haproxy cannot bind to a VIP that is elsewhere"
            remedy = f"sysctl -w net.{family}.ip_nonlocal_bind=1 (not needed where haproxy binds to every address)"
            findings.append(warning("sysctl", text, remedy))
    if any(address.network.prefixlen < 32 for address in v4) and not _either("promote_secondaries", interface):
        text = f"promote_secondaries = 0 on {interface}: a VIP that goes may take others of its subnet along"
        remedy = "give the VIP the prefix /32, or sysctl -w net.ipv4.conf.all.promote_secondaries=1"
        findings.append(warning("sysctl", text, remedy))
    ignore = _either("arp_ignore", interface)
    if v4 and (ignore == 8 or (ignore == 2 and any(a.network.prefixlen == 32 for a in v4))):
        text = f"arp_ignore = {ignore} on {interface}: the kernel does not answer ARP for the VIP"
        remedy = f"sysctl -w net.ipv4.conf.{interface}.arp_ignore=1 net.ipv4.conf.all.arp_ignore=0"
        findings.append(failed("sysctl", text, remedy))
    if v6 and _sysctl("ipv6", "conf", interface, "disable_ipv6") == 1:
        text = f"IPv6 is off on {interface}, and {v6[0].ip} cannot be there"
        findings.append(failed("sysctl", text, f"sysctl -w net.ipv6.conf.{interface}.disable_ipv6=0"))
    return findings or [ok("sysctl", "ip_nonlocal_bind, arp_ignore, promote_secondaries")]


def _sysctl(*names: str) -> int | None:
    """A sysctl's value below net; None where this kernel does not have it."""
    try:
        return int(_SYSCTL.joinpath(*names).read_text())
    except (OSError, ValueError):
        return None


def _either(name: str, interface: str) -> int:
    """An IPv4 setting for which the larger value of "all" and the interface counts (ip-sysctl.rst)."""
    return max(_sysctl("ipv4", "conf", where, name) or 0 for where in ("all", interface))


def _networkd(interface: str, index: int) -> Finding:
    check = f"systemd-networkd on {interface}"
    try:
        lines = (_NETWORKD_LINKS / str(index)).read_text().splitlines()
    except OSError:
        return ok(check, "does not run")
    state = dict(line.split("=", 1) for line in lines if "=" in line)
    network = state.get("NETWORK_FILE")
    if state.get("ADMIN_STATE") == "unmanaged" or not network:
        return ok(check, "leaves it alone")
    try:
        keeps = _keep_configuration(Path(network))
    except (OSError, NotIni) as e:
        return skipped(check, f"{network}: {e}")
    if keeps == "yes":
        return ok(check, f"keeps what others add (KeepConfiguration=yes in {network})")
    text = f"configures it by {network}, and may remove the VIP when it does so anew; govipd puts it back"
    return warning(check, text, f"KeepConfiguration=yes under [Network] in {network}.d/govip.conf; networkctl reload")


def _keep_configuration(network: Path) -> str:
    """The effective KeepConfiguration= of a .network file and its drop-ins (systemd.network(5))."""
    drop_ins: dict[str, Path] = {}
    for root in reversed(_NETWORKD_DIRECTORIES):  # /etc wins over the same name elsewhere
        drop_ins |= {p.name: p for p in (root / "systemd/network" / f"{network.name}.d").glob("*.conf")}
    value = "no"
    for path in (network, *(drop_ins[name] for name in sorted(drop_ins))):
        parser = ConfigParser(strict=False, interpolation=None, allow_no_value=True)
        parser.read_string(path.read_text())
        value = parser.get("Network", "KeepConfiguration", fallback=value)
    return "yes" if value.lower() in {"yes", "true", "1", "on"} else value


async def _network_manager(interface: str) -> Finding:
    check = f"NetworkManager on {interface}"
    try:
        state = (await ask("nmcli", "-g", "GENERAL.STATE", "device", "show", interface)).strip()
    except ToolError:
        return ok(check, "does not run")
    if state.startswith("10 "):  # NM_DEVICE_STATE_UNMANAGED
        return ok(check, "leaves it alone")
    text = f"manages it ({state}), and may remove the VIP when it configures it anew; govipd puts it back"
    remedy = f"nmcli device set {interface} managed no; for good: unmanaged-devices= in its conf.d"
    return warning(check, text, remedy)

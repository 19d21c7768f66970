"""This machine: its clock, its own addresses, its identity, and the unit's directories."""

import hashlib
import hmac
import json
import os
import socket
import subprocess
import time
from importlib.metadata import version
from ipaddress import IPv4Address, IPv6Address, ip_address
from pathlib import Path

# Derives this application's own id from /etc/machine-id, which must not be shown to others (machine-id(5)).
_MACHINE_SALT = b"govipd member identity"


class BootClock:
    """CLOCK_BOOTTIME (implements ports.Clock), which also counts the time of a suspend (clock_gettime(2))."""

    def now(self) -> float:
        """Seconds since boot."""
        return time.clock_gettime(time.CLOCK_BOOTTIME)


def runtime_directory() -> Path | None:
    """The unit's RuntimeDirectory=: kept over a restart and a crash, gone after a stop or a boot. None without one."""
    return _directory("RUNTIME_DIRECTORY")


def state_directory() -> Path | None:
    """The unit's StateDirectory=: kept over a boot. None without one."""
    return _directory("STATE_DIRECTORY")


def _directory(variable: str) -> Path | None:
    """The directory that systemd names in this environment variable (systemd.exec(5)); None without it."""
    directory = os.environ.get(variable, "").partition(":")[0]
    return Path(directory) if directory else None


def machine_identity(interface: str) -> dict[str, str]:
    """The fields of a member's record that identify this machine: a hash of its machine-id, addresses, version."""
    try:
        machine = Path("/etc/machine-id").read_bytes().strip()
    except OSError:
        machine = socket.gethostname().encode()
    return {
        "machine": hmac.new(machine, _MACHINE_SALT, hashlib.sha256).hexdigest()[:32],
        "interface": interface,
        "node": ", ".join(sorted(str(a) for a in local_addresses() if not a.is_loopback and not a.is_link_local)),
        "version": version("govipd"),
    }


def local_addresses(interface: str = "") -> tuple[IPv4Address | IPv6Address, ...]:
    """This host's own addresses, or one interface's. Addresses with preferred lifetime 0, like a VIP's, are left out.

    Empty where they cannot be read: they serve for diagnosis only.
    """
    try:
        command = ["ip", "-json", "address", "show", *(("dev", interface) if interface else ())]
        reply = subprocess.run(command, capture_output=True, timeout=2.0, check=True)
        links = json.loads(reply.stdout)
    except (OSError, subprocess.SubprocessError, ValueError):
        return ()
    return tuple(
        ip_address(info["local"])
        for link in links
        for info in link.get("addr_info", [])
        if "local" in info and info.get("preferred_life_time") != 0
    )


def first_address(interface: str) -> IPv4Address | IPv6Address | None:
    """An address of the interface at which other machines reach this machine, IPv4 first; None without one."""
    usable = [a for a in local_addresses(interface) if not a.is_link_local]
    return min(usable, key=lambda a: a.version, default=None)

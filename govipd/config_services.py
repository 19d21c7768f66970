"""The configuration of what runs beside the VIP groups, [pact], [metrics], [hooks], and the reading of files.

A check answers with what is wrong, in words that follow the key and the value; "" where nothing is.
"""

import os
import stat
from collections.abc import Collection, Iterator
from ipaddress import IPv4Address, IPv6Address, ip_address
from pathlib import Path
from typing import Annotated, Any

import tomli
from msgspec import Meta, Struct

from govipd.errors import ConfigError

Fault = tuple[str, object, str]
"""Key, value, and what is wrong."""


class Pact(Struct, frozen=True, kw_only=True):
    """[pact]: how long the leader may be silent before the next in the queue takes over. 0: as long as the lease."""

    timeout: float = 0.0
    port: int = 9178

    def faults(self, vips: int, *, fenced: bool) -> Iterator[Fault]:
        """What is wrong. Each of the `vips` takes a UDP port; `fenced`: by nf_tables."""
        if self.timeout and not 0.1 <= self.timeout <= 1.0:
            yield "pact.timeout", self.timeout, "must be from 0.1 to 1, or 0 for none"
        elif self.timeout and not fenced:
            text = 'needs election.fence = "nftables", as an address\'s own lifetime is whole seconds; or 0 for none'
            yield "pact.timeout", self.timeout, text
        if not 1024 <= self.port <= 65536 - max(1, vips):
            yield "pact.port", self.port, "must be from 1024 to 65535; each further [[vip]] takes the next one"


class Metrics(Struct, frozen=True, kw_only=True):
    """[metrics]: where Prometheus finds them. Empty: nowhere."""

    listen: str = ""

    def address(self, nth: int) -> tuple[str, int] | None:
        """Host and port for the process of the nth interface, 0 being the first; None when they are off."""
        host, _, port = self.listen.rpartition(":")
        return (host.strip("[]"), int(port) + nth) if self.listen else None

    def faults(self, interfaces: int, vips: Collection[IPv4Address | IPv6Address]) -> Iterator[Fault]:
        """What is wrong. Each of the `interfaces` takes a port; `vips` are no machine's own."""
        if not self.listen:
            return
        host, _, port = self.listen.rpartition(":")
        bracketed = host.startswith("[") and host.endswith("]")
        try:
            ip = ip_address(host[1:-1] if bracketed else host)
            valid = bracketed is (ip.version == 6) and port.isascii() and port.isdecimal() and len(port) <= 5
        except ValueError:
            valid = False
        if not valid:
            text = 'must be ADDRESS:PORT, such as "127.0.0.1:9177", "0.0.0.0:9177" or "[::]:9177"'
            yield "metrics.listen", self.listen, text
        elif not 1024 <= int(port) <= 65536 - max(1, interfaces):
            text = "must have a port from 1024 to 65535; each further interface takes the next one"
            yield "metrics.listen", self.listen, text
        elif ip in vips:
            text = "is a VIP: it would show whichever machine holds it; give the machine's own address"
            yield "metrics.listen", self.listen, text


class Hooks(Struct, frozen=True, kw_only=True):
    """[hooks]: commands, each a program's absolute path and its arguments. Empty: none."""

    leader: tuple[str, ...] = ()
    standby: tuple[str, ...] = ()
    fault: tuple[str, ...] = ()
    timeout: Annotated[float, Meta(ge=0.1, le=300)] = 10.0

    def faults(self) -> Iterator[Fault]:
        """What is wrong."""
        for role in ("leader", "standby", "fault"):
            command: tuple[str, ...] = getattr(self, role)
            if any("\0" in word for word in command):
                yield f"hooks.{role}", command, "must be without NUL characters"
            elif command and (text := unfit_program(command[0])):
                yield f"hooks.{role}[0]", command[0], text


def unfit_program(name: str) -> str:
    """What is wrong with a program that is to run with the daemon's rights."""
    try:
        found = Path(name).stat()
    except OSError as e:
        return f"cannot be run: {e.strerror}"
    if not Path(name).is_absolute():
        return "must be an absolute path"
    if not stat.S_ISREG(found.st_mode) or not os.access(name, os.X_OK):
        return "must be a program: a regular file that may be executed; chmod 0755"
    if found.st_mode & 0o022 or found.st_uid not in {0, os.geteuid()}:
        who = f"mode {stat.S_IMODE(found.st_mode):04o}, owner {found.st_uid}"
        return f"has {who}: others could change what runs with govipd's rights; chown root, chmod go-w"
    return ""


def unfit_file(name: str, *, secret: bool) -> str:
    """What is wrong with a file that is to be read."""
    try:
        mode = Path(name).stat().st_mode
        if not stat.S_ISREG(mode):  # to open a pipe could take for ever
            return "must be a regular file"
        with Path(name).open("rb") as file:
            file.read(1)
    except (OSError, ValueError) as e:
        return f"cannot be read: {getattr(e, 'strerror', None) or e}"
    if secret and mode & 0o077:
        shown = name if name.isprintable() else repr(name)
        return f"has mode {stat.S_IMODE(mode):04o}: others could read the secret; chmod 0600 {shown}"
    return ""


def parsed(path: Path) -> dict[str, Any]:
    """A TOML file.

    Raises:
        ConfigError: it cannot be read, or is none.
    """
    try:
        return tomli.loads(path.read_text(encoding="utf-8"))
    except OSError as e:
        raise ConfigError(f"{path}: cannot be read: {e.strerror}") from e
    except UnicodeDecodeError as e:
        raise ConfigError(f"{path}: not UTF-8 at byte {e.start}; TOML files are UTF-8") from e
    except ValueError as e:  # TOMLDecodeError, and what int() says to a number of thousands of digits
        raise ConfigError(f"{path}: not TOML: {e}") from e
    except RecursionError as e:
        raise ConfigError(f"{path}: not TOML that can be read: nested too deeply") from e

"""Checks the clock of this machine: the rate at which it runs, and how far its NTP daemon may slew it.

Promise G1 depends on the clocks' rates, not on the time of day: this machine's clock may be slow while the clock of
etcd's leader is fast. So only the rate is checked. A wrong time of day shows in logs and in certificates that are not
valid yet.
"""

import asyncio
import re
import time
from collections.abc import Iterator
from pathlib import Path

from govipd.config.model import Config, ElectionConfig
from govipd.core.lease import SLEW
from govipd.ctl.doctor.finding import Finding, failed, ok, warning

_RATE_S = 0.3  # seconds for which the clock is measured
_NTP_RATE = 500e-6  # the limit of ntpd and systemd-timesyncd, which let the kernel slew (MAXFREQ, adjtimex(2))
_FREE_RATE = 1e-3  # a clock that no program slews differs less than this from its hardware
_DAEMONS = {"chronyd": "chronyd", "ntpd": "ntpd", "openntpd": "ntpd", "systemd-timesyn": "systemd-timesyncd"}
CHRONY = (Path("/etc/chrony/chrony.conf"), Path("/etc/chrony.conf"))
_CONFDIR = re.compile(r"^\s*confdir((?:\s+/\S+)+)", re.MULTILINE | re.IGNORECASE)
_MAXSLEWRATE = re.compile(r"^\s*maxslewrate\s+([\d.]+)", re.MULTILINE | re.IGNORECASE)


async def examine(config: Config) -> list[Finding]:
    """Check the clock's present rate, and the largest slew that the running NTP daemon may apply."""
    began = _clocks()
    await asyncio.sleep(_RATE_S)
    boot, raw = (end - begin for begin, end in zip(began, _clocks(), strict=True))
    running = await asyncio.to_thread(lambda: sorted(_running()))
    slew = await asyncio.to_thread(chrony_slew, CHRONY) if "chronyd" in running else None
    return [rate(abs(boot / raw - 1), config.election), ntp(running, slew, config.election)]


def allowed(election: ElectionConfig) -> float:
    """The share `a` by which each of two clocks may be off, in opposite directions: margin / ttl = 2 a / (1 + a)."""
    share = election.margin / election.ttl
    return share / (2 - share)


def rate(off: float, election: ElectionConfig) -> Finding:
    """Judge the clock's rate. `off`: its difference from the hardware's rate, as a share."""
    most = allowed(election)
    text = f"runs within {off:.2%} of its hardware's rate; {most:.1%} is allowed (margin / ttl, for two machines)"
    if off > most:
        return failed("clock", text, "something sets its rate far off: adjtimex --print, chronyc tracking")
    if off > _FREE_RATE:
        return warning("clock", f"is being slewed: {text}", "wait until it is right; chronyc tracking says how long")
    return ok("clock", text)


def ntp(running: list[str], slew: tuple[float, str] | None, election: ElectionConfig) -> Finding:
    """Judge the NTP daemons that run. `slew`: the share that chrony may slew, and the file that sets it."""
    check, most = "clock: NTP", allowed(election)
    if not running:
        return ok(check, "no chronyd, ntpd or systemd-timesyncd runs here: nothing slews the clock that is known of")
    names = ", ".join(running)
    if slew is None:
        return ok(check, f"{names} runs, which slews the clock by {_NTP_RATE:.2%} at most; {most:.1%} is allowed")
    share, where = slew
    text = f"{names} runs, which may slew the clock by {share:.1%} (maxslewrate, {where}); {most:.1%} is allowed"
    if share > most:
        return failed(check, text, f"maxslewrate 1000 in {where}; or a longer election.margin")
    return ok(check, text)


def chrony_slew(files: tuple[Path, ...]) -> tuple[float, str]:
    """The maxslewrate of chrony, as a share of the clock's rate, and the file that sets it (chrony.conf(5))."""
    found = SLEW, "chrony's default"
    for main in files:
        try:
            text = main.read_text(errors="replace")
        except OSError:
            continue
        below = [Path(name) for names in _CONFDIR.findall(text) for name in names.split()]
        for file in (main, *(file for directory in below for file in sorted(directory.glob("*.conf")))):
            try:
                said = _MAXSLEWRATE.findall(file.read_text(errors="replace"))
                found = (float(said[-1]) / 1e6, str(file)) if said else found
            except (OSError, ValueError):
                continue
    return found


def _running() -> Iterator[str]:
    """The NTP daemons that run, found by the process names in the kernel (proc(5), comm)."""
    for comm in Path("/proc").glob("[0-9]*/comm"):
        try:
            name = comm.read_text().strip()
        except OSError:
            continue
        if name in _DAEMONS:
            yield _DAEMONS[name]


def _clocks() -> tuple[float, float]:
    """CLOCK_BOOTTIME and CLOCK_MONOTONIC_RAW at one moment: of five readings, the one that took the least time."""

    def reading() -> tuple[float, float, float]:
        before = time.clock_gettime(time.CLOCK_MONOTONIC_RAW)
        boot = time.clock_gettime(time.CLOCK_BOOTTIME)
        took = time.clock_gettime(time.CLOCK_MONOTONIC_RAW) - before
        return took, boot, before + took / 2

    _, boot, raw = min(reading() for _ in range(5))
    return boot, raw

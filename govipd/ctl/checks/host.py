"""This host: its configuration files, its clock, and the page that the probe asks."""

import asyncio
import stat
import time
from pathlib import Path

from govipd.adapters.probe import HttpProbe
from govipd.cli import BootClock
from govipd.config import Config
from govipd.ctl.checks.finding import Finding, failed, ok

_RATE_S = 0.3  # for how long the clock is watched
_RATE_MAX = 0.01  # no sound clock differs by more from its own hardware; NTP corrects by 0.0005 at most


async def files(config: Config) -> list[Finding]:
    """Whether only root can change what govipd does. That only root can read its secrets, config.load has seen to."""
    return [_files(config)]


def _files(config: Config) -> Finding:
    etcd = config.etcd
    names = [name for name in (config.path, etcd.ca, etcd.cert, etcd.key, etcd.password_file) if name]
    for name in names:
        for path in (Path(name), Path(name).resolve().parent):
            status = path.stat()
            if status.st_uid != 0:
                return failed("configuration", f"{path} does not belong to root", f"chown root: {path}")
            sticky = stat.S_ISDIR(status.st_mode) and status.st_mode & stat.S_ISVTX
            if status.st_mode & 0o022 and not sticky:
                text = f"{path} has mode {stat.S_IMODE(status.st_mode):04o}: others could change it"
                return failed("configuration", text, f"chmod go-w {path}")
    return ok("configuration", f"{', '.join(names)}: valid; only root can change it")


async def clock(config: Config) -> list[Finding]:
    """Whether this machine's clock runs at its hardware's rate.

    The promise rests on rates, not on what time it is: two machines' may differ by margin / ttl. Only the rate is
    looked at; that the time of day is wrong shows in logs, and where certificates are not valid yet.
    """
    began = _clocks()
    await asyncio.sleep(_RATE_S)
    boot, raw = (end - begin for begin, end in zip(began, _clocks(), strict=True))
    off = abs(boot / raw - 1)
    election = config.election
    allowed = election.margin / election.ttl
    text = f"runs within {off:.2%} of its hardware's rate; {allowed:.0%} (margin / ttl) may lie between two machines"
    if off > _RATE_MAX:
        return [failed("clock", text, "something sets its rate far off: adjtimex --print, chronyc tracking")]
    return [ok("clock", text)]


def _clocks() -> tuple[float, float]:
    """Both at one moment: of five readings the one that was interrupted least."""

    def reading() -> tuple[float, float, float]:
        before = time.clock_gettime(time.CLOCK_MONOTONIC_RAW)
        boot = time.clock_gettime(time.CLOCK_BOOTTIME)
        took = time.clock_gettime(time.CLOCK_MONOTONIC_RAW) - before
        return took, boot, before + took / 2

    _, boot, raw = min(reading() for _ in range(5))
    return boot, raw


async def probe(config: Config) -> list[Finding]:
    """Ask the page once, as the daemon does."""
    health = config.health
    if not health.url:
        return []
    asked = HttpProbe(
        url=health.url,
        interval_s=health.interval,
        timeout_s=health.timeout,
        sink=lambda _: None,
        clock=BootClock(),
    )
    result = await asked.check()
    asked.close()
    check = f"probe {health.url}"
    if result.passed:
        return [ok(check, result.detail)]
    remedy = "is haproxy running, and is /etc/govip/haproxy-govip.cfg in its configuration?"
    return [failed(check, result.detail, remedy)]

"""Checks this host: its configuration files, and the page that the probe requests."""

import stat
from pathlib import Path

from govipd.adapters.checks.http_probe import HttpProbe
from govipd.config.model import Config
from govipd.ctl.doctor.finding import Finding, failed, ok
from govipd.host import BootClock


async def files(config: Config) -> list[Finding]:
    """Check that only root can change govipd's files. config.reader.load() checks that only root can read secrets."""
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


async def probe(config: Config) -> list[Finding]:
    """Make one probe check, as the daemon does."""
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

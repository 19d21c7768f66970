"""`govipctl doctor`: checks every precondition of govipd on this machine, and prints verdicts and remedies.

The checks change nothing on the machine. Exit status: 0 where no check failed (warnings are allowed), 1 where a check
failed, 78 (EX_CONFIG, sysexits.h) for a refused configuration.
"""

import asyncio
import json
import os
import sys
from collections.abc import Awaitable, Sequence
from dataclasses import asdict
from pathlib import Path

from rich.console import Console
from rich.text import Text

from govipd.config.model import Config
from govipd.config.reader import load
from govipd.core.sanitize import sanitize_line
from govipd.ctl import client
from govipd.ctl.doctor import (
    check_answers,
    check_clock,
    check_etcd,
    check_haproxy,
    check_host,
    check_link,
    check_members,
    check_packets,
    check_tls,
    check_units,
)
from govipd.ctl.doctor.finding import Finding, Severity, failed
from govipd.errors import ConfigError, GovipdError
from govipd.host import local_addresses

_LIMIT_S = 15.0  # seconds for one check, all its waits included
_STYLES = {Severity.OK: "green", Severity.WARNING: "yellow", Severity.FAILED: "bold red", Severity.SKIPPED: "dim"}


def doctor(path: Path, *, as_json: bool) -> int:
    """Run the command. Returns the exit status."""
    try:
        config = load(path, hostname=client.hostname(), local_addresses=local_addresses())
    except ConfigError as e:
        print(e, file=sys.stderr)
        return os.EX_CONFIG
    findings = asyncio.run(examine(config))
    if as_json:
        print(json.dumps([asdict(finding) for finding in findings], indent=2))
    else:
        show(findings, Console(highlight=False, soft_wrap=True))
    return int(any(finding.verdict is Severity.FAILED for finding in findings))


async def examine(config: Config) -> list[Finding]:
    """Run all checks. etcd's check is the first, because the expected result of others depends on who leads."""
    about_etcd, cluster = await check_etcd.examine(config)
    parts = await asyncio.gather(
        _within_limit("configuration", check_host.files(config)),
        _within_limit("TLS", check_tls.examine(config.etcd)),
        _within_limit("members", check_members.examine(config, cluster)),
        _within_limit("clock", check_clock.examine(config)),
        _within_limit("units", check_units.examine(config)),
        _within_limit("probe", check_host.probe(config)),
        _within_limit("haproxy's limits", check_haproxy.examine(config)),
        _within_limit("interface", check_link.examine(config, cluster)),
        _within_limit("nf_tables", check_packets.examine(config, cluster)),
        _within_limit("answers", check_answers.examine(config, cluster)),
    )
    files, *others = parts
    return [*files, *about_etcd, *(finding for part in others for finding in part)]


async def _within_limit(check: str, findings: Awaitable[list[Finding]]) -> list[Finding]:
    """Run one check. An error or a time-out becomes a finding, so that the other checks' findings are still shown."""
    try:
        async with asyncio.timeout(_LIMIT_S):
            return await findings
    except TimeoutError:
        return [failed(check, f"no verdict within {_LIMIT_S:g} s", "try again; is this machine overloaded?")]
    except (GovipdError, OSError, ValueError) as e:
        return [failed(check, f"cannot be checked: {e}", "see the reason")]


def show(findings: Sequence[Finding], console: Console) -> None:
    """Print each finding in one line, its remedy in a line below, and a summary at the end."""
    width = max(len(verdict) for verdict in Severity)
    for finding in findings:
        text = Text(f"{finding.verdict.value:{width}}  ", style=_STYLES[finding.verdict])
        text.append(sanitize_line(f"{finding.check}: {finding.detail}", 1000), style="default")
        console.print(text)
        if finding.remedy:
            console.print(Text(f"{'':{width}}  -> {sanitize_line(finding.remedy, 1000)}", style="bold"))
    count = {verdict: sum(f.verdict is verdict for f in findings) for verdict in Severity}
    console.print(Text(", ".join(f"{n} {verdict.value}" for verdict, n in count.items() if n)))

"""Checks haproxy's limits: whether haproxy still answers for its monitor page when all its frontends are full.

The check asks the stats socket that haproxy's configuration names ("show info", "show stat"; management guide 9.3).
"""

import asyncio
import csv
import io
import re
from pathlib import Path

from govipd.config.model import Config
from govipd.ctl.doctor.finding import Finding, ok, skipped, warning

CONFIGURATION = Path("/etc/haproxy/haproxy.cfg")
_CHECK = "haproxy's limits"
_DEADLINE_S = 2.0
_BYTES_MAX = 4 * 1024 * 1024  # of an answer: some 200 bytes for each frontend
_FRONTENDS = "show stat -1 1 -1"  # every proxy, of type frontend, every server
_SOCKET = re.compile(r"^\s*stats\s+socket\s+(?:unix@)?(/\S+)", re.MULTILINE)


async def examine(config: Config, configuration: Path = CONFIGURATION) -> list[Finding]:
    """Compare the frontends' limits with the global limit, if haproxy's unit and page are the gates."""
    if config.health.unit != "haproxy.service" or not config.health.url:
        return []
    try:
        named = _SOCKET.search(await asyncio.to_thread(configuration.read_text, errors="replace"))
    except OSError as e:
        return [skipped(_CHECK, f"{configuration}: {e.strerror}")]
    if not named:
        text = f"no stats socket in {configuration}, which would show them"
        return [skipped(_CHECK, text, "stats socket /run/haproxy/admin.sock, under global")]
    try:
        info, stat = await _ask(named[1], "show info"), await _ask(named[1], _FRONTENDS)
        return [judge(info, stat)]
    except (OSError, ValueError, KeyError) as e:
        return [skipped(_CHECK, f"{named[1]}: {getattr(e, 'strerror', None) or e}")]


def judge(info: str, stat: str) -> Finding:
    """Judge the two answers. Raises ValueError or KeyError where they are not haproxy's."""
    values = dict(line.split(": ", 1) for line in info.splitlines() if ": " in line)
    limit, now = int(values["Maxconn"]), int(values["CurrConns"])
    frontends = {row["# pxname"]: int(row["slim"]) for row in csv.DictReader(io.StringIO(stat))}
    total = sum(frontends.values())
    largest = max(frontends, key=lambda name: frontends[name], default="none")
    shown = f"{now} of {limit} connections; the frontends may have {total} together"
    if total <= limit:
        return ok(_CHECK, f"{shown}, so that the page is answered when they are full")
    text = f"{shown} ({largest} {frontends[largest]}): when haproxy is full the page waits, and the VIP moves"
    remedy = f"set each frontend's maxconn, all together at most {limit}: see /etc/govip/haproxy-govip.cfg"
    return warning(_CHECK, text, remedy)


async def _ask(path: str, command: str) -> str:
    """Send one command to the stats socket. Raises OSError, also where no answer comes in time."""
    async with asyncio.timeout(_DEADLINE_S):
        reader, writer = await asyncio.open_unix_connection(path)
        try:
            writer.write(f"{command}\n".encode())
            return (await _all(reader)).decode(errors="replace")
        finally:
            writer.close()


async def _all(reader: asyncio.StreamReader) -> bytes:
    answer = b""
    while chunk := await reader.read(65536):
        answer += chunk
        if len(answer) > _BYTES_MAX:
            raise ValueError("an answer that does not end")
    return answer

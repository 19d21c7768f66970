"""Checks systemd's units: the unit of the unit gate, and govipd's own unit and its drop-ins."""

import re
from collections.abc import Mapping
from pathlib import Path

import govipd
from govipd.adapters.election.session import RENEWALS_PER_TTL
from govipd.config.model import Config, ElectionConfig
from govipd.core.health import SERVING
from govipd.core.liveness import START_S
from govipd.ctl.doctor.finding import Finding, failed, ok, skipped, warning
from govipd.ctl.doctor.tools import ToolError, ask

_PROPERTIES = (
    "LoadState", "ActiveState", "SubState", "Result", "UnitFileState", "NeedDaemonReload", "FragmentPath",
    "DropInPaths", "Type", "Restart", "RuntimeDirectoryPreserve", "WatchdogUSec", "KillSignal",
)  # fmt: skip
# Properties that must not be changed, as "systemctl show" prints them: the value, and the harm of another value.
_NEEDED = {
    "Type": ("notify", "systemd does not know when it is ready, or hangs"),
    "Restart": ("always", "a daemon that ended is not replaced, and its VIP moves"),
    "RuntimeDirectoryPreserve": ("restart", "a restart moves the VIP"),
    "KillSignal": ("15", "it is not told to release the VIP"),
}
_UNITS_OF_TIME = {"us": 1e-6, "ms": 1e-3, "s": 1.0, "min": 60.0, "h": 3600.0}


async def examine(config: Config) -> list[Finding]:
    """Check the unit of the unit gate, and govipd's unit for each interface."""
    if not _booted():
        return [skipped("units", "systemd does not run here")]
    findings = [await _gate(config.health.unit)] if config.health.unit else []
    for interface in dict.fromkeys(vip.interface for vip in config.vip):
        findings += await _own(f"govipd@{interface}.service", config.election)
    return findings


def _booted() -> bool:
    """Whether systemd is PID 1 (sd_booted(3))."""
    return Path("/run/systemd/system").is_dir()


async def _gate(unit: str) -> Finding:
    check = f"unit {unit}"
    try:
        shown = await _show(unit)
    except ToolError as e:
        return skipped(check, str(e))
    state = f"{shown['ActiveState']} ({shown['SubState']})"
    if shown["LoadState"] == "not-found":
        return failed(check, "does not exist", f"install {unit}, or set health.unit to the one that is meant")
    if shown["ActiveState"] in SERVING:
        return ok(check, state)
    if shown.get("Result", "success") != "success":
        state += f", result: {shown['Result']}"
    return failed(check, state, f"journalctl -u {unit} -n 20; systemctl start {unit}")


async def _own(unit: str, election: ElectionConfig) -> list[Finding]:
    check = f"unit {unit}"
    try:
        shown = await _show(unit)
    except ToolError as e:
        return [skipped(check, str(e))]
    if shown["LoadState"] == "not-found":
        return [failed(check, "does not exist", "install the unit: make install, or the package")]
    findings = [
        failed(check, f"{name}={shown[name]} in {_sources(shown)}: {harm}", f"remove it: {name}={needed} is needed")
        for name, (needed, harm) in _NEEDED.items()
        if shown.get(name) != needed
    ]
    findings += _watchdog(check, shown, election)
    if shown["NeedDaemonReload"] == "yes":
        findings.append(warning(check, "its file was changed since systemd read it", "systemctl daemon-reload"))
    if shown["UnitFileState"] not in {"enabled", "enabled-runtime"}:
        findings.append(warning(check, "is not started at boot", f"systemctl enable {unit}"))
    if drift := _drift(Path(shown["FragmentPath"])):
        findings.append(drift)
    if shown["ActiveState"] not in SERVING:
        text = f"{shown['ActiveState']} ({shown['SubState']}, result: {shown['Result']})"
        return [failed(check, text, f"journalctl -u {unit} -n 20; systemctl start {unit}"), *findings]
    return findings or [ok(check, "active, enabled, as shipped")]


def _watchdog(check: str, shown: Mapping[str, str], election: ElectionConfig) -> list[Finding]:
    """Check that systemd replaces a daemon that hangs while the daemon's lease still runs (docs/adr/0003)."""
    watchdog = _seconds(shown.get("WatchdogUSec", "0"))
    left = election.ttl - election.margin - election.ttl / RENEWALS_PER_TTL
    if not watchdog:
        text = "WatchdogSec= is off: a daemon that hangs is not replaced"
        return [warning(check, text, "remove it from the drop-in")]
    if watchdog + START_S > left:
        text = f"WatchdogSec={watchdog:g}s and a start of {START_S:g} s are longer than the {left:.2g} s a lease runs"
        return [failed(check, text, "lower WatchdogSec= in a drop-in (systemctl edit), or raise election.ttl")]
    return []


def _drift(installed: Path) -> Finding | None:
    """Check that the installed unit file is that of this version, except comments and Exec lines."""
    check = f"unit file {installed}"
    package = Path(govipd.__file__).parent
    shipped = next((p for p in (package / "units", package.parent / "units") if p.is_dir()), None)
    try:
        if shipped is None or _directives(installed) == _directives(shipped / "govipd@.service"):
            return None
    except OSError as e:
        return skipped(check, f"{e.filename}: {e.strerror}")
    text = "differs from the one that came with this version"
    return warning(check, text, "install it again, and keep your changes in a drop-in: systemctl edit govipd@.service")


def _directives(file: Path) -> list[str]:
    lines = (line.strip() for line in file.read_text().splitlines())
    return [line for line in lines if line and not line.startswith(("#", ";", "Exec"))]


async def _show(unit: str) -> dict[str, str]:
    output = await ask("systemctl", "show", f"--property={','.join(_PROPERTIES)}", "--", unit)
    return dict.fromkeys(_PROPERTIES, "") | dict(line.split("=", 1) for line in output.splitlines() if "=" in line)


def _sources(shown: Mapping[str, str]) -> str:
    return shown["DropInPaths"] or shown["FragmentPath"]


def _seconds(text: str) -> float:
    """A time span as systemd prints it, "1min 30s"; 0 for "infinity" (systemd.time(7))."""
    return sum(float(number) * _UNITS_OF_TIME[unit] for number, unit in re.findall(r"([\d.]+)(us|ms|min|s|h)\b", text))

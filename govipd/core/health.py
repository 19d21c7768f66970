"""The gates: may this node campaign, and may it keep the VIP?

A gate has one of three verdicts. UNKNOWN never permits a campaign. A holder keeps the VIP while a gate is UNKNOWN for
less than `Settings.unknown_limit` (a restart of D-Bus must not move the VIP); then the gate counts as unhealthy.
"""

from dataclasses import dataclass, replace
from enum import Enum

from govipd.core.events import LinkState, ProbeResult, UnitState
from govipd.core.settings import Settings

# What `systemctl is-active` calls active (UNIT_IS_ACTIVE_OR_RELOADING in systemd's src/basic/unit-def.h;
# "refreshing" from systemd 257 on): haproxy reloads without a break of service.
SERVING = frozenset({"active", "reloading", "refreshing"})


class Gate(Enum):
    """The gates: the systemd unit, the probe, and the interface's link."""

    UNIT = "unit"
    PROBE = "probe"
    LINK = "link"


class Verdict(Enum):
    """What is known of a gate."""

    HEALTHY = "healthy"
    UNHEALTHY = "unhealthy"
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True)
class GateStatus:
    """A gate's verdict, since when (CLOCK_BOOTTIME), and the last observation as a text."""

    gate: Gate
    verdict: Verdict
    detail: str
    since: float

    def __str__(self) -> str:
        return f"{self.gate.value} {self.verdict.value} ({self.detail})"


class Health:
    """All gates of one VIP group."""

    def __init__(self, settings: Settings, now: float) -> None:
        self._settings = settings
        self._status = {gate: GateStatus(gate, Verdict.UNKNOWN, "not seen yet", now) for gate in Gate}
        self._counted = self._counting()
        self._passes = 0  # in a row
        self._failures = 0  # in a row
        self._link_seen: tuple[bool, str, float] | None = None  # an observation that waits out its debounce
        self._fit_since: float | None = None

    def reconfigure(self, settings: Settings) -> None:
        """Keep the observations. The new settings apply from the next observation on."""
        self._settings = settings
        self._counted = self._counting()

    def gates(self) -> tuple[GateStatus, ...]:
        """The gates that count, in a fixed order."""
        return self._counted

    def _counting(self) -> tuple[GateStatus, ...]:
        counts = {Gate.UNIT: self._settings.unit_gate, Gate.PROBE: self._settings.probe_gate, Gate.LINK: True}
        return tuple(status for gate, status in self._status.items() if counts[gate])

    def against_campaigning(self) -> tuple[GateStatus, ...]:
        """The gates that forbid to campaign: all that are not healthy."""
        return tuple(s for s in self._counted if s.verdict is not Verdict.HEALTHY)

    def against_holding(self, now: float) -> tuple[GateStatus, ...]:
        """The gates that forbid to hold the VIP: unhealthy ones, and those UNKNOWN for `Settings.unknown_limit`."""
        return tuple(
            s
            for s in self._counted
            if s.verdict is Verdict.UNHEALTHY or (s.verdict is Verdict.UNKNOWN and now >= self._unknown_until(s))
        )

    def unhealthy(self) -> bool:
        """Whether at least one gate is UNHEALTHY. UNKNOWN does not count."""
        return any(s.verdict is Verdict.UNHEALTHY for s in self._counted)

    def fit_since(self) -> float | None:
        """Since when every gate has been healthy; None while one is not."""
        return self._fit_since

    def note(self, event: ProbeResult | UnitState | LinkState, now: float) -> None:
        """Update the verdict of the gate that the event is about."""
        match event:
            case ProbeResult():
                self._note_probe(event, now)
            case UnitState(active_state=None):
                self._judge(Gate.UNIT, Verdict.UNKNOWN, event.detail, now)
            case UnitState():
                healthy = event.active_state in SERVING
                self._judge(Gate.UNIT, Verdict.HEALTHY if healthy else Verdict.UNHEALTHY, event.detail, now)
            case _:
                self._note_link(event, now)
        self.tick(now)

    def tick(self, now: float) -> None:
        """Apply a debounced link change whose time has come."""
        if self._link_seen is not None and now >= self._link_seen[2]:
            up, detail, _ = self._link_seen
            self._link_seen = None
            self._judge(Gate.LINK, Verdict.HEALTHY if up else Verdict.UNHEALTHY, detail, now)
        if self.against_campaigning():
            self._fit_since = None
        elif self._fit_since is None:
            self._fit_since = now

    def next_deadline(self, now: float) -> float | None:
        """The next instant after `now` at which time alone changes an answer, if there is one."""
        instants = [self._unknown_until(s) for s in self._counted if s.verdict is Verdict.UNKNOWN]
        if self._link_seen is not None:
            instants.append(self._link_seen[2])
        return min((t for t in instants if t > now), default=None)

    def _unknown_until(self, status: GateStatus) -> float:
        return status.since + self._settings.unknown_limit

    def _note_probe(self, event: ProbeResult, now: float) -> None:
        self._passes = self._passes + 1 if event.passed else 0
        self._failures = 0 if event.passed else self._failures + 1
        verdict = self._status[Gate.PROBE].verdict
        if self._passes >= self._settings.rise:
            verdict = Verdict.HEALTHY
        elif self._failures >= self._settings.fall:
            verdict = Verdict.UNHEALTHY
        self._judge(Gate.PROBE, verdict, event.detail, now)

    def _note_link(self, event: LinkState, now: float) -> None:
        if not event.present:
            self._link_seen = None
            which = event.interface or "the interface"
            self._judge(Gate.LINK, Verdict.UNHEALTHY, f"{which} does not exist", now)
            return
        up = event.admin_up and event.carrier
        which = f"{event.interface}: " if event.interface else ""
        detail = "up" if up else f"{which}no carrier" if event.admin_up else f"{which}set down"
        verdict = self._status[Gate.LINK].verdict
        if verdict is Verdict.UNKNOWN or up == (verdict is Verdict.HEALTHY):
            self._link_seen = None
            self._judge(Gate.LINK, Verdict.HEALTHY if up else Verdict.UNHEALTHY, detail, now)
        elif self._link_seen is None or self._link_seen[0] != up:
            self._link_seen = (up, detail, now + self._settings.link_debounce)

    def _judge(self, gate: Gate, verdict: Verdict, detail: str, now: float) -> None:
        before = self._status[gate]
        since = before.since if before.verdict is verdict else now
        self._status[gate] = replace(before, verdict=verdict, detail=detail, since=since)
        self._counted = self._counting()


class SlidingWindowCounter:
    """How often something happened within the last `window` seconds."""

    def __init__(self, window: float) -> None:
        self.window = window
        self._times: list[float] = []

    def note(self, now: float) -> None:
        """Count one occurrence."""
        self._times = [t for t in self._times if now - t < self.window]
        self._times.append(now)

    def count(self, now: float) -> int:
        """The number of occurrences within the window."""
        return sum(1 for t in self._times if now - t < self.window)


class Damping:
    """Slows a flapping node down: each further fall within `flap_window` doubles the wait, up to `flap_wait_max`.

    A fall: this node left the queue or the VIP because it was not healthy.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._falls = SlidingWindowCounter(settings.flap_window)

    def reconfigure(self, settings: Settings) -> None:
        """Apply new settings, also to the falls counted so far."""
        self._settings = settings
        self._falls.window = settings.flap_window

    def fell(self, now: float) -> None:
        """Count a fall."""
        self._falls.note(now)

    def wait(self, now: float) -> float:
        """Seconds for which every gate must have been healthy before the next campaign."""
        falls = self._falls.count(now)
        if falls < 2:
            return 0.0
        doublings = min(falls - 2, 64)  # more than any limit needs, and no float overflow
        return min(self._settings.flap_wait * 2.0**doublings, self._settings.flap_wait_max)

"""Drives one supervisor by hand: a clock that only the test moves, and shorthands for the usual events."""

from govipd.core import events as ev
from govipd.core.actions import (
    Action,
    Campaign,
    CloseFence,
    DropRestartState,
    Hold,
    Prepare,
    RemoveAddresses,
    Report,
    Resign,
    RestartState,
    SaveRestartState,
)
from govipd.core.settings import Settings
from govipd.core.state import State
from govipd.core.state_machine import VipStateMachine

LEASE = 7
UP = ev.LinkState(present=True, admin_up=True, carrier=True, mac="02:00:00:00:00:01")
RUNNING = ev.UnitState("active", "running")
PASSED = ev.ProbeResult(passed=True, detail="200")
FAILED = ev.ProbeResult(passed=False, detail="HTTP 503")


def left_at(now: float) -> RestartState:
    """What a process that renewed at `now` leaves for the next one."""
    return RestartState(LEASE, 5, now + 2.5)


class Driver:
    """`told` is what the last step asked for, without reports and what is kept; those are in lists of their own."""

    def __init__(self, settings: Settings | None = None, left: RestartState | None = None) -> None:
        self.now = 100.0
        self.settings = settings or Settings()
        self.state_machine = VipStateMachine(self.settings, self.now)
        self.reports: list[Report] = []
        self.kept: list[SaveRestartState | DropRestartState] = []
        self.told: list[Action] = []
        self.everything: list[Action] = []
        self._take(self.state_machine.start(left, self.now))

    @property
    def state(self) -> State:
        return self.state_machine.state

    def step(self, event: ev.Event, after: float = 0.0) -> list[Action]:
        self.now += after
        self._take(self.state_machine.step(event, self.now))
        return self.told

    def _take(self, actions: list[Action]) -> None:
        self.reports += [a for a in actions if isinstance(a, Report)]
        self.kept += [a for a in actions if isinstance(a, SaveRestartState | DropRestartState)]
        self.told = [a for a in actions if not isinstance(a, Report | SaveRestartState | DropRestartState)]
        self.everything += self.told

    def tick(self) -> list[Action]:
        """Go to the next instant at which time alone matters."""
        deadline = self.state_machine.next_deadline(self.now)
        assert deadline is not None, "nothing is due"
        return self.step(ev.Tick(), deadline - self.now)

    def renew(self, ttl: float = 3.0, lease: int = LEASE) -> list[Action]:
        return self.step(ev.LeaseRenewed(lease, self.now, ttl))

    def done(self) -> list[Action]:
        """The kernel acknowledges everything of the last step, in order."""
        for action in self.told:
            if isinstance(action, Prepare | Hold | CloseFence | RemoveAddresses):
                self.step(ev.Done(action))
        return self.told

    # Ways into each state

    def healthy(self) -> None:
        self.step(UP)
        self.step(RUNNING)
        for _ in range(self.settings.rise):
            self.step(PASSED)

    @property
    def campaign(self) -> int:
        return [a.campaign for a in self.everything if isinstance(a, Campaign)][-1]

    def to(self, state: State) -> "Driver":
        """Go the straight way to `state`."""
        if state is State.STARTING:
            return self
        if state is State.ADOPTING:
            return Driver(self.settings, left_at(self.now))
        self.step(ev.Done(CloseFence()))
        self.step(ev.Done(RemoveAddresses()))
        if state is State.INELIGIBLE:
            return self
        if state is State.STOPPED:
            self.step(ev.Stop(by=self.now + 1))
            return self
        self.renew()
        self.healthy()
        if state is State.CANDIDATE:
            return self
        self.step(ev.Elected(self.campaign, LEASE, self.now))
        if state is State.ACTIVATING:
            return self
        self.done()
        if state is State.LEADER:
            return self
        if state is State.HANDING_OVER:
            self.step(ev.Handover(""))
            self.done()
            return self
        self.step(ev.UnitState("failed", "failed"))
        if state is State.DEACTIVATING:
            return self
        self.step(ev.Done(CloseFence()))
        assert state is State.RESIGNING
        return self

    def resigned(self) -> bool:
        return any(isinstance(a, Resign) for a in self.told)

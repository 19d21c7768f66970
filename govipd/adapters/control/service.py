"""The control socket, over which `govipctl` and `varlinkctl` call this process (implements process_ports.Service).

Every user that may open the socket may read the status. Only root may call the other methods.
"""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from pathlib import Path
from typing import Annotated

import msgspec

from govipd.adapters.control import varlink
from govipd.adapters.control.varlink_server import LIMITS, Limits, VarlinkServer
from govipd.core.actions import Action
from govipd.core.events import Event
from govipd.core.journal_kinds import JournalKind
from govipd.core.sanitize import sanitize_line
from govipd.errors import RefusedError
from govipd.runtime.process_ports import Journal, Operator

NAME = "org.govipd.Node"

DESCRIPTION = """\
# One process of govipd: the VIPs of one interface. Times are seconds since 1970 (UTC), durations are seconds.
interface org.govipd.Node

type Gate (gate: string, verdict: string, detail: string, since: float)

type Transition (at: float, state: string, trigger: string, detail: string)

# state, trigger: as in govipctl(8), STATES AND REASONS.
# lease_left: until the VIP is dropped if etcd confirms nothing more; null without a lease.
# pact: the silence after which the successor takes over; 0 where it waits for the lease's end.
type Group (
  vip: string,
  addresses: []string,
  state: string,
  since: float,
  trigger: string,
  detail: string,
  next: string,
  ahead: string,
  drained: bool,
  gates: []Gate,
  lease_left: ?float,
  pact: float,
  campaigns_in: float,
  blockers: []string,
  etcd: string,
  warning: string,
  transitions: []Transition
)

method Status() -> (version: string, member: string, interface: string, groups: []Group)

# Stay out of the queue of this VIP, or of every one, also over a reboot. Root only.
method Drain(vip: ?string) -> ()

# Root only.
method Undrain(vip: ?string) -> ()

# Give this VIP, or every one, to the successor, or to the member `to`. Begun when the reply comes. Root only.
method Handover(vip: ?string, to: ?string) -> ()

error Refused (reason: string)
"""

_OF_ROOT = frozenset({f"{NAME}.Drain", f"{NAME}.Undrain", f"{NAME}.Handover"})
_DESCRIPTIONS = {NAME: DESCRIPTION, varlink.SERVICE: varlink.DESCRIPTION}
_Name = Annotated[str, msgspec.Meta(max_length=64)]


class _Which(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    vip: _Name | None = None


class _Handover(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    vip: _Name | None = None
    to: _Name | None = None


class ControlSocket:
    """The control socket of one process.

    Args:
        path: the socket's path; the directory's mode and group say who may connect.
        version: govipd's version.
    """

    def __init__(
        self, *, path: Path, operator: Operator, journal: Journal, version: str, limits: Limits = LIMITS
    ) -> None:
        self._operator = operator
        self._info: Mapping[str, object] = {
            "vendor": "govipd",
            "product": "govipd",
            "version": version,
            "url": "",
            "interfaces": sorted(_DESCRIPTIONS),
        }
        self._methods: Mapping[str, Callable[[varlink.Call], Awaitable[object]]] = {
            f"{varlink.SERVICE}.GetInfo": self._get_info,
            f"{varlink.SERVICE}.GetInterfaceDescription": self._describe,
            f"{NAME}.Status": self._status,
            f"{NAME}.Drain": self._drain,
            f"{NAME}.Undrain": self._undrain,
            f"{NAME}.Handover": self._handover,
        }
        self._server = VarlinkServer(
            path=path,
            answer=self._answer,
            report=lambda text: journal.write(JournalKind.CONTROL_TROUBLE, f"control: {sanitize_line(text)}", {}),
            limits=limits,
        )

    async def run(self) -> None:
        """See process_ports.Service."""
        await self._server.run()

    def stepped(self, vip: str, event: Event, actions: Sequence[Action], now: float) -> None:
        """See process_ports.Service. Does nothing: the socket only answers calls."""

    async def _answer(self, call: varlink.Call, uid: int) -> object:
        try:
            return await self._method(call, uid)(call)
        except RefusedError as e:
            raise varlink.ErrorReply(f"{NAME}.Refused", reason=str(e)) from e

    def _method(self, call: varlink.Call, uid: int) -> Callable[[varlink.Call], Awaitable[object]]:
        """The function that executes the call.

        Raises:
            ErrorReply: there is no such method, or this user may not call it.
        """
        interface = call.method.rpartition(".")[0]
        if interface not in _DESCRIPTIONS:
            raise varlink.interface_not_found(interface)
        if call.method not in self._methods:
            raise varlink.method_not_found(call)
        if uid and call.method in _OF_ROOT:
            raise varlink.ErrorReply(f"{varlink.SERVICE}.PermissionDenied")
        return self._methods[call.method]

    async def _get_info(self, call: varlink.Call) -> object:
        varlink.parameters(call, varlink.NoParameters)
        return self._info

    async def _describe(self, call: varlink.Call) -> object:
        name = varlink.parameters(call, varlink.Interface).interface
        if name not in _DESCRIPTIONS:
            raise varlink.interface_not_found(name)
        return {"description": _DESCRIPTIONS[name]}

    async def _status(self, call: varlink.Call) -> object:
        varlink.parameters(call, varlink.NoParameters)
        return self._operator.status()

    async def _drain(self, call: varlink.Call) -> object:
        await self._operator.drain(varlink.parameters(call, _Which).vip or "", wanted=True)
        return {}

    async def _undrain(self, call: varlink.Call) -> object:
        await self._operator.drain(varlink.parameters(call, _Which).vip or "", wanted=False)
        return {}

    async def _handover(self, call: varlink.Call) -> object:
        wanted = varlink.parameters(call, _Handover)
        await self._operator.handover(wanted.vip or "", wanted.to or "")
        return {}

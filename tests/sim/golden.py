"""Golden files: kept schedules, and the events of the unchanged code in each.

One for each mutation, shrunk to the few faults that find it, and one for each scenario that every developer should
know. A file is TOML, a line, and the events, in their order, without times and prose: states and triggers of each
group, who answers for what, faults. A person may write one: leave the events out, and `python -m tests.sim --golden`
writes them.
That command writes all of them anew; `git diff` shows which behaviour has changed.
"""

import json
import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from tests.sim.fault import HOLDER, Fault
from tests.sim.moments import Moment
from tests.sim.schedule import ONE_GROUP, Schedule

FOLDER = Path(__file__).with_name("golden")
_EQUAL_RATES = (1.0,) * 6


def _scenario(*faults: Fault, nodes: int = 2) -> Schedule:
    return Schedule(seed=1, nodes=nodes, margin=0.5, watchdog=True, rates=_EQUAL_RATES, faults=faults, end=10.0)


SCENARIOS: Mapping[str, Schedule] = {
    "haproxy dies on the holder": _scenario(Fault("haproxy failed", HOLDER, 4.0, 0.5, 3.0)),
    "the holder is cut off": _scenario(Fault("isolated", HOLDER, 5.0, 0.5, 3.0)),
    "the holder is cut off together with etcd's leader": _scenario(
        Fault("isolated with etcd's leader", HOLDER, 5.0, 0.5, 3.0)
    ),
    "the holder loses its power": _scenario(Fault("power off", HOLDER, 5.0, 0.5, 3.0)),
    "govipd is killed and its successor adopts": _scenario(Fault("govipd killed", HOLDER, 0.0, 0.5, 3.0)),
    "govipd is restarted and its successor adopts": _scenario(Fault("govipd restarted", HOLDER, 0.0, 0.5, 3.0)),
    "the operator hands the VIP over, past the next in the queue": _scenario(
        Fault("handed over", HOLDER, 0.0, 0.3, 3.0), nodes=3
    ),
    "the operator drains the holder": _scenario(Fault("drained", HOLDER, 3.0, 0.5, 3.0)),
    "somebody revokes the holder's lease": _scenario(Fault("lease revoked", HOLDER, 0.0, 0.0, 3.0)),
    "somebody flushes nftables on the holder": _scenario(Fault("nft flushed", HOLDER, 0.0, 0.5, 3.0)),
    "a task of the holder's daemon breaks": _scenario(Fault("govipd fault", HOLDER, 3.0, 0.5, 3.0)),
    "a daemon that starts is stopped, killed, and started at once": _scenario(
        Fault("govipd stopped", 0, 0.0, 0.5, 0.2), Fault("govipd stopped", 1, 0.0, 0.5, 0.2)
    ),
    "one disturbance of a daemon ends while another lasts": replace(
        _scenario(
            Fault("govipd slow", HOLDER, 2.0, 1.0, 5.0), Fault("govipd without processor", HOLDER, 5.0, 1.0, 6.0)
        ),
        seed=5,
        margin=0.15,
        end=12.0,
    ),
}


@dataclass(frozen=True, slots=True)
class Golden:
    """A schedule, the events of the unchanged code, and the mutation that it finds ("" for a scenario)."""

    name: str
    mutation: str
    schedule: Schedule
    events: str

    @property
    def path(self) -> Path:
        """The golden file."""
        return FOLDER / f"{re.sub('[^a-z]+', '-', self.name.lower())}.txt"

    def write(self) -> None:
        """Write the golden file."""
        FOLDER.mkdir(exist_ok=True)
        head = f"name = {_toml(self.name)}\nmutation = {_toml(self.mutation)}\n"
        self.path.write_text(f"{head}{_written(self.schedule)}{_LINE}{self.events}", encoding="utf-8")


_LINE = "----\n"
_DEFAULTS = {"calm": False, "of_one_group": False, "left_out": None, "pact": 0.0, "groups": ONE_GROUP}


def stored() -> list[Golden]:
    """Every golden file."""
    found = []
    for path in sorted(FOLDER.glob("*.txt")):
        head, _, events = path.read_text(encoding="utf-8").partition(_LINE)
        fields = tomllib.loads(head)
        found.append(Golden(fields.pop("name"), fields.pop("mutation"), schedule_of(fields), events))
    return found


def schedule_of(fields: Mapping[str, Any]) -> Schedule:
    """The schedule in a file's TOML, or in a hunt's JSON."""
    return Schedule(
        **{
            **fields,
            "rates": tuple(fields["rates"]),
            "groups": tuple(map(tuple, fields.get("groups", ONE_GROUP))),
            "faults": tuple(_fault(fault) for fault in fields["faults"]),
        }
    )


def _fault(fields: Mapping[str, Any]) -> Fault:
    node = HOLDER if fields["node"] == "holder" else fields["node"]
    moment = Moment[fields["moment"]] if fields.get("moment") else None
    return Fault(**{**fields, "node": node, "moment": moment})


def fields_of(fault: Fault) -> Mapping[str, Any]:
    """A fault's fields for a file, or for a hunt's JSON."""
    node = "holder" if fault.node == HOLDER else fault.node
    fields = {"kind": fault.kind, "node": node, "at": fault.at, "seconds": fault.seconds, "place": fault.place}
    return fields if fault.moment is None else {**fields, "moment": fault.moment.name, "nth": fault.nth}


def _written(schedule: Schedule) -> str:
    """A schedule as TOML, without default values."""
    names = [name for name in Schedule.__slots__ if name != "faults"]
    values = {name: getattr(schedule, name) for name in names}
    lines = [f"{name} = {_toml(value)}" for name, value in values.items() if _DEFAULTS.get(name, ...) != value]
    faults = [
        "  {" + ", ".join(f"{name} = {_toml(value)}" for name, value in fields_of(fault).items()) + "},"
        for fault in schedule.faults
    ]
    return "\n".join([*lines, "faults = [", *faults, "]", ""])


def _toml(value: object) -> str:
    return json.dumps(value)

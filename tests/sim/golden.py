"""Golden transcripts: schedules worth keeping, and what the right code does in each, to the byte.

One for each mutation, shrunk to the few faults that betray it, and one for each tale that everybody should know. A
change of the code that changes one is looked at as a change of behaviour: `python -m tests.sim --golden` writes them
anew, and `git diff` shows it.
"""

import json
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from tests.sim.fault import HOLDER, Fault
from tests.sim.schedule import ONE_GROUP, Schedule

FOLDER = Path(__file__).with_name("golden")
_EQUAL_RATES = (1.0,) * 6


def _tale(*faults: Fault, nodes: int = 2) -> Schedule:
    return Schedule(seed=1, nodes=nodes, margin=0.5, watchdog=True, rates=_EQUAL_RATES, faults=faults, end=10.0)


TALES: Mapping[str, Schedule] = {
    "haproxy dies on the holder": _tale(Fault("haproxy failed", HOLDER, 4.0, 0.5, 3.0)),
    "the holder is cut off": _tale(Fault("isolated", HOLDER, 5.0, 0.5, 3.0)),
    "the holder is cut off together with etcd's leader": _tale(
        Fault("isolated with etcd's leader", HOLDER, 5.0, 0.5, 3.0)
    ),
    "the holder loses its power": _tale(Fault("power off", HOLDER, 5.0, 0.5, 3.0)),
    "govipd is killed and its successor adopts": _tale(Fault("govipd killed", HOLDER, 0.0, 0.5, 3.0)),
    "govipd is restarted and its successor adopts": _tale(Fault("govipd restarted", HOLDER, 0.0, 0.5, 3.0)),
    "the operator hands the VIP over, past the next in the queue": _tale(
        Fault("handed over", HOLDER, 0.0, 0.3, 3.0), nodes=3
    ),
    "the operator drains the holder": _tale(Fault("drained", HOLDER, 3.0, 0.5, 3.0)),
    "somebody revokes the holder's lease": _tale(Fault("lease revoked", HOLDER, 0.0, 0.0, 3.0)),
    "somebody flushes nftables on the holder": _tale(Fault("nft flushed", HOLDER, 0.0, 0.5, 3.0)),
    "one disturbance of a daemon ends while another lasts": replace(
        _tale(Fault("govipd slow", HOLDER, 2.0, 1.0, 5.0), Fault("govipd without processor", HOLDER, 5.0, 1.0, 6.0)),
        seed=5,
        margin=0.15,
        end=12.0,
    ),
}


@dataclass(frozen=True, slots=True)
class Golden:
    """A schedule, what the right code does in it, and the mutation that it betrays ("" for a tale)."""

    name: str
    mutation: str
    schedule: Schedule
    transcript: str

    @property
    def path(self) -> Path:
        """Its file."""
        return FOLDER / f"{re.sub('[^a-z]+', '-', self.name.lower())}.txt"

    def write(self) -> None:
        """Keep it."""
        FOLDER.mkdir(exist_ok=True)
        head = json.dumps({"name": self.name, "mutation": self.mutation, "schedule": asdict(self.schedule)})
        self.path.write_text(f"{head}\n{self.transcript}", encoding="utf-8")


def stored() -> list[Golden]:
    """Every one that is kept."""
    found = []
    for path in sorted(FOLDER.glob("*.txt")):
        head, _, transcript = path.read_text(encoding="utf-8").partition("\n")
        fields = json.loads(head)
        found.append(Golden(fields["name"], fields["mutation"], schedule_of(fields["schedule"]), transcript))
    return found


def schedule_of(fields: Mapping[str, Any]) -> Schedule:
    """What `asdict` and JSON have made of one."""
    faults = tuple(Fault(**fault) for fault in fields["faults"])
    groups = tuple(map(tuple, fields.get("groups", ONE_GROUP)))
    return Schedule(**{**fields, "faults": faults, "rates": tuple(fields["rates"]), "groups": groups})

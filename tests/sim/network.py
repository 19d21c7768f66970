"""The network between hosts: each direction of each pair has its own delay, and can be cut."""

from collections.abc import Callable
from functools import partial
from random import Random
from typing import Any

from tests.sim.clockwork import World

_DELAY_S = (0.0002, 0.002)
_ASTRAY_S = 1.5  # how late a datagram may be that went astray
_RETRANSMISSION_S = (0.2, 1.6)  # how long after the end of a cut TCP tries again


class Network:
    """Delivers messages between hosts, late, out of order, or not at all.

    What is sent into a cut is not always lost: TCP repeats it, so that it may arrive after the cut's end, long
    after the sender has given up. Only datagrams arrive twice; everything else is a part of a TCP connection.
    """

    def __init__(self, world: World, random: Random) -> None:
        self._world = world
        self._random = random
        self._cuts: dict[tuple[int, int], int] = {}  # how many faults cut this direction
        self._delays: dict[tuple[int, int], float] = {}  # the longest delay, where it is unusual
        self._losses: dict[tuple[int, int], float] = {}  # the share of messages that are lost
        self._wild: dict[tuple[int, int], float] = {}  # the share of datagrams that are lost, late or repeated
        self._ports: dict[tuple[int, int], Callable[[bytes, tuple[str, int]], object]] = {}
        self._stuck: list[tuple[int, int, Callable[..., object], tuple[Any, ...]]] = []

    def cut(self, source: int, target: int) -> None:
        """Let nothing pass in this direction."""
        self._cuts[source, target] = self._cuts.get((source, target), 0) + 1

    def mend(self, source: int, target: int) -> None:
        """End one cut; what TCP still repeats arrives then."""
        self._cuts[source, target] -= 1
        stuck, self._stuck = self._stuck, []
        for message in stuck:
            if self.passes(message[0], message[1]):
                self._world.after(self._random.uniform(*_RETRANSMISSION_S), message[2], *message[3])
            else:
                self._stuck.append(message)

    def slow(self, source: int, target: int, longest: float) -> None:
        """Delay messages by up to `longest` seconds; 0 is usual again."""
        self._delays[source, target] = longest

    def lossy(self, source: int, target: int, share: float) -> None:
        """Lose this share of the messages, as with connections that break; 0 is usual again."""
        self._losses[source, target] = share

    def wild(self, source: int, target: int, share: float) -> None:
        """Lose, delay or repeat this share of the datagrams; 1 lets none through, 0 is usual again."""
        self._wild[source, target] = share

    def listen(self, host: int, port: int, receive: Callable[[bytes, tuple[str, int]], object] | None) -> None:
        """Set the receiver of the datagrams to a host's port; None: they are lost."""
        if receive is None:
            self._ports.pop((host, port), None)
        else:
            self._ports[host, port] = receive

    def datagram(self, source: int, source_port: int, target: int, target_port: int, data: bytes) -> None:
        """Deliver it, or not, or late, or twice."""
        arrive = partial(self._arrive, source, source_port, target, target_port, data)
        share = self._wild.get((source, target), 0.0)
        if not self.passes(source, target) or share >= 1.0 or (target, target_port) not in self._ports:
            return
        delay = self._random.uniform(*_DELAY_S) + self._random.random() * self._delays.get((source, target), 0.0)
        if share and self._random.random() < share:
            fate = self._random.random()
            if fate < 0.4:
                return
            delay += self._random.random() * _ASTRAY_S
            if fate < 0.7:
                self._world.after(delay, arrive)
                delay = self._random.random() * _ASTRAY_S
        self._world.after(delay, arrive)

    def _arrive(self, source: int, source_port: int, target: int, target_port: int, data: bytes) -> None:
        receive = self._ports.get((target, target_port))
        if receive is not None:
            receive(data, (str(source), source_port))

    def passes(self, source: int, target: int) -> bool:
        """Whether this direction is not cut."""
        return source == target or not self._cuts.get((source, target))

    def linked(self, one: int, other: int) -> bool:
        """Whether both directions pass."""
        return self.passes(one, other) and self.passes(other, one)

    def send(self, source: int, target: int, call: Callable[..., object], *args: Any) -> None:
        """Call it at the target's."""
        if not self.passes(source, target):
            if self._random.random() < 0.5:
                self._stuck.append((source, target, call, args))
            return
        share = self._losses.get((source, target), 0.0)
        if share and self._random.random() < share:
            return
        delay = self._random.uniform(*_DELAY_S)
        longest = self._delays.get((source, target), 0.0)
        if longest:
            delay += self._random.random() * longest
        self._world.after(delay, call, *args)

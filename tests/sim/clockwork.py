"""Virtual time: one queue of instants, and processes whose event loops run on it.

A process is an asyncio event loop of its own, so that it can be frozen (its callbacks wait), slowed down (each
callback takes time), and killed (none of them ever runs again, not even to clean up), as the kernel does it to a
real one. Nothing sleeps, nothing waits for real, and equal inputs give equal runs.
"""

import asyncio
import heapq
from asyncio import events
from collections import deque
from collections.abc import Callable
from contextvars import Context
from typing import Any, NamedTuple, Protocol

_ROUNDING_S = 1e-6  # a timer never fires before its instant, in spite of the rounding between two clocks
_CALLS_MAX = 20_000  # of one process at one instant: more is a loop without end


class Timer:
    """A call at an instant."""

    __slots__ = ("args", "call")

    def __init__(self, call: Callable[..., object] | None, args: tuple[Any, ...]) -> None:
        self.call = call
        self.args = args

    def cancel(self) -> None:
        """Drop the call."""
        self.call = None

    def cancelled(self) -> bool:
        """Whether the call was dropped."""
        return self.call is None


class Note(NamedTuple):
    """A line of the transcript.

    Attributes:
        when: true time in seconds.
        who: a node, etcd, the oracle, or "fault".
        what: in words, for people.
        group: whose event it is; "" where it is the whole node's.
        event: what happened, in fixed words (moments.Moment); "" where it is of no account.
    """

    when: float
    who: str
    what: str
    group: str
    event: str

    def __str__(self) -> str:
        return f"{self.when:9.4f} {self.who:7} {self.what}"


class World:
    """True time, in seconds from 0, and the queue of calls. `notes` is the transcript."""

    def __init__(self) -> None:
        self.now = 0.0
        self.notes: list[Note] = []
        self.noted: Callable[[str], object] | None = None  # called with every event
        self._queue: list[tuple[float, int, Timer]] = []
        self._count = 0

    def at(self, when: float, call: Callable[..., object], *args: Any) -> Timer:
        """Call at an instant. Calls of one instant run in the order of their requests."""
        timer = Timer(call, args)
        self._count += 1
        heapq.heappush(self._queue, (max(when, self.now), self._count, timer))
        return timer

    def after(self, seconds: float, call: Callable[..., object], *args: Any) -> Timer:
        """Call after so many seconds."""
        return self.at(self.now + seconds, call, *args)

    def run(self, until: float) -> None:
        """Run every call up to an instant."""
        queue = self._queue
        while queue and queue[0][0] <= until:
            when, _, timer = heapq.heappop(queue)
            if timer.call is not None:
                self.now = when
                timer.call(*timer.args)
        self.now = until

    def note(self, who: str, what: str, event: str = "", group: str = "") -> None:
        """Write a line of the transcript."""
        self.notes.append(Note(self.now, who, what, group, event))
        if event and self.noted is not None:
            self.noted(event)


class NodeClock(Protocol):
    """A node's CLOCK_BOOTTIME, with its own rate."""

    def reads(self, when: float) -> float:
        """The clock's reading at an instant of true time."""

    def instant(self, reading: float) -> float:
        """The true time at which the clock shows this reading."""


class _Handle(Timer):
    """A callback of an event loop."""

    __slots__ = ("context",)

    def __init__(self, call: Callable[..., object], args: tuple[Any, ...], context: Context | None) -> None:
        super().__init__(call, args)
        self.context = context


class Process(asyncio.AbstractEventLoop):
    """One process: an event loop on a node's clock.

    `spend()` lets it lose time in the midst of a callback: whatever it does to the world later in that
    callback happens later too, see `do()`.
    """

    def __init__(self, world: World, clock: NodeClock, crashed: Callable[[str], None]) -> None:
        self.alive = True
        self.frozen = False
        self.slowness: Callable[[], float] | None = None  # what a callback costs, in seconds
        self.signals: dict[int, Callable[[], object]] = {}
        self._world = world
        self._clock = clock
        self._crashed = crashed
        self._ready: deque[_Handle] = deque()
        self._run_due = False
        self._spent = 0.0
        self._busy_until = 0.0
        self._calls: tuple[float, int] = (0.0, 0)  # at which instant, how many

    # What the world does to it

    def kill(self) -> None:
        """Kill the process: none of its callbacks runs any more."""
        self.alive = False
        self._ready.clear()

    def freeze(self) -> None:
        """Stop the process (SIGSTOP)."""
        self.frozen = True

    def thaw(self) -> None:
        """Let the process continue (SIGCONT): everything that became due meanwhile runs now."""
        self.frozen = False
        self._wake()

    def signal(self, number: int) -> None:
        """Deliver a signal. A signal without a handler kills the process."""
        handler = self.signals.get(number)
        if handler is None:
            self.kill()
        else:
            self.call_soon(handler)

    def do(self, call: Callable[..., object], *args: Any) -> None:
        """Change the world now: after the time that the running callback has spent."""
        if self._spent:
            self._world.after(self._spent, self._do, call, args)
        else:
            call(*args)

    def _do(self, call: Callable[..., object], args: tuple[Any, ...]) -> None:
        if self.alive:  # else it was killed before it came to that
            call(*args)

    def spend(self, seconds: float) -> None:
        """Let the running callback lose time."""
        self._spent += seconds

    def now(self) -> float:
        """The node's clock, as the process sees it (ports.Clock)."""
        return self._clock.reads(self._world.now + self._spent)

    def _wake(self) -> None:
        if not self._run_due and self._ready:
            self._run_due = True
            self._world.at(self._busy_until, self._run)

    def _run(self) -> None:
        ready = self._ready
        events._set_running_loop(self)
        try:
            while ready and self.alive and not self.frozen:
                handle = ready.popleft()
                call = handle.call
                if call is None:
                    continue
                if self.slowness is not None:
                    self._spent += self.slowness()
                try:
                    if handle.context is None:
                        call(*handle.args)
                    else:
                        handle.context.run(call, *handle.args)
                except Exception as e:  # a callback has no caller to tell
                    self._crashed(f"a callback raised {e!r}")
                if self._spent:
                    self._busy_until = self._world.now + self._spent
                    self._spent = 0.0
                    break
                self._count_call()
        finally:
            events._set_running_loop(None)
        self._run_due = False
        if not self.frozen:
            self._wake()

    def _count_call(self) -> None:
        instant, calls = self._calls
        self._calls = (instant, calls + 1) if instant == self._world.now else (self._world.now, 1)
        if self._calls[1] > _CALLS_MAX:
            self._crashed("a loop without end")
            self.kill()

    # asyncio.AbstractEventLoop, as far as a daemon needs it

    def time(self) -> float:
        return self.now()

    def call_soon(  # type: ignore[override]  # typeshed asks for asyncio.Handle; all that asyncio does is cancel it
        self, callback: Callable[..., object], *args: Any, context: Context | None = None
    ) -> Timer:
        handle = _Handle(callback, args, context)
        if self.alive:
            self._ready.append(handle)
            self._wake()
        return handle

    call_soon_threadsafe = call_soon  # type: ignore[assignment]  # there are no threads here

    def call_later(  # type: ignore[override]  # see call_soon
        self, delay: float, callback: Callable[..., object], *args: Any, context: Context | None = None
    ) -> Timer:
        return self.call_at(self.now() + delay, callback, *args, context=context)

    def call_at(  # type: ignore[override]  # see call_soon
        self, when: float, callback: Callable[..., object], *args: Any, context: Context | None = None
    ) -> Timer:
        handle = _Handle(callback, args, context)
        self._world.at(self._clock.instant(when) + _ROUNDING_S, self._due, handle)
        return handle

    def _due(self, handle: _Handle) -> None:
        if self.alive and handle.call is not None:
            self._ready.append(handle)
            self._wake()

    def create_future(self) -> asyncio.Future[Any]:
        return asyncio.Future(loop=self)

    def create_task(self, coro: Any, *, name: str | None = None, context: Context | None = None) -> asyncio.Task[Any]:
        task = asyncio.Task(coro, loop=self, name=name, context=context)
        task._log_destroy_pending = False  # type: ignore[attr-defined]  # a killed process leaves its tasks pending
        return task

    def add_signal_handler(  # type: ignore[override]  # see call_soon
        self, sig: int, callback: Callable[..., object], *args: Any
    ) -> None:
        self.signals[sig] = lambda: callback(*args)

    def call_exception_handler(self, context: dict[str, Any]) -> None:
        """asyncio found an exception that no code has retrieved."""
        if self.alive:
            self._crashed(f"{context.get('message')}: {context.get('exception')!r}")

    def get_debug(self) -> bool:
        return False

    def is_running(self) -> bool:
        return True

    def is_closed(self) -> bool:
        return False

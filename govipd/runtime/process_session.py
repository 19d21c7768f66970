"""The process's session in etcd: one at a time, as the present plan has it."""

from collections.abc import Callable

from govipd.runtime.parts import SessionPlan
from govipd.runtime.ports import Session
from govipd.runtime.tasks import ProcessTasks


class ProcessSession:
    """The process's session.

    Args:
        tasks: the tasks of the process.
        ended: called when an earlier session has ended, so that the next one can begin.

    Attributes:
        session: the session; None before the first group, and while an earlier session ends.
    """

    def __init__(self, tasks: ProcessTasks, ended: Callable[[], None]) -> None:
        self.session: Session | None = None
        self._plan: SessionPlan | None = None
        self._stop: Callable[[], None] = lambda: None  # ends the session's task
        self._tasks = tasks
        self._ended = ended
        self._ending = False

    def apply(self, plan: SessionPlan) -> None:
        """Apply a plan of the same identity: reach etcd as it says. The lease stays."""
        if self._plan is not None and self._plan.identity == plan.identity:
            if self.session is not None and self._plan.access != plan.access:
                self.session.reach(plan.access)
            self._plan = plan

    def as_planned(self, plan: SessionPlan, *, used: bool) -> Session | None:
        """The session of this plan. None while an earlier session is `used` by a group, and until it has ended."""
        if self.session is not None and self._plan is not None and self._plan.identity == plan.identity:
            return self.session
        if used or self._ending:
            return None
        if self.session is not None:
            ending, self.session, self._ending = self.session, None, True
            self._stop()
            self._tasks.beside(self._end(ending))
            return None
        self._plan, self.session = plan, plan.make()
        task = self._tasks.spawn("session", self.session.run())
        self._stop = lambda: self._tasks.cancel(task)
        return self.session

    async def _end(self, session: Session) -> None:
        await session.close()
        self._ending = False
        self._ended()

"""A process's client of the modelled etcd: what `adapters.etcd` is over gRPC, this is over the modelled network."""

import asyncio
from collections.abc import Callable, Sequence
from random import Random
from typing import Any

from govipd.adapters.store import Compare, Operation, Renewal, TxnResult
from govipd.errors import EtcdRefusedError, EtcdUnavailableError, LeaseNotFoundError
from tests.sim.clockwork import Process
from tests.sim.etcd import MEMBERS, Cluster, Reply
from tests.sim.network import Network


class SimStore:
    """One attempt per call, with a deadline; a call that fails moves to the next endpoint (store.Store).

    `expired_tokens`: how many of the next calls are refused, as after a change of etcd's users.
    """

    def __init__(
        self,
        *,
        process: Process,
        host: int,
        cluster: Cluster,
        network: Network,
        random: Random,
        timeout: float,
        failed: Callable[[str, str], None],
    ) -> None:
        self.expired_tokens = 0
        self._process = process
        self._host = host
        self._cluster = cluster
        self._network = network
        self._timeout = timeout
        self._failed = failed
        self._turn = random.randrange(MEMBERS)
        self._watches: list[asyncio.Future[Any]] = []  # of the present connection

    async def grant(self, ttl: int) -> tuple[int, float]:
        """See Store."""
        result: tuple[int, float] = await self._call(lambda m, reply: self._cluster.grant(m, ttl, self._host, reply))
        return result

    async def renew(self, lease: int) -> Renewal:
        """See Store."""
        result: Renewal = await self._call(lambda m, reply: self._cluster.renew(m, lease, reply))
        return result

    async def revoke(self, lease: int) -> None:
        """See Store."""
        try:
            await self._call(lambda m, reply: self._cluster.revoke(m, lease, reply))
        except LeaseNotFoundError:
            return

    async def txn(
        self, compare: Sequence[Compare], then: Sequence[Operation], otherwise: Sequence[Operation] = ()
    ) -> TxnResult:
        """See Store."""
        result: TxnResult = await self._call(lambda m, reply: self._cluster.txn(m, compare, then, otherwise, reply))
        return result

    async def changed(self, key: str, from_revision: int) -> None:
        """See Store. A half-open connection never answers."""
        answer = self._process.create_future()
        self._watches.append(answer)
        try:
            self._send(lambda m, reply: self._cluster.watch(m, key, from_revision, reply), answer)
            await answer
        finally:
            if answer in self._watches:
                self._watches.remove(answer)

    async def _call(self, ask: Callable[[int, Reply], None]) -> Any:
        if self.expired_tokens:
            self.expired_tokens -= 1
            raise EtcdRefusedError("etcdserver: invalid auth token")
        turn = self._turn
        answer = self._process.create_future()
        self._send(ask, answer)
        too_late = EtcdUnavailableError(f"member {turn % MEMBERS}: no answer within {self._timeout:g} s")
        timer = self._process.call_later(self._timeout, _settle, answer, too_late)
        try:
            return await answer
        except EtcdUnavailableError:
            self._failed(f"member {turn % MEMBERS}", "unavailable")
            if self._turn == turn:  # else a parallel call has moved on already
                self._turn += 1
                watches, self._watches = self._watches, []
                for watch in watches:
                    _settle(watch, EtcdUnavailableError("connection closed"))
            raise
        finally:
            timer.cancel()

    def _send(self, ask: Callable[[int, Reply], None], answer: asyncio.Future[Any]) -> None:
        """The request's way to the member, and the reply's way back."""
        member = self._turn % MEMBERS
        network, host, process, cluster = self._network, self._host, self._process, self._cluster

        def reply(result: object) -> None:
            network.send(member, host, process.call_soon, _settle, answer, result)

        def arrive() -> None:
            if cluster.members[member].up:
                cluster.ask(member, lambda: ask(member, reply))
            else:
                reply(EtcdUnavailableError(f"member {member}: connection refused"))

        process.do(network.send, host, member, arrive)


def _settle(answer: asyncio.Future[Any], result: object) -> None:
    if answer.done():
        return
    if isinstance(result, Exception):
        answer.set_exception(result)
    else:
        answer.set_result(result)

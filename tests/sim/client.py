"""A process's client of the modelled etcd, as `adapters.etcd.client` is the client of a real one."""

import asyncio
from collections.abc import Callable, Sequence
from random import Random
from typing import Any

from govipd.adapters.etcd.api import Compare, Delete, Operation, Put, Renewal, TxnResult
from govipd.adapters.etcd.cluster import UNKNOWN, Believed
from govipd.errors import EtcdRefusedError, EtcdUnavailableError, EtcdWriteRefusedError, LeaseNotFoundError
from tests.sim.clockwork import Process
from tests.sim.etcd import Cluster, Reply
from tests.sim.network import Network
from tests.sim.raft import MEMBERS

_ENDPOINTS = tuple(f"member {member}" for member in range(MEMBERS))
_Ask = Callable[[Cluster, int, Reply], None]


class SimStore:
    """One attempt per call, with a deadline. After a failure, the next call goes to the next endpoint (api.Store).

    Which cluster is believed is `adapters.etcd_cluster`'s, as with the real client.
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
        believed: Believed,
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
        self._believed = believed
        self._looks = False
        self._looked_at = float("-inf")

    async def grant(self, ttl: int) -> tuple[int, float]:
        """See Store."""
        result: tuple[int, float] = await self._call(lambda c, m, reply: c.grant(m, ttl, self._host, reply))
        self._believed.leased(result[1])
        return result

    async def renew(self, lease: int) -> Renewal:
        """See Store."""
        result: Renewal = await self._call(lambda c, m, reply: c.renew(m, lease, reply))
        self._believed.leased(result.ttl)
        return result

    async def revoke(self, lease: int) -> bool:
        """See Store."""

        def ask(cluster: Cluster, member: int, reply: Reply) -> None:
            if self._host in cluster.unwritable:  # etcd asks for the right to each of the lease's keys
                reply(EtcdRefusedError("etcdserver: permission denied"))
            else:
                cluster.revoke(member, lease, reply)

        try:
            await self._call(ask)
        except LeaseNotFoundError:
            return False
        return True

    async def attached(self, lease: int) -> Sequence[str]:
        """See Store."""
        result: Sequence[str] = await self._call(lambda c, m, reply: c.attached(m, lease, reply))
        return result

    async def txn(
        self, compare: Sequence[Compare], then: Sequence[Operation], otherwise: Sequence[Operation] = ()
    ) -> TxnResult:
        """See Store."""
        writes = any(isinstance(op, Put | Delete) for op in (*then, *otherwise))

        def ask(cluster: Cluster, member: int, reply: Reply) -> None:
            if writes and self._host in cluster.unwritable:
                reply(EtcdWriteRefusedError("etcdserver: permission denied"))
            else:
                cluster.txn(member, compare, then, otherwise, reply)

        result: TxnResult = await self._call(ask)
        return result

    async def close(self) -> None:
        """See Store. Does nothing: connections are not modelled beyond their calls."""

    async def wait_changed(self, key: str, from_revision: int) -> None:
        """See Store. A half-open connection never answers."""
        answer = self._process.create_future()
        self._watches.append(answer)
        try:
            self._send(lambda c, m, reply: c.watch(m, key, from_revision, reply), answer)
            await answer
        finally:
            if answer in self._watches:
                self._watches.remove(answer)

    async def _call(self, ask: _Ask) -> Any:
        if self.expired_tokens:
            self.expired_tokens -= 1
            raise EtcdRefusedError("etcdserver: invalid auth token")
        turn = self._turn
        answer = self._process.create_future()
        self._send(ask, answer)
        too_late = EtcdUnavailableError(f"{_ENDPOINTS[turn % MEMBERS]}: no answer within {self._timeout:g} s")
        timer = self._process.call_later(self._timeout, _settle, answer, too_late)
        try:
            return await answer
        except EtcdUnavailableError:
            self._failed(_ENDPOINTS[turn % MEMBERS], "unavailable")
            if self._turn == turn:  # else a parallel call has moved on already
                self._turn += 1
                watches, self._watches = self._watches, []
                for watch in watches:
                    _settle(watch, EtcdUnavailableError("connection closed"))
            raise
        finally:
            timer.cancel()

    def _send(self, ask: _Ask, answer: asyncio.Future[Any]) -> None:
        """Send the request to the member, and the reply back."""
        member = self._turn % MEMBERS
        network, host, process, cluster = self._network, self._host, self._process, self._cluster

        def reply(result: object, of: int = UNKNOWN) -> None:
            network.send(member, host, process.call_soon, self._answered, member, answer, of, result)

        def arrive() -> None:
            if not cluster.members[member].up:
                reply(EtcdUnavailableError(f"{_ENDPOINTS[member]}: connection refused"))
                return
            serving = cluster.strays.get(member, cluster)
            serving.ask(member, lambda: ask(serving, member, lambda result: reply(result, serving.space.id)))

        process.do(network.send, host, member, arrive)

    # Which cluster

    def _answered(self, member: int, answer: asyncio.Future[Any], cluster: int, result: object) -> None:
        """Believe the answer only if its cluster is believed."""
        if answer.done():
            return
        refused = self._believed.refuses(_ENDPOINTS[member], cluster, _ENDPOINTS)
        if refused and not self._looks and self._process.now() >= self._looked_at + self._timeout:
            self._looks = True
            self._process.create_task(self._look_around())
        _settle(answer, EtcdUnavailableError(refused) if refused else result)

    async def _look_around(self) -> None:
        """Ask every endpoint for the id of its cluster."""
        began = self._looked_at = self._process.now()
        answers: dict[str, int] = {}
        for member in range(MEMBERS):
            self._ask_for_cluster(member, answers)
        await asyncio.sleep(self._timeout)
        self._looks = False
        self._believed.looked(answers, _ENDPOINTS, began, self._process.now())

    def _ask_for_cluster(self, member: int, answers: dict[str, int]) -> None:
        network, host, process, cluster = self._network, self._host, self._process, self._cluster

        def arrive() -> None:
            serving = cluster.strays.get(member, cluster)
            if cluster.members[member].up:
                identity = serving.space.id
                serving.ask(
                    member,
                    lambda: network.send(
                        member, host, process.call_soon, answers.setdefault, _ENDPOINTS[member], identity
                    ),
                )

        process.do(network.send, host, member, arrive)


def _settle(answer: asyncio.Future[Any], result: object) -> None:
    if answer.done():
        return
    if isinstance(result, Exception):
        answer.set_exception(result)
    else:
        answer.set_result(result)

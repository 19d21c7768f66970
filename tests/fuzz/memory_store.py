"""An etcd in memory that holds what the fuzz tests put there; only what the transactions of govipd ask of it."""

import asyncio
from collections.abc import Sequence

from govipd.adapters.etcd.api import (
    Compare,
    Delete,
    Get,
    IfCreateRevision,
    IfOldest,
    IfValue,
    KeyValue,
    Operation,
    Put,
    Renewal,
    Store,
    TxnResult,
)
from govipd.core.events import Event


class MemoryStore(Store):
    """One revision per transaction. Nothing expires, and a watch never sees anything."""

    def __init__(self, *content: KeyValue) -> None:
        self.content = {kv.key: kv for kv in content}
        self.revision = max((kv.create_revision for kv in content), default=0) + 1

    async def grant(self, ttl: int) -> tuple[int, float]:
        return 77, float(ttl)

    async def renew(self, lease: int) -> Renewal:
        return Renewal(3.0, term=1)

    async def revoke(self, lease: int) -> bool:
        keys = [kv.key for kv in self.content.values() if kv.lease == lease]
        for key in keys:
            del self.content[key]
        return bool(keys)

    async def attached(self, lease: int) -> Sequence[str]:
        return [kv.key for kv in self.content.values() if kv.lease == lease]

    async def close(self) -> None:
        pass

    async def txn(
        self, compare: Sequence[Compare], then: Sequence[Operation], otherwise: Sequence[Operation] = ()
    ) -> TxnResult:
        succeeded = all(map(self._holds, compare))
        gets = []
        self.revision += 1
        for operation in then if succeeded else otherwise:
            match operation:
                case Get():
                    gets.append(self._get(operation))
                case Put(key, value, lease):
                    created = self.content[key].create_revision if key in self.content else self.revision
                    self.content[key] = KeyValue(key, value, created, lease)
                case Delete(key):
                    self.content.pop(key, None)
        return TxnResult(succeeded, self.revision, tuple(gets), term=1)

    def _holds(self, compare: Compare) -> bool:
        match compare:
            case IfCreateRevision(key, revision):
                return revision == (self.content[key].create_revision if key in self.content else 0)
            case IfValue(key, value):
                return key in self.content and self.content[key].value == value
            case IfOldest(prefix, revision):
                found = (kv for key, kv in self.content.items() if key.startswith(prefix))
                return all(kv.create_revision >= revision for kv in found)

    async def wait_changed(self, key: str, from_revision: int) -> None:
        await asyncio.Event().wait()

    def _get(self, get: Get) -> tuple[KeyValue, ...]:
        found = [kv for key, kv in self.content.items() if key == get.key or (get.prefix and key.startswith(get.key))]
        if get.max_create_revision:
            found = [kv for kv in found if kv.create_revision <= get.max_create_revision]
        return tuple(sorted(found, key=lambda kv: kv.key))


class Collected(list[Event]):
    """A sink that a test reads, and can wait for."""

    def __init__(self) -> None:
        super().__init__()
        self._more = asyncio.Event()

    def __call__(self, event: Event) -> None:
        self.append(event)
        self._more.set()

    async def until(self, kind: type[Event]) -> None:
        """Until there is an event of that kind."""
        while not any(isinstance(event, kind) for event in self):
            self._more.clear()
            await self._more.wait()

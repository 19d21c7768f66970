"""Passing the VIP on while it is served: from the old holder's last answer to the new one's first it is one datagram.

A resignation first closes the fence, then deletes the key; clients wait until etcd has told the next in the queue, and
has proven its place: some 10 ms. Where a healthy leader leaves, that can be done before:

1. The leader makes its fence end in `core.lease.PASS_S`, confirmed by the kernel. It does not open it again.
2. One transaction deletes its key, attaches its claims to the lease of the next in the queue, and puts a note,
   `<notes><lease>`: to whom the VIP goes, a secret, where to answer.
3. The next in the queue finds itself first, and no mark: it may take after `election.UNORDERLY_S`, when that fence has
   closed by itself. It finds the note, and says READY.
4. The leader closes its fence. When the kernel has confirmed it says CLOSED, leaves its mark, and deletes the note.
5. With CLOSED (or the mark, or when the time has passed) the next one opens its own.

Nothing here gives a right: etcd has proven who is first, and the old holder's kernel ends its answers. CLOSED only
says that the rest of the wait is not needed. It stays true, so that it may come late, or twice.
"""

import asyncio
import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from govipd.adapters.datagrams import Datagram, Endpoint, Kind, id_of, unpacked
from govipd.adapters.election.claims import Claims
from govipd.adapters.election.successors import Follower
from govipd.adapters.etcd.api import Created, Delete, KeyValue, Put, Store
from govipd.keys import GroupKeys
from govipd.runtime.ports import Postbox

READY_S = 0.02  # for the answer to READY; then the place is read anew, and READY said again
SETTLE_S = 0.01  # from CLOSED to the mark, while whoever has heard it takes the VIP


@dataclass(frozen=True, slots=True)
class Note:
    """What the old leader puts into etcd for the new one."""

    left: int  # create revision of the last key that was deleted: what the heir has seen ahead of its own
    heir: int  # of the heir's key
    id: bytes
    secret: bytes
    to: Endpoint

    def packed(self) -> bytes:
        """As JSON."""
        fields = {"left": self.left, "heir": self.heir, "id": self.id.hex(), "secret": self.secret.hex(), "to": self.to}
        return json.dumps(fields).encode()


def note_of(value: bytes) -> Note | None:
    """A member's note; None where it is none that makes sense."""
    try:
        fields = json.loads(value)
        host, port = fields["to"]
        note = Note(
            int(fields["left"]), int(fields["heir"]), bytes.fromhex(fields["id"]), bytes.fromhex(fields["secret"]),
            (str(host), int(port)),
        )  # fmt: skip
    except (ValueError, KeyError, TypeError, RecursionError):
        return None
    return note if len(note.id) == 8 and note.secret and 0 < note.to[1] < 65536 else None


class Leaver:
    """The old leader's side.

    Args:
        store: the etcd client.
        postbox: where READY comes.
        keys: where the group's keys stand.
        token: secret bytes, that many.
    """

    def __init__(
        self,
        *,
        store: Store,
        postbox: Postbox,
        keys: GroupKeys,
        token: Callable[[int], bytes],
    ) -> None:
        self._store = store
        self._postbox = postbox
        self._keys = keys
        self._token = token
        self._note: Note | None = None
        self._passed = False  # etcd has confirmed it
        self._ready: Endpoint | None = None  # where READY came from
        self._closed = False
        self._over = asyncio.Event()  # there is nothing to wait for any more

    async def pass_on(self, keys: Sequence[KeyValue], heir: Follower, claims: Claims) -> None:
        """Make the heir's key the first, with our claims; return when the heir is ready, or after closed().

        Args:
            keys: what to delete: ours, then those between it and the heir's.
            heir: who is to be the first.
            claims: ours. Without a gap they are the heir's, if it wants them: our kernel answers on for a moment.
                Those that it does not want stay ours, until we have left.

        Raises:
            EtcdError: nobody knows whether it has happened, or will.
        """
        to = self._postbox.open(self._received)
        if to is None:
            return
        self._over.clear()
        self._closed = False
        lease, held = keys[0].lease, tuple(claims.held)
        moved = [address for address in held if heir.wants(address)]
        note = Note(keys[-1].create_revision, heir.key.create_revision, self._token(8), self._token(16), to)
        self._note = note
        reply = await self._store.txn(
            [*(Created(kv.key, kv.create_revision) for kv in (*keys, heir.key)), *claims.unchanged(held)],
            [
                *map(Delete, (*(kv.key for kv in keys), *self._keys.pact(lease))),
                *claims.puts(moved, heir.key.lease, heir.name),
                Put(self._keys.note(lease), note.packed(), lease),
            ],
        )
        self._passed = reply.succeeded
        if reply.succeeded:
            claims.held = {address: value for address, value in claims.held.items() if address not in moved}
            await self._over.wait()

    def closed(self) -> None:
        """Our kernel does not answer any more, and will not under this key."""
        self._closed = True
        self._over.set()
        self._answer()

    async def finish(self, lease: int) -> bool:
        """After closed(): leave the mark. False where our key was not passed on, as far as is known.

        Raises:
            EtcdError: not confirmed; may be repeated.
        """
        if self._note is not None and self._passed:
            if self._ready is not None:
                await asyncio.sleep(SETTLE_S)
            left = str(self._note.left).encode()
            await self._store.txn((), (Put(self._keys.mark, left, 0), Delete(self._keys.note(lease))))
        passed = self._passed
        self.forget()
        return passed

    def forget(self) -> None:
        """It is over, and whoever still asks gets no answer."""
        self._note, self._ready = None, None
        self._passed = self._closed = False
        self._over.set()
        self._postbox.close()

    def _received(self, data: bytes, source: Endpoint) -> None:
        if self._note is None or id_of(data) != self._note.id:
            return
        datagram = unpacked(data, self._note.secret)
        if datagram is not None and datagram.kind is Kind.READY:
            self._ready = source
            self._over.set()
            self._answer()

    def _answer(self) -> None:
        if self._closed and self._ready is not None and self._note is not None:
            self._postbox.send(Datagram(Kind.CLOSED, self._note.id).packed(self._note.secret), self._ready)


class Heir:
    """The new leader's side.

    Args:
        postbox: where CLOSED comes.
    """

    def __init__(self, postbox: Postbox) -> None:
        self._postbox = postbox
        self._note: Note | None = None
        self._closed: Callable[[], None] = lambda: None
        self._over = asyncio.Event()

    @staticmethod
    def note(noted: Iterable[KeyValue], left: int | None, own: int) -> Note | None:
        """The note of whoever has passed the VIP on to us; None where nobody has.

        Args:
            noted: the notes of all members.
            left: create revision of the last key that we saw ahead of ours.
            own: of our key.
        """
        notes = (note_of(kv.value) for kv in noted)
        return next((note for note in notes if note is not None and (note.left, note.heir) == (left, own)), None)

    async def wait(self, note: Note, closed: Callable[[], None]) -> None:
        """Say READY, and wait for a moment: for the answer, at which `closed` is called, or for forget()."""
        self._note, self._closed = note, closed
        self._over.clear()
        if self._postbox.open(self._received) is not None:
            self._postbox.send(Datagram(Kind.READY, note.id).packed(note.secret), note.to)
        try:
            async with asyncio.timeout(READY_S):
                await self._over.wait()
        except TimeoutError:
            pass  # lost, or blocked; or the other one is slow
        finally:
            self.forget()

    def forget(self) -> None:
        """Nothing is waited for any more."""
        self._note = None
        self._over.set()
        self._postbox.close()

    def _received(self, data: bytes, _source: Endpoint) -> None:
        if self._note is None or id_of(data) != self._note.id:
            return
        datagram = unpacked(data, self._note.secret)
        if datagram is not None and datagram.kind is Kind.CLOSED:
            self.forget()
            self._closed()

"""Looks up the addresses of endpoints that are given by name, independent of any call's deadline.

A resolver whose first name server is dead answers after 5 s or more (resolv.conf(5), `timeout`), but a call to etcd has
half a second. So a lookup continues when the call that began it gives up, and the addresses are kept. The next
connection uses the kept addresses at once, while another lookup runs. A lookup that fails keeps the known addresses.
"""

import asyncio
import socket
import threading
from collections.abc import Callable, Sequence
from contextlib import suppress

from govipd.errors import EtcdUnavailableError


def lookup(host: str, port: int) -> Sequence[str]:
    """Ask the system's resolver; blocks for as long as that takes.

    Raises:
        OSError: no address.
    """
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_ADDRCONFIG)
    return [str(address[0]) for *_, address in found]


class Names:
    """The known addresses of each name. For each name, only one lookup runs at a time."""

    def __init__(self, resolve: Callable[[str, int], Sequence[str]] = lookup) -> None:
        self._resolve = resolve
        self._known: dict[tuple[str, int], tuple[str, ...]] = {}
        self._lookups: dict[tuple[str, int], asyncio.Future[Sequence[str]]] = {}

    async def addresses(self, host: str, port: int) -> Sequence[str]:
        """The last known addresses of a name, the working one first. Waits for a lookup only if none is known.

        Raises:
            EtcdUnavailableError: the name has no address.
        """
        name = (host, port)
        looking = self._lookups.get(name) or self._begin(name)
        if name not in self._known:
            try:
                await asyncio.shield(looking)
            except OSError as e:
                raise EtcdUnavailableError(f"{host}: no address for this name: {e}") from e
        return self._known[name]

    def failed(self, host: str, port: int, address: str) -> None:
        """Note that no useful answer came from this address: the name's other addresses are tried first."""
        known = self._known.get((host, port), ())
        if address in known:
            self._known[host, port] = (*(a for a in known if a != address), address)

    def _begin(self, name: tuple[str, int]) -> asyncio.Future[Sequence[str]]:
        """Look a name up in a thread of its own, which delays neither the event loop nor the process's end."""
        loop = asyncio.get_running_loop()
        looking: asyncio.Future[Sequence[str]] = loop.create_future()

        def work() -> None:
            found: Sequence[str] | OSError
            try:
                found = self._resolve(*name)
            except (OSError, UnicodeError) as e:  # the latter: a label that is too long (encodings.idna)
                found = e if isinstance(e, OSError) else OSError(str(e))
            with suppress(RuntimeError):  # the loop has ended meanwhile
                loop.call_soon_threadsafe(self._end, name, looking, found)

        self._lookups[name] = looking
        threading.Thread(target=work, name=f"lookup {name[0]}", daemon=True).start()
        return looking

    def _end(
        self, name: tuple[str, int], looking: asyncio.Future[Sequence[str]], found: Sequence[str] | OSError
    ) -> None:
        del self._lookups[name]
        if isinstance(found, OSError):
            looking.set_exception(found)
            looking.exception()  # its waiter may be gone
            return
        known = self._known.get(name, ())
        kept = [address for address in known if address in found]  # working addresses first
        self._known[name] = tuple(dict.fromkeys([*kept, *found]))
        looking.set_result(found)

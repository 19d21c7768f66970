"""The kernel's events about links and addresses, over rtnetlink(7)."""

import asyncio
import os
import socket
from collections.abc import AsyncIterator
from ipaddress import ip_address
from typing import Any, Self

from govipd.adapters.kernel.rtnetlink import (
    ANSWER_MAX,
    DELADDR,
    DELLINK,
    IFA_ADDRESS,
    IFA_LOCAL,
    IFADDR,
    IFINFO,
    IFLA_IFNAME,
    NEWADDR,
    NEWLINK,
    attributes,
    messages,
    open_socket,
)

GROUPS = 0x1 | 0x10 | 0x100  # RTMGRP_LINK, RTMGRP_IPV4_IFADDR, RTMGRP_IPV6_IFADDR
_CHANGES = {NEWLINK: "RTM_NEWLINK", DELLINK: "RTM_DELLINK", NEWADDR: "RTM_NEWADDR", DELADDR: "RTM_DELADDR"}
_IFA_NAMES = {IFA_ADDRESS: "IFA_ADDRESS", IFA_LOCAL: "IFA_LOCAL"}


class Change(dict[str, Any]):
    """One event: a link or an address was added, removed or changed.

    The keys are "event" (the message's name in rtnetlink(7)), "index" of the interface, "prefixlen" of an address, and
    the attributes that get_attr() names, where the kernel gave them.
    """

    def get_attr(self, name: str) -> Any:
        """IFLA_IFNAME, IFA_LOCAL or IFA_ADDRESS."""
        return self.get(name)


class RouteEvents:
    """A socket for the kernel's events. After an error (ENOBUFS: events were lost) the caller opens a new one."""

    async def __aenter__(self) -> Self:
        """Open the socket."""
        self._socket = open_socket(socket.SOCK_NONBLOCK)
        return self

    async def __aexit__(self, *_: object) -> None:
        """Close the socket."""
        self._socket.close()

    async def bind(self, groups: int) -> None:
        """Receive the events of these groups (RTMGRP_...) from now on."""
        self._socket.bind((0, groups))

    async def get(self) -> AsyncIterator[Change]:
        """Wait for the next events.

        Raises:
            OSError: events were lost, or could not be read.
        """
        for kind, _, _, body in messages(await asyncio.get_running_loop().sock_recv(self._socket, ANSWER_MAX)):
            if kind in (NEWLINK, DELLINK) and len(body) >= IFINFO.size:
                name = dict(attributes(body[IFINFO.size :])).get(IFLA_IFNAME, b"").rstrip(b"\0")
                yield Change(event=_CHANGES[kind], index=IFINFO.unpack_from(body)[2], IFLA_IFNAME=os.fsdecode(name))
            if kind in (NEWADDR, DELADDR) and len(body) >= IFADDR.size:
                yield _address_change(kind, body)


def _address_change(kind: int, body: bytes) -> Change:
    _, prefix, _, _, index = IFADDR.unpack_from(body)
    change = Change(event=_CHANGES[kind], index=index, prefixlen=prefix)
    for number, packed in attributes(body[IFADDR.size :]):
        if number in _IFA_NAMES and len(packed) in (4, 16):
            change[_IFA_NAMES[number]] = ip_address(packed)
    return change

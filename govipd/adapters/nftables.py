"""Transactions with nf_tables (linux/netfilter/nf_tables.h), and the few messages that a fence is made of."""

import errno
import os
import socket
import struct
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from govipd.adapters.pyroute import (
    NFNL_SUBSYS_NFTABLES,
    NLM_F_ACK,
    NLM_F_APPEND,
    NLM_F_CREATE,
    NLM_F_EXCL,
    NLM_F_REQUEST,
    NLMSG_ERROR,
    nfgen_msg,
    nftsocket,
)
from govipd.errors import KernelError

Message = bytes  # encoded; costs a millisecond per rule, so a message is made once and sent many times
Expression = dict[str, Any]

_NETLINK_NETFILTER = 12
_SOL_NETLINK = 270
_NETLINK_CAP_ACK = 10  # errors come without a copy of the request
# What the kernel answers where nfnetlink, or its nf_tables part, neither is built in nor can be loaded.
_NOT_THERE = frozenset({errno.EPROTONOSUPPORT, errno.EAFNOSUPPORT, errno.EOPNOTSUPP})
_BATCH_BEGIN = 0x10  # linux/netfilter/nfnetlink.h
_BATCH_END = 0x11
# Eight bytes that nothing else in a message is: for the time-out, which is filled in when the message is sent.
UNTIMED = bytes.fromhex("fedcba9876543211")
_KEY_TYPES = {4: 7, 16: 8}  # what nft(8) calls ipv4_addr and ipv6_addr, by length

NFPROTO_INET = 1  # linux/netfilter.h
NFPROTO_ARP = 3
HOOKS = {"input": (1, 0), "output": (3, 1)}  # hook numbers: of inet, of arp (linux/netfilter_arp.h)


class NfTables:
    """A socket for transactions, opened when first needed. It stays open: closing it takes the kernel 10 ms."""

    def __init__(self, protocol: int = _NETLINK_NETFILTER) -> None:
        self._protocol = protocol
        self._begin, self._end = _frame(_BATCH_BEGIN), _frame(_BATCH_END)
        self._socket: socket.socket | None = None

    def table(self, family: int, name: str) -> "Table":
        """Makes the messages about a table, whether it exists or not."""
        return Table(family, name)

    def missing(self) -> bool:
        """Whether this kernel has no nf_tables. Any other trouble, such as missing rights, is not that."""
        try:
            self.commit(())
        except KernelError as error:
            return error.number in _NOT_THERE
        finally:
            self.close()
        return False

    def commit(self, messages: Iterable[Message]) -> None:
        """Apply all of the messages, or none.

        Netlink to the kernel is a function call: when send() returns, the transaction has been committed or
        refused, and the answers are waiting. So this waits for nothing but other users of nf_tables, and calls
        take effect in their order. It counts as applied only if each message was acknowledged and the batch was
        not refused as a whole (which is told under the number of its begin, beside the acknowledgements).

        Raises:
            KernelError: refused (EBUSY, EEXIST, ENOENT: see the messages), or not confirmed.
        """
        batch = [self._begin, *messages, self._end]
        try:
            netlink = self._socket = self._socket or _open(self._protocol)
            netlink.send(b"".join(_numbered(message, number) for number, message in enumerate(batch)))
            answers = dict(_answers(netlink))
        except OSError as error:
            self.close()
            raise KernelError(f"nf_tables: {error.strerror}", error.errno) from error
        for code in answers.values():
            if code:
                raise KernelError(f"nf_tables: {os.strerror(code)}", code)
        if not answers.keys() >= set(range(1, len(batch) - 1)):
            self.close()
            raise KernelError("nf_tables: the kernel did not acknowledge the transaction")

    def close(self) -> None:
        """Close the socket; the next transaction opens another."""
        if self._socket is not None:
            self._socket.close()
            self._socket = None


def _open(protocol: int) -> socket.socket:
    netlink = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, protocol)
    netlink.setsockopt(_SOL_NETLINK, _NETLINK_CAP_ACK, 1)
    return netlink


def _numbered(message: Message, number: int) -> Message:
    """Set nlmsg_seq (struct nlmsghdr, linux/netlink.h)."""
    return message[:8] + struct.pack("=L", number) + message[12:]


def _frame(kind: int) -> Message:
    message = nfgen_msg()
    message["res_id"] = NFNL_SUBSYS_NFTABLES
    message["header"]["type"] = kind
    message["header"]["flags"] = NLM_F_REQUEST
    message.encode()
    return bytes(message.data)


def _answers(netlink: socket.socket) -> Iterator[tuple[int, int]]:
    """Number and errno (0: acknowledged) of each answer that is waiting."""
    while True:
        try:
            data = netlink.recv(1 << 16, socket.MSG_DONTWAIT)
        except BlockingIOError:
            return
        while data:
            try:
                length, kind, _, number, _ = struct.unpack_from("=LHHLL", data)
                code = -struct.unpack_from("=l", data, 16)[0] if kind == NLMSG_ERROR else 0
            except struct.error as error:
                raise OSError(errno.EBADMSG, "a truncated answer") from error
            if length < 16 or not 0 <= code <= 4095:  # a header's length; MAX_ERRNO, linux/err.h
                raise OSError(errno.EBADMSG, "an answer that is none")
            if kind == NLMSG_ERROR:
                yield number, code
            data = data[(length + 3) & ~3 :]


@dataclass(frozen=True, slots=True)
class Table:
    """Makes the messages about one table. Adding what exists changes nothing, unless said otherwise."""

    family: int
    name: str

    def add(self, *, new: bool = False) -> Message:
        """Add the table. `new`: refused if there is one (EEXIST)."""
        flags = NLM_F_CREATE | (NLM_F_EXCL if new else 0)
        return self._message(nftsocket.nft_table_msg, nftsocket.NFT_MSG_NEWTABLE, flags, NAME=self.name)

    def delete(self) -> Message:
        """Delete the table and all in it. Refused if there is none."""
        return self._message(nftsocket.nft_table_msg, nftsocket.NFT_MSG_DELTABLE, NAME=self.name)

    def add_chain(self, hook: str, priority: int) -> Message:
        """Add a base chain named like its hook; packets that no rule drops go on."""
        number = HOOKS[hook][self.family == NFPROTO_ARP]
        place = {"attrs": [("NFTA_HOOK_HOOKNUM", number), ("NFTA_HOOK_PRIORITY", priority)]}
        return self._message(
            nftsocket.nft_chain_msg,
            nftsocket.NFT_MSG_NEWCHAIN,
            NLM_F_CREATE,
            TABLE=self.name,
            NAME=hook,
            HOOK=place,
            TYPE="filter",
        )

    def flush_chain(self, hook: str) -> Message:
        """Delete every rule of the chain."""
        return self._message(nftsocket.nft_rule_msg, nftsocket.NFT_MSG_DELRULE, TABLE=self.name, CHAIN=hook)

    def add_rule(self, hook: str, expressions: Sequence[Expression]) -> Message:
        """Append a rule to the chain."""
        return self._message(
            nftsocket.nft_rule_msg,
            nftsocket.NFT_MSG_NEWRULE,
            NLM_F_CREATE | NLM_F_APPEND,
            TABLE=self.name,
            CHAIN=hook,
            EXPRESSIONS=list(expressions),
        )

    def add_set(self, name: str, key_length: int) -> Message:
        """Add a set of addresses whose elements time out."""
        return self._message(
            nftsocket.nft_set_msg,
            nftsocket.NFT_MSG_NEWSET,
            NLM_F_CREATE,
            TABLE=self.name,
            NAME=name,
            FLAGS={"NFT_SET_TIMEOUT"},
            KEY_TYPE=_KEY_TYPES[key_length],
            KEY_LEN=key_length,
            ID=key_length,
        )

    def delete_set(self, name: str) -> Message:
        """Delete a set and all in it. Refused if there is none (ENOENT), or a rule looks at it (EBUSY)."""
        return self._message(nftsocket.nft_set_msg, nftsocket.NFT_MSG_DELSET, TABLE=self.name, NAME=name)

    def add_element(self, name: str, key: bytes) -> Message:
        """Add an element, for as long as timing() fills in. Before Linux 6.12, one that exists keeps its time-out."""
        return self._element(nftsocket.NFT_MSG_NEWSETELEM, NLM_F_CREATE, name, key, int.from_bytes(UNTIMED))

    def delete_element(self, name: str, key: bytes) -> Message:
        """Delete an element. Refused if there is none."""
        return self._element(nftsocket.NFT_MSG_DELSETELEM, 0, name, key)

    def _element(self, kind: int, flags: int, name: str, key: bytes, timeout_ms: int | None = None) -> Message:
        element: list[tuple[str, Any]] = [("NFTA_SET_ELEM_KEY", {"attrs": [("NFTA_DATA_VALUE", key)]})]
        if timeout_ms is not None:
            element.append(("NFTA_SET_ELEM_TIMEOUT", timeout_ms))
        return self._message(
            nftsocket.nft_set_elem_list_msg, kind, flags, TABLE=self.name, SET=name, ELEMENTS=[{"attrs": element}]
        )

    def _message(self, make: Any, kind: int, flags: int = 0, **attributes: Any) -> Message:
        message = make()
        message["nfgen_family"] = self.family
        message["header"]["type"] = NFNL_SUBSYS_NFTABLES << 8 | kind
        message["header"]["flags"] = NLM_F_REQUEST | NLM_F_ACK | flags
        message["attrs"] = [(make.name2nla(name.lower()), value) for name, value in attributes.items()]
        message.encode()
        return bytes(message.data)


def load_network(offset: int, length: int) -> Expression:
    """Load bytes of the network header (of the ARP header in an arp table)."""
    return _expression("payload", DREG=1, BASE=1, OFFSET=offset, LEN=length)


def load_transport(offset: int, length: int) -> Expression:
    """Load bytes of the transport header."""
    return _expression("payload", DREG=1, BASE=2, OFFSET=offset, LEN=length)


def load_nfproto() -> Expression:
    """Load the packet's family (one byte: 2 IPv4, 10 IPv6)."""
    return _expression("meta", KEY=15, DREG=1)


def load_l4proto() -> Expression:
    """Load the transport protocol's number (one byte)."""
    return _expression("meta", KEY=16, DREG=1)


def equal(value: bytes) -> Expression:
    """Go on if what was loaded last equals `value`."""
    return _expression("cmp", SREG=1, OP=0, DATA={"attrs": [("NFTA_DATA_VALUE", value)]})


def not_in(name: str) -> Expression:
    """Go on if what was loaded last is not an element of the set."""
    return _expression("lookup", SET=name, SREG=1, FLAGS={"NFT_LOOKUP_F_INV"})


def timing(message: Message, timeout_ms: int) -> Message:
    """The message, with the time-out where it adds an element."""
    return message.replace(UNTIMED, struct.pack(">Q", timeout_ms))


def drop() -> Expression:
    """Drop the packet."""
    verdict = {"attrs": [("NFTA_DATA_VERDICT", {"attrs": [("NFTA_VERDICT_CODE", 0)]})]}
    return _expression("immediate", DREG=0, DATA=verdict)


def _expression(name: str, **attributes: Any) -> Expression:
    data = [(f"NFTA_{name.upper()}_{attribute}", value) for attribute, value in attributes.items()]
    return {"attrs": [("NFTA_EXPR_NAME", name), ("NFTA_EXPR_DATA", {"attrs": data})]}

"""Encodes the nf_tables messages for tables, chains, rules, sets and elements (linux/netfilter/nf_tables.h)."""

import struct
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from govipd.adapters.kernel.nft_expressions import Expression, attribute, nested
from govipd.adapters.kernel.pyroute import (
    NFNL_SUBSYS_NFTABLES,
    NLM_F_APPEND,
    NLM_F_CREATE,
    NLM_F_EXCL,
    NLM_F_REQUEST,
    nftsocket,
)

Message = bytes  # encoded: one message, or several in a row

# Placeholder for the time-out; timing() replaces it. Must not occur elsewhere in a message.
UNTIMED = bytes.fromhex("fedcba9876543211")
# NFTA_SET_ELEM_LIST_SET and _ELEMENTS, NFTA_LIST_ELEM, NFTA_SET_ELEM_KEY and _TIMEOUT, NFTA_DATA_VALUE
_LIST_SET, _LIST_ELEMENTS, _LIST_ELEMENT, _ELEMENT_KEY, _ELEMENT_TIMEOUT, _DATA_VALUE = 2, 3, 1, 1, 4, 1
_KEY_TYPES = {4: 7, 6: 9, 16: 8}  # what nft(8) calls ipv4_addr, ether_addr and ipv6_addr, by length

# NFT_TABLE_F_OWNER (5.12) and NFT_TABLE_F_PERSIST (6.9): while the socket that added the table is open, no other
# program can change the table, nor does `nft flush ruleset`. After the socket is closed, the table stays, and the next
# process owns it.
OWNED = 0x2 | 0x4
NFPROTO_INET = 1  # linux/netfilter.h
NFPROTO_ARP = 3
# Hook numbers: of inet, of arp (linux/netfilter_arp.h).
HOOKS = {"prerouting": (0, 0), "input": (1, 0), "output": (3, 1), "postrouting": (4, 0)}


def kind_of(message: int) -> int:
    """nlmsg_type of one of nf_tables' messages."""
    return int(NFNL_SUBSYS_NFTABLES) << 8 | message


@dataclass(frozen=True, slots=True)
class Table:
    """Makes the messages about one table. Adding a part that exists changes nothing, unless said otherwise."""

    family: int
    name: str
    flags: int = 0  # of the table (NFT_TABLE_F_...)

    def add(self, *, new: bool = False) -> Message:
        """Add the table. `new`: refused (EEXIST) if the table exists."""
        how = NLM_F_CREATE | (NLM_F_EXCL if new else 0)
        return self._encoded(nftsocket.NFT_MSG_NEWTABLE, how, attribute(2, struct.pack(">L", self.flags)))

    def delete(self) -> Message:
        """Delete the table and all its parts. Refused if the table does not exist."""
        return self._message(nftsocket.nft_table_msg, nftsocket.NFT_MSG_DELTABLE, NAME=self.name)

    def add_chain(self, hook: str, priority: int) -> Message:
        """Add a base chain with the name of its hook. Its policy is accept."""
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
        rule = nested(4, [expression.encoded for expression in expressions])
        return self._encoded(
            nftsocket.NFT_MSG_NEWRULE, NLM_F_CREATE | NLM_F_APPEND, attribute(2, hook.encode() + b"\0") + rule
        )

    def add_set(self, name: str, key_length: int, *, times_out: bool) -> Message:
        """Add a set of addresses, whose elements time out or do not."""
        return self._message(
            nftsocket.nft_set_msg,
            nftsocket.NFT_MSG_NEWSET,
            NLM_F_CREATE,
            TABLE=self.name,
            NAME=name,
            FLAGS={"NFT_SET_TIMEOUT"} if times_out else set(),
            KEY_TYPE=_KEY_TYPES[key_length],
            KEY_LEN=key_length,
            ID=key_length,
        )

    def add_element(self, name: str, key: bytes, *, times_out: bool) -> Message:
        """Add an element; timing() fills in its time-out. Before Linux 6.12, an existing one keeps its time-out."""
        timeout = int.from_bytes(UNTIMED) if times_out else None
        return self._element(nftsocket.NFT_MSG_NEWSETELEM, NLM_F_CREATE, name, key, timeout)

    def delete_element(self, name: str, key: bytes) -> Message:
        """Delete an element. Refused if the element does not exist."""
        return self._element(nftsocket.NFT_MSG_DELSETELEM, 0, name, key)

    def _element(self, kind: int, flags: int, name: str, key: bytes, timeout_ms: int | None = None) -> Message:
        timeout = attribute(_ELEMENT_TIMEOUT, struct.pack(">Q", timeout_ms)) if timeout_ms is not None else b""
        element = nested(_ELEMENT_KEY, [attribute(_DATA_VALUE, key)]) + timeout
        elements = nested(_LIST_ELEMENTS, [nested(_LIST_ELEMENT, [element])])
        return self._encoded(kind, flags, attribute(_LIST_SET, name.encode() + b"\0") + elements)

    def _encoded(self, kind: int, flags: int, attributes: bytes) -> Message:
        """A message whose attributes after the table's name are encoded already."""
        data = struct.pack("=BBH", self.family, 0, 0) + attribute(1, self.name.encode() + b"\0") + attributes
        return struct.pack("=LHHLL", 16 + len(data), kind_of(kind), NLM_F_REQUEST | flags, 0, 0) + data

    def _message(self, make: Any, kind: int, flags: int = 0, **attributes: Any) -> Message:
        """A message that pyroute2 encodes, which takes up to a millisecond: for what a process encodes once."""
        message = make()
        message["nfgen_family"] = self.family
        message["header"]["type"] = kind_of(kind)
        message["header"]["flags"] = NLM_F_REQUEST | flags
        message["attrs"] = [(make.name2nla(name.lower()), value) for name, value in attributes.items()]
        message.encode()
        return bytes(message.data)


def timing(message: Message, timeout_ms: int) -> Message:
    """The message with this time-out, if it adds an element that times out."""
    return message.replace(UNTIMED, struct.pack(">Q", timeout_ms))

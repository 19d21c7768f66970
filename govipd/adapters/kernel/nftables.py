"""Transactions with nf_tables (linux/netfilter/nf_tables.h), and the few messages that a fence is made of."""

import errno
import os
import socket
import struct
import time
from collections.abc import Iterable, Iterator, Sequence

from govipd.adapters.kernel.nft_expressions import attribute, attributes
from govipd.adapters.kernel.nft_table import NFPROTO_ARP, NFPROTO_INET, OWNED, Message, Table, kind_of
from govipd.adapters.kernel.pyroute import NFNL_SUBSYS_NFTABLES, NLM_F_ACK, NLM_F_REQUEST, NLMSG_ERROR, nftsocket
from govipd.errors import KernelError

_NETLINK_NETFILTER = 12
_SOL_NETLINK = 270
_NETLINK_CAP_ACK = 10  # errors come without a copy of the request
_SO_SNDBUFFORCE, _SO_RCVBUFFORCE = 32, 33  # asm-generic/socket.h
BUFFER = 1 << 20  # bytes: a refused batch gets an answer for each of its messages
# The kernel's errors where nfnetlink, or its nf_tables part, is not built in and cannot be loaded.
_NOT_THERE = frozenset({errno.EPROTONOSUPPORT, errno.EAFNOSUPPORT, errno.EOPNOTSUPP})
_BATCH_BEGIN = 0x10  # linux/netfilter/nfnetlink.h
_BATCH_END = 0x11
_NLMSG_DONE = 3
_NLM_F_DUMP = 0x300
_NLM_F_DUMP_INTR = 0x10
_LAST = 1  # nlmsg_seq of a batch's last message; all others have 0
_TRIES = 3  # for requests that another program's transaction interrupts


class NfTables:
    """A socket for transactions, opened when first needed. It stays open: closing it takes the kernel 10 ms.

    The object notices whether another program has changed any table since its own last transaction: nf_tables counts
    transactions (NFTA_GEN_ID), and refuses a batch that names another number than the current one. The fences of one
    process share the object, or each would take the others' transactions for another program's. `owns`: other programs
    cannot change the tables, where the kernel supports that (docs/adr/0024).

    Attributes:
        epoch: increases when another program has changed tables, or may have. Until then, all that was stated holds.
        commits: transactions that the kernel has confirmed.
        longest_s: seconds that the longest transaction took, waiting for other programs' transactions included.
    """

    def __init__(self, protocol: int = _NETLINK_NETFILTER, *, owns: bool = True) -> None:
        self.epoch = 0
        self.commits = 0
        self.longest_s = 0.0
        self._protocol = protocol
        self._flags = None if owns else 0  # for new tables; None: not known yet
        self._end = _frame(_BATCH_END)
        self._socket: socket.socket | None = None
        self._generation: int | None = None  # after this object's last transaction

    def table(self, family: int, name: str) -> "Table":
        """Return the Table that makes the messages about this table. The table need not exist."""
        if self._flags is None:
            refused = self.would_refuse((Table(family, "govipd_trial", OWNED).add(),))
            self._flags = 0 if refused else OWNED
        return Table(family, name, self._flags)

    def missing(self) -> bool:
        """Whether this kernel has no nf_tables. False for any other problem, such as missing rights."""
        try:
            self._send((), None)
        except KernelError as error:
            return error.number in _NOT_THERE
        finally:
            self.close()
        return False

    def would_refuse(self, messages: Iterable[Message]) -> KernelError | None:
        """The error with which the kernel would refuse the messages; None: it would accept them. Applies nothing."""
        messages = (*messages, Table(NFPROTO_INET, "govipd_no_such_table").delete())
        try:
            self._send(messages, None, last_refused=True)
        except KernelError as error:
            return error
        return None

    def commit(self, messages: Iterable[Message], *, undisturbed: bool = False) -> None:
        """Apply all of the messages, or none.

        Netlink to the kernel is a function call: when send() returns, the kernel has committed or refused the
        transaction, and the answers can be read. So commit() waits only for other users of nf_tables, and
        transactions take effect in the order of the calls.

        Args:
            messages: at least one of them changes something.
            undisturbed: refuse (ERESTART) if another program has changed a table since the last transaction.

        Raises:
            KernelError: refused (EBUSY, EEXIST, ENOENT: see the messages), or not confirmed.
        """
        messages = tuple(filter(None, messages))
        for _ in range(1 if undisturbed else _TRIES):
            generation = self._generation
            if generation is None and not undisturbed:
                generation = self._current()
            if generation is None:
                raise KernelError("nf_tables: what others have done since is not known", errno.ERESTART)
            try:
                self._counted(messages, generation)
            except KernelError as error:
                if error.number != errno.ERESTART:
                    raise
                self._disturbed()
                if undisturbed:
                    raise
            else:
                self._generation = (generation + 1) % (1 << 32) or 1
                return
        self._counted(messages, None)
        self._disturbed()

    def _counted(self, messages: Sequence[Message], generation: int | None) -> None:
        began = time.monotonic()
        try:
            self._send(messages, generation)
        finally:
            self.longest_s = max(self.longest_s, time.monotonic() - began)
        self.commits += 1

    def _disturbed(self) -> None:
        self._generation = None
        self.epoch += 1

    def _send(self, messages: Sequence[Message], generation: int | None, *, last_refused: bool = False) -> None:
        """Send a batch. It counts as applied if the last message was acknowledged, and no message was refused.

        The kernel answers each refused message, and the last one in any case. That one has a number of its own. An
        error of the whole batch has the number of all others. `last_refused`: the last message is there to be refused.
        """
        if messages:
            messages = (*messages[:-1], _last_asks_for_answer(messages[-1]))
        try:
            netlink = self._open()
            netlink.send(b"".join((_frame(_BATCH_BEGIN, generation), *messages, self._end)))
            answers = _answers(netlink)
        except OSError as error:
            self.close()
            raise KernelError(f"nf_tables: {error.strerror}", error.errno) from error
        answered = not messages or _LAST in answers
        if last_refused:
            answers.pop(_LAST, None)
        for code in answers.values():
            if code:
                raise KernelError(f"nf_tables: {os.strerror(code)}", code)
        if not answered:
            self.close()
            raise KernelError("nf_tables: the kernel did not acknowledge the transaction")

    def _current(self) -> int | None:
        """The number of any program's last transaction (NFTA_GEN_ID); None where the kernel does not say."""
        request = struct.pack("=LHHLLBBH", 20, kind_of(nftsocket.NFT_MSG_GETGEN), 1, 0, 0, 0, 0, 0)
        try:
            answers = self._asked(request)
        except InterruptedError:
            return None
        for message in answers:
            for kind, value in attributes(message):
                if kind == 1 and len(value) == 4:  # NFTA_GEN_ID
                    return int.from_bytes(value)
        return None

    def tables(self, prefix: str, families: Iterable[int] = (NFPROTO_INET, NFPROTO_ARP)) -> set[str]:
        """The tables' names that begin with `prefix`.

        Raises:
            KernelError: the kernel did not answer.
        """
        found = set()
        for family in families:
            for message in self._dumped(nftsocket.NFT_MSG_GETTABLE, family):
                found |= {name.rstrip(b"\0").decode(errors="replace") for name in _inside([message], 1)}
        return {name for name in found if name.startswith(prefix)}

    def elements(self, family: int, table: str, name: str) -> frozenset[bytes]:
        """The keys of a set's elements; empty where the table or the set does not exist.

        Raises:
            KernelError: the kernel did not answer.
        """
        asked = attribute(1, table.encode() + b"\0") + attribute(2, name.encode() + b"\0")
        try:
            messages = self._dumped(nftsocket.NFT_MSG_GETSETELEM, family, asked)
        except KernelError as error:
            if error.number == errno.ENOENT:
                return frozenset()
            raise
        keys = set()
        for message in messages:
            for element in _inside(_inside([message], 3), 1):  # NFTA_SET_ELEM_LIST_ELEMENTS, NFTA_LIST_ELEM
                keys.update(_inside(_inside([element], 1), 1))  # NFTA_SET_ELEM_KEY, NFTA_DATA_VALUE
        return frozenset(keys)

    def _dumped(self, what: int, family: int, asked: bytes = b"") -> list[bytes]:
        header = struct.pack("=LHHLLBBH", 20 + len(asked), kind_of(what), 1 | _NLM_F_DUMP, 0, 0, family, 0, 0)
        for _ in range(_TRIES):
            try:
                return self._asked(header + asked)
            except InterruptedError:
                continue
        raise KernelError("nf_tables: other programs change it all the time", errno.EINTR)

    def _asked(self, request: bytes) -> list[bytes]:
        """Send a request. Returns the attributes of each answer.

        Raises:
            InterruptedError: the tables changed meanwhile.
            KernelError: refused.
        """
        found, interrupted = [], False
        try:
            netlink = self._open()
            netlink.send(request)
            for _, kind, flags, data in _messages(netlink):
                interrupted = interrupted or bool(flags & _NLM_F_DUMP_INTR)
                if kind == NLMSG_ERROR and (code := _code(data)):
                    raise KernelError(f"nf_tables: {os.strerror(code)}", code)
                if kind not in (NLMSG_ERROR, _NLMSG_DONE):
                    found.append(data[4:])  # struct nfgenmsg
        except OSError as error:
            self.close()
            raise KernelError(f"nf_tables: {error.strerror}", error.errno) from error
        if interrupted:
            raise InterruptedError
        return found

    def _open(self) -> socket.socket:
        if self._socket is None:
            netlink = self._socket = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, self._protocol)
            netlink.setsockopt(_SOL_NETLINK, _NETLINK_CAP_ACK, 1)
            for forced, usual in ((_SO_RCVBUFFORCE, socket.SO_RCVBUF), (_SO_SNDBUFFORCE, socket.SO_SNDBUF)):
                try:
                    netlink.setsockopt(socket.SOL_SOCKET, forced, BUFFER)
                except PermissionError:
                    netlink.setsockopt(socket.SOL_SOCKET, usual, BUFFER)
        return self._socket

    def close(self) -> None:
        """Close the socket; the next transaction opens another."""
        if self._generation is not None:
            self._disturbed()
        if self._socket is not None:
            self._socket.close()
            self._socket = None


def _last_asks_for_answer(messages: Message) -> Message:
    """Set NLM_F_ACK and the number _LAST in the last of these messages (struct nlmsghdr, linux/netlink.h)."""
    at = following = 0
    while following < len(messages):
        at = following
        length, kind, flags = struct.unpack_from("=LHH", messages, at)
        following = at + ((length + 3) & ~3)
    return messages[:at] + struct.pack("=LHHL", length, kind, flags | NLM_F_ACK, _LAST) + messages[at + 12 :]


def _frame(kind: int, generation: int | None = None) -> Message:
    """Begin or end of a batch. `generation`: refuse unless it is the current number (NFNL_BATCH_GENID)."""
    asked = attribute(1, struct.pack(">L", generation)) if generation is not None else b""
    number = NFNL_SUBSYS_NFTABLES << 8  # res_id, in network byte order
    return struct.pack("=LHHLLBB", 20 + len(asked), kind, NLM_F_REQUEST, 0, 0, 0, 0) + struct.pack("=H", number) + asked


def _messages(netlink: socket.socket) -> Iterator[tuple[int, int, int, bytes]]:
    """Number, type, flags and body of each message that can be read, further parts of a dump included."""
    overrun: OSError | None = None
    while True:
        try:
            data = netlink.recv(1 << 16, socket.MSG_DONTWAIT)
        except BlockingIOError:
            if overrun is not None:
                raise overrun from None
            return
        except OSError as error:
            if error.errno != errno.ENOBUFS:
                raise
            overrun = error  # messages from before the overrun can still be read
            continue
        while data:
            try:
                length, kind, flags, number, _ = struct.unpack_from("=LHHLL", data)
            except struct.error as error:
                raise OSError(errno.EBADMSG, "a truncated answer") from error
            if length < 16:  # a header's
                raise OSError(errno.EBADMSG, "an answer that is none")
            yield number, kind, flags, data[16:length]
            data = data[(length + 3) & ~3 :]


def _answers(netlink: socket.socket) -> dict[int, int]:
    """The errno of the answers, by number; 0: acknowledged. After an overrun: raises, unless an answer refuses."""
    answers: dict[int, int] = {}
    try:
        for number, kind, _, body in _messages(netlink):
            if kind == NLMSG_ERROR:
                answers[number] = answers.get(number) or _code(body)
    except OSError as error:
        if error.errno != errno.ENOBUFS or not any(answers.values()):
            raise
    return answers


def _code(body: bytes) -> int:
    try:
        code = -int(struct.unpack_from("=l", body)[0])
    except struct.error as error:
        raise OSError(errno.EBADMSG, "a truncated answer") from error
    if not 0 <= code <= 4095:  # MAX_ERRNO, linux/err.h
        raise OSError(errno.EBADMSG, "an answer that is none")
    return code


def _inside(data: Iterable[bytes], kind: int) -> list[bytes]:
    return [value for each in data for k, value in attributes(each) if k == kind]

"""The one error tree. An adapter translates its library's errors into these, with `from`."""


class GovipdError(Exception):
    """Base of every error that govipd raises on purpose."""


class ConfigError(GovipdError):
    """The configuration is refused; the text names file, key, value, what is allowed and the remedy."""


class IllegalTransitionError(GovipdError):
    """An event met a state whose table does not allow it: a fault of ours; the shell releases and exits."""


class KernelError(GovipdError):
    """The kernel refused an address, link or fence operation, or did not answer in time.

    Attributes:
        number: what it refused with (errno.h); None where it did not answer.
    """

    def __init__(self, text: str, number: int | None = None) -> None:
        super().__init__(text)
        self.number = number


class InterfaceMissingError(KernelError):
    """The configured network interface does not exist (yet, or any more)."""


class StateFileError(GovipdError):
    """What one process leaves for the next could not be written, or not be trusted."""


class RefusedError(GovipdError):
    """The operator asked for something that this node will not do; the text says why, and what would help."""


class NoDaemonError(GovipdError):
    """govipctl found no daemon that answers by its control socket; the text says where it looked."""


class DeniedError(GovipdError):
    """The daemon, or its socket's mode, does not let this user do what was asked."""


class EtcdError(GovipdError):
    """Base of what an etcd call can end with."""


class EtcdUnavailableError(EtcdError):
    """No answer, or an answer that does not say whether the request took effect: ask again, on the next endpoint."""


class EtcdRefusedError(EtcdError):
    """etcd answered that this client may not do this: authentication, authorization, a malformed request."""


class EtcdWriteRefusedError(EtcdRefusedError):
    """etcd reads and renews, but takes no write: its alarm NOSPACE, or a role that may only read.

    What needs no write still works: renewing, deleting, revoking.
    """


class LeaseNotFoundError(EtcdError):
    """etcd says that the lease does not exist: it is lost, and every key attached to it with it."""


class WatchLostError(EtcdError):
    """The watch ended (stream broken, revision compacted): it said nothing; read again."""

"""All errors that govipd raises on purpose. An adapter translates its library's errors into these, with `from`."""


class GovipdError(Exception):
    """Base of every error that govipd raises on purpose."""


class ConfigError(GovipdError):
    """The configuration is refused. The text names file, key, value, what is allowed, and the remedy."""


class IllegalTransitionError(GovipdError):
    """The table of transitions does not allow this trigger: a fault of govipd. The shell releases and exits."""


class KernelError(GovipdError):
    """The kernel refused an address, link or fence operation, or did not answer in time.

    Attributes:
        number: the kernel's error (errno.h); None where the kernel did not answer.
    """

    def __init__(self, text: str, number: int | None = None) -> None:
        super().__init__(text)
        self.number = number


class InterfaceMissingError(KernelError):
    """The configured network interface does not exist (yet, or any more)."""


class StateFileError(GovipdError):
    """The restart state or the drain file could not be written, or the restart state cannot be trusted."""


class RefusedError(GovipdError):
    """The operator's request was refused. The text says why, and what would help."""


class NoDaemonError(GovipdError):
    """govipctl found no daemon that answers on its control socket. The text says where govipctl looked."""


class DeniedError(GovipdError):
    """The daemon, or its socket's mode, does not allow this user's request."""


class EtcdError(GovipdError):
    """Base of the errors of etcd calls."""


class EtcdUnavailableError(EtcdError):
    """No answer, or one that does not say whether the request took effect. The next endpoint may answer."""


class EtcdRefusedError(EtcdError):
    """etcd refused the request: authentication, authorization, or a malformed request."""


class EtcdWriteRefusedError(EtcdRefusedError):
    """etcd takes no writes: its alarm NOSPACE, or the user's role may only read.

    Operations without a write still work: reading, renewing, deleting, revoking.
    """


class LeaseNotFoundError(EtcdError):
    """etcd says that the lease does not exist: the lease is lost, and every key attached to it."""


class WatchLostError(EtcdError):
    """The watch ended without an answer (stream broken, revision compacted): read again."""

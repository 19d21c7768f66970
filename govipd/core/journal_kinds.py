"""The kinds of journal entries: an id for each kind (`MESSAGE_ID`), and its priority.

units/govipd.catalog explains every kind, for `journalctl -x`. An id never changes: people and programs select by it.
"""

from enum import Enum, IntEnum

from govipd.core.state import Trigger


class Priority(IntEnum):
    """The priority of a journal entry, as in syslog(3)."""

    ERROR = 3
    WARNING = 4
    NOTICE = 5
    INFO = 6
    DEBUG = 7


class JournalKind(Enum):
    """A kind of entry: 128 random bits in hex (systemd-id128(1)), and the priority."""

    # Transitions, one kind for each core.state.Trigger
    ADOPTED = "ebb0f9e127cb439e96a8394f76cc8a54", Priority.NOTICE  # an earlier process's lease and key are proven
    CLEANED = "e5eb6fed26234530953aec34eb107f2a", Priority.NOTICE  # nothing of an earlier process is left
    ELIGIBLE = "6aba80196546428e873f344096654f5b", Priority.NOTICE  # every gate is healthy: a candidate
    INELIGIBLE = (
        "9b3e65e913124bd6ac234f101f6fcef8",
        Priority.WARNING,
    )  # a gate is not healthy, or the operator wants this node out
    WON = "8e0c4a33d34a49778eefdca675a5fe8f", Priority.NOTICE  # the election is won
    ACTIVATED = "7775da31dccf4d95abf8d48e1d4e5e67", Priority.NOTICE  # this kernel answers for the VIP
    LOST = "0bd5c35057824a3cb8de76b1d0519674", Priority.WARNING  # etcd says that the key or the lease is gone
    EXPIRED = "6efc89a2a6844fe3af8ac0abfd16d13f", Priority.WARNING  # the lease was not confirmed in time
    KERNEL_FAILED = "ea82216f6853467d9e7e32715f1345f2", Priority.WARNING  # the kernel refused what a holder needs
    HANDOVER = "1b47443920804079b4afbe18a9d62cdf", Priority.NOTICE  # the operator gave the VIP to another member
    WITHDRAWN = "4a1cc70898b24ae186498d540810eebd", Priority.NOTICE  # a healthy node is not wanted any more
    SUCCESSOR_READY = (
        "f0e296876051411b8dc1f84b1f59711d",
        Priority.NOTICE,
    )  # the successor is ready, or none will be
    CLOSED = "b959c1f29b2f40229b5a6d59c6019554", Priority.NOTICE  # this kernel has stopped answering for the VIP
    RESIGNED = "0229066c64154e049d779f796f405a27", Priority.NOTICE  # out of the election
    STOP = "cdd21713d9a94a17afcbfecee818aa78", Priority.NOTICE  # nothing is held, and the daemon ends

    # Gates
    GATE_HEALTHY = "b1ac8160de164031ac59ce672ab0ba93", Priority.INFO
    GATE_UNHEALTHY = "ea04abfa233941d2a8238a5dfffab94d", Priority.WARNING
    GATE_UNKNOWN = "1bd54609dce54905bec86e4e0744367e", Priority.WARNING

    # etcd and the other members
    ETCD_SILENT = "0b45fed794494f27b41419070e6ea2ea", Priority.WARNING  # etcd does not answer usefully
    ETCD_ANSWERS = "452603a5fd5342d2801febe92a8d6774", Priority.NOTICE  # etcd answers usefully again
    ANOTHER_CLUSTER = "3aa7691e81ce40f0af8ae6138eff728e", Priority.WARNING  # a rebuilt or restored etcd is accepted
    NAME_TAKEN = "dd7f215760c44be6a421750659bfa590", Priority.ERROR  # another machine has this member's name
    MEMBERS_DISAGREE = "1f27d02795c4413d9aa0d8b560ed4f1c", Priority.ERROR  # on a VIP group's addresses
    CLAIMED = "9d0a5c3be1f84f6fa4a7a3c7b2e95d10", Priority.ERROR  # another group holds an address of this group
    CLAIM_FREE = "4e7f0b1d7c5a4c0c9b5b1c9d84c6a2f3", Priority.NOTICE  # no other group holds one any more
    MEMBERS_AGREE = "e77b9e97bc814387b71def8094f45958", Priority.NOTICE  # members agree on the addresses again

    # The kernel
    KERNEL_REFUSES = "65a8bb6d3bdc4e089150ec2eac9453d3", Priority.WARNING  # an action failed, and is tried again
    KERNEL_OBEYS = "83fbf207e8284d53962d305e1ea9d39c", Priority.NOTICE  # the action that failed has succeeded
    ADDRESS_ADDED = (
        "875b17566fab40d98805bed22cd104fe",
        Priority.ERROR,
    )  # another program added the VIP where it is not held
    ADDRESS_ELSEWHERE = "e638de4d660446ad99abaf530339db6a", Priority.ERROR  # the VIP is on another interface
    MEMBER_ANSWERS = "564b19f328ed4ed0ad85518972de0388", Priority.WARNING  # a member that has left still answers
    STRANGER_ANSWERS = "88b782985512494c9e535a857fa3ae64", Priority.ERROR  # a machine that is no member answers
    NO_NFTABLES = "c47826c836af40148e741f167d8d9740", Priority.WARNING  # only the weaker fence is there
    NO_PACT = "273e2e447ca242ef9157efe8a91ba648", Priority.WARNING  # configured, but not available on this machine
    PACT_MADE = "cb768783dbb347eb8c1cb41a2d8c62f0", Priority.NOTICE  # the successor may take over early
    PACT_OVER = "4ea47d5dbbd0451ab921a2b46c618494", Priority.NOTICE  # the successor may not take over early any more
    FENCE_LEFT = "e300420644a84d769dcd99824b80d8de", Priority.WARNING  # the fence could not be removed at the end
    FENCE_ORPHAN = "e6cd859a0a804e6682777819c8279ef7", Priority.NOTICE  # a fence without a group was removed
    NOT_RELEASED = "3bdb87ee9544485e9301a313e9b8ff93", Priority.ERROR  # the release was not confirmed

    # From one process to the next
    ADOPTING = "307ec40c69a9495bb5391c0169ad548c", Priority.NOTICE  # an earlier process's lease is being proven
    NOT_ADOPTED = "db99ab7f4e32439fa9a2293128ff9f39", Priority.WARNING  # what an earlier process left cannot be trusted
    STAYS = "ab715de4b05c4f3cbcf38426938ea2b5", Priority.NOTICE  # a restart: the VIP is left to the next process
    STATE_FILE_REFUSED = (
        "37169518d8fa419e99d83a6b9b8e3cb0",
        Priority.WARNING,
    )  # the next process will have nothing to adopt
    STATE_FILE_WRITTEN = "2046e9b6f56241f7999759ab80833cc3", Priority.NOTICE  # the next process can adopt again

    # The operator
    DRAINED = "2601f6153a38413fa8b4a427b6036397", Priority.NOTICE
    UNDRAINED = "25fc6ba7d08946deadc917d899b2101b", Priority.NOTICE
    CONFIG_APPLIED = "b8094f6daef444938fa5f4c2ed11ad43", Priority.NOTICE
    CONFIG_REFUSED = "8165a66023064051bde2778934a83d9d", Priority.ERROR

    # Metrics and hooks
    METRICS_REFUSED = "3e9f67b06deb4f3bb030813eb9a788f8", Priority.WARNING  # the address cannot be listened on
    CONTROL_TROUBLE = "f4f975076da2409c8e05ff74e33496ee", Priority.WARNING  # the control socket cannot be served
    METRICS_SERVED = "9c53499dceb24fb1b4f0cbdfbefd01ef", Priority.NOTICE  # the address is listened on after all
    HOOK_OUTPUT = "d7420d850b434626b14863c04e518837", Priority.INFO  # a line that a hook printed
    HOOK_ENDED = "d937a82aedca4437941bd4356d41a3d3", Priority.INFO  # a hook ended with success
    HOOK_FAILED = "d3f73bfad22b4c06874f4bf5b90d53bf", Priority.WARNING  # a hook failed, was killed or did not start
    HOOK_DROPPED = "869e57ffb1164e0ca34f79d8dcc7ba1d", Priority.WARNING  # a hook was not run: too many waited

    # The daemon itself
    TIMELINE = "b6e62074d4474a3fad93a3e235f58ebf", Priority.DEBUG  # the steps of a take-over or a release
    FAULT = "008c2c1975d648f1848bda5c3de0c6f8", Priority.ERROR  # a fault of govipd

    @property
    def id(self) -> str:
        """The MESSAGE_ID."""
        return self.value[0]

    @property
    def priority(self) -> Priority:
        """The PRIORITY."""
        return self.value[1]

    @classmethod
    def of(cls, trigger: Trigger) -> "JournalKind":
        """The kind of a transition's entry."""
        return cls[trigger.name]

"""What can go wrong, by kind, and which kinds go together."""

from collections.abc import Callable
from typing import TYPE_CHECKING

from tests.sim import strikes
from tests.sim.fault import End, Fault

if TYPE_CHECKING:
    from tests.sim.run import Simulation

KINDS: dict[str, Callable[["Simulation", Fault], End]] = {
    "govipd killed": strikes.kill,
    "govipd restarted": strikes.restart,
    "govipd restarted without D-Bus": strikes.restart_unasked,
    "govipd stopped": strikes.stop,
    "govipd frozen": strikes.freeze,
    "govipd slow": strikes.slow,
    "govipd without processor": strikes.lose_processor,
    "govipd fault": strikes.break_task,
    "power off": strikes.power_off,
    "isolated": strikes.isolate,
    "isolated with etcd's leader": strikes.isolate_leader,
    "pair cut": strikes.cut_pair,
    "cut one way": strikes.cut_one_way,
    "deaf": strikes.deaf,
    "slow network": strikes.slow_network,
    "lossy network": strikes.lossy_network,
    "datagrams astray": strikes.wild_datagrams,
    "datagrams blocked": strikes.block_datagrams,
    "datagrams blocked one way": strikes.block_datagrams_one_way,
    "etcd member killed": strikes.member_fails,
    "etcd leader killed": strikes.leader_fails,
    "etcd member paused": strikes.member_pauses,
    "etcd leader paused": strikes.leader_pauses,
    "etcd leader cut off": strikes.leader_cut_off,
    "etcd leader deposed": strikes.depose,
    "etcd compacted": strikes.compact,
    "watches broken": strikes.break_watches,
    "watches half-open": strikes.lose_watches,
    "etcd member lags": strikes.lag,
    "tokens expired": strikes.expire_tokens,
    "lease revoked": strikes.revoke,
    "key deleted": strikes.delete_key,
    "nft flushed": strikes.flush,
    "nft refuses": strikes.refuse_fence,
    "rtnetlink refuses": strikes.refuse_addresses,
    "kernel refuses": strikes.refuse_everything,
    "address removed": strikes.remove_address,
    "address added": strikes.add_address,
    "address added elsewhere": strikes.add_elsewhere,
    "netlink overrun": strikes.overrun,
    "netlink late": strikes.late_events,
    "link down": strikes.link_down,
    "haproxy failed": strikes.proxy_fails,
    "haproxy answers errors": strikes.proxy_errors,
    "haproxy reloads": strikes.proxy_reloads,
    "D-Bus away": strikes.bus_away,
    "reload": strikes.reload,
    "reload of a bad file": strikes.reload_bad_file,
    "drained": strikes.drain,
    "handed over": strikes.hand_over,
    "runtime directory full": strikes.full_disk,
    "state file lost": strikes.lose_file,
}
# What delays a decision, and what it is too late for: together, on whoever holds the VIP, they are worst.
DELAYS = (
    "slow network",
    "lossy network",
    "datagrams astray",
    "govipd slow",
    "govipd without processor",
    "kernel refuses",
    "nft refuses",
    "etcd member lags",
    "watches half-open",
)
BLOWS = (
    "datagrams blocked",
    "datagrams blocked one way",
    "isolated",
    "isolated with etcd's leader",
    "deaf",
    "cut one way",
    "pair cut",
    "govipd frozen",
    "govipd stopped",
    "govipd fault",
    "govipd killed",
    "govipd restarted",
    "etcd leader cut off",
    "etcd leader paused",
    "etcd leader killed",
    "haproxy failed",
    "haproxy answers errors",
    "link down",
    "drained",
    "handed over",
    "state file lost",
)
# The leader's datagrams, or the answers to them, do not arrive, or late, or twice.
SILENCES = (
    "datagrams blocked",
    "datagrams blocked one way",
    "datagrams astray",
    "govipd frozen",
    "govipd without processor",
    "pair cut",
    "govipd killed",
    "govipd restarted",
)
# A holder leaves though it is healthy, and what may befall it, or the next one, meanwhile.
LEAVES = ("handed over", "drained", "govipd stopped")
HINDRANCES = (
    "govipd frozen",
    "govipd frozen",
    "govipd slow",
    "govipd without processor",
    "govipd killed",
    "kernel refuses",
    "nft refuses",
    "datagrams blocked",
    "datagrams astray",
    "slow network",
    "lossy network",
    "isolated",
    "etcd leader killed",
    "haproxy failed",
)
# G3: these must neither move the VIP nor pause it.
DAEMON_ONLY = (
    "reload",
    "govipd killed",
    "govipd restarted",
    "govipd frozen",
    "haproxy reloads",
    "reload of a bad file",
    "tokens expired",
    "watches broken",
    "watches half-open",
    "etcd compacted",
    "etcd leader deposed",
    "etcd member lags",
    "netlink overrun",
    "netlink late",
)
# The likelier ones among them: a process ends and the next goes on, or one goes on with another configuration.
DAEMON_ENDS = ("reload", "govipd killed", "govipd restarted", "govipd restarted")
# Ends of a daemon that another follows.
ENDS = ("govipd killed", "govipd restarted", "govipd stopped", "govipd fault")
BREAKS_PROXY = ("haproxy failed", "haproxy answers errors")
TAMPERING = (
    "address added",
    "address added",
    "address added elsewhere",
    "address added elsewhere",
    "govipd stopped",
    "address removed",
    "nft flushed",
    "netlink overrun",
    "netlink late",
    "reload",
    "state file lost",
    "runtime directory full",
    "govipd killed",
)
# Somebody takes the lease away from a holder that did not ask for it. That breaks etcd's promise, on which G1 stands:
# what remains is that a holder which hears of it closes its fence before the next may open (docs/adr/0004).
BROKEN_PROMISES = ("lease revoked", "key deleted")
# What keeps a holder from learning of it, or from closing its fence: then its kernel still answers when it is asked.
SLUGGISH = ("govipd frozen", "govipd slow", "govipd without processor", "nft refuses", "kernel refuses")
BESIDE_BROKEN_PROMISES = (
    "haproxy failed",
    "haproxy answers errors",
    "haproxy reloads",
    "reload of a bad file",
    "link down",
    *LEAVES,
    *SLUGGISH,
    *SLUGGISH,
)
# These let a message arrive long after it was sent.
LATE = (
    "isolated",
    "isolated with etcd's leader",
    "pair cut",
    "cut one way",
    "deaf",
    "slow network",
    "etcd member paused",
    "etcd leader paused",
    "power off",
    "etcd leader killed",
    "etcd leader cut off",
    "etcd member killed",
)
# Beside these, a verdict takes no longer than usual.
PROMPT = (
    "isolated",
    "pair cut",
    "etcd member killed",
    "etcd leader killed",
    "etcd leader deposed",
    "etcd member lags",
    "haproxy failed",
    "haproxy answers errors",
    "haproxy reloads",
    "reload of a bad file",
    *BROKEN_PROMISES,
)

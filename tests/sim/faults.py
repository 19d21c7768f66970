"""The kinds of fault, and which kinds go together."""

from collections.abc import Callable
from typing import TYPE_CHECKING

from tests.sim.fault import End, Fault
from tests.sim.strikes import etcd, files, health, history, kernel, network, operator, processes

if TYPE_CHECKING:
    from tests.sim.run import Simulation

KINDS: dict[str, Callable[["Simulation", Fault], End]] = {
    "govipd killed": processes.kill,
    "govipd restarted": processes.restart,
    "govipd restarted without D-Bus": processes.restart_unasked,
    "govipd stopped": processes.stop,
    "govipd frozen": processes.freeze,
    "govipd slow": processes.slow,
    "govipd without processor": processes.lose_processor,
    "govipd fault": processes.break_task,
    "power off": processes.power_off,
    "isolated": network.isolate,
    "isolated with etcd's leader": network.isolate_leader,
    "pair cut": network.cut_pair,
    "cut one way": network.cut_one_way,
    "deaf": network.deaf,
    "slow network": network.slow_network,
    "lossy network": network.lossy_network,
    "datagrams astray": network.wild_datagrams,
    "datagrams blocked": network.block_datagrams,
    "datagrams blocked one way": network.block_datagrams_one_way,
    "etcd member killed": etcd.member_fails,
    "etcd leader killed": etcd.leader_fails,
    "etcd member paused": etcd.member_pauses,
    "etcd leader paused": etcd.leader_pauses,
    "etcd leader cut off": etcd.leader_cut_off,
    "etcd leader deposed": etcd.depose,
    "etcd compacted": etcd.compact,
    "watches broken": etcd.break_watches,
    "watches half-open": etcd.lose_watches,
    "etcd member lags": etcd.lag,
    "tokens expired": etcd.expire_tokens,
    "lease revoked": etcd.revoke,
    "key deleted": etcd.delete_key,
    "claim deleted": etcd.delete_claim,
    "nft flushed": kernel.flush,
    "nft refuses": kernel.refuse_fence,
    "rtnetlink refuses": kernel.refuse_addresses,
    "kernel refuses": kernel.refuse_everything,
    "address removed": kernel.remove_address,
    "address added": kernel.add_address,
    "address added elsewhere": kernel.add_elsewhere,
    "netlink overrun": kernel.overrun,
    "netlink late": kernel.late_events,
    "link down": kernel.link_down,
    "second link down": kernel.second_link_down,
    "haproxy failed": health.proxy_fails,
    "haproxy answers errors": health.proxy_errors,
    "haproxy reloads": health.proxy_reloads,
    "D-Bus away": health.bus_away,
    "reload": operator.reload,
    "reload of a bad file": operator.reload_bad_file,
    "drained": operator.drain,
    "handed over": operator.hand_over,
    "one group handed over": operator.hand_over_one,
    "one group drained": operator.drain_one,
    "runtime directory full": operator.full_disk,
    "state file lost": operator.lose_file,
    "etcd full": history.fill,
    "role without rights": history.take_rights,
    "authentication switched": history.switch_authentication,
    "etcd's data lost": history.lose_data,
    "etcd restored": history.restore,
    "endpoint of another cluster": history.stray,
    "equal identities": operator.clone,
    "nf_tables busy": kernel.hold_mutex,
    "redirect rule": kernel.redirect,
    "group renamed": files.rename,
    "group renamed, then restarts": files.rename_and_restart,
    "address moved": files.move_address,
    "address moved, then restarts": files.move_address_and_restart,
    "address removed from the file": files.remove_and_reload,
    "address removed from the file, then restarts": files.remove_and_restart,
    "address added to the file": files.add_and_reload,
    "address added to the file, then restarts": files.add_and_restart,
    "group added to the file": files.add_group,
    "name mistyped": files.mistype_name,
    "election mistyped": files.mistype_election,
    "prefix mistyped": files.mistype_prefix,
}
# What delays a decision, and what the decision is then too late for. Both together on the holder are worst.
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
DISRUPTIONS = (
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
MESSAGE_LOSSES = (
    "datagrams blocked",
    "datagrams blocked one way",
    "datagrams astray",
    "govipd frozen",
    "govipd without processor",
    "pair cut",
    "govipd killed",
    "govipd restarted",
)
# A healthy holder leaves, and what may happen to it, or to its successor, meanwhile.
LEAVES = ("handed over", "drained", "govipd stopped")
INTERFERENCE = (
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
# What disturbs one group: the groups beside it must neither move nor pause.
OF_ONE_GROUP = (
    "one group handed over",
    "one group handed over",
    "one group drained",
    "address added elsewhere",
    "address added to the file",
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
    "redirect rule",
    "netlink overrun",
    "netlink late",
    "reload",
    "state file lost",
    "runtime directory full",
    "govipd killed",
)
# The holder's lease or key is taken away without its request. That breaks etcd's promise, on which G1 rests. What
# remains: a holder that learns of the loss closes its fence before the successor may open its own (docs/adr/0004).
BROKEN_PROMISES = ("lease revoked", "key deleted")
# What keeps a holder from learning of the loss, or from closing its fence: its kernel still answers the wire question.
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
# An operator edits the file: machine after machine, or on one machine by mistake, until that is mended.
EDITS = (
    "group renamed",
    "group renamed, then restarts",
    "address moved",
    "address moved, then restarts",
    "address removed from the file",
    "address removed from the file, then restarts",
    "address added to the file",
    "address added to the file, then restarts",
    "group added to the file",
)
SLIPS = ("name mistyped", "election mistyped", "prefix mistyped")
# etcd has other data than before, or is another one; or its users may not do what they could.
REFUSALS = ("etcd full", "role without rights")
HISTORIES = ("etcd's data lost", "etcd restored", "endpoint of another cluster")
# The kinds beside which a healthy member that stands in the queue must come to hold the VIP all the same.
REFUSED = (*REFUSALS, *LEAVES, *BREAKS_PROXY)
# Kinds that the product does not stand yet: no schedule has them until they are taken out of here.
NOT_YET: tuple[str, ...] = ()

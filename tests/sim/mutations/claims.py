"""Handover, claims and addresses."""

from tests.sim.mutate import Edit
from tests.sim.mutations.mutation import Mutation, one

CLAIMS = (
    # Passing the VIP on
    one(
        "handover: the fence outlasts the successor's wait",
        "core.lease",
        "HANDOVER_S = 0.07",
        "HANDOVER_S = 0.2",
        within=30_000,
    ),
    one(
        "handover: the keys are deleted before the fence is short",
        "Transitions._hand_over",
        "self._actions.append(ac.Hold(self.fence.begin_handover(now)))",
        "self._actions += [ac.HandOver(self._campaign, self._successor), ac.Hold(self.fence.begin_handover(now))]",
        within=30_000,
    ),
    one(
        "handover: a renewal lengthens the fence",
        "Transitions._hold",
        "HOLDING",
        "HOLDING | {State.HANDING_OVER}",
        within=30_000,
    ),
    one(
        "handover: the addresses are put where the fence may have been taken away",
        "KernelWorker._perform",
        "await parts.fence.prepare(action.until)",
        "",
        within=10_000,
    ),
    one(
        "handover: CLOSED is sent before the fence is closed",
        "HandoverSender._answer",
        "self._closed and self._ready is not None and (self._offer is not None)",
        "self._ready is not None and self._offer is not None",
        within=10_000,
    ),
    one(
        "handover: CLOSED is sent though the kernel refuses to close the fence",
        "KernelWorker._perform",
        "await parts.fence.close()",
        "try:\n    await parts.fence.close()\nfinally:\n    await parts.election.fence_closed()\n",
        within=30_000,
    ),
    one(
        "handover: the successor takes the VIP at once",
        "HandoverReceiver.wait",
        "self._offer, self._closed = (offer, closed)",
        ("self._offer, self._closed = (offer, closed)\nclosed()\n"),
        within=2_000,
    ),
    # Claims and addresses
    one("claims: made without a condition", "Claims.take", "compare", "{}", within=10_000),
    one(
        "claims: kept when an address is removed from the file",
        "KernelWorker._apply_addresses",
        "parts.election.unclaim(gone)",
        "pass",
        within=30_000,
    ),
    Mutation(
        "handover: claims that the successor does not want go with it",
        (
            Edit("HandoverSender.hand_over", "[address for address in held if successor.wants(address)]", "list(held)"),
            Edit(
                "Claimant.find_strays", "self._surplus |= dict.fromkeys(self._claims.unwanted(found, lease), False)", ""
            ),
        ),
        within=30_000,
    ),
    one(
        "fences that an earlier file left stay",
        "leftovers.orphan_fences",
        "return () if kernel.missing() else await clear_orphans(kernel, fence_table(interface), owned, remove)",
        "return ()",
        within=10_000,
    ),
    one(
        "claims: one that came with a handover is let go in order",
        "Claimant.give_up",
        "address in self._was_held",
        "True",
        within=30_000,
        plan="edited in a handover",
    ),
)

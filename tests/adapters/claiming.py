"""Members that lead, and the claims that etcd has."""

import json
from ipaddress import ip_interface

from govipd.core.events import Elected
from tests.adapters.etcd_cluster import Cluster
from tests.adapters.member import Member

FIRST, SECOND = ip_interface("192.0.2.1/32"), ip_interface("192.0.2.2/32")
BOTH = f"{FIRST} {SECOND}"


def claim(etcd: Cluster, ip: str = "192.0.2.1") -> dict[str, str]:
    """What the key says; empty: let go in order, or absent."""
    value = etcd.ctl("get", f"govip/claims/{ip}", "--print-value-only").strip()
    return dict(json.loads(value)) if value else {}


async def lead(member: Member, campaign: int = 1) -> Elected:
    """Campaign until the place is proven, and the wait is over."""
    member.election.campaign(campaign)
    event = await member.until(lambda e: isinstance(e, Elected) and e.proved_at >= e.not_before)
    assert isinstance(event, Elected)
    return event

"""govip.toml, as far as it may differ between machines."""

from dataclasses import dataclass, replace
from ipaddress import ip_interface

from govipd.core.events import Address

VIP: Address = ip_interface("192.0.2.100/32")
SECOND: Address = ip_interface("192.0.2.101/32")  # a reload adds it
SPARE: Address = ip_interface("192.0.2.109/32")  # stands in no file at first
GROUP = "api"  # the first group, and the only one of most schedules
PREFIX = "govip/"
OTHER_PREFIX = "other/"  # a typo's
CLAIMS = "govip/claims/"
PREFIXES = (PREFIX, OTHER_PREFIX)


@dataclass(frozen=True, slots=True)
class Group:
    """One [[vip]]. Its election has the group's name unless the file sets another."""

    name: str
    addresses: tuple[Address, ...]
    election: str


@dataclass(frozen=True, slots=True)
class File:
    """One machine's file."""

    groups: tuple[Group, ...]
    prefix: str = PREFIX

    @property
    def addresses(self) -> tuple[Address, ...]:
        """The addresses of all groups."""
        return tuple(address for group in self.groups for address in group.addresses)

    def named(self, name: str) -> Group | None:
        """The group of that name."""
        return next((group for group in self.groups if group.name == name), None)

    def with_group(self, index: int, group: Group) -> "File":
        """This file with one group replaced."""
        return replace(self, groups=(*self.groups[:index], group, *self.groups[index + 1 :]))

    # What people edit

    def toggled(self) -> "File":
        """This file with SECOND added to the first group, or removed from it."""
        first = self.groups[0]
        if SECOND in first.addresses and len(first.addresses) > 1:
            return self.with_group(0, replace(first, addresses=tuple(a for a in first.addresses if a != SECOND)))
        if SECOND in self.addresses:
            return self
        return self.with_group(0, replace(first, addresses=(*first.addresses, SECOND)))

    def renamed(self, index: int) -> "File":
        """This file with a group renamed; a second call gives the first name back."""
        group = self.groups[index]
        name = group.name.removesuffix("-b") if group.name.endswith("-b") else f"{group.name}-b"
        return self.with_group(index, replace(group, name=name, election=name))

    def moved(self) -> "File":
        """This file with an address moved to another group. Two groups of one address each swap them."""
        rich = next((i for i, group in enumerate(self.groups) if len(group.addresses) > 1), None)
        if rich is None and len(self.groups) > 1:
            first, second = self.groups[:2]
            exchanged = self.with_group(0, replace(first, addresses=second.addresses))
            return exchanged.with_group(1, replace(second, addresses=first.addresses))
        if rich is None:
            return self.renamed(0)
        group = self.groups[rich]
        fewer = self.with_group(rich, replace(group, addresses=group.addresses[:-1]))
        if len(self.groups) == 1:
            return replace(fewer, groups=(*fewer.groups, Group("moved", group.addresses[-1:], "moved")))
        other = (rich + 1) % len(self.groups)
        more = replace(self.groups[other], addresses=(*self.groups[other].addresses, group.addresses[-1]))
        return fewer.with_group(other, more)

    def removed(self) -> "File":
        """This file with an address or a whole group less. The last address stays."""
        for index, group in enumerate(self.groups):
            if len(group.addresses) > 1:
                return self.with_group(index, replace(group, addresses=group.addresses[:-1]))
        return replace(self, groups=self.groups[:-1]) if len(self.groups) > 1 else self.added()

    def with_another_group(self) -> "File":
        """This file with a group that has SPARE, or without that address."""
        if SPARE in self.addresses:
            return self.removed()
        return replace(self, groups=(*self.groups, Group("added", (SPARE,), "added")))

    def added(self) -> "File":
        """This file with SPARE added to the last group, or removed from it."""
        last = self.groups[-1]
        if SPARE in self.addresses:
            return self.removed()
        return self.with_group(len(self.groups) - 1, replace(last, addresses=(*last.addresses, SPARE)))


def file_of(groups: tuple[tuple[str, ...], ...]) -> File:
    """The file of a schedule: each group's name and addresses."""
    return File(tuple(Group(name, tuple(map(ip_interface, ips)), name) for name, *ips in groups))

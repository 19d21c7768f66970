"""The safety rules, each broken on purpose: the simulation must notice, or it proves nothing.

A mutation is a change of the source, applied when a process of its own imports the module. One that does not apply any
more is an error: a rule that was rewritten needs its mutation rewritten.
"""

import importlib.util
import sys
from dataclasses import dataclass

CLAIMS = "govipd.adapters.claims"
DEPARTURE = "govipd.adapters.departure"
ELECTION = "govipd.adapters.election"
FENCE = "govipd.adapters.fence"
PACT = "govipd.core.pact"
PASSING = "govipd.adapters.passing"
SESSION = "govipd.adapters.session"
SUPERVISOR = "govipd.core.supervisor"


@dataclass(frozen=True, slots=True)
class Edit:
    """Replace a text that occurs once in a module's source."""

    module: str
    before: str
    after: str


@dataclass(frozen=True, slots=True)
class Mutation:
    """A rule without which something breaks, and how it is taken away.

    `within`: in how many schedules it must be found; some ten times what it took when that was measured.
    """

    name: str
    edits: tuple[Edit, ...]
    within: int


def _one(name: str, module: str, before: str, after: str, within: int) -> Mutation:
    return Mutation(name, (Edit(module, before, after),), within)


# A leader whose fence has lapsed by the pact goes on, as in the model that the pact's rules are from. The product drops the
# VIP for good then, which alone would hide what happens without the rules of the successor.
_LAPSED = Edit(
    SUPERVISOR,
    "        deadline = self.deadline()\n        until = self._held_until",
    "        deadline = self.lease_deadline()\n        until = self._held_until",
)

# A member that stands aside looks for what it may have left in etcd, which alone would hide what it forgets when it leaves.
_NO_NET = Edit(ELECTION, "                    await self._look_for_remains(lease)\n", "")

MUTATIONS = (
    # The deadline
    _one(
        "lease stamped after the reply",
        SESSION,
        "            sent_at = self._clock.now()\n            try:\n                ttl = await self._renewed(lease, key, proved)\n",
        "            try:\n                ttl = await self._renewed(lease, key, proved)\n"
        "                sent_at = self._clock.now()\n",
        within=10_000,
    ),
    _one("no margin", "govipd.core.lease", "self.sent_at + self.ttl - margin", "self.sent_at + self.ttl", within=2000),
    _one(
        "a renewal counts without a look at who made it",
        SESSION,
        "        proof = await self.txn((), (Get(key),))\n"
        "        if proof.term != renewal.term:\n"
        '            raise EtcdUnavailableError("etcd changed its leader while the lease was renewed")\n'
        "        proved(bool(proof.gets[0]))\n",
        "",
        within=30_000,
    ),
    _one(
        "a failed call taken for a lost lease",
        SESSION,
        '                self.report("lease", str(e))\n                wait, pause = pause, min(2 * pause, LONGEST_PAUSE_S)\n',
        "                self.lease = None\n                return str(e)\n",
        within=2000,
    ),
    _one(
        "lease-not-found ignored",
        SESSION,
        "                self.lease = None\n                return str(e)\n",
        "                wait = interval\n",
        within=300,
    ),
    # Winning
    Mutation(
        "no proof after winning",
        (
            Edit(
                ELECTION,
                "        if not own or own[0].create_revision != key.create_revision or own[0].lease != key.lease:\n",
                "        if False:\n",
            ),
            Edit(ELECTION, "place = (Created(key.key, key.create_revision), Oldest", "place = (Oldest"),
            Edit(ELECTION, "(ahead or own)[0].key", "(ahead or own or (key,))[0].key"),
        ),
        within=300,
    ),
    _one(
        "the watch is trusted",
        ELECTION,
        "                watch.result()  # a lost watch is an EtcdError like any other: a pause, then a new look\n",
        "                watch.result()\n"
        "                if self._wanted is not None and self._session.lease is not None and self._key is not None:\n"
        "                    now = self._clock.now()\n"
        "                    self._sink(Elected(self._wanted, self._session.lease, now, self._key.create_revision, now))\n",
        within=300,
    ),
    _one(
        "adoption without proof",
        ELECTION,
        "        self._wanted = campaign\n        self._session.renew_now.set()\n",
        "        self._wanted = campaign\n        self._session.renew_now.set()\n"
        "        self._sink(LeaseRenewed(holding.lease_id, self._clock.now(), float(self._ttl)))\n"
        "        self._sink(Elected(campaign, holding.lease_id, self._clock.now(), holding.create_revision))\n",
        within=10_000,
    ),
    _one(
        "no wait for one that left without a mark",
        ELECTION,
        "            self._not_before = max(self._clock.now() + UNORDERLY_S, self._session.quiet_until)\n",
        "            self._not_before = max(proven.proved_at, self._session.quiet_until)\n",
        within=10_000,
    ),
    _one(
        "every predecessor is taken for orderly",
        ELECTION,
        "orderly = bool(mark) and mark[0].value == str(self._ahead).encode()",
        "orderly = True",
        within=10_000,
    ),
    # The wire
    _one(
        "the wire is not asked",
        SUPERVISOR,
        "        return early or (self.question is not None and not self.question.silent)\n",
        "        return early\n",
        within=10_000,
    ),
    _one(
        "a member that answers is not waited for",
        "govipd.core.wire",
        "        self.silent = counts and not any(claim.member or stranger_waits for claim in event.claims)\n",
        "        self.silent = True\n",
        within=10_000,
    ),
    _one(
        "a member that fell silent is taken for closed at once",
        "govipd.core.wire",
        "        counts = not self.member_answered or now >= self.expired_at\n",
        "        counts = True\n",
        within=30_000,
    ),
    _one(
        "a member's hardware address is forgotten with its record",
        "govipd.adapters.membership",
        "        self._macs = dict(list({**self._macs, **macs}.items())[-MACS_MAX:])\n",
        "        self._macs = macs\n",
        within=30_000,
    ),
    # Releasing
    _one(
        "resigned before the fence is closed",
        SUPERVISOR,
        "                self._retry_at = None\n                self._actions.append(ac.CloseFence())\n",
        "                self._retry_at = None\n"
        "                self._actions += [ac.Resign(self._campaign), ac.CloseFence()]\n",
        within=300,
    ),
    _one(
        "the fence is taken for closed when that was only asked for",
        SUPERVISOR,
        "        return max(self._held_until, self.since) + PATIENCE_S\n",
        "        return self.since\n",
        within=2000,
    ),
    _one(
        "a refused closing taken for a closed fence",
        SUPERVISOR,
        "        self._retry_at = now + RETRY_S\n        if isinstance",
        "        self._retry_at = now + RETRY_S\n"
        "        if self.state is State.CLOSING:\n"
        '            self._fire(Trigger.CLOSED, "", now)\n'
        "        if isinstance",
        within=2000,
    ),
    _one(
        "after a fault the lease is given back though the fence may be open",
        "govipd.daemon",
        "                    released.remove(group)  # its lease runs out later than its fence: it must not be given back\n",
        "",
        within=30_000,
    ),
    _one(
        "what was released after a fault may be adopted",
        "govipd.group",
        "        self._parts.memory.forget()\n        await",
        "        await",
        within=30_000,
    ),
    # The fence
    _one(
        "the fence is renewed in two steps",
        FENCE,
        "        loss_max = max(0.0,",
        "        await self.close()\n        loss_max = max(0.0,",
        within=300,
    ),
    _one(
        "an element is added without being deleted first",
        FENCE,
        "            yield timing(table.add_element(name, key, times_out=True), _LONG_MS)\n"
        "            yield table.delete_element(name, key)\n",
        "",
        within=300,
    ),
    _one(
        "time lost before the transaction is not looked at",
        FENCE,
        "            if self._clock.now() - began <= allowance:\n",
        "            if began:\n",
        within=30_000,
    ),
    _one(
        "the fence looks at elements before it is known when they end",
        FENCE,
        "            # If the process did not run meanwhile, the time-out began late by as much.\n",
        "            self._commit(self._using[idle])\n",
        within=10_000,
    ),
    _one(
        "elements for the next renewal are taken to end when it was planned",
        FENCE,
        "            self._ready = other, expected + max(0.0, self._clock.now() - began - _ALLOWANCES_S[0])\n",
        "            self._ready = other, expected\n",
        within=30_000,
    ),
    _one(
        "elements for the next renewal are taken though they end later",
        FENCE,
        "if ready and 0 <= until - ready[1] <= loss_max and",
        "if ready and until - ready[1] <= loss_max and",
        within=10_000,
    ),
    # Health
    _one(
        "the probe is ignored",
        "govipd.core.health",
        "        elif self._failures >= self._settings.fall:\n            verdict = Verdict.UNHEALTHY\n",
        "",
        within=1000,
    ),
    _one(
        "the unit is ignored",
        "govipd.core.health",
        "                healthy = event.active_state in SERVING\n",
        "                healthy = True\n",
        within=1000,
    ),
    _one(
        "what is not known permits",
        "govipd.core.health",
        "if s.verdict is not Verdict.HEALTHY)",
        "if s.verdict is Verdict.UNHEALTHY)",
        within=30_000,
    ),
    _one(
        "the unhealthy stay in the queue",
        SUPERVISOR,
        "            blockers = self.blockers(now)\n            if blockers:\n"
        '                self._fire(Trigger.UNFIT, "; ".join(blockers), now)\n            elif self._proven(now):\n',
        "            if self._proven(now):\n",
        within=300,
    ),
    Mutation(
        "a key whose reply was lost is forgotten",
        (
            Edit(
                ELECTION,
                "        stray, self._stray = self._stray, True  # before",
                "        stray = False  # before",
            ),
            _NO_NET,
        ),
        within=30_000,
    ),
    _one(
        "a deletion that was given up may hit a later key",
        DEPARTURE,
        "self._session.txn([*there, *claims.unchanged(held)], [*operations, *reads], reads)",
        "self._session.txn((), [*operations, *reads])",
        within=30_000,
    ),
    # Passing the VIP on
    _one(
        "passing on: the fence outlasts the next one's wait",
        "govipd.core.lease",
        "PASS_S = 0.07\n",
        "PASS_S = 0.2\n",
        within=30_000,
    ),
    _one(
        "passing on: etcd is told before the fence is short",
        SUPERVISOR,
        "            self._actions.append(ac.Hold(self._pass_until))\n",
        "            self._actions += [ac.Pass(self._campaign, self._heir), ac.Hold(self._pass_until)]\n",
        within=30_000,
    ),
    _one(
        "passing on: a renewal lengthens the fence",
        SUPERVISOR,
        "        if self.state not in HOLDING or self._lease is None",
        "        if self.state not in HOLDING | {State.PASSING} or self._lease is None",
        within=30_000,
    ),
    _one(
        "passing on: the addresses are put where the fence may have been taken away",
        "govipd.group",
        "                await parts.fence.prepare(action.until)  # a firewall that was loaded anew may have taken it away\n",
        "",
        within=10_000,
    ),
    _one(
        "passing on: the next one is told before the fence is closed",
        PASSING,
        "        if self._closed and self._ready is not None and self._note is not None:\n",
        "        if self._ready is not None and self._note is not None:\n",
        within=10_000,
    ),
    _one(
        "passing on: who is passed the VIP takes it at once",
        PASSING,
        "        self._note, self._closed = note, closed\n",
        "        self._note, self._closed = note, closed\n        closed()\n",
        within=2000,
    ),
    # Claims and addresses
    _one(
        "claims: made without a condition",
        CLAIMS,
        "        return compare, self.puts(missing, lease, member)\n",
        "        return {}, self.puts(missing, lease, member)\n",
        within=10_000,
    ),
    _one(
        "claims: another group's claim is no reason to wait",
        ELECTION,
        "        elif standing.others and self._not_before is None:\n",
        "        elif False:\n",
        within=10_000,
    ),
    _one(
        "claims: kept when an address is removed from the file",
        "govipd.group",
        "            parts.election.unclaim(gone)\n",
        "            pass\n",
        within=30_000,
    ),
    _one(
        "an address that an earlier process held, and that the file has no more, is left",
        "govipd.group",
        "            self._parts.memory.save(replace(holding, addresses=self._applied))\n",
        "            self._parts.memory.save(holding)\n",
        within=10_000,
    ),
    Mutation(
        "passing on: claims that the next one does not want go with it",
        (
            Edit(
                PASSING,
                "        moved = [address for address in held if heir.wants(address)]\n",
                "        moved = list(held)\n",
            ),
            Edit(  # which alone would hide it
                ELECTION,
                "            self._surplus |= dict.fromkeys(self._claims.unwanted(found, lease), False)\n",
                "",
            ),
        ),
        within=30_000,
    ),
    _one(
        "fences that an earlier file left stay",
        "govipd.cli",
        "return () if kernel.missing() else await clear_orphans(kernel, fence_prefix(interface), owned, remove)",
        "return ()",
        within=10_000,
    ),
    _one(
        "a group that leaves removes and guards what another group of the process has",
        "govipd.daemon",
        "                group.others = self._addresses  # what another group has now, this one neither removes nor guards\n",
        "",
        within=30_000,
    ),
    # What etcd and other machines do
    _one(
        "each process believes the first cluster that answers",
        "govipd.adapters.etcd_cluster",
        "        self.id = known\n",
        "        self.id = UNKNOWN\n",
        within=30_000,
    ),
    Mutation(
        "leaving waits until etcd takes writes",
        (
            Edit(
                DEPARTURE,
                "            await self._delete(lease, keys, None, marks=False, in_order=lambda _: False)\n",
                "            raise\n",
            ),
            Edit(
                ELECTION,
                "        except EtcdRefusedError:\n            give_back = True\n",
                "        finally:\n            pass\n",
            ),
            Edit(ELECTION, "        return self._leaving_since is not None and", "        return False and"),
        ),
        within=30_000,
    ),
    Mutation(
        "a clone's lease is taken for our own",
        (
            Edit(
                "govipd.adapters.membership",
                "            if held.lease != lease and held.lease not in self._leases.earlier():\n",
                '            if held.lease != lease and _parse(held).get("machine") != self._identity.get("machine"):\n',
            ),
            Edit(
                "govipd.adapters.membership",
                "            reply = await self._store.txn((Created(self._key, held.create_revision),), (put,), ())\n",
                "            await self._store.revoke(held.lease)\n"
                "            reply = await self._store.txn((), (put,), ())\n",
            ),
        ),
        within=10_000,
    ),
    # The operator
    _one(
        "the drain is ignored",
        SUPERVISOR,
        '        drained = ("drained by the operator",) if self.drained else ()\n',
        "        drained: tuple[str, ...] = ()\n",
        within=2000,
    ),
    _one(
        "the drain ends with the process",
        "govipd.group",
        "        if self._parts.drain.is_set():\n",
        "        if False:\n",
        within=30_000,
    ),
    _one(
        "a drain is lost while a group leaves to begin anew",
        "govipd.daemon",
        "        if returning:\n",
        "        if False:\n",
        within=30_000,
    ),
    # The pact
    Mutation(
        "the pact: acknowledges while it takes over",
        (
            _LAPSED,
            Edit(
                PACT,
                "        if self.state is not Follower.FOLLOWS or sequence <= self._newest:\n",
                "        if self.state is Follower.GAVE_UP or sequence <= self._newest:\n",
            ),
        ),
        within=30_000,
    ),
    Mutation(
        "the pact: acknowledges after it gave up",
        (
            _LAPSED,
            Edit(
                PACT,
                "        if self.state is not Follower.FOLLOWS or sequence <= self._newest:\n",
                "        if self.state is Follower.TAKES or sequence <= self._newest:\n",
            ),
        ),
        within=30_000,
    ),
    _one(
        "the pact: back on the lease before the end is confirmed",
        PACT,
        "        self._doubted = self._doubted or due\n",
        "        self._doubted = self._doubted or due\n        self._bound = self._bound and not due\n",
        within=10_000,
    ),
    _one(
        "the pact: counted from the answer's arrival",
        "govipd.adapters.pact",
        "            self._sink(PactAnswered(leading.pact.hex(), self._timeout, sent_at))\n",
        "            self._sink(PactAnswered(leading.pact.hex(), self._timeout, self._clock.now()))\n",
        within=30_000,
    ),
    _one(
        "the pact: the leader's time-out is the longer one",
        PACT,
        '        return self._acknowledged_at + self.timeout - self._margin if self._bound else float("inf")\n',
        '        return self._acknowledged_at + self.timeout + 0.1 if self._bound else float("inf")\n',
        within=10_000,
    ),
    _one(
        "the pact: its margin leaves the clocks out",
        PACT,
        "        self._margin = CLOCKS_SHARE * timeout + KERNEL_S\n",
        "        self._margin = KERNEL_S\n",
        within=10_000,
    ),
    _one(
        "the pact: in force before the fence is short",
        SUPERVISOR,
        "            self.pact.acknowledged(event.sent_at, now)\n",
        "            self.pact.acknowledged(event.sent_at, now)\n"
        "            self._actions.append(ac.Enforce(self.pact.id))\n",
        within=10_000,
    ),
    Mutation(
        "the pact: its end is taken for confirmed though somebody has taken over",
        (
            _LAPSED,
            Edit(
                "govipd.adapters.pact",
                "        if not reply.succeeded:\n            self._leading = None\n",
                "        if False:\n            self._leading = None\n",
            ),
        ),
        within=30_000,
    ),
    _one(
        "the pact: an earlier process's is ended though the successor has taken over",
        ELECTION,
        "self._session.txn((Created(key.key, key.create_revision),), self._keys.end_pact(lease))",
        "self._session.txn((), self._keys.end_pact(lease))",
        within=30_000,
    ),
    _one(
        "the pact: an adopted VIP keeps the earlier process's",
        ELECTION,
        "        if pact and self._inherited:  # without the key, the successor has taken over by it\n",
        "        if False:\n",
        within=30_000,
    ),
    # Staying available
    Mutation(
        "every event is trusted to arrive",
        (
            Edit(ELECTION, "REREAD_S = 2.0 ", "REREAD_S = 1e9 "),
            Edit(SUPERVISOR, "REPEAT_S = 5.0 ", "REPEAT_S = 1e9 "),
        ),
        within=10_000,
    ),
    _one(
        "a restart is an ordinary stop",
        "govipd.daemon",
        'restart = await self._job_type() == "restart"',
        "restart = False",
        within=300,
    ),
    _one(
        "an address that somebody added is left",
        SUPERVISOR,
        "            case ev.AddressFound() if self.state in ABSENT and not self.present:\n",
        "            case ev.AddressFound() if False:\n",
        within=2000,
    ),
    Mutation(
        "addresses are compared with their prefix",
        (
            Edit(
                "govipd.adapters.netlink",
                "found if index == self._index)\n",
                "found if index == self._index and address in self._addresses)\n",
            ),
            Edit(
                "govipd.adapters.netlink",
                "for address in self._route.addresses(link.index) if address.ip in ips}\n",
                "for address in self._route.addresses(link.index) if address in addresses}\n",
            ),
        ),
        within=10_000,
    ),
    _one(
        "a machine with the VIP on another interface stands",
        SUPERVISOR,
        "        return (*self._unfit(now), *self._strewn(), *self._retired())\n",
        "        return (*self._unfit(now), *self._retired())\n",
        within=30_000,
    ),
    _one(
        "the fence is removed though the address is on the machine",
        "govipd.group",
        "                if left := [each for each in found if not self._is_of_another(each.address)]:\n",
        "                if left := ():\n",
        within=10_000,
    ),
    _one(
        "a reload starts anew",
        "govipd.daemon",
        "            if new is None or new.identity != group.plan.identity:\n",
        "            if True:\n",
        within=300,
    ),
)

# Rules that adapter tests see, and that no schedule has seen yet: holes in the schedules, to be closed.
# `python -m tests.sim --mutant NAME --first SEED` hunts one of them.
NOT_FOUND_YET = (
    _one(
        "which slot counts is not asked",
        FENCE,
        "            self._slot = a if any(found) else _other(a)\n",
        "            self._slot = a if any(found) is None else _other(a)\n",
        within=10_000,
    ),
    _one(
        "passing on: the claims are let go instead of passed on",
        PASSING,
        "                *claims.puts(moved, heir.key.lease, heir.name),\n",
        "                *claims.let_go(moved, lambda _: True),\n",
        within=30_000,
    ),
    _one(
        "addresses are held before the fence guards them",
        "govipd.group",
        "        await self._guard_all()\n        await parts.addresses.replace(wanted)\n",
        "        await parts.addresses.replace(wanted)\n",
        within=30_000,
    ),
    Mutation(
        "claims: one whose answer was lost is forgotten",
        (
            Edit(
                ELECTION,
                "            unanswered, self._claims.unanswered = self._claims.unanswered, True\n",
                "            unanswered = False\n",
            ),
            _NO_NET,
        ),
        within=30_000,
    ),
    _one(
        "a key that comes back while its member stands aside is left",
        ELECTION,
        "                    await self._look_for_remains(lease)\n",
        "",
        within=30_000,
    ),
    _one(
        "a leader that is not first any more goes on",
        ELECTION,
        "        if went_back or ahead:\n",
        "        if False:\n",
        within=30_000,
    ),
)


def apply(mutation: Mutation) -> None:
    """Put the changed modules in the place of the real ones. Nothing of govipd may be imported yet.

    Raises:
        ValueError: an edit does not apply any more.
    """
    for name, source in source_with(mutation).items():
        _load(name, source)


def source_with(mutation: Mutation) -> dict[str, str]:
    """The changed modules' sources, by name.

    Raises:
        ValueError: an edit does not apply any more.
    """
    sources: dict[str, str] = {}
    for edit in mutation.edits:
        source = sources.get(edit.module) or _source(edit.module)
        if source.count(edit.before) != 1:
            times = source.count(edit.before)
            raise ValueError(f"{mutation.name}: found {times} times in {edit.module}: {edit.before!r}")
        sources[edit.module] = source.replace(edit.before, edit.after)
    return sources


def _source(name: str) -> str:
    spec = importlib.util.find_spec(name)
    assert spec is not None
    assert spec.origin is not None
    with open(spec.origin, encoding="utf-8") as file:  # noqa: PTH123  # as import does
        return file.read()


def _load(name: str, source: str) -> None:
    spec = importlib.util.find_spec(name)
    assert spec is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    exec(compile(source, f"<mutant of {name}>", "exec"), module.__dict__)
    package, _, last = name.rpartition(".")
    setattr(importlib.import_module(package), last, module)

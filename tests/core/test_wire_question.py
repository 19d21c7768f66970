"""The wire question: when it is asked, which answers are waited for, and the alarms."""

from ipaddress import IPv4Interface

from govipd.core import events as ev
from govipd.core import texts
from govipd.core.actions import Alarm, AskWire, CloseFence, Conflict, Hold, Prepare, Resign
from govipd.core.settings import Settings
from govipd.core.state import State
from govipd.core.wire_question import AGAIN_MAX_S, AGAIN_S, UNHEARD_S
from tests.core.driver import LEASE, Driver

VIP = IPv4Interface("192.0.2.100/32")
MEMBER = ev.WireAnswer(VIP.ip, "02:00:00:00:00:02", "node2")
STRANGER = ev.WireAnswer(VIP.ip, "02:00:00:00:00:09", "")


def asked(settings: Settings | None = None) -> Driver:
    """We follow a predecessor without a marker, proved our place again after 0.1 s, and wait for the wire's answer."""
    d = Driver(settings).to(State.CANDIDATE)
    assert d.step(ev.Elected(d.campaign, LEASE, d.now, 5, not_before=100.1)) == [AskWire(100.1), Prepare(102.5)]
    assert Hold(102.5) not in d.step(ev.Elected(d.campaign, LEASE, 100.1, 5, not_before=100.1), after=0.1)
    return d


def test_silence_takes() -> None:
    """At once; and a second answer to the same question says nothing any more."""
    d = asked()
    assert d.step(ev.WireHeard(100.1, ())) == [Hold(102.5)]
    assert d.step(ev.WireHeard(100.1, (MEMBER,))) == []
    assert texts.trouble(d.state_machine) == ""


def test_silence_before_the_proof_takes_with_the_proof() -> None:
    """The answer comes at the end of the wait, the proof a moment later: nothing is lost."""
    d = Driver().to(State.CANDIDATE)
    d.step(ev.Elected(d.campaign, LEASE, d.now, 5, not_before=100.1))
    assert d.step(ev.WireHeard(100.1, ()), after=0.1) == []
    assert d.step(ev.Elected(d.campaign, LEASE, 100.1, 5, not_before=100.1)) == [Hold(102.5)]


def test_a_member_is_waited_for_as_long_as_it_answers() -> None:
    """Asked again every 50 ms at first; said once."""
    d = asked()
    alarm, again = d.step(ev.WireHeard(100.1, (MEMBER,)))
    assert isinstance(alarm, Alarm)
    assert alarm.conflict is Conflict.MEMBER_ANSWERS
    assert alarm.text.startswith("node2's kernel still answers for 192.0.2.100 (02:00:00:00:00:02)")
    assert texts.trouble(d.state_machine) == alarm.text
    assert isinstance(again, AskWire)
    assert again.until == d.now + 0.05
    for _ in range(30):
        (again,) = d.step(ev.WireHeard(again.until, (MEMBER,)), after=again.until - d.now)
        assert isinstance(again, AskWire)
        assert 0.0499 <= again.until - d.now <= AGAIN_MAX_S
        d.renew()
    d.step(ev.Elected(d.campaign, LEASE, d.now, 5, not_before=100.1))
    assert d.step(ev.WireHeard(again.until, ())) == [Hold(d.now + 2.5)]


def test_who_has_answered_may_answer_again_until_its_lease_would_have_ended() -> None:
    """Its link was down for a moment, or its fence lapsed and is opened again by a process that knows nothing yet."""
    d = asked()
    ended = d.now - 0.1 + 3.0
    alarm, again = d.step(ev.WireHeard(100.1, (MEMBER,)))
    assert isinstance(alarm, Alarm)
    while d.now < ended:
        assert texts.trouble(d.state_machine) == alarm.text
        assert isinstance(again, AskWire)
        d.renew()
        d.step(ev.Elected(d.campaign, LEASE, d.now, 5, not_before=100.1))
        again = d.step(ev.WireHeard(again.until, ()), after=again.until - d.now)[-1]
    assert again == Hold(d.state_machine.fence.by_lease_and_pact() or 0.0)
    assert d.now < ended + AGAIN_S
    assert texts.trouble(d.state_machine) == ""


def test_a_stranger_is_reported_of_and_holds_nothing_up() -> None:
    """It may be a router that answers for every address."""
    d = asked()
    alarm, hold = d.step(ev.WireHeard(100.1, (STRANGER,)))
    assert isinstance(alarm, Alarm)
    assert alarm.conflict is Conflict.STRANGER_ANSWERS
    assert "take it all the same" in alarm.text
    assert hold == Hold(102.5)
    assert "02:00:00:00:00:09" in texts.status(d.state_machine, ["192.0.2.100"], d.now)


def test_a_stranger_is_waited_for_where_the_file_says_so() -> None:
    """election.stranger = "wait"."""
    d = asked(Settings(stranger_waits=True))
    alarm, again = d.step(ev.WireHeard(100.1, (STRANGER,)))
    assert isinstance(alarm, Alarm)
    assert "election.stranger" in alarm.text
    assert isinstance(again, AskWire)
    assert d.step(ev.WireHeard(again.until, ()), after=0.05) == [Hold(102.5)]


def test_an_answer_that_does_not_come_is_asked_for_again() -> None:
    """No sender is trusted; nothing is opened meanwhile."""
    d = asked()
    (again,) = d.tick()
    assert d.now == 100.1 + UNHEARD_S
    assert isinstance(again, AskWire)
    assert d.step(ev.WireHeard(100.1, ())) == []
    assert d.step(ev.WireHeard(again.until, ())) == [Hold(102.5)]


def test_a_planned_move_asks_no_neighbour() -> None:
    """The mark of an orderly release, or a predecessor whose fence is known to be closed, ends the question."""
    d = Driver().to(State.CANDIDATE)
    assert d.step(ev.Elected(d.campaign, LEASE, d.now, 5)) == [Hold(102.5)]
    d = Driver().to(State.CANDIDATE)
    d.step(ev.Elected(d.campaign, LEASE, d.now, 5, not_before=100.1))
    assert d.step(ev.Elected(d.campaign, LEASE, 100.0, 5, not_before=100.0), after=0.01) == [Hold(102.5)]
    assert d.step(ev.WireHeard(100.1, (MEMBER,))) == []


def test_a_member_that_leaves_while_another_kernel_may_answer_leaves_no_marker() -> None:
    """Else the next in the queue would take at once, beside the member that still answers."""
    d = asked()
    d.step(ev.WireHeard(100.1, (MEMBER,)))
    d.step(ev.UnitState("failed", "failed"))
    d.step(ev.Done(CloseFence()))
    assert Resign(d.campaign, contested=True) in d.told
    d = asked()
    d.step(ev.WireHeard(100.1, ()))
    d.step(ev.UnitState("failed", "failed"))
    d.step(ev.Done(CloseFence()))
    assert Resign(d.campaign) in d.told


ON_LO = ev.AddressesElsewhere((ev.Elsewhere(IPv4Interface("192.0.2.100/24"), "lo"),))


def test_a_machine_with_the_vip_on_another_interface_is_ineligible() -> None:
    """The report names address, interface and command. The machine campaigns again when the address is gone."""
    d = Driver().to(State.CANDIDATE)
    alarm, *_ = d.step(ON_LO)
    assert isinstance(alarm, Alarm)
    assert alarm.conflict is Conflict.ADDRESS_ELSEWHERE
    assert "ip address delete 192.0.2.100/24 dev lo" in alarm.text
    assert d.state is State.RESIGNING
    assert "192.0.2.100/24 on lo" in d.state_machine.blockers(d.now)[0]
    d.step(ev.Resigned(d.campaign))
    assert d.state is State.INELIGIBLE
    assert d.step(ON_LO) == [CloseFence()]  # another program may have deleted the fence
    d.step(ev.AddressesElsewhere(()))
    assert not d.state_machine.blockers(d.now)


def test_a_leader_goes_on_with_the_vip_on_another_interface() -> None:
    """Its fence guards the address on every interface. The journal gets one line."""
    d = Driver().to(State.LEADER)
    (alarm,) = d.step(ON_LO)
    assert isinstance(alarm, Alarm)
    assert d.step(ON_LO) == []
    assert d.state is State.LEADER
    assert "192.0.2.100/24 on lo" in texts.status(d.state_machine, ["192.0.2.100"], d.now)


def test_what_is_left_behind_is_named_with_the_remedy() -> None:
    """Which address, where, why the fence stays, and what to type."""
    text = texts.left_behind([ev.Elsewhere(IPv4Interface("192.0.2.100/24"), "lo")])
    assert text.startswith("192.0.2.100/24 on lo: the fence stays, closed")
    assert "ip address delete 192.0.2.100/24 dev lo" in text

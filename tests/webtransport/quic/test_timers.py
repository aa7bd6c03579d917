import gc
import weakref

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from pingpong.webtransport.quic.timers import Timers


class Owner:
    pass


def test_who_is_removed_is_not_referred_to() -> None:
    timers: Timers[Owner] = Timers()
    owner = Owner()
    timers.set(owner, 2.0)
    timers.set(owner, 1.0)
    timers.remove(owner)
    gone = weakref.ref(owner)
    del owner
    gc.collect()
    assert gone() is None
    assert timers.next() is None


def test_a_timer_that_is_moved_forward_again_and_again_takes_no_room() -> None:
    timers: Timers[str] = Timers()
    for when in range(1_000, 0, -1):
        timers.set("one", when)
    assert len(timers) <= 4
    assert timers.take(1.0) == "one"
    assert timers.take(10_000.0) is None


def test_timers_that_fire_leave_no_room_to_those_that_were_moved() -> None:
    timers: Timers[str] = Timers()
    for when in (3.0, 2.0, 1.0):
        timers.set("stays", when + 1.0)
        timers.set("fires", when)
    assert timers.take(1.0) == "fires"
    assert len(timers) <= 4


class TimersMachine(RuleBasedStateMachine):
    """Against a dictionary: each owner's timer is the earliest of what was set since it fired."""

    def __init__(self) -> None:
        super().__init__()
        self.timers: Timers[int] = Timers()
        self.expected: dict[int, float] = {}

    @rule(owner=st.integers(0, 5), when=st.integers(0, 20))
    def set(self, owner: int, when: int) -> None:
        self.timers.set(owner, when)
        self.expected[owner] = min(self.expected.get(owner, when), when)

    @rule(owner=st.integers(0, 5))
    def remove(self, owner: int) -> None:
        self.timers.remove(owner)
        self.expected.pop(owner, None)

    @rule(due=st.integers(0, 20))
    def fire(self, due: int) -> None:
        fired = {}
        while (owner := self.timers.take(due)) is not None:
            fired[owner] = self.expected.pop(owner)
        assert list(fired.values()) == sorted(fired.values())
        assert all(when <= due for when in fired.values())
        assert all(when > due for when in self.expected.values())

    @rule()
    def clear(self) -> None:
        self.timers.clear()
        self.expected.clear()

    @invariant()
    def the_first_is_known(self) -> None:
        assert self.timers.next() == min(self.expected.values(), default=None)
        assert len(self.timers) <= 2 * len(self.expected) + 2


TestTimers = TimersMachine.TestCase

import pytest

from sandboxd.admission import TENANTS_REMEMBERED, Admission
from sandboxd.errors import Draining, Overloaded
from tests.fakes.clock import FakeClock


def admission(max_concurrent: int = 2, max_per_minute: int = 0) -> tuple[Admission, FakeClock]:
    clock = FakeClock()
    return Admission(max_concurrent, max_per_minute, clock.time), clock


def test_slots_are_bounded_and_given_back() -> None:
    node, _ = admission(1)
    with node.slot("a"):
        assert node.running == 1
        with pytest.raises(Overloaded) as caught, node.slot("b"):
            pass
        assert caught.value.reason == "slots"
        assert caught.value.retry_after_seconds > 0
    with node.slot("b"):
        pass


def test_slot_is_given_back_when_the_execution_fails() -> None:
    node, _ = admission(1)
    with pytest.raises(ZeroDivisionError), node.slot("a"):
        raise ZeroDivisionError
    assert node.running == 0


def test_tenant_over_its_rate_is_told_when_to_come_back() -> None:
    node, clock = admission(max_per_minute=2)
    for _ in range(2):
        with node.slot("a"):
            pass
    with pytest.raises(Overloaded) as caught, node.slot("a"):
        pass
    assert caught.value.reason == "rate"
    assert caught.value.retry_after_seconds == pytest.approx(30)
    with node.slot("b"):  # another tenant has a bucket of its own
        pass
    clock.advance(caught.value.retry_after_seconds)
    with node.slot("a"):
        pass


def test_refusals_cost_no_tokens() -> None:
    node, clock = admission(max_per_minute=1)
    with node.slot("a"):
        pass
    for _ in range(5):
        with pytest.raises(Overloaded), node.slot("a"):
            pass
    clock.advance(60)
    with node.slot("a"):
        pass


def test_rate_does_not_save_up_beyond_a_minute() -> None:
    node, clock = admission(max_concurrent=9, max_per_minute=2)
    with node.slot("a"):
        clock.advance(3600)
    for _ in range(2):
        with node.slot("a"):
            pass
    with pytest.raises(Overloaded), node.slot("a"):
        pass


def test_memory_for_tenants_is_bounded() -> None:
    node, _ = admission(max_per_minute=1)
    for number in range(TENANTS_REMEMBERED + 100):
        with node.slot(str(number)):
            pass
    assert len(node._buckets) == TENANTS_REMEMBERED


def test_draining_node_refuses_and_keeps_what_runs() -> None:
    node, _ = admission()
    with node.slot("a"):
        node.drain()
        with pytest.raises(Draining), node.slot("a"):
            pass
        assert (node.running, node.draining) == (1, True)

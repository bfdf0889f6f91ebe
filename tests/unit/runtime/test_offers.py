"""Which offered blank a launch takes, and that none is held on to."""

import os
from dataclasses import replace

import pytest

from sandboxd.runtime.offers import Offer, Offers
from sandboxd.spawner import wire
from tests.unit.runtime.peers import DIGEST, launch_plan

PLAN = launch_plan()
HELD = PLAN.limits


def offered(number: int, templates: tuple[str, ...] = (DIGEST,)) -> wire.Offered:
    return wire.Offered(
        number,
        templates,
        7,
        ("pidfd", "init"),
        (),
        HELD.memory_bytes,
        HELD.pids,
        HELD.cpus,
        HELD.workspace_bytes,
        HELD.workspace_inodes,
        HELD.tmp_bytes,
        HELD.tmp_inodes,
    )


def test_plan_that_asks_for_what_it_holds_fits() -> None:
    assert Offer(offered(1), []).fits(PLAN)


@pytest.mark.parametrize(
    "change",
    [
        {"memory_bytes": 1},
        {"pids": 1},
        {"cpus": 0.5},
        {"workspace_bytes": 1},
        {"workspace_inodes": 1},
        {"tmp_bytes": 1},
        {"tmp_inodes": 1},
        {"io_read_bytes_per_second": 1},
        {"io_write_bytes_per_second": 1},
    ],
    ids=lambda change: next(iter(change)),
)
def test_plan_that_asks_for_less_does_not(change: dict[str, int]) -> None:
    plan = replace(PLAN, limits=replace(HELD, **change))
    assert not Offer(offered(1), []).fits(plan)


def test_plan_with_a_network_does_not() -> None:
    assert not Offer(offered(1), []).fits(replace(PLAN, network="loopback"))


def test_blank_that_could_not_be_given_its_limits_fits_nobody() -> None:
    assert not Offer(replace(offered(1), memory_bytes=0), []).fits(PLAN)


def test_the_one_that_fits_is_taken_before_an_older_one_and_each_once() -> None:
    offers = Offers()
    offers.add(replace(offered(1), pids=1), [])
    offers.add(offered(2), [])
    offers.add(offered(3, ("another",)), [])
    taken = [offers.take(PLAN) for _ in range(3)]
    assert [offer.message.offer if offer is not None else None for offer in taken] == [2, 1, None]


def test_withdrawn_offer_is_not_taken_and_what_came_with_it_is_closed() -> None:
    offers = Offers()
    fd = os.memfd_create("its")
    offers.add(offered(1), [fd])
    assert offers.withdraw(1)
    assert not offers.withdraw(1)
    assert offers.take(PLAN) is None
    with pytest.raises(OSError):
        os.fstat(fd)


def test_taken_offer_is_the_callers_and_can_not_be_withdrawn() -> None:
    offers = Offers()
    fd = os.memfd_create("its")
    offers.add(offered(1), [fd])
    taken = offers.take(PLAN)
    assert taken is not None and taken.fds == [fd]
    assert not offers.withdraw(1)
    offers.close()
    os.close(fd)


@pytest.mark.parametrize("number", [1, 0, -1])
def test_offer_of_a_number_that_is_no_new_one_is_a_broken_protocol(number: int) -> None:
    offers = Offers()
    offers.add(offered(1), [])
    fd = os.memfd_create("its")
    with pytest.raises(wire.ProtocolError):
        offers.add(offered(number), [fd])
    with pytest.raises(OSError):
        os.fstat(fd)


def test_nothing_is_held_once_it_is_closed() -> None:
    offers = Offers()
    fds = [os.memfd_create("its") for _ in range(2)]
    for number, fd in enumerate(fds, 1):
        offers.add(offered(number), [fd])
    offers.close()
    for fd in fds:
        with pytest.raises(OSError):
            os.fstat(fd)

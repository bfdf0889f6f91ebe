from sandboxd.policy.history import MAX_TENANTS, NO_HISTORY, Counters, Counts, History


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


def test_nothing_is_known_of_a_tenant_that_did_nothing() -> None:
    counters = Counters(Clock())
    counters.add("other", executions=1)
    assert counters.of("acme") == NO_HISTORY


def test_amounts_add_up_in_both_windows() -> None:
    counters = Counters(Clock())
    counters.add("acme", executions=1)
    counters.add("acme", denials=2, bytes_out=10)
    assert counters.of("acme") == History(Counts(1, 2, 10), Counts(1, 2, 10))


def test_what_is_older_than_a_window_no_longer_counts_there() -> None:
    clock = Clock()
    counters = Counters(clock)
    counters.add("acme", executions=3)
    clock.now += 59.0
    assert counters.of("acme").last_minute.executions == 3
    counters.add("acme", executions=1)
    clock.now += 3.0
    assert counters.of("acme") == History(Counts(1), Counts(4))
    clock.now += 3600.0
    assert counters.of("acme") == History(Counts(1 - 1), Counts(1))  # the later one is in the hour's last part still
    clock.now += 120.0
    assert counters.of("acme") == NO_HISTORY


def test_counting_for_long_holds_a_bounded_number_of_parts() -> None:
    clock = Clock()
    counters = Counters(clock)
    for _ in range(5000):
        counters.add("acme", bytes_out=7)
        clock.now += 1.0
    minute, hour = counters._tenants["acme"]
    assert len(minute._parts) <= 62
    assert len(hour._parts) <= 62
    assert counters.of("acme").last_minute.bytes_out == 7 * 60
    assert 7 * 3600 <= counters.of("acme").last_hour.bytes_out <= 7 * 3660


def test_of_too_many_tenants_the_one_idle_for_longest_is_forgotten() -> None:
    counters = Counters(Clock())
    for number in range(MAX_TENANTS):
        counters.add(str(number), executions=1)
    counters.add("0", executions=1)
    counters.add("one more", executions=1)
    assert counters.of("1") == NO_HISTORY
    assert counters.of("0").last_hour.executions == 2

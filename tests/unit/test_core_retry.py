"""How long a failed task waits."""

from __future__ import annotations

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from taskq_server.core.retry import DEFAULT_RETRY_POLICY, SECOND_US, Jitter, RetryPolicy

POLICIES = st.builds(
    RetryPolicy,
    max_attempts=st.integers(1, 1_000),
    initial_delay_us=st.integers(0, 1 << 50),
    multiplier=st.floats(1, 1e308),
    max_delay_us=st.integers(0, 1 << 50),
    jitter=st.sampled_from(Jitter),
)
DICE = st.floats(0, 1, exclude_max=True)


def test_each_wait_is_a_multiple_of_the_one_before_up_to_the_longest() -> None:
    policy = RetryPolicy(initial_delay_us=2, multiplier=3.0, max_delay_us=50, jitter=Jitter.NONE)

    assert [policy.delay_us(failed, lambda: 0.9) for failed in (1, 2, 3, 4, 5)] == [2, 6, 18, 50, 50]


@pytest.mark.parametrize(
    ("jitter", "dice", "delay"),
    [
        (Jitter.NONE, 0.0, 100),
        (Jitter.FULL, 0.0, 0),
        (Jitter.FULL, 0.25, 25),
        (Jitter.EQUAL, 0.0, 50),
        (Jitter.EQUAL, 0.5, 75),
    ],
)
def test_jitter_spreads_the_wait(jitter: Jitter, dice: float, delay: int) -> None:
    assert RetryPolicy(initial_delay_us=100, jitter=jitter).delay_us(1, lambda: dice) == delay


@given(POLICIES, st.integers(1, 5_000), DICE)
@example(RetryPolicy(initial_delay_us=0, multiplier=1e300, jitter=Jitter.NONE), 3, 0.5)
def test_a_wait_is_never_negative_never_too_long_and_nothing_stays_nothing(
    policy: RetryPolicy, failed: int, dice: float
) -> None:
    delay = policy.delay_us(failed, lambda: dice)

    assert 0 <= delay <= policy.max_delay_us
    if policy.initial_delay_us == 0:
        assert delay == 0


@given(POLICIES, st.integers(1, 300), DICE)
def test_waits_never_shrink(policy: RetryPolicy, failed: int, dice: float) -> None:
    assert policy.delay_us(failed, lambda: dice) <= policy.delay_us(failed + 1, lambda: dice)


@given(POLICIES, st.integers(1, 300), DICE)
def test_equal_jitter_waits_at_least_half(policy: RetryPolicy, failed: int, dice: float) -> None:
    facts = policy.max_attempts, policy.initial_delay_us, policy.multiplier, policy.max_delay_us
    full = RetryPolicy(*facts, Jitter.NONE).delay_us(failed, lambda: dice)

    assert RetryPolicy(*facts, Jitter.EQUAL).delay_us(failed, lambda: dice) >= full // 2


def test_as_many_attempts_as_the_policy_says_and_no_more() -> None:
    policy = RetryPolicy(max_attempts=3)

    assert [policy.allows(failed, "Burnt") for failed in (1, 2, 3, 4)] == [True, True, False, False]


def test_an_error_that_is_named_is_never_retried() -> None:
    policy = RetryPolicy(non_retryable_errors=("Raw",))

    assert not policy.allows(1, "Raw")
    assert policy.allows(1, "raw")


def test_the_default_is_five_attempts_from_a_second_to_ten_minutes_with_full_jitter() -> None:
    assert RetryPolicy(5, SECOND_US, 2.0, 600 * SECOND_US, Jitter.FULL, ()) == DEFAULT_RETRY_POLICY

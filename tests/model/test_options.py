"""Options of tasks and calls."""

from __future__ import annotations

import math
from datetime import timedelta

import attrs
import pytest

from stem_trio.errors import InvalidOptionError
from stem_trio.options import UNSET, EffectiveOptions, TaskOptions, Unset
from stem_trio.retry import RetryPolicy

POLICY = RetryPolicy(base=1.0)
DEFAULTS = {
    "queue": "default",
    "max_retries": 0,
    "priority": 0,
    "visibility_timeout": 30.0,
    "soft_time_limit": None,
    "hard_time_limit": None,
    "expires": None,
    "retry_policy": None,
    "max_strikes": 3,
    "result_ttl": 86_400.0,
    "ignore_result": False,
    "isolation": None,
}
OTHERS = {
    "queue": "mail",
    "max_retries": 5,
    "priority": 9,
    "visibility_timeout": 60.0,
    "soft_time_limit": 1.0,
    "hard_time_limit": 2.0,
    "expires": 3.0,
    "retry_policy": POLICY,
    "max_strikes": 1,
    "result_ttl": 10.0,
    "ignore_result": True,
    "isolation": "thread",
}
SETTABLE_DEFAULTS = sorted(DEFAULTS.keys() - {"isolation"})  # where it runs has no value that stands for "by kind"


def test_unset_is_false_and_prints_as_itself():
    """`UNSET` reads well in messages, and is false where its truth is asked for."""
    assert not UNSET
    assert repr(UNSET) == "UNSET"
    assert list(Unset) == [UNSET]


def test_nothing_is_set_at_first():
    """New options say nothing, so that they override nothing."""
    options = TaskOptions()
    assert options.items() == []
    assert all(getattr(options, field.name) is UNSET for field in attrs.fields(TaskOptions))


def test_every_option_has_an_effect():
    """What can be set is what takes effect, with the documented defaults."""
    assert {field.name for field in attrs.fields(TaskOptions)} == {
        field.name for field in attrs.fields(EffectiveOptions)
    }
    assert attrs.asdict(TaskOptions().effective()) == DEFAULTS


@pytest.mark.parametrize("name", DEFAULTS)
def test_one_option_is_set(name):
    """An option that is set appears, alone, and takes effect."""
    options = TaskOptions(**{name: OTHERS[name]})
    assert options.items() == [(name, OTHERS[name])]
    assert attrs.asdict(options.effective(), recurse=False) == DEFAULTS | {name: OTHERS[name]}


def test_items_come_in_the_order_of_the_fields():
    """All options together appear in the order in which they are documented."""
    assert TaskOptions(**dict(reversed(OTHERS.items()))).items() == list(OTHERS.items())


@pytest.mark.parametrize("name", SETTABLE_DEFAULTS)
def test_a_call_can_set_an_option_back(name):
    """The default value, when given, overrides; being unset does not."""
    task = TaskOptions(**{name: OTHERS[name]})
    assert getattr(task.merge(TaskOptions()).effective(), name) == OTHERS[name]
    back = TaskOptions(**{name: DEFAULTS[name]})
    assert back.items() == [(name, DEFAULTS[name])]
    assert attrs.asdict(task.merge(back).effective()) == DEFAULTS


def test_merge_keeps_what_the_other_does_not_say():
    """Options of both sides are in the result, and neither side is changed."""
    task, call = TaskOptions(queue="a", priority=1), TaskOptions(priority=2, max_retries=3)
    assert task.merge(call) == TaskOptions(queue="a", priority=2, max_retries=3)
    assert task == TaskOptions(queue="a", priority=1)
    assert call == TaskOptions(priority=2, max_retries=3)


@pytest.mark.parametrize(
    ("name", "given", "kept"),
    [
        ("visibility_timeout", 60, 60.0),
        ("visibility_timeout", timedelta(minutes=1), 60.0),
        ("visibility_timeout", 0.05, 0.05),
        ("soft_time_limit", timedelta(seconds=2), 2.0),
        ("soft_time_limit", 1, 1.0),
        ("hard_time_limit", timedelta(hours=1), 3600.0),
        ("expires", timedelta(days=1), 86_400.0),
        ("result_ttl", timedelta(days=1), 86_400.0),
        ("result_ttl", 1, 1.0),
    ],
)
def test_durations_become_float_seconds(name, given, kept):
    """Durations are kept as float seconds, however they are given."""
    value = getattr(TaskOptions(**{name: given}), name)
    assert value == kept
    assert type(value) is float


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("queue", "a queue:ü"),
        ("max_retries", 0),
        ("max_retries", 10**6),
        ("priority", 0),
        ("priority", 9),
        ("max_strikes", 1),
        ("isolation", "inline"),
        ("isolation", "thread"),
        ("ignore_result", False),
        ("retry_policy", RetryPolicy(retry_on=KeyError)),
    ],
)
def test_good_values(name, value):
    """Values at the ends of their ranges are accepted as they are."""
    assert getattr(TaskOptions(**{name: value}), name) == value


@pytest.mark.parametrize(
    ("name", "value", "remedy"),
    [
        ("queue", "", "must be a non-empty printable string without blanks around it"),
        ("queue", None, "must be a non-empty printable string without blanks around it"),
        ("queue", " mail", "without blanks around it"),
        ("queue", "x" * 201, "must have at most 200 characters"),
        ("max_retries", -1, "must be at least 0"),
        ("max_retries", 1.0, "must be an integer"),
        ("max_retries", True, "must be an integer"),
        ("max_retries", None, "must be an integer"),
        ("priority", -1, "must be at least 0"),
        ("priority", 10, "must be at most 9"),
        ("priority", "1", "must be an integer"),
        ("visibility_timeout", 0, "must be more than 0"),
        ("visibility_timeout", -1, "must be more than 0"),
        ("visibility_timeout", 0.049, "must be at least 0.05 s"),
        ("visibility_timeout", timedelta(milliseconds=49), "must be at least 0.05 s"),
        ("visibility_timeout", None, "must be a finite number of seconds or a timedelta"),
        ("visibility_timeout", math.inf, "must be a finite number of seconds or a timedelta"),
        ("soft_time_limit", 0, "must be more than 0"),
        ("soft_time_limit", "1", "must be a finite number of seconds or a timedelta"),
        ("hard_time_limit", timedelta(0), "must be more than 0"),
        ("hard_time_limit", math.nan, "must be a finite number of seconds or a timedelta"),
        ("expires", 0.0, "must be more than 0"),
        ("expires", "tomorrow", "must be a finite number of seconds or a timedelta"),
        ("retry_policy", "exponential", "must be a RetryPolicy or None"),
        ("retry_policy", RetryPolicy, "must be a RetryPolicy or None"),
        ("max_strikes", 0, "must be at least 1"),
        ("max_strikes", None, "must be an integer"),
        ("result_ttl", 0, "must be more than 0"),
        ("result_ttl", None, "must be a finite number of seconds or a timedelta"),
        ("ignore_result", 1, "must be True or False"),
        ("ignore_result", None, "must be True or False"),
        ("isolation", "process", "must be 'inline' or 'thread'"),
        ("isolation", None, "must be 'inline' or 'thread'"),
        ("isolation", ["inline"], "must be 'inline' or 'thread'"),
    ],
)
def test_bad_values_name_the_option(name, value, remedy):
    """A value that is not allowed is refused at once, by the option's name, with what is allowed."""
    with pytest.raises(InvalidOptionError) as caught:
        TaskOptions(**{name: value})
    assert caught.value.option == name
    assert caught.value.value is value
    assert str(caught.value).startswith(f"{name}=")
    assert str(caught.value).endswith(remedy)


@pytest.mark.parametrize(("soft", "hard"), [(2.0, 2.0), (3, 2), (timedelta(seconds=2), 1)])
def test_the_soft_limit_comes_before_the_hard_one(soft, hard):
    """A soft limit that the hard one would never let pass is refused."""
    with pytest.raises(InvalidOptionError, match=r"soft_time_limit=.*: must be less than hard_time_limit \(\d s\)"):
        TaskOptions(soft_time_limit=soft, hard_time_limit=hard)


@pytest.mark.parametrize(
    "limits",
    [
        {"soft_time_limit": 1.9, "hard_time_limit": 2},
        {"soft_time_limit": 5},
        {"hard_time_limit": 5},
        {"soft_time_limit": 5, "hard_time_limit": None},
        {"soft_time_limit": None, "hard_time_limit": 5},
    ],
)
def test_limits_that_fit(limits):
    """Either limit can be given alone, or both in their order."""
    assert dict(TaskOptions(**limits).items()) == limits


def test_limits_are_compared_after_merging():
    """A call cannot bring the limits out of order either."""
    with pytest.raises(InvalidOptionError, match="soft_time_limit"):
        TaskOptions(soft_time_limit=10).merge(TaskOptions(hard_time_limit=5))
    merged = TaskOptions(soft_time_limit=10).merge(TaskOptions(hard_time_limit=5, soft_time_limit=None))
    assert (merged.soft_time_limit, merged.hard_time_limit) == (None, 5.0)


def test_options_are_immutable():
    """Options can be shared: nobody changes them."""
    with pytest.raises(attrs.exceptions.FrozenInstanceError):
        TaskOptions().queue = "other"
    with pytest.raises(attrs.exceptions.FrozenInstanceError):
        EffectiveOptions().queue = "other"


def test_equal_options_are_equal():
    """Options compare, and hash, by value, with durations in seconds."""
    one, two = TaskOptions(expires=60, queue="a"), TaskOptions(expires=timedelta(minutes=1), queue="a")
    assert one == two
    assert hash(one) == hash(two)
    assert one != TaskOptions(queue="a")

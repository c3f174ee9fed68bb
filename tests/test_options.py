"""Things made by name with options that a user gave."""

import pytest

from flowtracer.credit import CREDITS, make_credit
from flowtracer.errors import InputError
from flowtracer.options import make
from flowtracer.tasks import TASKS, make_task


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"max_value": "x"}, "expected max_value of task 'countdown' as int, got 'x'"),
        ({"max_value": True}, "expected max_value of task 'countdown' as int, got True"),
        ({"brief": 1}, "expected brief of task 'countdown' as bool, got 1"),
        ({"most": 1, "max_value": 3}, "out of min_numbers, max_numbers, .*, got most$"),
    ],
)
def test_an_option_that_is_none_or_of_another_type(options, message):
    with pytest.raises(InputError, match=message):
        make_task("countdown", options)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"ratioo": 0.2}, "out of ratio, gamma, .*, got ratioo$"),
        ({"ratio": "x"}, "expected ratio of credit 'flow' as float, got 'x'"),
        ({"layers": 5}, "expected options of credit 'flow' of the types that it takes, got {'layers': 5}: "),
    ],
)
def test_options_of_a_strategy(options, message):
    with pytest.raises(InputError, match=message):
        make_credit("flow", options)


def test_a_whole_number_is_a_float_too():
    assert make_credit("flow", {"gamma": 2}).gamma == 2


def test_everything_is_made_without_options():
    for name in CREDITS:
        make_credit(name)
    for name in TASKS:
        make_task(name, {})


def test_what_takes_none_says_so():
    with pytest.raises(InputError, match="out of none, got x"):
        make("nothing", lambda: None, {"x": 1})

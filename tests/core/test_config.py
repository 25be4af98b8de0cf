"""Config: every invalid value is refused, and the advice in the error works when it is followed."""

import dataclasses
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pyraft import Config, ConfigError
from pyraft.config import LARGEST_MESSAGE_BYTES

SECONDS = [
    "heartbeat_timeout",
    "election_timeout",
    "leader_lease_timeout",
    "commit_timeout",
    "shutdown_grace",
]
COUNTS = [
    "max_append_entries",
    "max_append_bytes",
    "max_command_bytes",
    "max_inflight_appends",
    "max_proposals",
    "max_proposal_bytes",
    "max_uncommitted_entries",
    "max_uncommitted_bytes",
]


def refusal(**settings):
    with pytest.raises(ConfigError) as refused:
        Config(**settings)
    return str(refused.value)


def advised(text):
    """The value that the advice names."""
    number = re.search(r"Use at (?:least|most) ([0-9.e+-]*[0-9])", text).group(1)
    return int(number) if number.isdigit() else float(number)


def test_the_defaults_are_valid():
    Config()


def test_a_config_cannot_be_changed():
    with pytest.raises(dataclasses.FrozenInstanceError):
        Config().heartbeat_timeout = 2.0


def test_settings_are_named():
    with pytest.raises(TypeError):
        Config("n1")


@pytest.mark.parametrize("name", SECONDS)
@pytest.mark.parametrize(
    "value", [0, -1.0, 0.0001, float("nan"), float("inf"), "1", None, True, 1e12], ids=repr
)
def test_what_is_no_reasonable_number_of_seconds_is_refused_by_name(name, value):
    text = refusal(**{name: value})

    assert text.startswith(f"{name}=")
    assert advised(text) > 0


@pytest.mark.parametrize("name", COUNTS)
@pytest.mark.parametrize("value", [0, -1, 1.5, "1", None, True], ids=repr)
def test_what_is_no_count_is_refused_by_name(name, value):
    text = refusal(**{name: value})

    assert text.startswith(f"{name}=")
    assert advised(text) == 1


@pytest.mark.parametrize("value", [None, 7, b"n1"])
def test_a_local_id_is_text(value):
    assert "local_id" in refusal(local_id=value)


@pytest.mark.parametrize("value", [None, 1, "yes"])
def test_pre_vote_is_on_or_off(value):
    assert "pre_vote" in refusal(pre_vote=value)


@pytest.mark.parametrize(
    ("name", "settings"),
    [
        ("election_timeout", {"election_timeout": 0.5}),
        ("leader_lease_timeout", {"heartbeat_timeout": 0.3, "election_timeout": 0.3}),
        ("max_command_bytes", {"max_command_bytes": LARGEST_MESSAGE_BYTES + 1}),
        ("max_append_bytes", {"max_append_bytes": LARGEST_MESSAGE_BYTES + 1}),
        ("max_proposal_bytes", {"max_proposal_bytes": 1000}),
        ("max_uncommitted_bytes", {"max_uncommitted_bytes": 1000}),
        ("heartbeat_timeout", {"heartbeat_timeout": 0.001, "leader_lease_timeout": 0.005}),
        ("commit_timeout", {"commit_timeout": 0.0001}),
        ("shutdown_grace", {"shutdown_grace": 1e12}),
    ],
)
def test_following_the_advice_gives_a_valid_config(name, settings):
    text = refusal(**settings)
    assert text.startswith(f"{name}=")

    Config(**{**settings, name: advised(text)})


@given(st.floats(0.01, 1000.0), st.floats(0.01, 1000.0))
def test_following_the_advice_about_timeouts_always_works(heartbeat, other):
    for name in ("election_timeout", "leader_lease_timeout"):
        settings = {
            "heartbeat_timeout": heartbeat,
            "election_timeout": heartbeat,
            "leader_lease_timeout": heartbeat,
            name: other,
        }
        try:
            Config(**settings)
        except ConfigError as refused:
            Config(**{**settings, name: advised(str(refused))})

"""What users pass to the simulator, refused at once if it makes no sense."""

from __future__ import annotations

from collections.abc import Sequence
from math import inf, isnan
from typing import Any

from ..config import Config
from ..errors import ConfigError
from ..fsm import FSM
from .faults import Fault
from .sim_policies import Policy


def check_seconds(what: str, seconds: Any, *, most: float = 1e9) -> None:
    """Refuse what is no duration from 0 to ``most``.

    Raises:
        ConfigError: it is not.
    """
    is_number = isinstance(seconds, int | float) and not isinstance(seconds, bool)
    if not is_number or isnan(seconds) or not 0 <= seconds <= most:
        raise ConfigError(f"{what}={seconds!r} is not a number of seconds from 0 on: use for example 5")


def check_count(what: str, number: Any, example: int) -> None:
    """Refuse what is no whole number from 1 on.

    Raises:
        ConfigError: it is not.
    """
    if isinstance(number, bool) or not isinstance(number, int) or number < 1:
        raise ConfigError(f"{what}={number!r} is not a whole number above 0: use for example {example}")


def check_rate(rate: Any) -> None:
    """Refuse what is no number of operations a second.

    Raises:
        ConfigError: it is not.
    """
    is_number = isinstance(rate, int | float) and not isinstance(rate, bool)
    if not is_number or not 0 < rate < inf:
        raise ConfigError(f"rate={rate!r} is not above 0: how many operations a second?  Use for example 20")


def check_probability(what: str, probability: Any) -> None:
    """Refuse what is no number from 0 to 1.

    Raises:
        ConfigError: it is not.
    """
    is_number = isinstance(probability, int | float) and not isinstance(probability, bool)
    if not is_number or not 0 <= probability <= 1:
        raise ConfigError(f"{what}={probability!r} is not a probability: use for example 0.01")


def check_callable(what: str, function: Any, returns: str) -> None:
    """Refuse what cannot be called.

    Raises:
        ConfigError: it cannot.
    """
    if not callable(function):
        raise ConfigError(f"{what}={function!r} is not callable: pass a function that returns {returns}")


def check_command(command: Any) -> None:
    """Refuse what no state machine can be given.

    Raises:
        ConfigError: it is not bytes.
    """
    if not isinstance(command, bytes):
        raise ConfigError(f"command={command!r} is not bytes: encode it")


def check_cluster(
    servers: Any, seed: Any, fsm: Any, config: Any, faults: Any, policy: Any, preempt_lines: Any
) -> None:
    """Refuse what no ``SimCluster`` can be made of.

    Raises:
        ConfigError: one of the arguments is invalid.
    """
    if isinstance(servers, bool) or not isinstance(servers, int) or servers < 1:
        raise ConfigError(f"servers={servers!r} is not a number of servers: use for example 5")
    if isinstance(seed, bool) or not isinstance(seed, int):
        raise ConfigError(f"seed={seed!r} is not a whole number: use for example 7")
    if config is not None and not isinstance(config, Config):
        raise ConfigError(f"config={config!r} is not a pyraft.Config: leave it out for the defaults")
    if policy is not None and not isinstance(policy, Policy):
        raise ConfigError(
            f"policy={policy!r} is not a Policy: use an instance of a class in pyraft.testing.sim_policies"
        )
    check_probability("preempt_lines", preempt_lines)
    _check_faults(faults)
    check_fsm_factory(fsm)


def _check_faults(faults: Any) -> None:
    if faults is not None and (isinstance(faults, str) or not isinstance(faults, Sequence)):
        raise ConfigError(f"faults={faults!r} is not a list: use for example draw_faults(random.Random(7))")
    for fault in faults or ():
        if not isinstance(fault, Fault):
            raise ConfigError(
                f"{fault!r} is not a Fault: use instances of the classes in pyraft.testing.faults"
            )


def check_fsm_factory(fsm: Any) -> None:
    """Refuse what makes no state machine.

    Raises:
        ConfigError: ``fsm()`` fails, or gives something else, or the same object twice.
    """
    if isinstance(fsm, FSM):
        raise ConfigError(f"fsm={fsm!r} is a state machine: pass its class, or a function that makes one")
    try:
        made = [fsm(), fsm()]
    except Exception as error:
        raise ConfigError(
            f"fsm={fsm!r} cannot be built: {error!r}; it must be callable without arguments"
        ) from error
    if not isinstance(made[0], FSM):
        raise ConfigError(
            f"fsm={fsm!r} made {made[0]!r}, which is not an instance of a subclass of pyraft.FSM"
        )
    if made[0] is made[1]:
        raise ConfigError(
            f"fsm={fsm!r} returned the same object twice: every start of every server needs a new one"
        )

"""What a command line says about a run, beside its seed: the same words for run, replay and shrink."""

from __future__ import annotations

import argparse
import shlex
from dataclasses import dataclass, replace
from random import Random
from typing import Any

from ..errors import ConfigError
from .fault_mix import KINDS
from .scenario import KIND_OF, ClientSpec, FaultSpec, Scenario, draw_scenario

_LASTING = [0.1, 0.5, 2.0, 5.0]


@dataclass(frozen=True)
class Options:
    """What is not left to the seed; None = the seed says it.

    Attributes:
        faults: names of kinds, or ("all",), or ("none",).
        config: ``name=value`` of settings; () with ``default_config`` = all defaults.
    """

    servers: int | None = None
    seconds: float = 30.0
    clients: int | None = None
    rate: float | None = None
    faults: tuple[str, ...] | None = None
    config: tuple[str, ...] | None = None
    policy: str | None = None
    preempt_lines: float | None = None
    fsm: str = ""

    def scenario(self, seed: int) -> Scenario:
        """What runs for ``seed``.

        Raises:
            ConfigError: something cannot be.
        """
        drawn = draw_scenario(seed, self.servers, self.seconds)
        changes: dict[str, Any] = {"fsm": self.fsm}
        if self.clients is not None or self.rate is not None:
            changes["clients"] = self._clients(drawn)
        if self.faults is not None:
            changes["faults"] = _faults(self.faults, seed)
        if self.config is not None:
            changes["config"] = dict(_setting(text) for text in self.config)
        if self.policy is not None:
            changes.update(policy=self.policy, policy_parameters={})
        if self.preempt_lines is not None:
            changes["preempt_lines"] = self.preempt_lines
        return replace(drawn, **changes)

    def _clients(self, drawn: Scenario) -> tuple[ClientSpec, ...]:
        if self.clients is not None and self.clients < 0:
            raise ConfigError(f"clients={self.clients} is not a number of clients: use at least 0")
        count = len(drawn.clients) if self.clients is None else self.clients
        rate = drawn.clients[0].rate if self.rate is None else self.rate
        return (ClientSpec(rate, drawn.clients[0].keys),) * count

    def words(self) -> str:
        """The options as one would type them, with a space in front of each; "" if there are none."""
        words: list[str] = []
        for name, value in vars(self).items():
            if value is None or value == vars(Options())[name]:
                continue
            if name == "config":
                value = ",".join(value) or "default"
            elif name == "faults":
                value = ",".join(value)
            words.append(f"--{name.replace('_', '-')} {shlex.quote(str(value))}")
        return "".join(" " + word for word in words)


def add_options(parser: argparse.ArgumentParser) -> None:
    """Let ``parser`` understand what ``read_options`` reads."""
    group = parser.add_argument_group("what runs (the seed decides what is not given)")
    group.add_argument("--servers", type=int, help="how many servers, all voters")
    group.add_argument("--seconds", type=float, default=30.0, help="virtual seconds under faults (30)")
    group.add_argument("--clients", type=int, help="how many clients")
    group.add_argument("--rate", type=float, help="operations of each client per virtual second")
    group.add_argument("--faults", help="all, none, or names with commas: " + ", ".join(KIND_OF))
    group.add_argument(
        "--config", help="default, or settings with commas: heartbeat_timeout=0.3,pre_vote=false"
    )
    group.add_argument("--policy", help="which thread runs next: random, sticky or priority")
    group.add_argument("--preempt-lines", type=float, help="probability of a switch at each line")
    group.add_argument(
        "--fsm",
        default="",
        help="module:Class of your state machine; a function draw_command(rng) of it makes its commands",
    )


def read_options(arguments: argparse.Namespace) -> Options:
    """What the command line said.

    Raises:
        ConfigError: something cannot be.
    """
    config = arguments.config
    options = Options(
        servers=arguments.servers,
        seconds=arguments.seconds,
        clients=arguments.clients,
        rate=arguments.rate,
        faults=None if arguments.faults is None else _names(arguments.faults),
        config=None if config is None else () if config == "default" else _names(config),
        policy=arguments.policy,
        preempt_lines=arguments.preempt_lines,
        fsm=arguments.fsm,
    )
    options.scenario(0)
    return options


def _names(text: str) -> tuple[str, ...]:
    return tuple(name.strip() for name in text.split(","))


def _faults(names: tuple[str, ...], seed: int) -> tuple[FaultSpec, ...]:
    if names == ("none",):
        return ()
    rng = Random(f"rates/{seed}")
    every = [15.0, 30.0, 60.0] if names == ("all",) else [3.0, 8.0, 20.0]  # or nothing else would happen
    rates = {kind.name: (rng.choice(every), rng.choice(_LASTING)) for kind in KINDS}
    if names == ("all",):
        return tuple(FaultSpec(name, *rates[name]) for name in rates)
    typed = {name.replace(" ", "-"): name for name in KIND_OF}
    kinds = [typed.get(name.replace(" ", "-"), name) for name in names]
    return tuple(FaultSpec(kind, *rates.get(kind, (1.0, 1.0))) for kind in kinds)


def _setting(text: str) -> tuple[str, Any]:
    name, equals, value = text.partition("=")
    if not equals:
        raise ConfigError(f"config: {text!r} is not name=value")
    if value in ("true", "false"):
        return name, value == "true"
    for kind in (int, float):
        try:
            return name, kind(value)
        except ValueError:
            pass
    raise ConfigError(f"config: {value!r} in {text!r} is neither a number nor true or false")

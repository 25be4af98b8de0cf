"""One run of the simulator as a value: drawn from a seed, written to a file, run, cut down.

    result = run_scenario(draw_scenario(7))
    print(result.failure or "holds")

A scenario says everything that a run depends on besides the code: the same scenario gives the
same run.  What a shrunk scenario leaves out (strikes of a fault, operations of a client, choices of
the schedule) does not change what is drawn for the rest.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Container, Iterable
from dataclasses import asdict, dataclass, field, fields, replace
from math import isfinite
from pathlib import Path
from pkgutil import resolve_name
from random import Random
from typing import Any, TypeVar

from ..config import Config
from ..errors import ConfigError
from ..fsm import FSM
from .arguments import check_fsm_factory, check_probability
from .cluster import SimCluster
from .fault_mix import APART, EXPERIMENTS, KINDS, draw_apart, draw_faults
from .faults import Fault
from .invariants import Violation
from .linearizability import Operation
from .recorder import Recorder
from .sim_kv import KvFsm
from .sim_policies import POLICIES, CalmPolicy, Policy, draw_policy
from .sim_runtime import SimulationError

_T = TypeVar("_T", bound="FaultSpec | ClientSpec | Scenario")

_VERSION = 1
_MOST_SERVERS = 25

KIND_OF = {kind.name: kind for kind in (*KINDS, *EXPERIMENTS, *APART)}
"""The kinds of faults by the names that scenarios use."""


@dataclass(frozen=True)
class FaultSpec:
    """A fault of a scenario.

    Attributes:
        kind: the name of a class in ``pyraft.testing.faults``.
        every: mean virtual seconds of peace.
        lasting: mean virtual seconds of trouble.
        only: the numbers of the strikes that happen, from 0; None = all.
    """

    kind: str
    every: float = 10.0
    lasting: float = 3.0
    only: tuple[int, ...] | None = None

    def __post_init__(self) -> None:
        if self.kind not in KIND_OF:
            raise ConfigError(f"there is no fault {self.kind!r}: there are {', '.join(KIND_OF)}")
        for name in ("every", "lasting"):
            _check_number(f"fault {self.kind!r}: {name}", getattr(self, name), "seconds above 0")
        _check_only(f"fault {self.kind!r}", self.only)

    def make(self) -> Fault:
        """The fault, fresh."""
        fault = KIND_OF[self.kind](self.every, self.lasting)
        fault.only = self.only
        return fault


@dataclass(frozen=True)
class ClientSpec:
    """A client of a scenario.

    Attributes:
        rate: operations per virtual second.
        keys: how many keys it uses.
        burst: most commands that it submits before it waits for an answer.
        only: the numbers of the operations that it does, from 1; None = all.
        haste: the probability that it does not wait as long as an answer, or room in the queue, may take.
    """

    rate: float = 6.0
    keys: int = 10
    burst: int = 1
    only: tuple[int, ...] | None = None
    haste: float = 0.0

    def __post_init__(self) -> None:
        _check_number("client: rate", self.rate, "operations a second, above 0")
        _check_count("client: keys", self.keys, 1, 1_000_000)
        _check_count("client: burst", self.burst, 1, 100_000)
        check_probability("client: haste", self.haste)
        _check_only("client", self.only)


@dataclass(frozen=True)
class Scenario:
    """Everything that one run depends on.

    Attributes:
        seconds: virtual seconds under faults; the judgement at the end takes some more.
        config: fields of ``Config`` that differ from their defaults.
        policy: a name in ``sim_policies.POLICIES``.
        policy_parameters: what that policy takes.
        preempt_lines: the probability of a switch at each line of the library's code.
        calm: stretches of schedule decisions, [from, to), in which the current thread goes on.
        fsm: ``module:Class`` of the state machine; empty = the simulator's own key-value store.
        note: what it is about, for people.

    Raises:
        ConfigError: a value is invalid; the text says which.
    """

    seed: int
    servers: int = 5
    seconds: float = 30.0
    clients: tuple[ClientSpec, ...] = field(default_factory=lambda: (ClientSpec(),) * 4)
    config: dict[str, Any] = field(default_factory=dict)
    faults: tuple[FaultSpec, ...] = ()
    policy: str = "random"
    policy_parameters: dict[str, Any] = field(default_factory=dict)
    preempt_lines: float = 0.0
    calm: tuple[tuple[int, int], ...] = ()
    fsm: str = ""
    note: str = ""

    def __post_init__(self) -> None:
        if not _is_count(self.seed):
            raise ConfigError(f"seed={self.seed!r} is not a whole number")
        _check_count("servers", self.servers, 1, _MOST_SERVERS)
        _check_number("seconds", self.seconds, "virtual seconds above 0")
        check_probability("preempt_lines", self.preempt_lines)
        if not isinstance(self.fsm, str):
            raise ConfigError(f"fsm={self.fsm!r} is not text such as 'module:Class'")
        if not isinstance(self.note, str):
            raise ConfigError(f"note={self.note!r} is not text")
        for first, end in self.calm:
            _check_count("calm: from", first, 0, None)
            _check_count("calm: to", end, first, None)
        self.make_config()
        self.make_policy()

    def make_config(self) -> Config:
        """The settings of every server."""
        known = {f.name for f in fields(Config)} - {"local_id"}
        for name in self.config:
            if name not in known:
                raise ConfigError(f"config: there is no setting {name!r}")
        return Config(**self.config)

    def make_policy(self) -> Policy:
        """The schedule's policy, fresh."""
        kind = POLICIES.get(self.policy)
        if kind is None:
            raise ConfigError(f"there is no policy {self.policy!r}: there are {', '.join(POLICIES)}")
        try:
            policy = kind(**self.policy_parameters)
        except TypeError as error:
            raise ConfigError(f"policy {self.policy!r} does not take {self.policy_parameters!r}") from error
        return CalmPolicy(policy, self.calm) if self.calm else policy

    def to_json(self) -> str:
        """The scenario as text that ``from_json`` reads."""
        return json.dumps({"version": _VERSION, **asdict(self)}, indent=2)

    @classmethod
    def from_json(cls, text: str) -> Scenario:
        """The scenario that ``to_json`` wrote.

        Raises:
            ConfigError: the text is none, or has another version.
        """
        try:
            values = json.loads(text)
        except ValueError as error:
            raise ConfigError(f"not a scenario: {error}") from error
        if not isinstance(values, dict) or values.pop("version", None) != _VERSION:
            raise ConfigError(f"not a scenario of version {_VERSION}")
        values["faults"] = _specs("faults", FaultSpec, values.get("faults", []))
        values["clients"] = _specs("clients", ClientSpec, values.get("clients", []))
        for name in ("config", "policy_parameters"):
            if not isinstance(values.setdefault(name, {}), dict):
                raise ConfigError(f"{name} is not an object")
        try:
            values["calm"] = tuple((first, end) for first, end in values.get("calm", []))
        except (TypeError, ValueError) as error:
            raise ConfigError("calm is not a list of pairs of numbers") from error
        return _built(cls, "a scenario", values)

    def save(self, path: str | Path) -> None:
        """Write the scenario to a file that ``load_scenario`` reads."""
        Path(path).write_text(self.to_json() + "\n", encoding="utf-8")


def load_scenario(path: str | Path) -> Scenario:
    """The scenario in a file.

    Raises:
        ConfigError: it cannot be read, or holds no scenario.
    """
    try:
        text = Path(path).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} cannot be read: {error}") from error
    try:
        return Scenario.from_json(text)
    except ConfigError as error:
        raise ConfigError(f"{path}: {error}") from error


def _draw_snapshots(rng: Random) -> dict[str, Any]:
    """How often snapshots are taken, and what they leave of the log; never in a third of all runs."""
    if rng.random() < 0.33:
        return {}
    return {
        "snapshot_interval": rng.choice([0.1, 0.5, 2.0]),
        "snapshot_threshold": rng.choice([1, 10, 50]),
        "trailing_logs": rng.choice([0, 3, 30, 10240]),
    }


def _draw_message_size(rng: Random) -> dict[str, Any]:
    """How many bytes one message takes; in most runs more than there ever are."""
    return {"max_append_bytes": rng.choice([150, 600])} if rng.random() < 0.25 else {}


def draw_scenario(seed: int, servers: int | None = None, seconds: float = 30.0) -> Scenario:
    """What the seed says: how many servers, their settings, faults, clients and the schedule's policy.

    Args:
        servers: how many, whatever the seed says.
    """
    if not _is_count(seed):
        raise ConfigError(f"seed={seed!r} is not a whole number")
    rng = Random(f"scenario/{seed}")
    drawn = rng.choice([3, 5])
    timeout = rng.choice([0.1, 0.3, 1.0])
    config = {
        "heartbeat_timeout": timeout,
        "election_timeout": timeout * rng.choice([1, 2]),
        "leader_lease_timeout": timeout * rng.choice([0.5, 1]),
        "pre_vote": rng.random() < 0.8,
        "max_append_entries": rng.choice([4096, 3]),
        "max_inflight_appends": rng.choice([16, 2]),
        "max_proposals": rng.choice([65536, 2]),
        **_draw_snapshots(Random(f"scenario/{seed}/snapshots")),
        **_draw_message_size(Random(f"scenario/{seed}/message size")),
    }
    lines = rng.choice([*[0.0] * 6, 0.03, 0.1])
    clients = [ClientSpec(rate=rng.choice([3.0, 6.0, 20.0]), keys=rng.choice([3, 10]))] * 3
    clients.append(ClientSpec(rate=rng.choice([0.5, 2.0]), burst=rng.choice([10, 100, 200])))
    if lines:  # each line costs, so it does less
        clients = [ClientSpec(rate=3.0, keys=3)] * 3
    haste = Random(f"scenario/{seed}/haste")
    often = {False: [0.0, 0.0, 0.01, 0.05], True: [0.0, 0.3]}  # bursts are rare
    clients = [replace(client, haste=haste.choice(often[client.burst > 1])) for client in clients]
    policy = draw_policy(Random(f"scenario/{seed}/policy"))
    faults = draw_faults(Random(f"scenario/{seed}/faults"))
    faults += draw_apart(Random(f"scenario/{seed}/apart"), faults)
    return Scenario(
        seed=seed,
        servers=drawn if servers is None else servers,
        seconds=seconds,
        clients=tuple(clients),
        config=config,
        faults=tuple(FaultSpec(fault.name, fault.every, fault.lasting) for fault in faults),
        policy=policy.name,
        policy_parameters=policy.parameters,
        preempt_lines=lines,
    )


@dataclass
class RunResult:
    """What a run gave.

    Attributes:
        digest: of every decision of the run: equal runs have equal digests.
        operations: how many operations the clients know the outcome of, or may yet have done.
        coverage: situations that were reached, and how often.
        failure: what did not hold, None if all did; its ``__notes__`` describe the moment.
        events: the latest things that happened: (virtual time, thread, what, ...).
        strikes: (number of the fault, number of the strike) of every strike that happened.
        begun: for each client the number of the latest operation that it began.
        history: what clients asked and were answered.
    """

    scenario: Scenario
    digest: int
    steps: int
    virtual_seconds: float
    real_seconds: float
    operations: int
    coverage: dict[str, int]
    failure: Exception | None
    events: list[tuple[Any, ...]]
    strikes: list[tuple[int, int]]
    begun: list[int]
    history: list[Operation]

    @property
    def promise(self) -> str:
        """Which promise the failure broke; equal for failures of one kind, "" if there is none."""
        failure = self.failure
        if failure is None:
            return ""
        if isinstance(failure, Violation):
            return failure.promise
        if isinstance(failure, SimulationError):
            cause = failure.__cause__
            return (
                str(failure).split("\n")[0].split(":")[0]
                if cause is None
                else f"died of {type(cause).__name__}"
            )
        return type(failure).__name__


def load_fsm(name: str) -> Callable[[], FSM]:
    """What ``module:Class`` names; the simulator's own key-value store for "".

    Raises:
        ConfigError: there is no such thing, or it makes no state machine.
    """
    if not name:
        return KvFsm
    try:
        found: Callable[[], FSM] = resolve_name(name)
    except (ImportError, AttributeError, ValueError) as error:
        raise ConfigError(f"fsm={name!r} cannot be loaded: {error}; write it as module:Class") from error
    check_fsm_factory(found)
    return found


def run_scenario(
    scenario: Scenario, fsm: Callable[[], FSM] | None = None, recorder: Recorder | None = None
) -> RunResult:
    """Run a scenario to its end or its first failure; every thread of it is gone afterwards.

    Args:
        fsm: makes the state machines, instead of ``scenario.fsm``.  It understands the commands of
            ``KvFsm``, or has a function ``draw_command(rng) -> bytes`` that makes others.
        recorder: writes down all that happens.

    Raises:
        ConfigError: no state machine can be built.
    """
    fsm = load_fsm(scenario.fsm) if fsm is None else fsm
    cluster = SimCluster(
        scenario.servers,
        scenario.seed,
        fsm,
        scenario.make_config(),
        [spec.make() for spec in scenario.faults],
        policy=scenario.make_policy(),
        preempt_lines=scenario.preempt_lines,
        recorder=recorder,
    )
    draw_command = getattr(fsm, "draw_command", None)
    failure: Exception | None = None
    try:
        for client in scenario.clients:
            left_out = () if client.only is None else _AllBut(client.only)
            cluster.client(client.rate, client.keys, client.burst, left_out, draw_command, client.haste)
        cluster.run(scenario.seconds)
        cluster.check()
    except Exception as error:
        failure = error
    scheduler = cluster.scheduler
    result = RunResult(
        scenario=scenario,
        digest=scheduler.digest,
        steps=scheduler.steps,
        virtual_seconds=scheduler.time,
        real_seconds=cluster.real_seconds,
        operations=len(cluster.history),
        coverage=dict(cluster.judge.coverage),
        failure=failure,
        events=list(scheduler.events),
        strikes=list(cluster.strikes),
        begun=[client.begun for client in cluster.clients],
        history=list(cluster.history),
    )
    cluster.close()
    return result


class _AllBut(Container[int]):
    def __init__(self, kept: Iterable[int]) -> None:
        self._kept = frozenset(kept)

    def __contains__(self, number: object) -> bool:
        return number not in self._kept


def _specs(what: str, kind: type[Any], listed: Any) -> tuple[Any, ...]:
    if not isinstance(listed, list) or not all(isinstance(one, dict) for one in listed):
        raise ConfigError(f"{what} is not a list of objects")
    return tuple(_built(kind, what, {**one, "only": _as_tuple(one.get("only"))}) for one in listed)


def _as_tuple(only: Any) -> Any:
    return tuple(only) if isinstance(only, list) else only


def _built(kind: type[_T], what: str, values: dict[str, Any]) -> _T:
    known = {f.name for f in fields(kind)}
    for name in values:
        if name not in known:
            raise ConfigError(f"{what}: unknown field {name!r}; known are {', '.join(sorted(known))}")
    try:
        return kind(**values)
    except TypeError as error:
        raise ConfigError(f"{what}: {error}") from error


def _is_count(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _check_count(what: str, value: Any, least: int, most: int | None) -> None:
    if not _is_count(value) or value < least or (most is not None and value > most):
        limits = f"{least} to {most}" if most is not None else f"at least {least}"
        raise ConfigError(f"{what}={value!r} is not a whole number of {limits}")


def _check_number(what: str, value: Any, unit: str) -> None:
    number = isinstance(value, int | float) and not isinstance(value, bool)
    if not number or not isfinite(value) or value <= 0:
        raise ConfigError(f"{what}={value!r} is not a number of {unit}")


def _check_only(what: str, only: Iterable[int] | None) -> None:
    if only is None:
        return
    if not isinstance(only, tuple) or not all(_is_count(number) and number >= 0 for number in only):
        raise ConfigError(f"{what}: only={only!r} is not a list of numbers from 0")

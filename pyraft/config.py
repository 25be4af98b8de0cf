"""The settings of one server, their units, and the relations that keep Raft safe."""

from __future__ import annotations

from dataclasses import dataclass, replace
from math import isfinite

from .errors import ConfigError

LARGEST_MESSAGE_BYTES = 3 * 1024 * 1024
"""Most that one message carries: gRPC refuses more than 4 MiB by default, in Go too."""

_SHORTEST_TIMEOUT = 0.005
_LONGEST_TIMEOUT = 365 * 86_400.0


@dataclass(frozen=True, kw_only=True, slots=True)
class Config:
    """Settings of one server.  Checked on construction; never changed afterwards.

    Durations are seconds.  Names and defaults are hashicorp/raft's where it has them.

    Raises:
        ConfigError: a value is invalid or contradicts another; the text names one that works.
    """

    local_id: str = ""
    """The server's name for life.  ``Raft.open(id=...)`` sets it."""

    heartbeat_timeout: float = 1.0
    """A follower that hears from no leader for this long, up to twice it, stands for election.

    Leaders send heartbeats every tenth to fifth of it.  Below 0.3 a busy Python process can
    miss it (§5.6: well above a round trip plus a disk flush)."""

    election_timeout: float = 1.0
    """A candidate starts over after this long, up to twice it.  At least heartbeat_timeout."""

    leader_lease_timeout: float = 0.5
    """A leader that no quorum of voters answers for this long steps down.  At most heartbeat_timeout."""

    commit_timeout: float = 0.05
    """How long, up to twice it, a follower may have to wait for news of a commit when nothing else is sent."""

    pre_vote: bool = True
    """Ask before raising the term, so that a server that was cut off does not depose the leader."""

    max_append_entries: int = 4096
    """Most entries in one AppendEntries and in one local write."""

    max_append_bytes: int = 1024 * 1024
    """An AppendEntries or a local write takes no further entry once it is this large."""

    max_command_bytes: int = LARGEST_MESSAGE_BYTES
    """Longest command with its extensions; the same everywhere, so that each leader can carry
    what another accepted."""

    max_inflight_appends: int = 16
    """Most AppendEntries on their way to one follower at a time."""

    max_proposals: int = 65_536
    """Most commands that wait for the leader loop; then apply() waits for room."""

    max_proposal_bytes: int = 64 * 1024 * 1024
    """Most bytes of commands that wait for the leader loop."""

    max_uncommitted_entries: int = 65_536
    """Most entries that a leader has in its log but not yet applied; then it takes no more."""

    max_uncommitted_bytes: int = 64 * 1024 * 1024
    """Most bytes of entries that a leader has in its log but not yet applied."""

    restore_committed_logs: bool = True
    """A start applies at once what was known to be committed before, without waiting for a leader."""

    snapshot_interval: float = 120.0
    """How often, up to twice that, the server looks whether a snapshot is due."""

    snapshot_threshold: int = 8192
    """A snapshot is due once so many entries were applied since the last one."""

    trailing_logs: int = 10_240
    """Entries that stay in the log behind a snapshot, so that a server that was away for a
    moment needs no snapshot."""

    catch_up_rounds: int = 10
    """``add_voter`` first brings the server up to date, in at most so many rounds; a round that is
    shorter than an election timeout is good enough.  0 = it votes at once, as with hashicorp/raft."""

    shutdown_on_remove: bool = True
    """A leader that was removed from the cluster shuts down; otherwise it follows nobody."""

    shutdown_grace: float = 10.0
    """How long shutdown() waits for user code that does not return, unless it is told otherwise."""

    def __post_init__(self) -> None:
        if not isinstance(self.local_id, str):
            raise ConfigError(f"local_id={self.local_id!r} is not text: use a str such as 'n1'")
        for name in _FLAGS:
            if not isinstance(getattr(self, name), bool):
                raise ConfigError(
                    f"{name}={getattr(self, name)!r} is neither True nor False: use one of them"
                )
        for name in _SECONDS:
            _check_seconds(name, getattr(self, name))
        for name in _COUNTS:
            _check_count(name, getattr(self, name), least=1)
        for name in _COUNTS_FROM_ZERO:
            _check_count(name, getattr(self, name), least=0)
        _check_relations(self)


@dataclass(frozen=True, kw_only=True, slots=True)
class ReloadableConfig:
    """The settings that ``Raft.reload_config`` changes while a server runs; see ``Config``."""

    heartbeat_timeout: float = 1.0
    election_timeout: float = 1.0
    snapshot_interval: float = 120.0
    snapshot_threshold: int = 8192
    trailing_logs: int = 10_240

    @classmethod
    def of(cls, config: Config) -> ReloadableConfig:
        """Those of ``config``."""
        return cls(**{name: getattr(config, name) for name in cls.__slots__})

    def apply_to(self, config: Config) -> Config:
        """``config`` with these in it.

        Raises:
            ConfigError: they are invalid, or contradict the rest.
        """
        return replace(config, **{name: getattr(self, name) for name in self.__slots__})


_FLAGS = ("pre_vote", "restore_committed_logs", "shutdown_on_remove")
_COUNTS_FROM_ZERO = ("catch_up_rounds", "snapshot_threshold", "trailing_logs")
_SECONDS = (
    "heartbeat_timeout",
    "election_timeout",
    "leader_lease_timeout",
    "commit_timeout",
    "snapshot_interval",
    "shutdown_grace",
)
_COUNTS = (
    "max_append_entries",
    "max_append_bytes",
    "max_command_bytes",
    "max_inflight_appends",
    "max_proposals",
    "max_proposal_bytes",
    "max_uncommitted_entries",
    "max_uncommitted_bytes",
)


def _check_seconds(name: str, value: object) -> None:
    shortest = 0.001 if name == "commit_timeout" else _SHORTEST_TIMEOUT
    if isinstance(value, bool) or not isinstance(value, int | float) or not isfinite(value):
        raise ConfigError(f"{name}={value!r} is not a number of seconds. Use at least {shortest:g}.")
    if value < shortest:
        raise ConfigError(
            f"{name}={value:g} is below {shortest:g} seconds: no thread is scheduled that exactly, so the "
            f"cluster would do nothing but hold elections. Use at least {shortest:g}."
        )
    if value > _LONGEST_TIMEOUT:
        raise ConfigError(
            f"{name}={value:g} is above a year, more than some clocks can count. Use at most {_LONGEST_TIMEOUT:.0f}."
        )


def _check_count(name: str, value: object, least: int) -> None:
    if isinstance(value, bool) or not isinstance(value, int):
        raise ConfigError(f"{name}={value!r} is not a whole number. Use at least {least}.")
    if value < least:
        why = "nothing could ever pass" if least else "there is no such number"
        raise ConfigError(f"{name}={value} is below {least}: {why}. Use at least {least}.")


def _check_relations(config: Config) -> None:
    if config.election_timeout < config.heartbeat_timeout:
        raise ConfigError(
            f"election_timeout={config.election_timeout!r} is below heartbeat_timeout="
            f"{config.heartbeat_timeout!r}: candidates would give up before the others notice that the "
            f"leader is gone. Use at least {config.heartbeat_timeout!r}."
        )
    if config.leader_lease_timeout > config.heartbeat_timeout:
        raise ConfigError(
            f"leader_lease_timeout={config.leader_lease_timeout!r} is above heartbeat_timeout="
            f"{config.heartbeat_timeout!r}: a leader that was cut off would go on believing in itself after "
            f"the others elected a new one. Use at most {config.heartbeat_timeout!r}."
        )
    if config.max_command_bytes > LARGEST_MESSAGE_BYTES:
        raise ConfigError(
            f"max_command_bytes={config.max_command_bytes} is above {LARGEST_MESSAGE_BYTES}: such an entry could "
            f"be stored but would not fit a message, so it could never be replicated. "
            f"Use at most {LARGEST_MESSAGE_BYTES}."
        )
    if config.max_append_bytes > LARGEST_MESSAGE_BYTES:
        raise ConfigError(
            f"max_append_bytes={config.max_append_bytes} is above {LARGEST_MESSAGE_BYTES}: other servers refuse "
            f"messages of more than 4 MiB. Use at most {LARGEST_MESSAGE_BYTES}."
        )
    for name in ("max_proposal_bytes", "max_uncommitted_bytes"):
        value = getattr(config, name)
        if value < config.max_command_bytes:
            raise ConfigError(
                f"{name}={value} is below max_command_bytes={config.max_command_bytes}: the longest command "
                f"could never get in. Use at least {config.max_command_bytes}."
            )

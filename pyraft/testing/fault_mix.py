"""Which faults a run has: mixes drawn from the seed.

Nearly all bugs need commands to be under way while something else happens, so a cluster that is
down most of the time finds little.  A *profile* is a mix around one subject, with rates that leave
the cluster at work between two strikes; two profiles hold every kind.
"""

from __future__ import annotations

import random
from typing import NamedTuple

from ..errors import ConfigError
from . import adversaries as a
from . import election_traps as e
from . import faults as f
from . import member_faults as m
from . import member_traps as mt
from . import restore_faults as r
from . import snapshot_traps as st
from . import thread_traps as t
from .faults import Fault
from .recovering import LostMajority

KINDS: tuple[type[Fault], ...] = (
    f.BadNetwork,
    f.Partition,
    f.FlappingPartition,
    f.BridgePartition,
    f.HalfDeafLeader,
    f.SlowLinks,
    f.Crash,
    f.CrashAll,
    f.RestartStorm,
    f.SlowRestart,
    f.Stop,
    f.Freeze,
    f.FreezeAll,
    f.StarveThreads,
    f.SlowDisk,
    f.FailingDisk,
    f.LostDisk,
    f.DamagedSnapshot,
    f.AskForSnapshot,
    f.BadClocks,
    f.HeldAfterClockRead,
    f.SlowFsm,
    f.FailingFsm,
    f.RaisingFsm,
    m.Churn,
    m.Transfers,
    m.Reads,
    m.AskAtThaw,
    *a.ADVERSARIES,
    *t.TRAPS,
    *e.ELECTION_TRAPS,
    *mt.MEMBER_TRAPS,
    *st.SNAPSHOT_TRAPS,
)
"""Every kind that may be drawn."""

EXPERIMENTS: tuple[type[Fault], ...] = (f.NoMetaSync, f.NoSync)
"""Kinds that no server can survive: the judges must say so."""

APART: tuple[type[Fault], ...] = (r.Restores, LostMajority, f.SlowCallers)
"""Kinds that ``draw_apart`` adds to what a profile gives."""

_BY_NAME = {kind.name: kind for kind in (*KINDS, *EXPERIMENTS, *APART)}


def by_name(name: str) -> type[Fault]:
    """The kind of fault that has this name.

    Raises:
        ConfigError: there is none; the text lists the names.
    """
    kind = _BY_NAME.get(name)
    if kind is None:
        raise ConfigError(f"there is no fault {name!r}: there are {', '.join(_BY_NAME)}")
    return kind


class Profile(NamedTuple):
    """A mix around one subject.

    Attributes:
        kinds: each is in it with the probability ``share``, one at least; one named twice, oftener.
        every: mean seconds of peace, to choose from.
        lasting: mean seconds of trouble, to choose from.
        weight: how often it is drawn, beside those of the others.
    """

    kinds: tuple[type[Fault], ...]
    every: tuple[float, ...]
    lasting: tuple[float, ...]
    share: float = 0.7
    weight: int = 1


PROFILES: dict[str, Profile] = {
    "crashes": Profile(
        (f.Crash, f.RestartStorm, f.SlowRestart, f.Stop, a.CrashWithUncommitted, a.CrashBeforeAck),
        every=(2.0, 4.0),
        lasting=(0.1, 0.5, 1.5),
    ),
    "partitions": Profile(
        (
            f.Partition,
            f.FlappingPartition,
            f.BridgePartition,
            f.HalfDeafLeader,
            f.SlowLinks,
            f.SlowFsm,
            a.CutNewLeader,
        ),
        every=(2.0, 4.0),
        lasting=(0.5, 1.5, 3.0),
    ),
    "two logs": Profile(
        (a.TwoLogs, a.TwoLogs, a.CutNewLeader, a.CrashWithUncommitted),
        every=(0.5, 1.0),
        lasting=(3.0, 8.0),
        share=0.5,
        weight=2,
    ),
    "clocks and freezes": Profile(
        (f.BadClocks, f.HeldAfterClockRead, f.Freeze, f.FreezeAll, a.ThawAtCommit),
        every=(2.0, 4.0),
        lasting=(0.5, 1.5, 3.0),
    ),
    "disks": Profile(
        (f.SlowDisk, f.FailingDisk, f.LostDisk, f.SlowRestart, a.CrashBeforeAck, f.CrashAll),
        every=(2.0, 5.0),
        lasting=(0.3, 1.0),
    ),
    "snapshots": Profile(
        (
            f.AskForSnapshot,
            st.NeedlessSnapshot,
            a.CrashInSnapshot,
            f.SlowFsm,
            f.DamagedSnapshot,
            f.Crash,
            f.Freeze,
            f.Partition,
            f.SlowDisk,
            f.LostDisk,
        ),
        every=(1.0, 2.0),
        lasting=(0.3, 1.0, 2.0),
    ),
    "snapshots sent": Profile(
        (
            st.NeedlessSnapshot,
            st.ContradictingSnapshot,
            st.SnapshotInTheMiddle,
            a.CrashInSnapshot,
            m.Churn,
        ),
        every=(0.5, 1.0),
        lasting=(3.0, 8.0),
        share=0.5,
    ),
    "threads": Profile(
        (f.StarveThreads, a.StarveAtQueue, a.OldSessionReplies, f.RaisingFsm, t.HeldReplicator),
        every=(1.0, 3.0),
        lasting=(0.5, 2.0),
    ),
    "ends": Profile(
        (f.Stop, a.StopUnderLoad, t.StopBeforeCommands, t.StopWithBacklog, f.FailingFsm, f.RaisingFsm),
        every=(1.0, 3.0),
        lasting=(0.5, 2.0),
    ),
    "old sessions": Profile(
        (
            a.OldSessionReplies,
            a.OldSessionReplies,
            t.OldStreamReplies,
            t.HeldReplicator,
            a.LateEntries,
            f.StarveThreads,
        ),
        every=(0.5, 1.0),
        lasting=(3.0, 8.0),
        share=0.5,
        weight=2,
    ),
    "network": Profile(
        (f.BadNetwork, f.SlowLinks, f.FlappingPartition, a.LateEntries, a.CutNewLeader),
        every=(1.0, 3.0),
        lasting=(1.0, 3.0),
    ),
    "members": Profile(
        (
            m.Churn,
            m.Churn,
            m.Transfers,
            m.Reads,
            t.CutWithChange,
            t.CutWithChange,
            mt.CutWithNonvoters,
            mt.DemotesItself,
            f.Crash,
            f.Partition,
            f.Freeze,
            f.SlowDisk,
            f.AskForSnapshot,
        ),
        every=(1.0, 2.0),
        lasting=(1.0, 3.0),
        share=0.6,
        weight=2,
    ),
    "elections": Profile(
        (e.LateVotes, e.AskNewLeader, e.AskFormerLeader, a.CutNewLeader, m.Transfers),
        every=(0.5, 1.0),
        lasting=(3.0, 8.0),
        share=0.5,
        weight=2,
    ),
    "reads": Profile(
        (
            m.Reads,
            m.AskAtThaw,
            m.AskAtThaw,
            e.AskNewLeader,
            e.AskFormerLeader,
            m.Transfers,
            f.Freeze,
            f.Partition,
            f.HeldAfterClockRead,
            f.Crash,
        ),
        every=(1.0, 2.0),
        lasting=(1.0, 3.0),
        share=0.6,
    ),
    "everything, rarely": Profile(KINDS, every=(20.0, 40.0), lasting=(0.3, 1.0, 3.0), share=0.6),
    "everything, often": Profile(KINDS, every=(5.0, 10.0), lasting=(0.1, 0.5, 1.0), share=0.5),
}
"""Mixes by what they are about."""

_STRAY = 0.3  # the probability that a kind from elsewhere joins
_LOST_MAJORITIES = 0.05  # ... that the cluster loses its majority for good now and then
_RESTORES = 0.1  # ... that operators restore snapshots from outside
_SLOW_CALLERS = 0.25  # ... that leaders wait for callers on their way

_CHANGE_MEMBERS: tuple[type[Fault], ...] = (
    m.Churn,
    t.CutWithChange,
    st.ContradictingSnapshot,
    *mt.MEMBER_TRAPS,
)
_LOSE_DISKS: tuple[type[Fault], ...] = (f.LostDisk, f.DamagedSnapshot)
"""Never in a mix with what changes members: of two voters both are needed, and there are two more limits.

A wiped server (ARCHITECTURE.md, decision 15) asks the voters of its map, and of the configurations
that those have.  While a change is not committed, a new voter may lead whom none of them knows, and
nobody tells of what was promised to it.  And for a server that was removed and is gone for good it
waits in vain, until its operator corrects the map.  So operators replace no disk while members
change; these mixes would."""


def draw_faults(rng: random.Random, profile: str | None = None) -> list[Fault]:
    """The faults of a profile with drawn kinds and rates; the profile is drawn, too, unless it is given.

    Raises:
        ConfigError: there is no such profile.
    """
    if not isinstance(rng, random.Random):
        raise ConfigError(f"rng={rng!r} is not a random.Random: use for example random.Random(7)")
    if profile is None:
        weights = [each.weight for each in PROFILES.values()]
        profile = rng.choices(list(PROFILES), weights)[0]
    if profile not in PROFILES:
        raise ConfigError(f"there is no profile {profile!r}: there are {', '.join(PROFILES)}")
    mix = PROFILES[profile]
    drawn = [kind for kind in mix.kinds if rng.random() < mix.share] or [rng.choice(mix.kinds)]
    chosen = list(dict.fromkeys(drawn))
    if rng.random() < _STRAY:
        stray = rng.choice(KINDS)
        if stray not in chosen:
            chosen.append(stray)
    if any(kind in chosen for kind in _CHANGE_MEMBERS):
        chosen = [kind for kind in chosen if kind not in _LOSE_DISKS]
    return [_draw(rng, kind, mix) for kind in chosen]


def draw_apart(rng: random.Random, chosen: list[Fault]) -> list[Fault]:
    """What joins the faults ``chosen`` by another draw, so that those stay what they are.

    What replaces states and disks goes with nothing else for which operators do: a server that stands on a
    snapshot from outside that the others went on without loses its disk, too.
    """
    every, lasting = rng.choice([1.0, 3.0]), rng.choice([1.0, 3.0])
    drawn = rng.random()
    callers: list[Fault] = [f.SlowCallers(1.0, 5.0)] if rng.random() < _SLOW_CALLERS else []
    if _has(chosen, *_CHANGE_MEMBERS, *_LOSE_DISKS):
        return callers
    if drawn < _RESTORES:
        readers: list[Fault] = [m.Reads(1.0, 3.0)]  # who may see a state before it is committed
        return [r.Restores(every, lasting), *(readers if not _has(chosen, m.Reads) else []), *callers]
    if drawn > 1.0 - _LOST_MAJORITIES:
        return [LostMajority(4 * every, lasting), *callers]
    return callers


def _has(faults: list[Fault], *kinds: type[Fault]) -> bool:
    return any(isinstance(fault, kinds) for fault in faults)


def _draw(rng: random.Random, kind: type[Fault], mix: Profile) -> Fault:
    every, lasting = rng.choice(mix.every), rng.choice(mix.lasting)
    if kind in (f.CrashAll, f.FreezeAll):  # or nothing else would ever happen
        every, lasting = 4 * every, min(lasting, 1.0)
    return kind(every, lasting)

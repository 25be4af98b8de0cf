"""What a mixed cluster lives through; each step leaves all servers running and equal."""

from __future__ import annotations

import functools
import time
from collections.abc import Callable
from typing import ParamSpec

from tests.interop.clients import Writers
from tests.interop.clusters import PATIENCE, Cluster, Member, NotDoneError, done, eventually

MIB = 1024 * 1024
P = ParamSpec("P")


def step(story: Callable[P, None]) -> Callable[P, None]:
    """Print how long it took: pytest shows that where a test failed."""

    @functools.wraps(story)
    def told(*args: P.args, **kwargs: P.kwargs) -> None:
        began = time.monotonic()
        try:
            story(*args, **kwargs)
        finally:
            what = [value for value in (*args[1:], *kwargs.values()) if isinstance(value, str | int)]
            print(f"{time.monotonic() - began:6.2f} s {story.__name__} {what}", flush=True)

    return told


@step
def both_lead(cluster: Cluster, small: int = 200) -> None:
    """A server of each language leads, is asked whether it does, and takes commands of every size."""
    for language in ("go", "py", "go"):
        leader = cluster.lead(cluster.of(language))
        cluster.verify(leader)
        for size in (0, 1, MIB):
            cluster.apply(size)
        cluster.write(small)
        cluster.converge()


@step
def reads_need_a_leader_that_knows_of_them(cluster: Cluster) -> None:
    """A Python server that asks a Go leader for a read index is told so; one that leads itself knows."""
    python = cluster.of("py")

    def is_refused() -> bool:
        cluster.lead(cluster.of("go"))
        try:
            python.ask("read_index")
        except NotDoneError as error:
            return "is it a Go server?" in str(error)
        return False

    eventually(is_refused, "a Go leader is no help")
    cluster.lead(python)
    cluster.write(1)
    eventually(lambda: done(python, "read_index"), "it leads and has committed an entry")


@step
def leaders_die_under_load(cluster: Cluster) -> None:
    """Leaders of either language die while clients write, and come back when others have gone on."""
    with Writers(cluster) as writers:
        for language in ("go", "py"):
            leader = cluster.lead(cluster.of(language))
            writers.wait_for_more()
            cluster.kill(leader.id)
            writers.wait_for_more()
            cluster.start(leader.id)
            writers.wait_for_more()
    cluster.converge()


@step
def old_leader_returns(cluster: Cluster, language: str) -> None:
    """A leader that is cut off takes commands that the others replace with their own."""
    old = cluster.of(language)
    others = [member for member in cluster.running() if member is not old]
    takes_alone(cluster, old, 30)
    cluster.leader(others)
    cluster.write(10, among=others)
    cluster.links.mend()
    cluster.write(10)
    cluster.converge()
    assert all(member.ask("commands", prefix="x-") == [] for member in cluster.running())


def takes_alone(cluster: Cluster, old: Member, count: int) -> None:
    """Cut off ``old`` while it leads, and have it take commands that nobody else will ever get."""

    def took() -> bool:
        cluster.links.mend()
        cluster.lead(old)
        agreed = cluster.converge()["last_index"]
        cluster.links.cut_off(old.id)
        error = old.send("write", count=count, prefix="x-").exception(PATIENCE)
        assert isinstance(error, NotDoneError)
        # On a busy machine it may have been deposed just before.
        return error.outcome == "unknown" and old.status()["last_index"] >= agreed + count

    eventually(took, f"{old.id} takes commands alone")


@step
def cut_off_follower_disturbs_nobody(cluster: Cluster, follower: Member, leader: Member) -> None:
    """Who was cut off and stood for election in vain raised no term, and deposes nobody: pre-votes."""

    def undisturbed() -> bool:
        cluster.lead(leader)
        term = cluster.converge()["term"]
        cluster.links.cut_off(follower.id)
        eventually(lambda: follower.status()["state"] == "Candidate", f"{follower.id} stands")
        assert follower.status()["term"] == term
        cluster.links.mend()
        cluster.write(5)
        now = cluster.converge()
        return (now["term"], now["leader"]) == (term, leader.id)

    # A busy machine may depose a leader, too, but not time and again.
    assert any(undisturbed() for _ in range(5))


@step
def snapshot_is_sent(cluster: Cluster, leader: Member, follower: Member) -> None:
    """Who was away gets a snapshot of more than any message can carry."""
    cluster.lead(leader)
    cluster.converge()
    cluster.stop(follower.id)
    for _ in range(4):  # more than a Python leader keeps in memory
        cluster.apply(3 * MIB - 1024)
    cluster.write(20)
    covered = forget_old_entries(leader, cluster.running())
    cluster.start(follower.id)
    cluster.write(5)
    cluster.converge()
    assert follower.status()["snapshot_index"] >= covered


def forget_old_entries(leader: Member, members: list[Member]) -> int:
    """Have ``members`` take snapshots; return what all of them cover."""
    goal = int(leader.status()["commit_index"])
    for member in members:
        eventually(
            lambda member=member: member.status()["commit_index"] >= goal, "all know what is committed"
        )
        member.ask("snapshot")
    return goal


@step
def follower_is_far_behind(cluster: Cluster, leader: Member, follower: Member, entries: int) -> None:
    """Who was away gets many entries, none of them from a snapshot."""
    cluster.lead(leader)
    cluster.kill(follower.id)
    cluster.write(entries)
    cluster.start(follower.id)
    cluster.write(5)
    cluster.converge()


@step
def frozen_leader_wakes_up(cluster: Cluster, language: str) -> None:
    """A leader stands still for so long that the others elect another one, and then goes on."""
    old = cluster.lead(cluster.of(language))
    cluster.pause(old.id)
    others = [member for member in cluster.running() if member is not old]
    cluster.write(10, among=others)
    cluster.resume(old.id)
    cluster.write(10)
    cluster.converge()


@step
def snapshot_contradicts_the_log(cluster: Cluster, old: Member, new: Member) -> None:
    """Let ``old`` have a long log of its own, and need a snapshot of ``new``'s that ends inside it.

    Needs servers that keep no entries behind a snapshot.
    """
    others = [member for member in cluster.running() if member is not old]
    takes_alone(cluster, old, 100)
    cluster.lead(new, among=others)
    cluster.write(30, among=others)
    goal = forget_old_entries(new, others)
    for member in others:
        if member.language == "py":  # which has the latest entries in memory, too
            cluster.kill(member.id)
            cluster.start(member.id)
    cluster.lead(new, among=others)
    assert old.status()["last_index"] > goal
    cluster.links.mend()
    cluster.write(5, among=others)


@step
def members_change(cluster: Cluster, leader: Member, language: str) -> None:
    """A new server comes as a non-voter, becomes a voter, is demoted and removed again."""
    cluster.lead(leader)
    new = cluster.enrol(language)
    cluster.start(new.id)
    cluster.change("add_nonvoter", new, by=leader)
    cluster.write(5)
    cluster.converge()
    cluster.change("add_voter", new, by=leader)
    cluster.write(5)
    cluster.converge()
    assert cluster.entry(new) in new.status()["members"]
    cluster.change("demote", new, by=leader)
    cluster.write(5)
    cluster.converge()
    assert cluster.entry(new, "Nonvoter") in new.status()["members"]
    cluster.change("remove", new, by=leader)
    cluster.kill(new.id)
    cluster.write(5)
    cluster.converge()
    assert cluster.entry(new, "Nonvoter") not in leader.status()["members"]

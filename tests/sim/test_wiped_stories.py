"""Stories of servers that lose their disk while others count on what it held."""

from __future__ import annotations

from pyraft.config import Config
from pyraft.testing import SimCluster
from pyraft.testing.adversaries import leads
from pyraft.testing.sim_kv import encode_command

ONE_BY_ONE = Config(max_append_entries=1, max_inflight_appends=1, leader_lease_timeout=1.0)


class Story:
    """A cluster in which only some can reach each other."""

    def __init__(self, cluster):
        self.cluster = cluster
        cluster.network.conditions.knows_of_breaks = 1.0

    def connect(self, *pairs):
        """Leave only the links of these pairs."""
        servers = self.cluster.servers.values()
        kept = {(a.address, b.address) for pair in pairs for a, b in (pair, reversed(pair))}
        links = {(a.address, b.address) for a in servers for b in servers if a is not b}
        self.cluster.network.cut(self, sorted(links - kept))

    def until(self, condition):
        """Stop at the very step at which it comes true."""
        cluster = self.cluster
        assert cluster.scheduler.wait_until(condition, cluster.now + 20.0), cluster.describe()


def test_a_wiped_server_does_not_vote_before_it_has_what_an_unknown_leader_counts_it_for():
    """The leader was made a voter by a change that nobody whom the wiped server asks has heard of."""
    with SimCluster(5, 1, config=ONE_BY_ONE) as cluster:
        story, first = Story(cluster), cluster.leader()
        second, third, fourth, wiped = (s for s in cluster.servers.values() if s is not first)
        unknown = cluster.add_server()
        first.raft.add_nonvoter(unknown.id, unknown.address).result(5)
        cluster.apply(encode_command("x", ("put", "1")))
        everybody = cluster.servers.values()
        cluster.run_until(lambda: all(s.raft.applied_index == first.raft.last_index for s in everybody))

        # A change that gives `unknown` a vote reaches itself and the server that will be wiped.
        story.connect((first, wiped), (first, unknown))
        change = first.raft.last_index + 1
        cluster.scheduler.spawn(
            "operator", lambda: first.raft.add_voter(unknown.id, unknown.address), first.group
        )
        story.until(lambda: wiped.disk.last_index == unknown.disk.last_index == change)

        # Another leader's first entry takes its place with its proposer only.
        story.connect((second, third), (second, fourth))
        story.until(lambda: leads(second))
        story.connect((second, first))
        story.until(lambda: first.disk.entry(change).term == second.raft.term)

        # `unknown` wins by the change, and its first entry is acknowledged by one server, whose disk is lost.
        story.connect((unknown, wiped), (unknown, third), (unknown, fourth))
        story.until(lambda: leads(unknown))
        for slow in (third, fourth):
            cluster.network.slow(unknown.address, slow.address, 0.1)
        story.until(lambda: wiped.id in unknown.sessions)
        story.until(lambda: unknown.sessions[wiped.id].match_index == change + 1)
        assert third.disk.last_index == fourth.disk.last_index == change - 1
        asked = [(wiped, other) for other in (first, second, third, fourth)]
        story.connect((unknown, third), (unknown, fourth), *asked)
        cluster.wipe(wiped)
        cluster.restart(wiped)
        story.until(lambda: cluster.judge.seen(wiped.id).ballot.newborn is not None)
        assert cluster.judge.seen(wiped.id).ballot.newborn.target == change

        # That entry is committed by the old acknowledgement; the wiped server gets the one before it.
        story.connect((unknown, third), (unknown, fourth))
        story.until(lambda: unknown.raft.commit_index == change + 1)
        story.connect((unknown, wiped))
        story.until(lambda: cluster.judge.seen(wiped.id).commit == change)
        story.connect()
        cluster.run(0.05)
        cluster.crash(unknown)

        # With its vote `second`, who lacks a committed entry, would be elected.
        story.connect((second, first), (second, wiped))
        cluster.run(10)

        assert not leads(second, after_term=unknown.disk.entry(change + 1).term)
        cluster.network.mend(story)
        cluster.restart(unknown)
        cluster.apply(encode_command("x", ("put", "2")))
        cluster.run_until(lambda: all(s.fsm.data == {"x": "2"} for s in everybody))
        assert cluster.judge.seen(wiped.id).ballot.newborn is None

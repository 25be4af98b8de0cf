"""The situations that a simulated run can reach, and how often it did.

A simulator that never meets a situation proves nothing about it.  Long runs list what was never
reached, and the mix of faults is tuned until nothing is.
"""

from __future__ import annotations

from collections.abc import Mapping

from ..errors import ConfigError

SITUATIONS: dict[str, str] = {
    # elections
    "leader elected": "a server won an election",
    "leader elected with an uncommitted suffix": "its log ended in entries of older terms, not yet committed",
    "two leaders at once": "a server was elected while another still led an older term",
    "split vote": "two candidates of one term got votes",
    "candidate became follower": "a candidate found a leader or a later term",
    "pre-vote refused": "a voter would not vote for who asked",
    "vote refused: older log": "the candidate's log ended before the voter's",
    "vote refused: leader heard": "the voter heard from a leader a moment ago, and did not even take the term",
    "vote refused: given to another": "the voter's vote of that term was spent",
    "newborn refused to vote": "a server whose disk was lost had not caught up yet",
    "wiped server grew up": "such a server had caught up and votes again",
    # leaders
    "leader stepped down: lease": "no majority answered for too long",
    "leader stepped down: higher term": "it met a later term",
    "leader stepped down: slow write": "its own disk took longer than the election timeout",
    "leader crashed": "the process or the machine of a leader died",
    "leader frozen past its lease": "a leader went on after standing still for longer than its lease",
    "leader shut down in good order": "shutdown() of a leader",
    "answer for an ended leadership": "a request of a leadership that had ended was accepted by a follower",
    "commit ahead of the leader's disk": "a majority of followers held an entry before the leader's own write was done",
    "commit with a voter missing": "an entry was committed that not every voter had",
    "Figure 8": "entries of an older term were on a majority and not committed",
    # replication
    "uncommitted suffix replaced": "a follower dropped entries that another leader had",
    "stale entry stored at a committed index": "a follower took an entry that another leader's commit had overtaken",
    "follower log longer than the leader's": "a follower held more entries than the leader that asked it",
    "probe went back twice": "the place where two logs meet was found after more than one refusal",
    "stale term refused": "a leader of an older term asked for something",
    "duplicate entries received": "entries came that the follower had acknowledged before",
    "older request after a newer one": "a request came that was overtaken by a later one of its leader",
    "batch cut by count": "a message took as many entries as it may",
    "batch cut by bytes": "a message took as many bytes as it may",
    "in-flight window full": "as many messages were on their way to one follower as there may be",
    "stream broken with entries outstanding": "a stream of entries was given up before all were answered",
    "big batch": "one message brought more than 50 entries",
    "heartbeat on the fast path": "a heartbeat was answered without the main thread",
    "heartbeat on the main thread": "a heartbeat was answered by the main thread",
    # snapshots
    "log compacted": "entries that a snapshot covers were dropped",
    "log replaced by a snapshot": "a follower's log ended before a leader's snapshot, or contradicted it",
    "snapshot installed on an empty log": "a server without a log got a snapshot",
    "snapshot sent": "a leader did not have what a follower lacked, and began to send a snapshot",
    "stale snapshot ignored": "a snapshot came that said nothing new",
    "FSM restored": "a state machine began from a snapshot",
    "crash while a snapshot was stored": "a process died while its disk took a snapshot in",
    "snapshot damaged": "a bit of the newest snapshot of a server was flipped",
    "state restored from outside": "a snapshot from outside replaced the state of the cluster",
    "restore refused: not leader": "... and a server that did not lead, or not any more, was asked for that",
    "restore lost with its leader": "... and nobody knew whether it would",
    "commands aborted by a restore": "commands were in the log, not committed, when it was replaced",
    "stopped by a snapshot from outside": "a server stood on one that the others had gone on without",
    "majority lost and recovered": "an operator recovered the cluster from the one server that was left",
    # members
    "configuration changed": "a leader committed a configuration after the first",
    "configuration rolled back": "a server dropped a configuration that was not committed",
    "server added": "... which had one more server",
    "removed server added again": "... that had been a member before",
    "removed server renewed": "a server that was no member any more got an empty disk",
    "nonvoter promoted": "... in which a member without a vote got one",
    "voter demoted": "... in which another voter than the leader lost its vote",
    "server removed": "... which lacked a server, not the leader",
    "leader removed itself": "... which lacked the leader",
    "leader demoted itself": "... in which the leader lost its vote",
    "address changed": "... in which a member had another address",
    "even number of voters": "... with an even number of voters",
    "odd number of voters": "... with an odd number of voters",
    "one voter left": "... with a single voter",
    "new voter had got a snapshot": "a server that was to vote had been brought up to date by a snapshot",
    "removed server knocked": "a server that is no member asked for votes",
    "candidate with an uncommitted configuration": "the configuration that a candidate went by was not committed",
    "vote asked of one who does not know the candidate's": "by the log of who was asked the candidate had no vote",
    "two changes at once": "a server was asked for a change while it had not answered another",
    "change succeeded": "whoever asked for a change was told so",
    "change refused: illegal": "an unknown server, the last voter, a taken address, or an old prev_index",
    "change refused: handing over": "... because leadership was being handed over",
    "change gave up in time": "a change waited in vain for its turn or for a new voter to catch up",
    "change lost with its leader": "a leader lost its office before a change was committed",
    # transfers
    "transfer succeeded": "the target leads",
    "transfer failed": "the target did not catch up, did not answer, or was not elected",
    "transfer refused: another goes on": "leadership was being handed over already",
    "transfer refused: no voter": "the target has no vote",
    "transfer refused: no target": "the target is no member, or the leader itself, or there is nobody else",
    "candidate told to stand": "a candidate asked for votes because its leader wanted it to",
    "refused: handing over": "a command came while leadership was being handed over",
    "campaign asked for": "somebody wanted a server to stand for election",
    "campaign refused": "... which may not",
    # reads
    "read on a leader": "a read index that a leader asked for itself",
    "read on a follower": "... and a follower",
    "read on a server without a vote": "... and a member, or former member, that has no vote",
    "read through an election": "another leader was elected between a question for the read index and its answer",
    "read timed out": "nobody could tell a read index in time",
    "leadership verified": "a majority confirmed a leader after it was asked",
    "leadership not confirmed": "a server was asked whether it led, and did not, or not any more",
    # disks and crashes
    "crash with a commit in flight": "a process died while its disk wrote",
    "commit in flight landed new": "... and what it wrote was there afterwards",
    "commit in flight landed old": "... and what it wrote was not there afterwards",
    "vote lost in a crash": "... and it was a vote or a term",
    "crash between append and ack": "a follower died after it had stored entries and before it said so",
    "all servers down": "no process ran",
    "disk wiped": "a server lost its disk",
    "stopped by a full disk": "a server stopped by itself",
    "stopped by an I/O error": "a server stopped by itself",
    "stopped by a corrupt record": "a server stopped by itself",
    "stopped by its FSM": "a server stopped by itself",
    # commands
    "refused: not leader": "a command came to a server that does not lead",
    "refused: queue full": "a command found no room in time",
    "refused: shut down": "a command came to a server that was stopping",
    "leadership lost": "the leader of a command's term lost its office before it was committed",
    "shut down with commands under way": "commands in the log of a server that stopped",
    "unknown outcome, applied": "a command was committed after its client had been told that nobody knows",
    "answer after the caller gave up": "a future was done after its caller had stopped waiting",
    "FSM far behind": "a state machine was more than 100 entries behind the commit index",
    "starvation ended": "threads that were held back ran again",
}
"""What each situation means, by name."""


class Coverage(dict[str, int]):
    """How often each situation was reached; those that were not are missing."""

    def reached(self, situation: str) -> None:
        """Count ``situation``.

        Raises:
            ConfigError: it is not in ``SITUATIONS``.
        """
        if situation not in SITUATIONS:
            raise ConfigError(f"{situation!r} is not a situation: add it to SITUATIONS with its meaning")
        self[situation] = self.get(situation, 0) + 1


def never_reached(counts: Mapping[str, int]) -> list[str]:
    """The situations that ``counts`` lacks, in the table's order."""
    return [situation for situation in SITUATIONS if not counts.get(situation)]

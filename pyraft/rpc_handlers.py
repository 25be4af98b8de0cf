"""Answers to the RPCs of other servers.  Main thread only, in every role.

Each handler reads in the order decide, persist, reply.  A handler that raises sends no
reply: an answer we cannot stand behind is worse than silence.
"""

from __future__ import annotations

from dataclasses import replace

from .configuration import Configuration
from .context import NodeContext
from .errors import CorruptStoreError, TransportError, UnsupportedProtocolError
from .log import Log
from .messages import (
    OLDEST_ACCEPTED_PROTOCOL_VERSION,
    PROTOCOL_VERSION,
    AppendEntriesRequest,
    AppendEntriesResponse,
    InstallSnapshotRequest,
    Request,
    RequestPreVoteRequest,
    RequestPreVoteResponse,
    RequestVoteRequest,
    RequestVoteResponse,
    Response,
    RpcHeader,
    StandingRequest,
    StandingResponse,
)
from .rules.commitment import follower_commit_index
from .rules.election import (
    LAST_TERM,
    LogPosition,
    decide_vote,
    grants,
    is_member,
    is_stray_leader,
    may_be_heard,
    would_vote,
)
from .rules.membership import ballot_on_refusal, is_grown_up
from .rules.replication import agreement_bound, count_already_stored, is_contiguous, went_another_way
from .state import NodeState, RaftState

# Texts that Go servers know.
VERSION_TEXT = "operation not supported with current protocol version"
UNEXPECTED_TEXT = "unexpected command"


def check_version(header: RpcHeader) -> UnsupportedProtocolError | None:
    """The error to answer a request of a protocol version that this server does not speak."""
    if OLDEST_ACCEPTED_PROTOCOL_VERSION <= header.protocol_version <= PROTOCOL_VERSION:
        return None
    return UnsupportedProtocolError(VERSION_TEXT)


def object_to(request: Request | InstallSnapshotRequest) -> UnsupportedProtocolError | TransportError | None:
    """The error to answer what no server may act upon, whatever its role: a leader would step down for it."""
    refusal = check_version(request.header)
    if refusal is not None:
        return refusal
    if getattr(request, "term", 0) > LAST_TERM:
        return TransportError("the term is beyond all bounds: this request is damaged")
    return None


def object_to_stray_leader(
    node: NodeContext, request: Request | InstallSnapshotRequest
) -> TransportError | None:
    """The error to answer the leader of another cluster, which was given the address of this server."""
    header = request.header
    sender = header.id or header.addr
    if is_member(node.state.configuration, sender, header.addr):
        return None
    leader = node.current_leader()
    if (sender, header.addr) != node.foreign_leader and not is_stray_leader(leader, sender):
        return None
    error = TransportError(
        f"{sender} at {header.addr} is no member of the cluster of {node.id}, whose leader is {leader or 'not known'}: "
        f"was the address of {node.id} given to two clusters?"
    )
    if node.stray_leader != sender:  # it sends heartbeats, too
        node.stray_leader = sender
        node.log.error("refused a leader: %s", error)
    return error


def refuse_foreign_leader(
    node: NodeContext, request: AppendEntriesRequest | InstallSnapshotRequest
) -> TransportError:
    """The error to answer one whose log shows that it leads another cluster; it is not heard again."""
    node.state.leader = None
    header = request.header
    node.foreign_leader = (header.id or header.addr, header.addr)
    refusal = object_to_stray_leader(node, request)
    assert refusal is not None
    return refusal


def answer_request(
    node: NodeContext, request: Request
) -> Response | UnsupportedProtocolError | TransportError:
    """Decide, persist, and return the answer.

    Raises:
        StorageError: what the answer would promise is not durable, so there is none.
    """
    refusal = object_to(request)
    if refusal is not None:
        return refusal
    if isinstance(request, AppendEntriesRequest):
        return on_append_entries(node, request)
    if isinstance(request, RequestVoteRequest):
        node.notifier.observe(request)
        return on_request_vote(node, request)
    if isinstance(request, RequestPreVoteRequest):
        node.notifier.observe(request)
        return on_request_pre_vote(node, request)
    if isinstance(request, StandingRequest):
        return on_standing(node)
    return TransportError(UNEXPECTED_TEXT)


def on_append_entries(
    node: NodeContext, request: AppendEntriesRequest
) -> AppendEntriesResponse | TransportError:
    """Take over the leader's entries where our log agrees with its log.

    The caller is in a role that may follow ``request``'s leader (a leader or candidate of an
    older term has given up its role first).

    Raises:
        StorageError: the entries are not durable, so the leader must not count us.
        CorruptStoreError: the leader asks us to replace an entry that we have committed.

    Source: Figure 2, AppendEntries RPC, receiver steps 1-5.
    """
    state = node.state
    refusal = object_to_stray_leader(node, request)
    if refusal is not None:
        return refusal
    if request.term < state.ballot.term:  # step 1
        return _append_reply(node, success=False)
    state.adopt_term(request.term)
    node.heard_leader(request)
    if not is_contiguous(request.prev_log_entry, request.prev_log_term, request.entries, request.term):
        return TransportError("the entries do not follow each other: this request is damaged")

    if not request.is_heartbeat and _went_another_way(state, request):
        return refuse_stranded(node, request)
    if not _holds_prev(state, request):  # step 2
        return _refuse_prev(node, request)

    log = state.log
    known = count_already_stored(request.entries, log.last.index, log.term_at, log.snapshot.index)
    missing = list(request.entries[known:])
    last_proven = request.prev_log_entry + len(request.entries)
    commit = follower_commit_index(state.commit_index, request.leader_commit_index, last_proven)
    if missing:  # steps 3 and 4
        if missing[0].index <= state.commit_index:
            return _refuse_conflict(node, request, missing[0].index)
        _store_missing(node, request, missing, commit)

    if commit > state.commit_index:  # step 5
        _advance_commit(node, commit)
    # Once more, after the write: our slow disk is not the leader's silence.
    state.last_contact = node.runtime.now()
    return _append_reply(node, success=True)


def on_request_vote(node: NodeContext, request: RequestVoteRequest) -> RequestVoteResponse:
    """Answer a candidate.  A granted vote is durable before this returns.

    Raises:
        StorageError: the vote is not durable, so the candidate must not count it.

    Source: Figure 2, RequestVote RPC.
    """
    state = node.state
    candidate = request.header.id or request.header.addr
    candidate_last = LogPosition(request.last_log_term, request.last_log_index)
    members = _members_to_judge_by(state, candidate_last)
    granted = False
    if may_be_heard(members, node.current_leader(), candidate, request.leadership_transfer):
        before = state.ballot
        ballot = decide_vote(before, state.log.last, members, candidate, request.term, candidate_last)
        state.save_ballot(ballot)
        granted = grants(ballot, candidate, request.term)
        if granted:
            node.voted_at = node.runtime.now()  # give it time to win (§5.2)
            if before != ballot:
                node.log.info("voted for candidate=%s", candidate)
    return RequestVoteResponse(node.header, state.ballot.term, granted)


def on_request_pre_vote(node: NodeContext, request: RequestPreVoteRequest) -> RequestPreVoteResponse:
    """Answer whether we would vote.  Nothing changes: not the term, not the contact.

    Source: dissertation §9.6.
    """
    state = node.state
    candidate = request.header.id or request.header.addr
    candidate_last = LogPosition(request.last_log_term, request.last_log_index)
    members = _members_to_judge_by(state, candidate_last)
    granted = may_be_heard(members, node.current_leader(), candidate, False) and would_vote(
        state.ballot, state.log.last, members, candidate, request.term, candidate_last
    )
    # A granted pre-vote answers in the term asked about, a refused one in ours.
    term = request.term if granted else state.ballot.term
    return RequestPreVoteResponse(node.header, term, granted)


def _members_to_judge_by(state: NodeState, candidate_last: LogPosition) -> Configuration:
    """The configuration by which a candidate may vote or not; empty if we cannot know.

    A candidate whose log goes further than ours may be a voter by a configuration that we have not
    got yet, and then nobody could lead without our vote (dissertation §4.1).
    """
    return state.configuration if candidate_last <= state.log.last else Configuration()


def on_standing(node: NodeContext) -> StandingResponse:
    """Tell a server with an empty disk what we have on ours."""
    state = node.state
    return StandingResponse(node.header, state.ballot.term, state.log.last.index, state.configuration)


def answer_heartbeat(node: NodeContext, request: AppendEntriesRequest) -> AppendEntriesResponse | None:
    """Answer a heartbeat on a thread of the transport, or None if the main thread must.

    Only where nothing can change: same term, same leader, and we follow.  All it does is to
    refresh an instant, so it cannot race with the main thread.
    """
    state = node.state
    header = request.header
    if (
        request.term != state.ballot.term
        or state.role is not RaftState.FOLLOWER
        or state.leader != (header.id or header.addr, header.addr)
        or check_version(header) is not None
    ):
        return None
    state.last_contact = node.runtime.now()
    return AppendEntriesResponse(node.header, request.term, state.log.last.index, True)


def _append_reply(
    node: NodeContext, *, success: bool, no_retry_backoff: bool = False
) -> AppendEntriesResponse:
    state = node.state
    return AppendEntriesResponse(
        node.header, state.ballot.term, state.log.last.index, success, no_retry_backoff
    )


def _went_another_way(state: NodeState, request: AppendEntriesRequest) -> bool:
    """Whether the leader's log shows that it went on without our snapshot."""
    snapshot, prev, entries = state.log.snapshot, request.prev_log_entry, request.entries
    if prev > snapshot.index:
        return False
    covered = min(len(entries), snapshot.index - prev)
    term = entries[covered - 1].term if covered else request.prev_log_term
    return went_another_way(snapshot, prev + covered, term)


def refuse_stranded(
    node: NodeContext, request: AppendEntriesRequest | InstallSnapshotRequest
) -> TransportError:
    """Refuse one whose log went on without our snapshot.

    Raises:
        CorruptStoreError: it is a member of our cluster, so this server cannot go on.
    """
    header = request.header
    if is_member(node.state.configuration, header.id or header.addr, header.addr):
        raise stranded(node.state, header)
    return refuse_foreign_leader(node, request)


def stranded(state: NodeState, leader: RpcHeader) -> CorruptStoreError:
    """The error of a server that stands on a snapshot which its leader has not got."""
    snapshot = state.log.snapshot
    return CorruptStoreError(
        f"{state.server_id} stands on a snapshot of entry {snapshot.index} (term {snapshot.term}), and the log of its "
        f"leader {leader.id} went another way. That happens when a snapshot from outside is restored and the leader "
        f"is lost before a majority has it, or when several servers were recovered by hand: then wipe this server's "
        f"directory and let it rejoin as a new member. If nobody did either, keep both servers' data directories and "
        f"report a bug: Raft forbids this (§5.4)"
    )


def _holds_prev(state: NodeState, request: AppendEntriesRequest) -> bool:
    log, prev = state.log, request.prev_log_entry
    if request.is_heartbeat:
        return True
    if prev < log.oldest_known():
        # A snapshot covers it, so it is committed, and every leader has it (§5.4.3). That is
        # believed only where the request shows that it agrees with the snapshot's end.
        return prev + len(request.entries) >= log.snapshot.index
    return prev == 0 or log.term_at(prev) == request.prev_log_term


def _refuse_prev(node: NodeContext, request: AppendEntriesRequest) -> AppendEntriesResponse:
    """Say that our logs differ before the entries, and where to look for agreement.

    Raises:
        StorageError: what this server has to hold before it may vote is not durable.
    """
    state, log = node.state, node.state.log
    is_empty = state.has_just_come
    before = state.ballot.newborn
    prev = LogPosition(request.prev_log_term, request.prev_log_entry)
    state.save_ballot(
        ballot_on_refusal(state.ballot, is_empty, request.term, request.leader_commit_index, prev)
    )
    if before is None and state.ballot.newborn is not None:
        node.log.info("this server has just come: it does not stand until it has caught up with its leader")
    reply = _append_reply(node, success=False, no_retry_backoff=True)
    if request.prev_log_entry < log.snapshot.index:  # nothing to compare with before our snapshot's end
        return replace(reply, hint_index=log.snapshot.index, hint_term=log.snapshot.term)
    upto = min(request.prev_log_entry - 1, log.last.index)
    if upto < max(log.oldest_known(), 1):
        return reply
    bound = agreement_bound(log.term_at, log.oldest_known(), upto, request.prev_log_term)
    return replace(reply, hint_index=bound.index, hint_term=bound.term)


def _refuse_conflict(node: NodeContext, request: AppendEntriesRequest, index: int) -> TransportError:
    """Refuse to replace the entry at ``index``, which we have committed.

    Raises:
        CorruptStoreError: a member of our cluster asks for it, so one of us has lost something.
    """
    header, state = request.header, node.state
    sender = header.id or header.addr
    if is_member(state.configuration, sender, header.addr):
        raise CorruptStoreError(
            f"{sender} (term {request.term}) wants to replace entry {index}, but we committed up to "
            f"{state.commit_index}. Keep both servers' data directories and report a bug: Raft forbids this (§5.4)."
        )
    return refuse_foreign_leader(node, request)


def _store_missing(node: NodeContext, request: AppendEntriesRequest, missing: list[Log], commit: int) -> None:
    state = node.state
    first = missing[0].index
    before = state.configurations
    began = node.runtime.now()
    if first <= state.log.last.index:
        node.log.warning("replacing entries first=%d last=%d", first, state.log.last.index)
        state.configurations = state.configurations.with_truncation(first)
    state.log.replace_suffix(missing, commit)
    node.metrics.log_written(node.runtime.now() - began)
    node.metrics.received_entries_total += len(missing)
    state.take_configurations(missing)
    node.configurations_changed(before)


def _advance_commit(node: NodeContext, commit: int) -> None:
    state = node.state
    first = state.commit_index + 1
    state.advance_commit(commit)
    logs = state.log.recent(first, commit)
    if logs is None or not state.log.is_in_memory(node.fsm.applied_index + 1):
        # Too far behind: it reads them later, so that memory does not grow with its backlog.
        node.fsm.committed_up_to(commit)
    else:
        node.fsm.committed(logs)
    newborn = state.ballot.newborn
    if newborn is not None and is_grown_up(newborn, commit, state.log.term_at(commit) or 0):
        state.save_ballot(replace(state.ballot, newborn=None))
        node.log.info("caught up to what this server may have held before: it votes again commit=%d", commit)

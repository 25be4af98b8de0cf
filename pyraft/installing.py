"""A snapshot from the leader, on this server: received on a transport's thread, decided on the main thread.

The main thread looks twice: before the first byte, whether the sender may send it at all; and
once it is durable, whether it is still of use.  In between it goes on answering.

Source: Raft paper Figure 13; dissertation §5.3.
"""

from __future__ import annotations

from dataclasses import replace

from .context import NodeContext
from .errors import RaftError, StorageError, TransportError
from .messages import InstallSnapshotRequest, InstallSnapshotResponse
from .rpc_handlers import object_to, object_to_stray_leader, refuse_stranded
from .rules.election import LogPosition
from .rules.membership import ballot_on_refusal, is_grown_up
from .rules.replication import went_another_way
from .snapshots.base import SnapshotMeta, SnapshotSink, SnapshotStore
from .transport.base import IncomingRpc, SnapshotSource

_CHUNK_BYTES = 256 * 1024

Verdict = InstallSnapshotResponse | RaftError | None
"""What to answer the sender; None: go on."""


class SnapshotStep(IncomingRpc):
    """A question to the main thread about a snapshot; ``stored`` once it is durable here."""

    __slots__ = ("_over", "_verdict", "snapshot", "stored")

    def __init__(
        self, node: NodeContext, request: InstallSnapshotRequest, stored: SnapshotMeta | None
    ) -> None:
        # Not a request of one message, but the main thread treats it like one.
        super().__init__(request, self.go_on)  # type: ignore[arg-type]
        self.snapshot = request
        self.stored = stored
        self._over = node.runtime.signal()
        self._verdict: Verdict = None

    def go_on(self, verdict: Verdict) -> None:
        """Give the answer.  Never blocks."""
        self._verdict = verdict
        self._over.set()

    def wait(self) -> Verdict:
        """Block until the main thread, or whoever disposes of its inbox, has answered."""
        self._over.wait()
        return self._verdict


def receive_snapshot(
    node: NodeContext, store: SnapshotStore, request: InstallSnapshotRequest, source: SnapshotSource
) -> InstallSnapshotResponse | RaftError:
    """Take in a snapshot.  On a thread of the transport; blocks until it is durable here."""
    verdict = _object_to(request) or _ask_main(node, request, None)
    if verdict is not None:
        return verdict
    node.log.info(
        "receiving a snapshot from=%s index=%d bytes=%d",
        request.header.id,
        request.last_log_index,
        request.size,
    )
    try:
        meta = _store(node, store, request, source)
    except RaftError as error:
        node.log.warning("a snapshot from=%s was not received: %s", request.header.id, error)
        return error
    verdict = _ask_main(node, request, meta)
    return verdict if verdict is not None else TransportError("the snapshot was not installed")


def _object_to(request: InstallSnapshotRequest) -> RaftError | None:
    refusal = object_to(request)
    if refusal is None and (not 0 < request.last_log_term <= request.term or request.last_log_index < 1):
        return TransportError("a snapshot of a term after its sender's own: this request is damaged")
    return refusal


def _ask_main(node: NodeContext, request: InstallSnapshotRequest, stored: SnapshotMeta | None) -> Verdict:
    step = SnapshotStep(node, request, stored)
    node.inbox.put(step)
    return step.wait()


def _store(
    node: NodeContext, store: SnapshotStore, request: InstallSnapshotRequest, source: SnapshotSource
) -> SnapshotMeta:
    """Write the stream into a new snapshot, durable on return.

    Raises:
        TransportError: the stream broke; nothing is kept.
        StorageError: the disk did; nothing is kept.
    """
    try:
        sink = store.create(
            1,
            request.last_log_index,
            request.last_log_term,
            request.configuration,
            request.configuration_index,
            node.transport,
        )
        try:
            _copy(source, sink)
            sink.close()
        except BaseException:
            sink.cancel()
            raise
    except RaftError:
        raise
    except Exception as error:
        raise StorageError(f"{node.id} could not store the snapshot: {error!r}") from error
    return SnapshotMeta(
        sink.id,
        request.last_log_index,
        request.last_log_term,
        request.configuration,
        request.configuration_index,
        request.size,
    )


def _copy(source: SnapshotSource, sink: SnapshotSink) -> None:
    while True:
        chunk = source.read(_CHUNK_BYTES)
        if not chunk:
            return
        sink.write(chunk)


def answer_snapshot(
    node: NodeContext, request: InstallSnapshotRequest, stored: SnapshotMeta | None
) -> Verdict:
    """Decide about a snapshot that is offered, or durable here by now.  Main thread only.

    The caller is in a role that may follow the sender.

    Raises:
        StorageError: the old log could not be dropped; this server must stop.
        CorruptStoreError: this server stands on a snapshot that its leader has not got.

    Source: Figure 13, receiver steps 1 and 5 to 8.
    """
    state = node.state
    refusal = _object_to(request) or object_to_stray_leader(node, request)
    if refusal is not None:
        return refusal
    if request.term < state.ballot.term:
        return InstallSnapshotResponse(node.header, state.ballot.term, False)
    state.adopt_term(request.term)
    node.heard_leader(request)
    if state.ballot.newborn is None and state.has_just_come:
        # Nothing says what the sender has committed beyond it: an entry of its term will.
        position = LogPosition(request.term, request.last_log_index)
        state.save_ballot(
            ballot_on_refusal(state.ballot, True, request.term, request.last_log_index, position)
        )
    # At or below our commit index it says nothing new; installing it would take the FSM back.
    if request.last_log_index > state.commit_index:
        if stored is None:
            return None
        _install(node, stored)
    elif went_another_way(state.log.snapshot, request.last_log_index, request.last_log_term):
        return refuse_stranded(node, request)
    return InstallSnapshotResponse(node.header, state.ballot.term, True)


def _install(node: NodeContext, meta: SnapshotMeta) -> None:
    state = node.state
    before = state.configurations
    state.take_snapshot_position(meta)
    node.configurations_changed(before)
    node.log.info("installed snapshot=%s index=%d log_ends=%d", meta.id, meta.index, state.log.last.index)
    node.fsm.restore(meta, node.snapshots.opener(meta))
    newborn = state.ballot.newborn
    if newborn is not None and is_grown_up(newborn, meta.index, meta.term):
        state.save_ballot(replace(state.ballot, newborn=None))
        node.log.info(
            "caught up to what this server may have held before: it votes again commit=%d", meta.index
        )
    node.compact()

"""gRPC's health service for one question: does this server lead?

Clients of github.com/Jille/raft-grpc-leader-rpc, such as ``raftadmin --leader``, watch it on all
servers of a cluster and send their calls to the one that is healthy.  Each watcher holds a worker
of the transport for as long as it is there, so there are only a few.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Protocol

import grpc

from ..runtime import Runtime
from . import raft_admin_pb2 as pb

HEALTH_SERVICE = "grpc.health.v1.Health"

_LEADER = "quis.RaftLeader"
_MAX_WATCHERS = 16
_LOOK_SECONDS = 0.1
"""How often a watcher's worker looks; a client that waits for a leader waits for an election."""

_Status = pb.HealthResponse.Status


class Leading(Protocol):
    """What of ``pyraft.Raft`` is used here."""

    @property
    def state(self) -> Any: ...


class LeaderHealth:
    """Tells whether a server leads, once that server is attached."""

    def __init__(self, runtime: Runtime) -> None:
        self._runtime = runtime
        self._lock = runtime.lock()
        self._raft: Leading | None = None
        self._watchers = 0

    def attach(self, raft: Leading) -> None:
        """From now on it is ``raft`` that is asked."""
        self._raft = raft

    def handlers(self) -> dict[str, grpc.RpcMethodHandler[Any, Any]]:
        """The calls of the service, by name."""
        codecs: dict[str, Any] = {
            "request_deserializer": pb.HealthRequest.FromString,
            "response_serializer": pb.HealthResponse.SerializeToString,
        }
        return {
            "Check": grpc.unary_unary_rpc_method_handler(self._check, **codecs),
            "Watch": grpc.unary_stream_rpc_method_handler(self._watch, **codecs),
        }

    def _status(self, service: str) -> _Status:
        if service == "":
            return pb.HealthResponse.SERVING
        if service != _LEADER:
            return pb.HealthResponse.SERVICE_UNKNOWN
        raft = self._raft
        leads = raft is not None and raft.state.name == "LEADER"
        return pb.HealthResponse.SERVING if leads else pb.HealthResponse.NOT_SERVING

    def _check(self, request: pb.HealthRequest, context: grpc.ServicerContext) -> pb.HealthResponse:
        status = self._status(request.service)
        if status == pb.HealthResponse.SERVICE_UNKNOWN:
            context.abort(grpc.StatusCode.NOT_FOUND, f"only {_LEADER} is known here")
        return pb.HealthResponse(status=status)

    def _watch(self, request: pb.HealthRequest, context: grpc.ServicerContext) -> Iterator[pb.HealthResponse]:
        with self._lock:
            has_room = self._watchers < _MAX_WATCHERS
            self._watchers += has_room
        if not has_room:
            context.abort(grpc.StatusCode.RESOURCE_EXHAUSTED, f"{_MAX_WATCHERS} clients are watching")
        try:
            yield from self._changes(request.service, context)
        finally:
            with self._lock:
                self._watchers -= 1

    def _changes(self, service: str, context: grpc.ServicerContext) -> Iterator[pb.HealthResponse]:
        gone = self._runtime.signal()
        is_there = context.add_callback(gone.set)
        told = None
        while is_there:
            status = self._status(service)
            if status != told:
                told = status
                yield pb.HealthResponse(status=status)
            is_there = not gone.wait(_LOOK_SECONDS)

"""A remote control over gRPC, byte for byte as github.com/Jille/raftadmin has it.

What takes its time is answered at once with a token.  ``Await`` with that token waits for the
end, as often as one likes; ``Forget`` frees it.  Clients that never forget cost nothing for
long: of what is over only the outcome is kept, and the oldest of those give way.

Calls run on the transport's workers, of which raft's own calls must always find one: so only a
few are let in at a time.
"""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Callable
from concurrent.futures import Future
from functools import partial
from typing import Any, Protocol

import grpc

from ..configuration import Configuration
from ..errors import RaftError
from ..futures import IndexFuture, RaftFuture
from ..log import Log, LogType
from ..runtime import Runtime, Signal
from . import raft_admin_pb2 as pb
from .leader_health import HEALTH_SERVICE, LeaderHealth

_log = logging.getLogger(__name__)

SERVICE = "RaftAdmin"

_MAX_CALLS = 16
_MAX_OPERATIONS = 1000
_MAX_ERROR_CHARACTERS = 4000
_LONGEST_TIMEOUT = 1e9
_SHUTDOWN_SECONDS = 2.0
"""So long a client may take to hear that the server shuts down; the connection ends with it."""
_NEVER_UNIX_NANO = -6_795_364_578_871_345_152
"""What Go makes of the time of a contact that never was."""


class Administered(Protocol):
    """What of ``pyraft.Raft`` is used here."""

    @property
    def state(self) -> Any: ...
    @property
    def leader_address(self) -> str | None: ...
    @property
    def last_index(self) -> int: ...
    @property
    def applied_index(self) -> int: ...
    @property
    def last_contact(self) -> float | None: ...
    def stats(self) -> dict[str, str]: ...
    def get_configuration(self) -> RaftFuture[Configuration]: ...

    def apply_log(self, log: Log, timeout: float | None = ...) -> RaftFuture[Any]: ...
    def barrier(self, timeout: float | None = ...) -> RaftFuture[int]: ...
    def verify_leader(self) -> RaftFuture[None]: ...
    def snapshot(self) -> RaftFuture[Any]: ...
    def leadership_transfer(self, id: str | None = ..., address: str | None = ...) -> RaftFuture[None]: ...
    def shutdown(self) -> RaftFuture[None]: ...
    def add_voter(
        self, id: str, address: str, prev_index: int = ..., timeout: float | None = ...
    ) -> RaftFuture[None]: ...
    def add_nonvoter(
        self, id: str, address: str, prev_index: int = ..., timeout: float | None = ...
    ) -> RaftFuture[None]: ...
    def demote_voter(
        self, id: str, prev_index: int = ..., timeout: float | None = ...
    ) -> RaftFuture[None]: ...
    def remove_server(
        self, id: str, prev_index: int = ..., timeout: float | None = ...
    ) -> RaftFuture[None]: ...


class AdminService:
    """Serves one server's remote control, once that server is attached."""

    def __init__(self, runtime: Runtime) -> None:
        self._runtime = runtime
        self._lock = runtime.lock()
        self._raft: Administered | None = None
        self._calls = 0
        self._operations: dict[str, _Operation] = {}
        self._shutdown: _Operation | None = None
        self._shutdown_heard: Signal = runtime.signal()
        self._health = LeaderHealth(runtime)

    def attach(self, raft: Administered) -> None:
        """From now on it is ``raft`` that is controlled."""
        self._raft = raft
        self._health.attach(raft)

    def close(self) -> None:
        """The server that was controlled has gone.  Callers who wait are woken by grpc, which stops."""
        self._raft = None
        self._shutdown_heard.set()

    def services(self) -> dict[str, dict[str, grpc.RpcMethodHandler[Any, Any]]]:
        """What is served: calls by name, of services by name."""
        return {SERVICE: self._handlers(), HEALTH_SERVICE: self._health.handlers()}

    def _handlers(self) -> dict[str, grpc.RpcMethodHandler[Any, Any]]:
        calls: dict[str, tuple[Any, Callable[[Any, grpc.ServicerContext], Any]]] = {
            name: (request, partial(self._begin, name, begin)) for name, (request, begin) in _BEGUN.items()
        }
        calls |= {name: (pb.Empty, partial(self._look, look)) for name, look in _LOOKED_UP.items()}
        calls["LastContact"] = (pb.Empty, partial(self._look, self._last_contact))
        calls["Shutdown"] = (pb.Empty, self._shut_down)
        calls["Await"] = (pb.Future, self._await)
        calls["Forget"] = (pb.Future, self._forget)
        return {
            name: grpc.unary_unary_rpc_method_handler(
                partial(self._serve, answer),
                request_deserializer=request.FromString,
                response_serializer=_serialize,
            )
            for name, (request, answer) in calls.items()
        }

    def _serve(
        self, answer: Callable[[Any, grpc.ServicerContext], Any], request: Any, context: grpc.ServicerContext
    ) -> Any:
        with self._lock:
            has_room = self._calls < _MAX_CALLS
            self._calls += has_room
        if not has_room:
            context.abort(grpc.StatusCode.RESOURCE_EXHAUSTED, f"{_MAX_CALLS} calls are under way; try again")
        try:
            return answer(request, context)
        except RaftError as error:
            context.abort(grpc.StatusCode.UNKNOWN, _text_of(error))
        finally:
            with self._lock:
                self._calls -= 1

    def _server(self, context: grpc.ServicerContext) -> Administered:
        raft = self._raft
        if raft is None:
            context.abort(grpc.StatusCode.UNAVAILABLE, "no server is running behind this address")
        return raft

    def _look(self, look: Callable[[Any], Any], request: Any, context: grpc.ServicerContext) -> Any:
        return look(self._server(context))

    def _last_contact(self, raft: Administered) -> pb.LastContactResponse:
        seconds = raft.last_contact
        if seconds is None:
            return pb.LastContactResponse(unix_nano=_NEVER_UNIX_NANO)
        return pb.LastContactResponse(unix_nano=self._runtime.wall_time_ns() - int(seconds * 1e9))

    def _begin(
        self,
        name: str,
        begin: Callable[[Any, Any, float | None], Future[Any]],
        request: Any,
        context: grpc.ServicerContext,
    ) -> pb.Future:
        raft = self._server(context)
        self._make_room(context)
        _log.info("asked to %s by=%s %s", name, context.peer(), _in_one_line(request))
        operation = _Operation(self._runtime)
        future = begin(raft, request, _timeout_of(context))
        token = self._keep(operation)
        future.add_done_callback(operation.finish)
        return pb.Future(operation_token=token)

    def _make_room(self, context: grpc.ServicerContext) -> None:
        with self._lock:
            if len(self._operations) < _MAX_OPERATIONS:
                return
            over = next((t for t, operation in self._operations.items() if operation.outcome), None)
            if over is not None:
                del self._operations[over]
                return
        context.abort(
            grpc.StatusCode.RESOURCE_EXHAUSTED, f"{_MAX_OPERATIONS} operations are under way; forget some"
        )

    def _keep(self, operation: _Operation) -> str:
        token = os.urandom(20).hex()
        with self._lock:
            self._operations[token] = operation
        return token

    def _await(self, request: pb.Future, context: grpc.ServicerContext) -> pb.AwaitResponse:
        operation = self._operations.get(request.operation_token)
        if operation is None:
            context.abort(grpc.StatusCode.UNKNOWN, f"token {request.operation_token[:80]!r} is unknown")
        return operation.wait(context) or pb.AwaitResponse()  # the latter is read by nobody

    def _forget(self, request: pb.Future, context: grpc.ServicerContext) -> pb.Empty:
        with self._lock:
            operation = self._operations.pop(request.operation_token, None)
        # Not before the answer to this has been sent.
        is_end = operation is not None and operation is self._shutdown
        if is_end and not context.add_callback(self._shutdown_heard.set):
            self._shutdown_heard.set()
        return pb.Empty()

    def _shut_down(self, request: pb.Empty, context: grpc.ServicerContext) -> pb.Future:
        """Answer first, and shut down once the client has heard how it ended, or soon after.

        The connection that it asks over ends with the server, so the end itself cannot be told.
        """
        raft = self._server(context)
        _log.warning("asked to shut down by=%s", context.peer())
        operation = _Operation(self._runtime)
        operation.outcome = pb.AwaitResponse()
        with self._lock:
            first = self._shutdown is None
            self._shutdown = operation
        token = self._keep(operation)
        if first:
            # No thread of pyraft's: shutting down waits for those.
            threading.Thread(
                target=self._shut_down_soon, args=(raft,), name="pyraft-admin-shutdown", daemon=True
            ).start()
        return pb.Future(operation_token=token)

    def _shut_down_soon(self, raft: Administered) -> None:
        self._shutdown_heard.wait(_SHUTDOWN_SECONDS)
        raft.shutdown()


class _Operation:
    """Something that was begun, and those who wait for its end."""

    def __init__(self, runtime: Runtime) -> None:
        self.outcome: pb.AwaitResponse | None = None
        self._runtime = runtime
        self._lock = runtime.lock()
        self._waiting: list[Signal] = []

    def finish(self, future: Future[Any]) -> None:
        """It is over; ``future``, and with it the result, is not kept."""
        error = future.exception()
        if error is not None:
            self.outcome = pb.AwaitResponse(error=_text_of(error))
        else:
            self.outcome = pb.AwaitResponse(index=future.index if isinstance(future, IndexFuture) else 0)
        with self._lock:
            waiting, self._waiting = self._waiting, []
        for signal in waiting:
            signal.set()

    def wait(self, context: grpc.ServicerContext) -> pb.AwaitResponse | None:
        """How it ended; None if the caller has gone before."""
        signal = self._runtime.signal()
        with self._lock:
            self._waiting.append(signal)
        # Waiting first, looking second; finish() does it the other way round.
        if self.outcome is None and context.add_callback(signal.set):
            signal.wait()
        with self._lock:
            if signal in self._waiting:
                self._waiting.remove(signal)
        return self.outcome


def _timeout_of(context: grpc.ServicerContext) -> float | None:
    """Seconds that the caller is ready to wait; None = for ever, which grpc calls 300,000 million years."""
    left = context.time_remaining()
    return None if left > _LONGEST_TIMEOUT else max(left, 0.0)


def _text_of(error: BaseException) -> str:
    text = str(error) or type(error).__name__
    return text[:_MAX_ERROR_CHARACTERS].encode(errors="replace").decode()


def _in_one_line(request: Any) -> str:
    fields = [(field.name, value) for field, value in request.ListFields() if not isinstance(value, bytes)]
    return " ".join(f"{name}={value!r:.200}" for name, value in fields)


def _serialize(message: Any) -> bytes:
    data: bytes = message.SerializeToString()
    return data


def _apply_log(raft: Administered, request: pb.ApplyLogRequest, timeout: float | None) -> Future[Any]:
    log = Log(0, 0, LogType.COMMAND, request.data, request.extensions)
    return raft.apply_log(log, timeout)


_BEGUN: dict[str, tuple[Any, Callable[[Administered, Any, float | None], Future[Any]]]] = {
    "AddVoter": (pb.AddRequest, lambda raft, r, t: raft.add_voter(r.id, r.address, r.previous_index, t)),
    "AddNonvoter": (
        pb.AddRequest,
        lambda raft, r, t: raft.add_nonvoter(r.id, r.address, r.previous_index, t),
    ),
    "DemoteVoter": (pb.MemberRequest, lambda raft, r, t: raft.demote_voter(r.id, r.previous_index, t)),
    "RemoveServer": (pb.MemberRequest, lambda raft, r, t: raft.remove_server(r.id, r.previous_index, t)),
    "ApplyLog": (pb.ApplyLogRequest, _apply_log),
    "Barrier": (pb.Empty, lambda raft, r, t: raft.barrier(t)),
    "VerifyLeader": (pb.Empty, lambda raft, r, t: raft.verify_leader()),
    "Snapshot": (pb.Empty, lambda raft, r, t: raft.snapshot()),
    "LeadershipTransfer": (pb.Empty, lambda raft, r, t: raft.leadership_transfer()),
    "LeadershipTransferToServer": (
        pb.TransferRequest,
        lambda raft, r, t: raft.leadership_transfer(r.id, r.address),
    ),
}
"""The calls that begin something: how their request reads, and what begins."""


def _configuration(raft: Administered) -> pb.ConfigurationResponse:
    servers = raft.get_configuration().result().servers
    return pb.ConfigurationResponse(
        servers=[
            pb.ConfigurationResponse.Server(suffrage=int(s.suffrage), id=s.id, address=s.address)  # type: ignore[arg-type]
            for s in servers
        ]
    )


_LOOKED_UP: dict[str, Callable[[Administered], Any]] = {
    "AppliedIndex": lambda raft: pb.IndexResponse(index=raft.applied_index),
    "LastIndex": lambda raft: pb.IndexResponse(index=raft.last_index),
    "GetConfiguration": _configuration,
    "Leader": lambda raft: pb.LeaderResponse(address=raft.leader_address or ""),
    "State": lambda raft: pb.StateResponse(state=raft.state.name),
    "Stats": lambda raft: pb.StatsResponse(stats=raft.stats()),
}
"""The calls that only look."""

"""Threads for a server that asks for an executor.

The standard library's executor keeps the interpreter alive until its threads end.  These
never do: a script that ends, or raises, without shutting anything down exits.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from concurrent.futures import Executor, Future
from functools import partial
from typing import Any

from ..runtime import Inbox, Runtime, Task

_Job = Callable[[], None]


class Workers(Executor):
    """Runs jobs on threads that it makes when all others are busy and lets end when idle."""

    def __init__(self, runtime: Runtime, name: str, limit: int, idle_seconds: float = 10.0) -> None:
        self._runtime = runtime
        self._name = name
        self._limit = limit
        self._idle_seconds = idle_seconds
        self._lock = runtime.lock()
        self._idle: list[Inbox] = []  # the last to fall idle is the first to work: the rest can end
        self._backlog: deque[_Job] = deque()
        self._tasks: set[Task] = set()
        self._running = 0
        self._made = 0
        self._closed = False

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        future: Future[Any] = Future()
        self._start(partial(_run, future, partial(fn, *args, **kwargs)))
        return future

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """Let every thread end after its present job; what waits for one is dropped."""
        with self._lock:
            self._closed = True
            idle, self._idle = self._idle, []
            self._backlog.clear()
        for inbox in idle:
            inbox.put(None)
        if wait:
            self.join(None)

    def join(self, timeout: float | None) -> bool:
        """Wait, at most ``timeout`` seconds, until no thread is left; return whether that is so."""
        deadline = None if timeout is None else self._runtime.now() + timeout
        for task in list(self._tasks):
            if not task.join(None if deadline is None else max(deadline - self._runtime.now(), 0.0)):
                return False
        return True

    def _start(self, job: _Job) -> None:
        with self._lock:
            if self._closed:
                raise RuntimeError(f"{self._name}: closed")
            inbox = self._idle.pop() if self._idle else None
            if inbox is None and self._running >= self._limit:
                self._backlog.append(job)
                return
            if inbox is None:
                self._running += 1
                self._made += 1
                name = f"{self._name}-{self._made}"
        if inbox is not None:
            inbox.put(job)
            return
        inbox = self._runtime.inbox(name)
        inbox.put(job)
        worker = _Worker(self, inbox)
        worker.task = self._runtime.spawn(name, worker.run)
        with self._lock:
            if not worker.ended:
                self._tasks.add(worker.task)

    def _next_job(self, inbox: Inbox) -> _Job | None:
        """What the thread that waits in ``inbox`` does next; None: it ends."""
        with self._lock:
            if self._backlog:
                return self._backlog.popleft()
            if self._closed:
                return None
            self._idle.append(inbox)
        while True:
            job: _Job | None = inbox.take(self._runtime.now() + self._idle_seconds)
            if job is not None or self._may_end(inbox):
                return job

    def _may_end(self, inbox: Inbox) -> bool:
        with self._lock:
            if inbox in self._idle:
                self._idle.remove(inbox)
                return True
            # Taken off the list: either everybody ends, or a job is on its way.
            return self._closed

    def _ended(self, worker: _Worker) -> None:
        with self._lock:
            worker.ended = True
            self._running -= 1
            if worker.task is not None:
                self._tasks.discard(worker.task)


class _Worker:
    """One thread of the pool."""

    def __init__(self, workers: Workers, inbox: Inbox) -> None:
        self._workers = workers
        self._inbox = inbox
        self.task: Task | None = None
        self.ended = False

    def run(self) -> None:
        try:
            job: _Job | None = self._inbox.take()
            while job is not None:
                job()
                job = self._workers._next_job(self._inbox)
        finally:
            self._workers._ended(self)


def _run(future: Future[Any], function: Callable[[], Any]) -> None:
    if not future.set_running_or_notify_cancel():
        return
    try:
        result = function()
    except BaseException as error:
        future.set_exception(error)
    else:
        future.set_result(result)

"""Lets another thread come in between any two lines of a function."""

import sys
import threading

from tests.nodes import PATIENCE


def interrupted_at_each_line(function, make):
    """Try every place at which another thread could come in between the lines of ``function``.

    Args:
        make: called for each place; gives what to run, which calls ``function``, what another
            thread does in between, and a check for afterwards.
    """
    place, reached = 0, True
    while reached:
        run, intrude, check = make()
        intruder = Intruder(intrude)
        lines = 0

        def trace(frame, event, arg, place=place, intruder=intruder):
            nonlocal lines, reached
            if frame.f_code is not function.__code__:
                return None
            if event == "line":
                if lines == place:
                    reached = intruder.come_in()
                lines += 1
            return trace

        reached = False
        sys.settrace(trace)
        try:
            run()
        finally:
            sys.settrace(None)
        assert lines, f"{function} was not called"
        assert intruder.has_left(), f"at line event {place} of {function}: the other thread hangs"
        check()
        place += 1
    assert place > 1, f"{function} was never interrupted"


class Intruder:
    """Another thread that comes in when it is told to, or else after half a second: the run may wait for it."""

    def __init__(self, intrude):
        self._told = threading.Event()
        self._inside = threading.Lock()
        self._thread = threading.Thread(target=self._main, args=[intrude])
        self._thread.start()

    def _main(self, intrude):
        self._told.wait(0.5)
        with self._inside:
            self._told.set()
        intrude()

    def come_in(self):
        """Return whether it was told in time, and so came in here."""
        with self._inside:
            in_time = not self._told.is_set()
            self._told.set()
        self._thread.join(0.03)  # it may have to wait for us: then it goes on later
        return in_time

    def has_left(self):
        self._told.set()
        self._thread.join(PATIENCE)
        return not self._thread.is_alive()

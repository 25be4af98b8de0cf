"""State machines for the tests of the simulator's command line: good ones and bad ones."""

from __future__ import annotations

import io
import json

from pyraft import FSM
from pyraft.testing import KvFsm


class Adder(FSM):
    """Has commands of its own."""

    def __init__(self):
        self.total = 0

    @staticmethod
    def draw_command(rng):
        return str(rng.randrange(10)).encode()

    def apply(self, log):
        self.total += int(log.data)
        return self.total

    def snapshot(self):
        return str(self.total).encode()

    def restore(self, source):
        self.total = int(source.read())


class ForgetfulFsm(KvFsm):
    """Answers every third append of a key without doing it: what a client saw cannot have been."""

    def __init__(self):
        super().__init__()
        self.appends = 0

    def apply(self, log):
        key, operation = json.loads(log.data)
        if operation[0] == "append":
            self.appends += 1
            if self.appends % 3 == 0:
                return (self.data.get(key) or "") + operation[1]
        return super().apply(log)

    def snapshot(self):
        return json.dumps([self.appends, self.data], sort_keys=True).encode()

    def restore(self, source):
        self.appends, self.data = json.load(io.TextIOWrapper(source))


class Unbuildable(KvFsm):
    def __init__(self, path):
        super().__init__()


class StuckFsm(KvFsm):
    """Never comes back."""

    def apply(self, log):
        while True:
            pass

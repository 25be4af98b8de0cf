"""The lock service as it was before: three bugs that its own unit tests did not find."""

import json
import time

from locks import Locks

from pyraft import BatchingFSM


class ByMyOwnClock(Locks):
    """Leases end when this server's clock says so.  Another server's says something else."""

    def tell_time(self, log):
        self.now = time.time()


class ExpiresOncePerBatch(Locks, BatchingFSM):
    """Looks for leases that have ended once for all commands that came together: it is faster.

    But which commands come together is different on every server.
    """

    def apply_batch(self, logs):
        self.tell_time(logs[0])
        self.expire()
        results = []
        for log in logs:
            self.tell_time(log)
            results.append(self.do(json.loads(log.data)))
        return results


class ForgetsItsTokens(Locks):
    """Its snapshot holds the locks.  Who needs a counter?"""

    def snapshot(self):
        return json.dumps([sorted(self.held.items()), self.now]).encode()

    def restore(self, source):
        held, self.now = json.loads(source.read())
        self.held = dict(held)
        self.tokens = max((token for _, token, _ in self.held.values()), default=0)

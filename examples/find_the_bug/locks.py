"""A lock service: named locks with leases, and a token that fences off whoever lost one."""

import json

from pyraft import FSM


def acquire(lock, owner, lease):
    """The command that takes ``lock`` for ``lease`` seconds; answered with a token, or None if it is taken."""
    return json.dumps({"do": "acquire", "lock": lock, "owner": owner, "lease": lease}).encode()


def release(lock, owner):
    """The command that gives ``lock`` back; answered with whether ``owner`` had it."""
    return json.dumps({"do": "release", "lock": lock, "owner": owner}).encode()


class Locks(FSM):
    """What is left when the bugs of first_tries.py are gone.

    Every lock comes with a token greater than all before.  Whatever the lock protects refuses
    tokens smaller than one it has seen, so that an owner whose lease ran out does no harm.
    """

    def __init__(self):
        self.held = {}  # lock -> [owner, token, the second at which the lease ends]
        self.tokens = 0
        self.now = 0.0

    @staticmethod
    def draw_command(rng):
        """What clients of a simulation ask for."""
        lock, owner = rng.choice(["door", "gate"]), rng.choice(["ann", "bob", "cyd"])
        return (
            release(lock, owner) if rng.random() < 0.3 else acquire(lock, owner, lease=rng.choice([0.1, 1]))
        )

    def apply(self, log):
        self.tell_time(log)
        self.expire()
        return self.do(json.loads(log.data))

    def tell_time(self, log):
        # The leader's clock, the same for everybody; the next leader's may be behind.
        self.now = max(self.now, log.appended_at / 1e9)

    def expire(self):
        self.held = {lock: held for lock, held in self.held.items() if held[2] > self.now}

    def do(self, command):
        lock, owner = command["lock"], command["owner"]
        if command["do"] == "acquire":
            if lock in self.held:
                return None
            self.tokens += 1
            self.held[lock] = [owner, self.tokens, self.now + command["lease"]]
            return self.tokens
        if self.held.get(lock, [None])[0] != owner:
            return False
        del self.held[lock]
        return True

    def snapshot(self):
        return json.dumps([sorted(self.held.items()), self.tokens, self.now]).encode()

    def restore(self, source):
        held, self.tokens, self.now = json.loads(source.read())
        self.held = dict(held)

"""Bugs that the tests of single parts must find, where no simulated cluster runs the code.

The simulator has a disk, a clock and threads of its own, so the real store, what it keeps on the disk and
what wakes real threads are planted here.  As in the simulator's catalogue, an edit is a piece of
text that must occur exactly once in its file.
"""

from __future__ import annotations

from typing import NamedTuple

from tests.sim.mutants.catalogue import Mutant


class Suite(NamedTuple):
    """Bugs in one part, and the tests that are to find them.

    Attributes:
        bugs: (name, file below ``pyraft/``, text before, text after).
    """

    promise: str
    tests: tuple[str, ...]
    bugs: tuple[tuple[str, str, str, str], ...]

    @property
    def mutants(self) -> list[Mutant]:
        """The bugs in the simulator's form."""
        return [Mutant(name, file, before, after, self.promise) for name, file, before, after in self.bugs]


STORE = Suite(
    "what was stored is there after a kill or a power cut, and damage is told",
    (
        "tests/logstore/test_journal.py",
        "tests/logstore/test_lmdb_store.py",
        "tests/logstore/test_lmdb_store_model.py",
        "tests/logstore/test_stores.py",
    ),
    (
        (
            "no erase",
            "logstore/journal.py",
            "if found.torn:",
            "if False:",
        ),
        (
            "erase one block only",
            "logstore/journal.py",
            "self._write(bytes(found.torn), found.end)",
            "self._write(bytes(BLOCK), found.end)",
        ),
        (
            "last not written again",
            "logstore/journal.py",
            "if sync and found.records:",
            "if False:",
        ),
        (
            "wrong last",
            "logstore/journal.py",
            "        last, at = at, at + _size",
            "        last, at = last, at + _size",
        ),
        (
            "newer epoch not told",
            "logstore/journal.py",
            "if file.tags[sector] >= next_epoch):",
            "if False):",
        ),
        (
            "holes accepted",
            "logstore/journal.py",
            "if any(file.is_whole(sector) for sector in behind if file.tags[sector] > expected):",
            "if False:",
        ),
        (
            "crc of sectors not looked at",
            "logstore/journal.py",
            "        return found == checksum",
            "        return True",
        ),
        (
            "crc without tag",
            "logstore/journal.py",
            "checksum = crc32(_TAG.pack(self.tags[sector]), crc32(self.content(sector), self._seed))",
            "checksum = crc32(self.content(sector), self._seed)",
        ),
        (
            "crc without identity",
            "logstore/journal.py",
            'self._seed = crc32(identity.to_bytes(8, "little"))',
            "self._seed = 0",
        ),
        (
            "garbage counts as torn",
            "logstore/journal.py",
            ("        if self._content.startswith(_NOTHING, sector * SECTOR):\n            return False\n"),
            "        return False\n",
        ),
        (
            "zeros are damage",
            "logstore/journal.py",
            ("        if self._content.startswith(_NOTHING, sector * SECTOR):\n            return False\n"),
            "",
        ),
        (
            "older is damage",
            "logstore/journal.py",
            ("        if self.is_whole(sector):\n            return self.tags[sector] == tag\n"),
            ("        if self.is_whole(sector) and self.tags[sector] == tag:\n            return True\n"),
        ),
        (
            "any whole sector counts",
            "logstore/journal.py",
            "            return self.tags[sector] == tag\n",
            "            return True\n",
        ),
        (
            "first sector only",
            "logstore/journal.py",
            "if not all([file.is_of(sector, tag) for sector in sectors]):",
            "if False:",
        ),
        (
            "longer than the file",
            "logstore/journal.py",
            "if sectors.stop > len(file.tags):",
            "if False:",
        ),
        (
            "published before written",
            "logstore/lmdb_store.py",
            (
                "                self._journal.append(pieces, size)\n"
                "                self._content = content.with_appended(append)\n"
            ),
            (
                "                self._content = content.with_appended(append)\n"
                "                self._journal.append(pieces, size)\n"
            ),
        ),
        (
            "commit of the tail forgotten",
            "logstore/lmdb_store.py",
            "if takes_over or content.committed != before.committed:",
            "if content.committed != before.committed:",
        ),
        (
            "up to the tail",
            "logstore/lmdb_store.py",
            "if last >= content.tail_from or reaches_tail:",
            "if last >= content.tail_from:",
        ),
        (
            "compaction takes over",
            "logstore/lmdb_store.py",
            "reaches_tail = last == content.tail_from - 1 and first > content.first",
            "reaches_tail = last == content.tail_from - 1",
        ),
        (
            "reader spins",
            "logstore/lmdb_store.py",
            "if logs is None and self._unwritable is not None and content is self._content:",
            "if False:",
        ),
        (
            "full map at upgrade",
            "logstore/lmdb_store.py",
            (
                "            except lmdb.MapFullError as error:\n"
                "                self._grow(error)\n"
                "\n"
                "    @contextmanager"
            ),
            (
                "            except ZeroDivisionError as error:\n"
                "                self._grow(error)\n"
                "\n"
                "    @contextmanager"
            ),
        ),
        (
            "database not flushed at start",
            "logstore/lmdb_store.py",
            "if sync or not directory.is_complete:",
            "if not directory.is_complete:",
        ),
        (
            "block checks in records",
            "logstore/records.py",
            "if block.first != index:",
            "if False:",
        ),
        (
            "journal alone is new",
            "logstore/directory.py",
            "if self.journal_file.exists() and not creating.exists():",
            "if False:",
        ),
        (
            "marker left",
            "logstore/directory.py",
            "            (self.path / CREATING).unlink(missing_ok=True)  # a",
            "            pass  # a",
        ),
        (
            "short file refused",
            "logstore/lmdb_file.py",
            "if not _is_whole(path):",
            "if True:",
        ),
        (
            "short file accepted",
            "logstore/lmdb_file.py",
            "if not _is_whole(path):",
            "if False:",
        ),
        (
            "not made longer",
            "logstore/lmdb_file.py",
            "        os.truncate(path, needed)\n",
            "        pass\n",
        ),
        (
            "no flush",
            "logstore/journal.py",
            "(os.O_DSYNC if sync and not self._is_mac else 0)",
            "0",
        ),
        (
            "number not counted",
            "logstore/journal.py",
            "        self._number += 1\n",
            "",
        ),
        (
            "used not counted",
            "logstore/journal.py",
            "        self.used += len(record)\n",
            "",
        ),
        (
            "room off by a block",
            "logstore/journal.py",
            "BLOCK + self.used + _size_on_disk(size) <= FILE_BYTES",
            "self.used + _size_on_disk(size) <= FILE_BYTES",
        ),
        (
            "any size",
            "logstore/journal.py",
            "size <= LARGEST_RECORD and ",
            "",
        ),
        (
            "short write accepted",
            "logstore/journal.py",
            "if written != len(blocks):",
            "if False:",
        ),
        (
            "number at reopening from 0",
            "logstore/journal.py",
            "self._number, self.used = len(found.records), found.end - BLOCK",
            "self._number, self.used = 0, found.end - BLOCK",
        ),
        (
            "epoch kept",
            "logstore/journal.py",
            "self._epoch, self._number, self.used = epoch, 0, 0",
            "self._number, self.used = 0, 0",
        ),
        (
            "begin keeps number",
            "logstore/journal.py",
            "self._epoch, self._number, self.used = epoch, 0, 0",
            "self._epoch, self.used = epoch, 0",
        ),
        (
            "identity not looked at",
            "logstore/journal.py",
            "if found != identity:",
            "if False:",
        ),
        (
            "truncated accepted",
            "logstore/journal.py",
            "if size != FILE_BYTES or len(content) != size:",
            "if False:",
        ),
        (
            "missing is made",
            "logstore/journal.py",
            ('raise JournalDamage(\n                "it is missing'),
            ('pass; raise OSError(\n                "it is missing'),
        ),
        (
            "append not at end",
            "logstore/lmdb_store.py",
            "if not content.is_followed_by(batch):",
            "if len(batch.runs) > 1:",
        ),
        (
            "commit index not in journal",
            "logstore/lmdb_store.py",
            ("committed = max(content.committed, self._staged)\n            append"),
            ("committed = content.committed\n            append"),
        ),
        (
            "epoch not stored",
            "logstore/lmdb_store.py",
            "        yield _JOURNAL, pack_indexes((journal, content.epoch))",
            "        yield _JOURNAL, pack_indexes((journal, before.epoch))",
        ),
        (
            "journal not begun anew",
            "logstore/lmdb_store.py",
            "                self._journal.begin(content.epoch)\n",
            "                pass\n",
        ),
        (
            "epoch not raised",
            "logstore/lmdb_store.py",
            "content = content._replace(epoch=before.epoch + 1)",
            "pass",
        ),
        (
            "configurations of the tail forgotten",
            "logstore/lmdb_store.py",
            "if takes_over or content.configurations != before.configurations:",
            "if content.configurations != before.configurations:",
        ),
        (
            "tail not put",
            "logstore/lmdb_store.py",
            (
                "        if content.tail:\n"
                "            content = self._put_tail(txn, content)\n"
                "        self._put_blocks(txn, batch.items, append)"
            ),
            "        self._put_blocks(txn, batch.items, append)",
        ),
        (
            "first of tail not found",
            "logstore/lmdb_store.py",
            "first=first or content.tail_from",
            "first=first",
        ),
        (
            "reader does not check epoch",
            "logstore/lmdb_store.py",
            "if self._read_epoch(txn) != content.epoch:",
            "if False:",
        ),
        (
            "no room check",
            "logstore/lmdb_store.py",
            "if not self._journal.has_room(size) or not self._will_have_room(size):",
            "if not self._journal.has_room(size):",
        ),
        (
            "not taken over at close",
            "logstore/lmdb_store.py",
            ("                    self._take_over_tail()\n            finally"),
            ("                    pass\n            finally"),
        ),
        (
            "not cleared",
            "logstore/lmdb_store.py",
            "            self._journal.clear()\n",
            "            pass\n",
        ),
        (
            "forgotten journal made anew",
            "logstore/lmdb_store.py",
            (
                "                if directory.is_complete:\n"
                '                    raise CorruptStoreError("it does not know its journal")\n'
            ),
            "",
        ),
        (
            "leftover journal kept",
            "logstore/directory.py",
            'for name in ("data.mdb", "lock.mdb", JOURNAL):',
            'for name in ("data.mdb", "lock.mdb"):',
        ),
        (
            "old format refused",
            "logstore/directory.py",
            "not in (_WITHOUT_JOURNAL, FORMAT)",
            "not in (FORMAT,)",
        ),
        (
            "old format kept",
            "logstore/directory.py",
            'self._write_identity({**self._identity, "format": FORMAT})',
            "self._write_identity({**self._identity})",
        ),
        (
            "gaps into journal",
            "logstore/content.py",
            "return len(batch.runs) == 1 and (not self.last or batch.runs[0][0] == self.last + 1)",
            "return len(batch.runs) == 1 and (not self.last or batch.runs[0][0] > self.last)",
        ),
        (
            "follow check missing",
            "logstore/content.py",
            "if content.last and append.first != content.last + 1:",
            "if False:",
        ),
        (
            "commit index of the journal forgotten",
            "logstore/content.py",
            "committed=max(stored.committed, content.committed)",
            "committed=stored.committed",
        ),
        (
            "tail not emptied",
            "logstore/content.py",
            "return self._replace(tail=(), tail_from=self.last + 1)",
            "return self._replace(tail_from=self.last + 1)",
        ),
        (
            "records not joined",
            "logstore/lmdb_store.py",
            "self._content = with_tail(stored._replace(epoch=epoch), self._journal.records)",
            "self._content = stored._replace(epoch=epoch)",
        ),
        (
            "cut forgets tail",
            "logstore/lmdb_store.py",
            "            if last >= content.tail_from or reaches_tail:\n",
            "            if False:\n",
        ),
        (
            "cut tail whole",
            "logstore/lmdb_store.py",
            "kept.extend(left_of(read_block(*item), runs))",
            "kept.append(read_block(*item))",
        ),
        (
            "failed commit not latched",
            "logstore/lmdb_store.py",
            (
                "            self._abort(txn)\n"
                "            self._latch(error)\n"
                "            raise self._write_error(error) from error"
            ),
            ("            self._abort(txn)\n            raise self._write_error(error) from error"),
        ),
    ),
)

LANES = Suite(
    "whoever waits is woken, and a crowd a few at a time",
    ("tests/core/test_lanes.py", "tests/core/test_runtime.py"),
    (
        (
            "asleep after looking for a lane",
            "lanes.py",
            (
                "        self._sleepers.append(sleeper)  # first: whoever frees a lane looks after that\n"
                "        if self._take_lane():\n"
                "            self.go_on()\n"
            ),
            (
                "        if self._take_lane():\n"
                "            self._sleepers.append(sleeper)\n"
                "            self.go_on()\n"
                "        else:\n"
                "            self._sleepers.append(sleeper)\n"
            ),
        ),
        (
            "a lane lost with a sleeper that is gone",
            "lanes.py",
            ("            if sleeper.wake():\n                return\n"),
            ("            sleeper.wake()\n            return\n"),
        ),
        (
            "the next not woken by who was woken",
            "runtime.py",
            ("            except AttributeError:\n                self._lanes.go_on()\n            else:"),
            ("            except AttributeError:\n                pass\n            else:"),
        ),
        (
            "lanes not mended",
            "runtime.py",
            ("                if do_lanes_stand:\n                    self._lanes.mend()\n"),
            "                pass\n",
        ),
        (
            "moved not looked at when it has happened",
            "runtime.py",
            ("            if self._happened:\n                return self._lanes.moved == moved\n"),
            "",
        ),
        (
            "never out of time while lanes move",
            "runtime.py",
            "return self._lanes.moved == moved\n",
            "return True\n",
        ),
        (
            "one look is enough",
            "runtime.py",
            (" or left <= look:\n                return False\n"),
            (":\n                return False\n            if left <= look: return True\n"),
        ),
        (
            "an interrupt keeps the lane",
            "runtime.py",
            (
                "        finally:  # also when a KeyboardInterrupt ends the wait\n"
                "            try:\n"
                "                del"
            ),
            ("        except Exception: raise\n        else:\n            try:\n                del"),
        ),
        (
            "an interrupt keeps the mark",
            "runtime.py",
            ("            self.is_marked = False\n            raise\n"),
            "            raise\n",
        ),
        (
            "asleep after looking whether it happened",
            "runtime.py",
            (
                "            self._asleep = True  # first: who sets it finds us asleep, or we find that "
                "it has happened\n"
                "            if not self._happened:\n"
                "                do_lanes_stand"
            ),
            (
                "            if not self._happened:\n"
                "                self._asleep = True\n"
                "                do_lanes_stand"
            ),
        ),
        (
            "more lanes after mending",
            "lanes.py",
            (
                "                if len(self._free) < self._width:  # after mend() there may be more than so "
                "many lanes\n"
                "                    self._free.append(None)\n"
            ),
            "                self._free.append(None)\n",
        ),
        (
            "woken before it happened",
            "runtime.py",
            ("            self._happened = True\n            self._lanes.wake(self)"),
            ("            self._lanes.wake(self)\n            self._happened = True"),
        ),
    ),
)

CALLERS = Suite(
    "the leader lets callers come, and for no longer than it should",
    ("tests/core/test_leader_and_its_callers.py", "tests/core/test_lanes.py", "tests/core/test_proposals.py"),
    (
        (
            "the wait has no timer of its own",
            "roles/leader.py",
            "        return min([self._lease_check_at, self._take_at, soonest, *leaving])\n",
            "        return min([self._lease_check_at, soonest, *leaving])\n",
        ),
        (
            "the timer not set when the wait begins",
            "roles/leader.py",
            "                    wake_at = min(wake_at, self._take_at)\n",
            "",
        ),
        (
            "what ends a wait begins another",
            "roles/leader.py",
            "                node.runtime.hurry_callers()\n            return False\n",
            "                node.runtime.hurry_callers()\n",
        ),
        (
            "waits for the rest of a queue",
            "roles/leader.py",
            "        if goes_on or self._transfers.is_active or",
            "        if self._transfers.is_active or",
        ),
        (
            "waits while commands are refused",
            "roles/leader.py",
            "        if goes_on or self._transfers.is_active or self._restore.is_active:\n",
            "        if goes_on:\n",
        ),
        (
            "waits with nothing",
            "roles/leader.py",
            "        if not len(node.proposals) or node.proposals.has(",
            "        if node.proposals.has(",
        ),
        (
            "waits with a whole batch",
            "roles/leader.py",
            " or node.proposals.has(config.max_append_entries, config.max_append_bytes):\n",
            ":\n",
        ),
        (
            "a batch of bytes is none",
            "proposals.py",
            "        return len(self._items) >= count or self._bytes >= size\n",
            "        return len(self._items) >= count\n",
        ),
        (
            "mark cleared while it waits",
            "roles/leader.py",
            "        if self._is_leaving_them_alone():\n            return None\n",
            (
                "        if self._is_leaving_them_alone():\n"
                "            node.proposals.channel.clear()\n"
                "            return None\n"
            ),
        ),
        (
            "takes after its lease",
            "roles/leader.py",
            "        if now >= self._take_at and transition is None and self._departure is None:\n",
            "        if now >= self._take_at and self._departure is None:\n",
        ),
        (
            "takes though it is no member",
            "roles/leader.py",
            "        if now >= self._take_at and transition is None and self._departure is None:\n",
            "        if now >= self._take_at and transition is None:\n",
        ),
        (
            "a slow write after a wait is forgotten",
            "roles/leader.py",
            "            transition = self._append_waiting()\n        return transition\n",
            "            self._append_waiting()\n        return transition\n",
        ),
        (
            "callers not hurried",
            "roles/leader.py",
            "                node.runtime.hurry_callers()\n",
            "                pass\n",
        ),
        (
            "callers always hurried",
            "roles/leader.py",
            "            if lasted > _SLOW_CALLERS[0] + _SLOW_CALLERS[1] * len(node.proposals):\n",
            "            if lasted > 0:\n",
        ),
        (
            "many callers are slow callers",
            "roles/leader.py",
            " + _SLOW_CALLERS[1] * len(node.proposals):\n",
            ":\n",
        ),
        (
            "a wait puts all timers off",
            "roles/leader.py",
            "                    wake_at = min(wake_at, self._take_at)\n",
            "                    wake_at = self._take_at if self._take_at < inf else wake_at\n",
        ),
        (
            "a full queue pokes",
            "proposals.py",
            "        self.channel.insist()\n",
            "        self.channel.poke()\n",
        ),
        (
            "every one that finds it full insists",
            "proposals.py",
            "        if self._is_told_full:\n",
            "        if False:\n",
        ),
        (
            "the callers of commands unknown",
            "runtime.py",
            "        return self._command_lanes.then(call)\n",
            "        return False\n",
        ),
        (
            "hurrying does nothing",
            "runtime.py",
            "        self._command_lanes.hurry()\n",
            "        pass\n",
        ),
        (
            "commands and all else in the same lanes",
            "runtime.py",
            "        return CallerSignal(self._command_lanes if is_command else self._lanes)\n",
            "        return CallerSignal(self._command_lanes)\n",
        ),
        (
            "nobody looks after the lanes",
            "context.py",
            "            self.runtime.look_after_callers()\n",
            "",
        ),
        (
            "lanes not opened at the end",
            "node.py",
            "        self._runtime.release_callers()\n",
            "",
        ),
        (
            "told before anybody was asked",
            "lanes.py",
            (
                "        self._then.append(call)  # first: who frees a lane looks after that\n"
                "        if self._is_somebody_on_the_way():\n"
                "            return True\n"
            ),
            (
                "        if self._is_somebody_on_the_way():\n"
                "            self._then.append(call)\n"
                "            return True\n"
                "        self._then.append(call)\n"
            ),
        ),
        (
            "told before the lane is free",
            "lanes.py",
            (
                "                if len(self._free) < self._width:  # after mend() there may be more than so "
                "many lanes\n"
                "                    self._free.append(None)\n"
                "                if not self._sleepers:\n"
                "                    self._tell()\n"
            ),
            (
                "                self._tell()\n"
                "                if len(self._free) < self._width:\n"
                "                    self._free.append(None)\n"
                "                if not self._sleepers:\n"
            ),
        ),
        (
            "only who stands in line is on the way",
            "lanes.py",
            "        return bool(self._sleepers) or len(self._free) < self._width\n",
            "        return bool(self._sleepers)\n",
        ),
        (
            "wide for ever",
            "lanes.py",
            "            self._width = self._usual_width\n",
            "            pass\n",
        ),
        (
            "mended at every look",
            "lanes.py",
            "        elif now - self._still_since >= _STUCK_AFTER:\n",
            "        else:\n",
        ),
        (
            "a line that moves is mended",
            "lanes.py",
            "            self._moved_at_look, self._still_since = self.moved, now\n",
            "            self._moved_at_look = self.moved\n",
        ),
        (
            "waits for a slow line",
            "lanes.py",
            "        if self._width > self._usual_width:\n            return False\n",
            "",
        ),
        (
            "main thread in a lane",
            "runtime.py",
            "        if threading.get_ident() == threading.main_thread().ident:\n            return ThreadSignal()\n",
            "",
        ),
        (
            "some lanes not looked after",
            "runtime.py",
            "        self._command_lanes.look(now)\n        self._lanes.look(now)\n",
            "        self._command_lanes.look(now)\n",
        ),
        (
            "the commands' lane not looked after",
            "runtime.py",
            "        self._command_lanes.look(now)\n        self._lanes.look(now)\n",
            "        self._lanes.look(now)\n",
        ),
        (
            "told that it is full only once",
            "proposals.py",
            "            self._is_told_full = False\n            self._find_oldest()\n",
            "            self._find_oldest()\n",
        ),
        (
            "who may not wait does not ask for room",
            "proposals.py",
            "            self._ask_for_room()\n            raise EnqueueTimeoutError(\n",
            "            raise EnqueueTimeoutError(\n",
        ),
    ),
)

RECOVERY = Suite(
    "a server starts only from what it has promised, and with the members that are left",
    ("tests/snapshots/test_file_store.py", "tests/integration/test_recovery.py"),
    (
        (
            "a lost snapshot compared by index",
            "restoring.py",
            "if position_of(meta) > last and not",
            "if meta.index > last.index and not",
        ),
        (
            "a lost snapshot compared by term",
            "restoring.py",
            "if position_of(meta) > last and not",
            "if meta.term > last.term and not",
        ),
        (
            "an unreadable one compared by index",
            "restoring.py",
            "        if position > last:",
            "        if index > last.index:",
        ),
        (
            "unreadable ones not looked at",
            "restoring.py",
            "        if position > last:",
            "        if False:",
        ),
        (
            "an unreadable one of the same entry ignored",
            "restoring.py",
            "and position == position_of(restored)",
            "and False",
        ),
        (
            "other members ignored",
            "restoring.py",
            "if members != meta.configuration and not with_any_members",
            "if False",
        ),
        (
            "equal members refused",
            "restoring.py",
            "if members != meta.configuration and not with_any_members",
            "if position_of(meta) in passed_over and not with_any_members",
        ),
        (
            "a recovery minds old members",
            "recovery.py",
            "log_store, with_any_members=True",
            "log_store",
        ),
        (
            "a recovery minds what it replaces",
            "recovery.py",
            "check_reaches(snapshot_store, None, ",
            "check_reaches(snapshot_store, restored, ",
        ),
        (
            "a recovery from half a state",
            "recovery.py",
            "    check_reaches(snapshot_store, None, log.last, log_store)",
            "    pass",
        ),
        (
            "a recovery's snapshot not the first",
            "recovery.py",
            "    _check_newest(snapshot_store, meta)",
            "    pass",
        ),
        (
            "a snapshot with lost members sent",
            "snapshotter.py",
            "if unusable.get(meta.index, meta.configuration) != meta.configuration:",
            "if False:",
        ),
        (
            "an unreadable one's entry sent",
            "snapshotter.py",
            "{index: None for _, index in self._store.unreadable()}",
            "{}",
        ),
        (
            "nothing is unreadable",
            "snapshots/file_store.py",
            "return [(term, index) for term, index, id in ages if (term, index, id) > newest]",
            "return []",
        ),
        (
            "unreadable only at another entry",
            "snapshots/file_store.py",
            "if (term, index, id) > newest]",
            "if (term, index) > newest[:2]]",
        ),
        (
            "everything is unreadable",
            "snapshots/file_store.py",
            "if (term, index, id) > newest]",
            "]",
        ),
        (
            "a clock set back",
            "snapshots/file_store.py",
            "return max(now, latest + 1)",
            "return now",
        ),
        (
            "fewer digits",
            "snapshots/file_store.py",
            'int(digits.ljust(width, "0"))',
            "int(digits)",
        ),
        (
            "ids compared as numbers",
            "snapshots/file_store.py",
            "return self.meta.term, self.meta.index, self.meta.id",
            "return self.meta.term, self.meta.index, int(self.meta.id.split('-')[2])",
        ),
    ),
)

SUITES = (STORE, LANES, CALLERS, RECOVERY)

"""Messages and disk writes in a few words, for traces and diagrams.

``t3`` is a term, ``#7`` a log index, ``c5`` a commit index.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields, is_dataclass

from ..log import Log, LogType
from ..messages import (
    AnyRequest,
    AnyResponse,
    AppendEntriesRequest,
    AppendEntriesResponse,
    RequestPreVoteRequest,
    RequestPreVoteResponse,
    RequestVoteRequest,
    RequestVoteResponse,
)
from ..state import BALLOT_KEY
from .seen import ballot_in
from .sim_disk import Transaction


def message_words(message: AnyRequest | AnyResponse) -> str:
    """For example ``append t3 after #4/t2: #5..#7 c4``."""
    match message:
        case AppendEntriesRequest() if message.is_heartbeat:
            return f"heartbeat t{message.term}"
        case AppendEntriesRequest():
            entries = f": {entry_words(message.entries)}" if message.entries else ""
            before = f"#{message.prev_log_entry}/t{message.prev_log_term}"
            return f"append t{message.term} after {before}{entries} c{message.leader_commit_index}"
        case AppendEntriesResponse():
            return f"{'ok' if message.success else 'no'} t{message.term} #{message.last_log}"
        case RequestVoteRequest():
            return f"vote? t{message.term} #{message.last_log_index}/t{message.last_log_term}"
        case RequestPreVoteRequest():
            return f"pre-vote? t{message.term} #{message.last_log_index}/t{message.last_log_term}"
        case RequestVoteResponse():
            return f"vote t{message.term} {'yes' if message.granted else 'no'}"
        case RequestPreVoteResponse():
            return f"pre-vote t{message.term} {'yes' if message.granted else 'no'}"
    name = type(message).__name__.removesuffix("Request")
    return f"{name}{_numbers(message)}"


def _numbers(message: object) -> str:
    """The fields of a message that are numbers or truth values, as ``name=value``."""
    if not is_dataclass(message):
        return ""
    values = [(field.name, getattr(message, field.name)) for field in fields(message)]
    return "".join(f" {name}={value}" for name, value in values if isinstance(value, int))


def is_idle(message: AnyRequest | AnyResponse) -> bool:
    """Whether it is a heartbeat, or news of a commit without entries."""
    return isinstance(message, AppendEntriesRequest) and not message.entries


def entry_words(entries: Sequence[Log]) -> str:
    """For example ``#5..#7/t2``, with what is no command by its type."""
    first, last = entries[0], entries[-1]
    numbers = f"#{first.index}" if len(entries) == 1 else f"#{first.index}..#{last.index}"
    terms = f"t{first.term}" if first.term == last.term else f"t{first.term}..t{last.term}"
    kinds = list(dict.fromkeys(log.type.name.lower() for log in entries if log.type is not LogType.COMMAND))
    return f"{numbers}/{terms}" + "".join(f" {kind}" for kind in kinds)


def write_words(transaction: Transaction) -> str:
    """For example ``drop #5..#9, store #5/t4`` or ``ballot t4 for n2``."""
    words = []
    if transaction.delete is not None:
        words.append(f"drop #{transaction.delete[0]}..#{transaction.delete[1]}")
    if transaction.logs:
        words.append(f"store {entry_words(transaction.logs)}")
    for key, _ in transaction.values:
        if key == BALLOT_KEY:
            ballot = ballot_in(transaction)
            words.append(f"ballot t{ballot.term}" + (f" for {ballot.voted_for}" if ballot.voted_for else ""))
        else:
            words.append(f"set {key.decode(errors='replace')}")
    return ", ".join(words)

"""Where sessions are kept: a file that a run adds to, so that it can go on where it stopped."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

Figures = dict[str, dict[str, float]]


@dataclass(frozen=True)
class Session:
    """What one subject did in one round of one group, or why the round is void."""

    group: str
    subject: str
    round: int
    digest: str
    """Of the group's definition: another definition measures something else."""
    figures: Figures
    void: str = ""

    @property
    def key(self) -> tuple[str, str, int, str]:
        return (self.group, self.subject, self.round, self.digest)


class Results:
    """A JSON-lines file: the machine and the code first, then one session on each line."""

    def __init__(self, path: Path, header: dict[str, Any], code: str) -> None:
        """Open ``path``; go on with what is in it if it measured the same code, else begin anew.

        Args:
            header: the machine's facts.
            code: changes with the library that is measured.  Figures of two different ones are
                never put into one table; the older file is kept under another name.
        """
        self.path = path
        self.header = {"code": code, **header}
        self.sessions: list[Session] = []
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.exists():
            found, sessions = read(path)
            if found.get("code") == code:
                self.header, self.sessions = found, sessions
            else:
                path.rename(_unused(path))
        self._rewrite()

    def done(self, group: str, subject: str, round: int, digest: str) -> bool:
        """Is there a session that is not void?"""
        key = (group, subject, round, digest)
        return any(session.key == key and not session.void for session in self.sessions)

    def add(self, session: Session) -> None:
        self.sessions.append(session)
        with self.path.open("a") as file:
            file.write(_line(session))

    def _rewrite(self) -> None:
        """Without the half line that a killed run may have left."""
        text = json.dumps(self.header) + "\n" + "".join(_line(session) for session in self.sessions)
        self.path.write_text(text)


def read(path: Path) -> tuple[dict[str, Any], list[Session]]:
    """The header and the sessions of a file; a line that is not whole is left out."""
    lines = list(_whole_lines(path))
    header = lines[0] if lines else {}
    return header, [Session(**line) for line in lines[1:]]


def _whole_lines(path: Path) -> Iterator[dict[str, Any]]:
    for line in path.read_text().splitlines():
        try:
            yield json.loads(line)
        except ValueError:
            return


def _line(session: Session) -> str:
    return json.dumps(vars(session)) + "\n"


def _unused(path: Path) -> Path:
    number = 1
    while True:
        other = path.with_name(f"{path.stem}.{number}{path.suffix}")
        if not other.exists():
            return other
        number += 1

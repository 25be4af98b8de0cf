"""Where the demo writes: a panel that is drawn again and again, or plain lines.

On a terminal the panel stays at the bottom and events scroll away above it.  Elsewhere, with
``--plain`` and with NO_COLOR set there are only lines, without control codes.
"""

from __future__ import annotations

import os
import re
import shutil
import sys
import threading
import time
from typing import Protocol

REDRAW_EVERY = 0.2  # seconds
LINE_EVERY = 2.0

BOLD, DIM, RED, GREEN, YELLOW = "\x1b[1m", "\x1b[2m", "\x1b[31m", "\x1b[32m", "\x1b[33m"
_RESET = "\x1b[0m"
_HIDE_CURSOR, _SHOW_CURSOR = "\x1b[?25l", "\x1b[?25h"
_STYLE = re.compile(r"\x1b\[\d+m")


class Panel(Protocol):
    """What there is to show at any moment."""

    def lines(self) -> list[str]:
        """For a terminal; may hold the styles above."""

    def line(self) -> str:
        """The same in one plain line."""


class Screen:
    """Any thread may write; whole lines never mix."""

    def __init__(self, plain: bool) -> None:
        self.is_drawn = not plain and sys.stdout.isatty() and os.environ.get("TERM") != "dumb"
        self.is_drawn = self.is_drawn and not os.environ.get("NO_COLOR")
        self._began = time.monotonic()
        self._panel: Panel | None = None
        self._drawn_lines = 0
        self._lock = threading.Lock()
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._keep_drawing, daemon=True)

    def show(self, panel: Panel) -> None:
        """Begin to draw ``panel``."""
        self._panel = panel
        self._thread.start()

    def close(self) -> None:
        """Stop drawing; what was drawn last stays."""
        self._over.set()
        if self._thread.ident is not None:
            self._thread.join()
        with self._lock:
            self._panel = None
            if self._drawn_lines:
                self._write(_SHOW_CURSOR)
                self._drawn_lines = 0

    def event(self, text: str, style: str = "") -> None:
        """Say that something happened, with the seconds since the beginning."""
        self.print(f"{time.monotonic() - self._began:5.1f} s  {styled(text, style)}")

    def print(self, text: str = "") -> None:
        """Write lines above the panel."""
        with self._lock:
            text = text if self.is_drawn else _STYLE.sub("", text)
            self._write(self._erased() + text + "\n" + self._drawn())

    def _keep_drawing(self) -> None:
        while not self._over.wait(REDRAW_EVERY if self.is_drawn else LINE_EVERY):
            if not self.is_drawn:
                assert self._panel is not None
                self.event(self._panel.line())
                continue
            with self._lock:
                self._write(self._erased() + self._drawn())

    def _erased(self) -> str:
        return f"\x1b[{self._drawn_lines}F\x1b[J" if self._drawn_lines else ""

    def _drawn(self) -> str:
        if self._panel is None or not self.is_drawn:
            return ""
        width = shutil.get_terminal_size().columns
        lines = ["", *(_clipped(line, width) for line in self._panel.lines())]
        self._drawn_lines = len(lines)
        return _HIDE_CURSOR + "\n".join(lines) + "\n"

    def _write(self, text: str) -> None:
        sys.stdout.write(text)
        sys.stdout.flush()


def styled(text: str, style: str) -> str:
    return f"{style}{text}{_RESET}" if style else text


def _clipped(line: str, width: int) -> str:
    """At most ``width`` characters: a line that wraps would spoil the count of lines to erase."""
    plain = _STYLE.sub("", line)
    return line if len(plain) <= width else plain[:width]

"""The conversation with whoever runs the benchmark: one JSON object per line, in and out.

Used by the servers written in Python; benchmarks/go/main.go speaks the same.
"""

from __future__ import annotations

import json
import sys
import traceback
from typing import Any

from .workloads import UnsupportedError


def answer(**line: Any) -> None:
    print(json.dumps(line), flush=True)


def obey(orders: object) -> None:
    """Call the methods of ``orders`` that standard input names, until it ends."""
    for line in sys.stdin:
        order = json.loads(line)
        try:
            answer(ok=getattr(orders, order["do"])(**order["with"]))
        except UnsupportedError as error:
            answer(error=f"unsupported: {error}")
        except Exception:
            answer(error=traceback.format_exc())

"""For users' own tests: a simulator, and checks for stores, transports and state machines."""

from __future__ import annotations

from .check_log_store import check_log_store
from .cluster import SimCluster, SimServer
from .faults import Fault, draw_faults
from .invariants import Violation
from .linearizability import Model, Operation, check_linearizable
from .sim_kv import KvFsm
from .sim_runtime import SimulationError

__all__ = [
    "Fault",
    "KvFsm",
    "Model",
    "Operation",
    "SimCluster",
    "SimServer",
    "SimulationError",
    "Violation",
    "check_linearizable",
    "check_log_store",
    "draw_faults",
]

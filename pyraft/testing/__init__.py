"""For users' own tests: a simulator, and checks for stores, transports and state machines."""

from __future__ import annotations

from .check_fsm import check_fsm
from .check_log_store import check_log_store
from .check_snapshot_store import check_snapshot_store
from .check_transport import check_transport
from .cluster import SimCluster, SimServer
from .fault_mix import draw_faults
from .faults import Fault
from .invariants import Violation
from .linearizability import Model, Operation, check_linearizable
from .scenario import Scenario, draw_scenario, load_scenario, run_scenario
from .sim_kv import KvFsm
from .sim_runtime import SimulationError

__all__ = [
    "Fault",
    "KvFsm",
    "Model",
    "Operation",
    "Scenario",
    "SimCluster",
    "SimServer",
    "SimulationError",
    "Violation",
    "check_fsm",
    "check_linearizable",
    "check_log_store",
    "check_snapshot_store",
    "check_transport",
    "draw_faults",
    "draw_scenario",
    "load_scenario",
    "run_scenario",
]

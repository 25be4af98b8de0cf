"""One run again, told as a story: what happened when, on whom."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from ..fsm import FSM
from .diagram import diagram
from .recorder import Event, ReachedStep, Recorder
from .scenario import RunResult, Scenario, run_scenario


def replay(
    scenario: Scenario,
    tell: Callable[[str], None],
    fsm: Callable[[], FSM] | None = None,
    messages: bool = False,
    until_step: int | None = None,
) -> RunResult:
    """Run ``scenario`` and tell line by line what happened; the last line says how it ended.

    Args:
        messages: tell of messages and disk writes too.
        until_step: stop there, and tell where every server stands.
    """
    recorder = Recorder(until_step)
    result = run_scenario(scenario, fsm, recorder)
    tell(headline(scenario))
    if recorder.dropped:
        tell(f"(the first {recorder.dropped} events were not kept)")
    for event in recorder.events:
        line = _line(event, messages)
        if line:
            tell(line)
    for line in ending(result):
        tell(line)
    return result


def story(scenario: Scenario, fsm: Callable[[], FSM] | None = None, most_rows: int = 90) -> list[str]:
    """The run of ``scenario`` as a diagram of who sent what to whom, and how it ended."""
    recorder = Recorder()
    result = run_scenario(scenario, fsm, recorder)
    servers = [f"n{number}" for number in range(1, scenario.servers + 1)]
    drawn = diagram(servers, recorder.events, result.history, most_rows)
    return [headline(scenario), *drawn, *ending(result)]


def headline(scenario: Scenario) -> str:
    """The scenario in a line."""
    faults = ", ".join(spec.kind for spec in scenario.faults if spec.only != ()) or "none"
    policy = replace(scenario, calm=()).make_policy()
    calm = f", {len(scenario.calm)} calm stretches" if scenario.calm else ""
    lines = f", lines {scenario.preempt_lines:g}" if scenario.preempt_lines else ""
    return (
        f"seed {scenario.seed}: {scenario.servers} servers, {scenario.seconds:g} virtual s, "
        f"{len(scenario.clients)} clients, {policy!r}{calm}{lines}, faults: {faults}"
    )


def ending(result: RunResult) -> list[str]:
    """How a run ended: what did not hold, and where everybody stood; or that all held."""
    failure = result.failure
    moment = f"at {result.virtual_seconds:.6f} virtual s, step {result.steps}, digest {result.digest:016x}"
    if failure is None:
        return [f"holds, {moment}"]
    notes = [note.split("\nlatest events:")[0] for note in getattr(failure, "__notes__", [])]
    if isinstance(failure, ReachedStep):
        return [str(failure).rstrip(), *notes]
    cause = failure.__cause__
    because = [f"because of {type(cause).__name__}: {cause}"] if cause is not None else []
    return [f"FAILS {moment}", f"{type(failure).__name__}: {failure}", *because, *notes]


def _line(event: Event, messages: bool) -> str:
    who = event.server or "-"
    begin = f"{event.time:11.6f} {event.step:8d}  {who:4}"
    match event.kind:
        case "sent" if messages and event.message is not None:
            message = event.message
            fate = "" if message.arrived else "  (never arrives)"
            return f"{begin} -> {message.dst}: {event.words}{fate}"
        case "arrived" if messages and event.message is not None:
            return f"{begin} <- {event.message.src}: {event.words}"
        case "sent" | "arrived":
            return ""
        case "write":
            return f"{begin} disk: {event.words}" if messages else ""
        case "role":
            return f"{begin} is {event.words}"
        case "failure":
            return f"{begin} !! {event.words[:200]}"
        case "fault":
            return f"{begin} ** {event.words}"
    return f"{begin} {event.words}"

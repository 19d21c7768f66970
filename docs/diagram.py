"""Prints the state diagram of docs/design.md, made of the one transition table."""

from govipd.core.state import TRANSITIONS, State


def diagram() -> str:
    """A Mermaid state diagram."""
    lines = ["stateDiagram-v2", "    [*] --> starting", "    [*] --> adopting"]
    for state, row in TRANSITIONS.items():
        by_target: dict[str, list[str]] = {}
        for trigger, target in row.items():
            by_target.setdefault(_name(target), []).append(trigger.value)
        lines += [f"    {_name(state)} --> {target}: {', '.join(triggers)}" for target, triggers in by_target.items()]
    return "\n".join([*lines, "    stopped --> [*]"])


def _name(state: State) -> str:
    """As Mermaid allows it."""
    return state.value.replace("-", "_")


if __name__ == "__main__":
    print(diagram())

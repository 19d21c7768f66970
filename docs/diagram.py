"""Prints the state diagram of docs/design.md, made of the one transition table."""

from govipd.core.state import TRANSITIONS


def diagram() -> str:
    """A Mermaid state diagram."""
    lines = ["stateDiagram-v2", "    [*] --> starting", "    [*] --> adopting"]
    for state, row in TRANSITIONS.items():
        by_target: dict[str, list[str]] = {}
        for trigger, target in row.items():
            by_target.setdefault(target.value, []).append(trigger.value)
        lines += [f"    {state.value} --> {target}: {', '.join(triggers)}" for target, triggers in by_target.items()]
    return "\n".join([*lines, "    stopped --> [*]"])


if __name__ == "__main__":
    print(diagram())

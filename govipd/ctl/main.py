"""govipctl's command line: it shows what this node and the cluster do and why, and sends the operator's requests.

Exit status: 0 on success (status: every VIP has a leader; is-leader: this node leads); 1 otherwise, also when the
request is refused; 69 (EX_UNAVAILABLE) when no daemon answers; 77 (EX_NOPERM) when this user may not call the daemon;
78 (EX_CONFIG) for a refused configuration.
"""

import argparse
import json
import os
import sys
import time
from collections.abc import Callable, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import NoReturn

from rich.console import Console

from govipd.config.model import DEFAULT_CONFIG
from govipd.config.reader import load
from govipd.core.sanitize import sanitize_line
from govipd.ctl import client, history, operations, render, status_command
from govipd.ctl.why import why
from govipd.errors import ConfigError, DeniedError, GovipdError, NoDaemonError
from govipd.process_end import run_to_end

TIMEOUT_S = 30.0
WHY_MAX = 5000  # characters of a paragraph


def run() -> NoReturn:
    """The program govipctl."""
    run_to_end(main)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command. Returns the exit status."""
    args = _arguments().parse_args(argv)
    work: Callable[[argparse.Namespace], int] = args.work
    try:
        return work(args)
    except GovipdError as e:
        for text in str(e).splitlines():
            print(sanitize_line(text, 1000), file=sys.stderr)
        match e:
            case ConfigError():
                return os.EX_CONFIG
            case NoDaemonError():
                return os.EX_UNAVAILABLE
            case DeniedError():
                return os.EX_NOPERM
            case _:
                return 1


def _status(args: argparse.Namespace) -> int:
    return status_command.status(args.config, args.interface, as_json=args.json, watch=args.watch)


def _why(args: argparse.Namespace) -> int:
    answers = {
        group.vip: why(node.member, group, time.time()) for node, group in operations.targets(args.interface, args.vip)
    }
    if args.json:
        print(json.dumps(answers, indent=2))
    else:
        for text in answers.values():
            Console().print(render.sanitize_cell(text, WHY_MAX))
    return 0


def _history(args: argparse.Namespace) -> int:
    read = history.moves if args.timeline else history.read
    entries = read(args.vip, args.interface, args.lines)
    if args.json:
        print(json.dumps(entries, indent=2))
    else:
        Console().print(render.moves_table(entries) if args.timeline else render.history_table(entries))
    return 0


def _drain(args: argparse.Namespace) -> int:
    operations.drain(args.interface, args.vip, wanted=True)
    if args.wait:
        operations.wait_drained(args.interface, args.vip, args.timeout)
    return 0


def _undrain(args: argparse.Namespace) -> int:
    operations.drain(args.interface, args.vip, wanted=False)
    return 0


def _handover(args: argparse.Namespace) -> int:
    # Before the handover: afterwards, the daemon needs the processor, and a refused configuration would come too late.
    config = load(args.config, hostname=client.hostname()) if args.wait else None
    given = operations.handover(args.interface, args.vip, args.to)
    if config is not None:
        operations.wait_handed_over(config, given, args.timeout)
    return 0


def _is_leader(args: argparse.Namespace) -> int:
    return operations.is_leader(args.interface, args.vip)


def _check(args: argparse.Namespace) -> int:
    """Check the configuration as the daemon of each interface would."""
    from govipd.plan import check  # noqa: PLC0415  # takes 0.3 s, which is-leader must not wait for

    config = load(args.config, hostname=client.hostname())
    for interface in sorted({vip.interface for vip in config.vip}):
        check(args.config, interface)
        print(f"{args.config}: valid for {interface}: {', '.join(v.name for v in config.for_interface(interface))}")
    return 0


def _doctor(args: argparse.Namespace) -> int:
    from govipd.ctl.doctor.doctor import doctor  # noqa: PLC0415  # for the same reason

    return doctor(args.config, as_json=args.json)


def _version(_args: argparse.Namespace) -> int:
    print(f"govipctl {version('govipd')}")
    return 0


def _arguments() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="govipctl", description="What this node and the cluster do about their VIPs, why, and what they shall do."
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    _common(parser, DEFAULT_CONFIG, None)

    def command(name: str, work: Callable[[argparse.Namespace], int], text: str) -> argparse.ArgumentParser:
        added = commands.add_parser(name, help=text, description=f"{text[0].upper()}{text[1:]}.")
        added.set_defaults(work=work)
        _common(added, argparse.SUPPRESS, argparse.SUPPRESS)  # the options may stand after the command, too
        return added

    status = command("status", _status, "this node, and every member as seen in etcd; each also without the other")
    once = status.add_mutually_exclusive_group()
    once.add_argument("--json", action="store_true", help="for programs")
    once.add_argument("--watch", type=_seconds, nargs="?", const=1.0, metavar="SECONDS", help="again and again")
    of_vips = [
        command("why", _why, "why this node is or is not the leader, and what would change it"),
        command("history", _history, "this node's transitions and their reasons, from the journal"),
        command("drain", _drain, "give up the VIPs and stay out of the queue, also over a reboot"),
        command("undrain", _undrain, "undo drain"),
        command("handover", _handover, "give the VIPs that this node leads to another member"),
        command("is-leader", _is_leader, "exit 0 where this node leads, 1 where it does not"),
    ]
    for added in of_vips:
        added.add_argument("--vip", metavar="NAME", help="only this one (default: every VIP of this machine)")
    for added in of_vips[:2]:
        added.add_argument("--json", action="store_true", help="for programs")
    of_vips[1].add_argument("--timeline", action="store_true", help="how long each step of a take-over or release took")
    of_vips[1].add_argument("--lines", type=int, default=history.LINES, metavar="N", help="default: %(default)s")
    for added, until in ((of_vips[2], "no VIP is here any more"), (of_vips[4], "another member answers")):
        added.add_argument("--wait", action="store_true", help=f"return when {until}")
        added.add_argument("--timeout", type=_seconds, default=TIMEOUT_S, metavar="S", help="default: %(default)g")
    of_vips[4].add_argument("--to", metavar="MEMBER", help="default: the next in the queue")
    doctor = command("doctor", _doctor, "every precondition on this machine, with a verdict and the remedy")
    doctor.add_argument("--json", action="store_true", help="for programs")
    command("check", _check, "check the configuration")
    command("version", _version, "print the version")
    return parser


def _common(parser: argparse.ArgumentParser, config: object, interface: object) -> None:
    parser.add_argument("--config", type=Path, default=config, metavar="FILE", help=f"default: {DEFAULT_CONFIG}")
    parser.add_argument(
        "--interface", default=interface, metavar="IF", help="ask this one's daemon (default: every one that runs here)"
    )


def _seconds(text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        seconds = 0.0
    if not 0.05 <= seconds <= 86400:
        raise argparse.ArgumentTypeError(f"{text!r}: must be seconds, from 0.05 to 86400")
    return seconds

"""govipd's command line.

Exit status: 0 after an orderly end, 1 after a fault, 78 (EX_CONFIG, sysexits.h) for a refused configuration.
"""

import argparse
import asyncio
import gc
import os
import sys
import time
from collections.abc import Sequence
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import NoReturn

from govipd.adapters.kernel.instance import instance_adapters
from govipd.adapters.kernel.nftables import NfTables
from govipd.adapters.kernel.rtnetlink import RouteSocket
from govipd.adapters.state.hostname import HostName
from govipd.adapters.systemd.journal import journal_for
from govipd.adapters.systemd.notify import SystemdNotifier, watchdog_interval_s
from govipd.adapters.systemd.stop_reason import job_type
from govipd.config.model import DEFAULT_CONFIG
from govipd.config.rules import nameable
from govipd.core.journal_kinds import JournalKind
from govipd.errors import ConfigError, KernelError
from govipd.host import BootClock, runtime_directory
from govipd.leftovers import clean_up, forget_orphans, orphan_fences, stay_silent
from govipd.plan import read_plan
from govipd.process_end import run_to_end
from govipd.runtime.daemon import Daemon

CONFIG_RETRY_S = 2.0


def run() -> NoReturn:
    """The program govipd."""
    run_to_end(main)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the daemon, or the command that the options name. Returns the exit status."""
    args = _arguments().parse_args(argv)
    runtime = runtime_directory()
    journal = journal_for(os.environ, sys.stderr)
    name = HostName(runtime and runtime / "hostname", nameable)
    adapters = instance_adapters(args.interface, BootClock())
    read = partial(read_plan, args.config, args.interface, journal, name, adapters)
    try:
        plan = read()
    except ConfigError as e:
        print(e, file=sys.stderr)
        if not args.check_config:
            asyncio.run(stay_silent(args.config, args.interface))
        if "NOTIFY_SOCKET" in os.environ and not args.check_config:
            time.sleep(CONFIG_RETRY_S)  # then systemd starts us again: a missing file may be there by then
        return os.EX_CONFIG
    if args.check_config:
        return 0
    try:
        orphans = asyncio.run(orphan_fences(args.interface, plan, NfTables(), RouteSocket()))
    except KernelError as e:
        print(f"fences that an earlier process left could not be removed: {e}; next: start again", file=sys.stderr)
        return 1
    for line in orphans:
        journal.write(JournalKind.FENCE_ORPHAN, line, {})
    forget_orphans(runtime, plan)
    if args.clean_up:
        return asyncio.run(clean_up(plan))
    name.keep()
    daemon = Daemon(
        plan,
        load=read,
        clock=BootClock(),
        journal=journal,
        notifier=SystemdNotifier(),
        watchdog=watchdog_interval_s(os.environ),
        job_type=job_type,
    )
    gc.freeze()  # these objects stay: a collection over them takes 10 ms, which may delay a move
    return asyncio.run(daemon.run())


def _arguments() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="govipd", description="Keeps virtual IP addresses on one healthy machine.")
    parser.add_argument("--interface", required=True, metavar="IF", help="handle the VIPs of this interface")
    parser.add_argument("--config", type=Path, default=DEFAULT_CONFIG, metavar="FILE", help="default: %(default)s")
    parser.add_argument("--check-config", action="store_true", help="validate the configuration and exit")
    parser.add_argument("--clean-up", action="store_true", help="remove what a killed daemon left, and exit")
    parser.add_argument("--version", action="version", version=f"govipd {version('govipd')}")
    return parser

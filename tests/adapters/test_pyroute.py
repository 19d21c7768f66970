"""The part of pyroute2 that the daemon has."""

import subprocess
import sys


def run(script: str) -> None:
    """In a process of its own."""
    subprocess.run([sys.executable, "-W", "error", "-c", script], check=True, timeout=30)


def test_the_daemon_does_not_load_the_rest() -> None:
    """Nor what only govipctl or a configuration with metrics needs."""
    run(
        "import sys, govipd.cli\n"
        "assert 'pyroute2.netlink.rtnl' in sys.modules\n"
        "rest = {'pyroute2', 'pyroute2.ndb', 'pyroute2.ipdb', 'rich', 'prometheus_client'} & set(sys.modules)\n"
        "assert not rest, rest"
    )


def test_whoever_wants_the_whole_gets_it() -> None:
    """Before or after, with the same classes."""
    same = "assert pyroute2.AsyncIPRoute is govipd.adapters.pyroute.AsyncIPRoute and pyroute2.NDB"
    run(f"import govipd.adapters.pyroute, pyroute2\n{same}")
    run(f"import pyroute2, govipd.adapters.pyroute\n{same}")


def test_a_socket_works_without_the_rest() -> None:
    """Asking and being told of what changes load nothing more."""
    run(
        "import asyncio, sys\n"
        "from govipd.adapters.pyroute import AsyncIPRoute, rtnl\n"
        "async def main():\n"
        "    async with AsyncIPRoute() as route:\n"
        "        await route.bind(groups=rtnl.RTMGRP_LINK)\n"
        "        (link,) = await route.link('get', ifname='lo')\n"
        "        assert link.get_attr('IFLA_IFNAME') == 'lo'\n"
        "asyncio.run(main())\n"
        "assert 'pyroute2' not in sys.modules"
    )

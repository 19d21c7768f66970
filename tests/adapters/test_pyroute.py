"""The part of pyroute2 that the daemon has."""

import subprocess
import sys


def check(script: str) -> None:
    """In a process of its own."""
    subprocess.run([sys.executable, "-W", "error", "-c", script], check=True, timeout=30)


def test_the_daemon_does_not_load_the_rest() -> None:
    """Nor what only govipctl or a configuration with metrics needs."""
    check(
        "import sys, govipd.cli\n"
        "assert 'pyroute2.netlink.nfnetlink' in sys.modules\n"
        "rest = {'pyroute2', 'pyroute2.iproute', 'pyroute2.ndb', 'rich', 'prometheus_client'} & set(sys.modules)\n"
        "assert not rest, rest"
    )


def test_a_program_that_imports_all_of_pyroute2_gets_it() -> None:
    """Before or after, with the same classes."""
    same = (
        "from pyroute2.netlink.nfnetlink import nftsocket\n"
        "assert nftsocket is govipd.adapters.kernel.pyroute.nftsocket and pyroute2.NDB"
    )
    check(f"import govipd.adapters.kernel.pyroute, pyroute2\n{same}")
    check(f"import pyroute2, govipd.adapters.kernel.pyroute\n{same}")


def test_messages_are_made_without_the_rest() -> None:
    """Encoding loads nothing more."""
    check(
        "import sys\n"
        "from govipd.adapters.kernel.nft_table import NFPROTO_INET, Table\n"
        "assert Table(NFPROTO_INET, 'a').add_set('b', 4, times_out=True)\n"
        "assert 'pyroute2' not in sys.modules"
    )

"""Imports the few parts of pyroute2 that govipd uses, without the rest of pyroute2 (docs/adr/0015)."""

import importlib.util
import sys

_whole = "pyroute2" in sys.modules
if not _whole and (_spec := importlib.util.find_spec("pyroute2")):
    sys.modules["pyroute2"] = importlib.util.module_from_spec(_spec)  # a package whose __init__ is not run
try:
    from pyroute2.netlink import NLM_F_ACK, NLM_F_APPEND, NLM_F_CREATE, NLM_F_EXCL, NLM_F_REQUEST, NLMSG_ERROR
    from pyroute2.netlink.nfnetlink import NFNL_SUBSYS_NFTABLES, nftsocket
finally:
    if not _whole:
        sys.modules.pop("pyroute2", None)  # a later import of pyroute2 gets the whole package

__all__ = (
    "NFNL_SUBSYS_NFTABLES", "NLMSG_ERROR", "NLM_F_ACK", "NLM_F_APPEND", "NLM_F_CREATE", "NLM_F_EXCL", "NLM_F_REQUEST",
    "nftsocket",
)  # fmt: skip

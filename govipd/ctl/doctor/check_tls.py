"""Checks etcd's certificates: whether they verify, and how long they are still valid.

gRPC says little about a handshake that failed. So the check makes the same handshake with Python's ssl module.
"""

import asyncio
import errno
import socket
import ssl
import time
from contextlib import ExitStack
from urllib.parse import urlsplit

from govipd.config.model import EtcdConfig
from govipd.ctl.doctor.finding import Finding, failed, ok, skipped, warning
from govipd.ctl.doctor.tools import ToolError, ask

_TIMEOUT_S = 2.0
_SOON_DAYS = 30
# The preface of an HTTP/2 client (RFC 9113 section 3.4), with empty SETTINGS. A server that accepts our certificate
# answers with its own SETTINGS. With TLS 1.3, a server that refuses our certificate says so only after the handshake.
_PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes.fromhex("000000040000000000")
# A reset may be found when connecting, before the handshake, or in it.
_HUNG_UP = frozenset({errno.ECONNRESET, errno.ENOTCONN, errno.EPIPE})
_NO_TLS = frozenset({"WRONG_VERSION_NUMBER", "HTTP_REQUEST", "RECORD_LAYER_FAILURE"})  # OpenSSL's reasons
# X509_V_ERR_..., openssl/x509_vfy.h
_NOT_YET, _EXPIRED, _WRONG_HOST, _WRONG_IP = 9, 10, 62, 64
_UNTRUSTED = frozenset({2, 18, 19, 20, 21})


class _HangsUpError(OSError):
    """The server accepted the connection, and reset it before the handshake was over."""


async def examine(config: EtcdConfig) -> list[Finding]:
    """Check how long the configured certificates, and those of the endpoints, are still valid."""
    if not config.endpoints[0].startswith("https:"):
        remedy = "outside a lab use TLS: docs/operations.md, etcd with TLS and a user of its own"
        loopback = all(urlsplit(e).hostname in {"127.0.0.1", "::1", "localhost"} for e in config.endpoints)
        return [] if loopback or not config.user else [warning("TLS", "the password is sent in the clear", remedy)]
    findings = []
    if config.ca:
        findings.append(_authority(config.ca))
    if config.cert:
        findings.append(await _client(config.cert))
    for endpoint in config.endpoints:
        try:
            server = await asyncio.to_thread(_handshake, endpoint, _context(config))
        except OSError:
            continue  # reported by handshake()
        findings.append(_valid_until(f"TLS certificate of {endpoint}", str(server.get("notAfter"))))
    return findings


async def handshake(check: str, endpoint: str, config: EtcdConfig) -> Finding | None:
    """A finding about an endpoint's TLS; None where TLS works, or where the connection already fails before TLS."""
    try:
        context = _context(config)
    except OSError as e:  # SSLError is an OSError
        files = ", ".join(name for name in (config.ca, config.cert, config.key) if name)
        reason = e.reason if isinstance(e, ssl.SSLError) else e.strerror
        return failed(check, f"{files}: not usable: {reason}", "PEM files; cert and key must belong together")
    try:
        await asyncio.to_thread(_handshake, endpoint, context)
    except ssl.SSLCertVerificationError as e:
        return _unverified(check, e, config)
    except _HangsUpError:
        return _no_tls(check)
    except ssl.SSLError as e:
        if e.reason in _NO_TLS or isinstance(e, ssl.SSLEOFError | ssl.SSLZeroReturnError):
            return _no_tls(check)
        text = f"the server refuses our certificate: {e.reason or e}"
        mutual = f"is {config.cert} signed by etcd's --trusted-ca-file, and still valid?"
        return failed(check, text, mutual if config.cert else "etcd asks for a certificate: set etcd.cert and etcd.key")
    except OSError:
        pass
    return None


def _no_tls(check: str) -> Finding:
    remedy = "is etcd started with --cert-file and --key-file? If it shall not be: http:// in etcd.endpoints"
    return failed(check, "the server does not speak TLS", remedy)


def _unverified(check: str, error: ssl.SSLCertVerificationError, config: EtcdConfig) -> Finding:
    code, words = error.verify_code, error.verify_message
    if code in _UNTRUSTED:
        trusted = config.ca or "any public authority"
        text = f"the server's certificate is not signed by {trusted} ({words})"
        return failed(check, text, "set etcd.ca to the file of the authority that signed etcd's certificates")
    if code in {_WRONG_HOST, _WRONG_IP}:
        return failed(check, words, "use a name or address that the certificate has, or renew it with this one")
    if code == _EXPIRED:
        return failed(check, "the server's certificate, or its authority's, has expired", "renew it on that machine")
    if code == _NOT_YET:
        return failed(check, "the server's certificate is not valid yet", "set this machine's clock: timedatectl")
    return failed(check, f"the server's certificate is refused: {words}", "renew it on that machine")


def _context(config: EtcdConfig) -> ssl.SSLContext:
    context = ssl.create_default_context(cafile=config.ca)
    context.set_alpn_protocols(["h2"])
    if config.cert:
        context.load_cert_chain(config.cert, config.key, password="")  # never ask on the terminal
    return context


def _handshake(endpoint: str, context: ssl.SSLContext) -> dict[str, object]:
    """Connect, and wait for the server's first bytes. Returns its certificate. Blocks for a few time-outs at most."""
    url = urlsplit(endpoint)
    with ExitStack() as sockets:
        try:
            raw = sockets.enter_context(socket.create_connection((url.hostname, url.port or 0), _TIMEOUT_S))
            wrapped = context.wrap_socket(raw, server_hostname=url.hostname, do_handshake_on_connect=False)
            tls = sockets.enter_context(wrapped)
            tls.do_handshake()
        except OSError as e:
            if e.errno in _HUNG_UP:
                raise _HangsUpError from e
            raise
        tls.sendall(_PREFACE)
        if not tls.recv(1):
            raise ConnectionResetError("closed")
        return dict(tls.getpeercert() or {})


def _authority(name: str) -> Finding:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    try:
        context.load_verify_locations(name)
    except OSError as e:
        return failed(f"TLS {name}", f"not usable: {e}", "must hold PEM certificates")
    ends = [str(certificate["notAfter"]) for certificate in context.get_ca_certs()]
    if not ends:
        return failed(f"TLS {name}", "holds no certificate of an authority", "set etcd.ca to the authority's file")
    return _valid_until(f"TLS {name}", min(ends, key=ssl.cert_time_to_seconds))


async def _client(name: str) -> Finding:
    try:
        output = await ask("openssl", "x509", "-noout", "-enddate", "-in", name)
    except ToolError as e:
        return skipped(f"TLS {name}", str(e), "apt install openssl")
    return _valid_until(f"TLS {name}", output.strip().removeprefix("notAfter="))


def _valid_until(check: str, not_after: str) -> Finding:
    days = (ssl.cert_time_to_seconds(not_after) - time.time()) / 86400
    remedy = "renew it; govipd reads the files anew at its next connection, without a restart"
    if days < 0:
        return failed(check, f"expired {-days:.0f} days ago, at {not_after}", remedy)
    text = f"valid for {int(days)} more days, until {not_after}"
    return ok(check, text) if days >= _SOON_DAYS else warning(check, text, remedy)

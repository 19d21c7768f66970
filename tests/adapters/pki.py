"""Certificates for tests: authorities, a server's for 127.0.0.1, a client's."""

import subprocess
from pathlib import Path

_NEW = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes")


def make_authorities(directory: Path) -> None:
    """`ca` signs; `other` signed nothing."""
    for ca in ("ca", "other"):
        _openssl(directory, "req", "-x509", *_NEW, "-keyout", f"{ca}.key", "-out", f"{ca}.crt", "-subj", f"/CN={ca}")


def make_certificate(directory: Path, name: str, *, days: int = 30, address: str = "127.0.0.1", host: str = "") -> None:
    """NAME.crt and NAME.key, signed by `ca`, for an address or a host's name. With `days` 0 or less it has expired."""
    extensions = directory / f"{name}.ext"
    extensions.write_text(
        f"subjectAltName={f'DNS:{host}' if host else f'IP:{address}'}\nextendedKeyUsage=serverAuth,clientAuth\n"
    )
    _openssl(directory, "req", *_NEW, "-keyout", f"{name}.key", "-out", f"{name}.csr", "-subj", f"/CN={name}")
    signing = ("-CA", "ca.crt", "-CAkey", "ca.key", "-CAcreateserial", "-extfile", extensions.name)
    _openssl(directory, "x509", "-req", "-in", f"{name}.csr", *signing, "-out", f"{name}.crt", "-days", str(days))


def _openssl(directory: Path, *args: str) -> None:
    subprocess.run(["openssl", *args], cwd=directory, check=True, capture_output=True)

"""The machines' disk: a Debian, and on top of it govipd, installed from source as README.md says. Both are cached.

The machines have no network, so the Python packages are downloaded here once and given to pip as files. Packages for
`apt install` are built here as well; a machine installs them itself.
"""

import hashlib
import os
import shutil
import subprocess
import tempfile
import tomllib
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from tests.lab.host import RUN, launcher, remove_machine, run, unmount

CHECKOUT = Path(__file__).resolve().parents[2]
SUITE = "bookworm"  # Debian 12
PACKAGES = (
    "systemd", "systemd-sysv", "dbus", "iproute2", "etcd-server", "etcd-client", "haproxy", "python3",
    "python3-venv", "procps", "curl", "iputils-ping", "nftables", "ca-certificates", "make",
    "libfaketime",
)  # fmt: skip
KEPT = 4  # images of each kind: two releases or versions, and another lab may be running on the ones before
SOURCES = ("govipd", "units", "conf", "pyproject.toml", "Makefile", "README.md", "LICENSE")
PACKAGED = (*SOURCES, "packaging", "docs/man", "CHANGELOG.md")


def cache() -> Path:
    """Where images are kept between runs."""
    home = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache"))
    directory = Path(os.environ.get("GOVIP_LAB_CACHE", home / "govip-lab"))
    directory.mkdir(parents=True, exist_ok=True)
    return directory


def layers(say: Callable[[str], None] = print, extra: Sequence[str] = ()) -> list[Path]:
    """The image with govipd as overlay layers, the uppermost first. Built when it is not there."""
    lowest = base(SUITE, say, extra)
    wheels = _cached("wheels", [_dependencies()], lambda d: _build_wheels(d, say))
    recipe = [lowest.name, wheels.name, *_contents(SOURCES)]
    govip = _cached("govip", recipe, lambda d: _install(d, lowest, wheels, say))
    return [govip / "upper", lowest]


def base(suite: str, say: Callable[[str], None] = print, extra: Sequence[str] = ()) -> Path:
    """A Debian with everything that govipd needs or works with, and `extra` packages, but without govipd."""
    for unfinished in cache().glob(".*-*-*"):
        if not Path("/proc", unfinished.name.split("-")[1]).exists():
            shutil.rmtree(unfinished)
    return _cached("base", [suite, *PACKAGES, *extra, "2"], lambda d: _build_base(d, suite, extra, say))


def packages(version: str, say: Callable[[str], None] = print) -> Path:
    """What `make packages` makes, as that version."""

    def build(directory: Path) -> None:
        say(f"building packages of version {version}")
        run("make", "-C", str(CHECKOUT), "packages", f"VERSION={version}", f"DIST={directory}", timeout=900)

    return _cached("packages", [version, *_contents(PACKAGED)], build)


def _cached(kind: str, recipe: Iterable[str], build: Callable[[Path], None]) -> Path:
    """The directory for this recipe; built aside and moved into place, so that it is whole or absent."""
    key = hashlib.sha256("\n".join(recipe).encode()).hexdigest()[:16]
    place = cache() / f"{kind}-{key}"
    if not place.is_dir():
        aside = Path(tempfile.mkdtemp(prefix=f".{kind}-{os.getpid()}-", dir=cache()))
        try:
            build(aside)
            aside.chmod(0o755)
            aside.rename(place)
            for old in sorted(cache().glob(f"{kind}-*"), key=lambda p: p.stat().st_mtime)[:-KEPT]:
                shutil.rmtree(old)
        finally:
            shutil.rmtree(aside, ignore_errors=True)
    return place


def _build_base(directory: Path, suite: str, extra: Sequence[str], say: Callable[[str], None]) -> None:
    say(f"building a Debian {suite} image (once, about half a minute)")
    included = ",".join([*PACKAGES, *extra])
    run("mmdebstrap", "--quiet", "--variant=minbase", f"--include={included}", suite, str(directory),
        timeout=600)  # fmt: skip
    wants = directory / "etc/systemd/system/multi-user.target.wants"
    for service in ("etcd", "haproxy", *extra):  # started once the machine has its configuration
        (wants / f"{service}.service").unlink(missing_ok=True)
    (directory / "etc/machine-id").write_text("")


def _dependencies() -> str:
    project = tomllib.loads((CHECKOUT / "pyproject.toml").read_text())
    return "\n".join([*project["build-system"]["requires"], *project["project"]["dependencies"]])


def _build_wheels(directory: Path, say: Callable[[str], None]) -> None:
    say("downloading govipd's Python packages (once)")
    with tempfile.TemporaryDirectory() as venv:
        run("/usr/bin/python3", "-m", "venv", venv)
        run(f"{venv}/bin/pip", "wheel", "--use-pep517", "--quiet", "--wheel-dir", str(directory),
            *_dependencies().splitlines(), timeout=600)  # fmt: skip


def _sources(names: Iterable[str]) -> list[Path]:
    listed = run("git", "-C", str(CHECKOUT), "ls-files", "-co", "--exclude-standard", *names).splitlines()
    return sorted(CHECKOUT / name for name in set(listed) if (CHECKOUT / name).is_file())


def _contents(names: Iterable[str]) -> list[str]:
    return [f"{p.relative_to(CHECKOUT)} {hashlib.sha256(p.read_bytes()).hexdigest()}" for p in _sources(names)]


def _install(directory: Path, base: Path, wheels: Path, say: Callable[[str], None]) -> None:
    """`make install` from a copy of the checkout, inside the image."""
    say("installing govipd in the image")
    name = f"govip{os.getpid()}-install"
    root = RUN / str(os.getpid()) / "install"  # where a later lab finds it, should this one be killed
    root.mkdir(parents=True)
    for part in ("upper", "work"):
        (directory / part).mkdir()
    run("mount", "-t", "overlay", "overlay", "-o",
        f"lowerdir={base},upperdir={directory}/upper,workdir={directory}/work", str(root))  # fmt: skip
    try:
        source = root / "usr/src/govipd"
        for path in _sources(SOURCES):
            target = source / path.relative_to(CHECKOUT)
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(path, target)
        subprocess.run(
            [
                *launcher(name), "systemd-nspawn", "--quiet", "-D", str(root), "-M", name, "--register=no",
                "--keep-unit", "--private-network", f"--bind-ro={wheels}:/wheels", "--pipe",
                "--setenv=PIP_NO_INDEX=1", "--setenv=PIP_FIND_LINKS=/wheels", "--chdir=/usr/src/govipd",
                "make", "install",
            ],
            check=True, timeout=300, stdin=subprocess.DEVNULL,
        )  # fmt: skip
        shutil.rmtree(source)
    finally:
        remove_machine(name)
        unmount(root)
        shutil.rmtree(root.parent)

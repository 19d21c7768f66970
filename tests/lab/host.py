"""The lab's use of this host: commands, namespaces, mounts, control groups, and their removal.

Everything carries the lab's own process id in its name, so that a later lab can remove what a dead one left.
"""

import os
import re
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

RUN = Path("/run/govip-lab")  # a directory for each lab: its machines' disks, and images while they are built
NETNS = Path("/run/netns")
CGROUP = Path("/sys/fs/cgroup")
_NAME = re.compile(r"^govip(\d+)-[a-z0-9]+$")


class LabError(Exception):
    """A command of the lab ended with an error."""


def run(*args: str, timeout: float = 60.0, stdin: str | None = None, check: bool = True) -> str:
    """Run a command to its end and return what it printed on stdout."""
    done = subprocess.run(args, input=stdin, capture_output=True, text=True, timeout=timeout, check=False)
    if check and done.returncode:
        raise LabError(f"{' '.join(args)}: exit {done.returncode}\n{done.stdout}{done.stderr}")
    return done.stdout


def until(condition: Callable[[], object], timeout: float, what: str) -> None:
    """Wait for a condition, asked every 20 ms."""
    deadline = time.monotonic() + timeout
    while not condition():
        if time.monotonic() > deadline:
            raise LabError(f"not within {timeout:g} s: {what}")
        time.sleep(0.02)


def systemd_host() -> bool:
    """Whether this host's own PID 1 is systemd."""
    return Path("/run/systemd/system").is_dir()


def cgroups(name: str) -> Iterator[Path]:
    """The control group directories of a machine that exist."""
    for parent in (CGROUP / "systemd", CGROUP / "unified", CGROUP / "freezer", CGROUP / "system.slice"):
        for directory in (parent / name, parent / f"{name}.scope"):
            if directory.is_dir():
                yield directory


def launcher(name: str) -> list[str]:
    """The command prefix that puts what follows into control groups of its own.

    A host with systemd gives it a delegated scope. On another (control groups version 1 and a "unified"
    mount) all machines would share the caller's group, in which systemd-nspawn --keep-unit lets them live.
    """
    if systemd_host():
        return ["systemd-run", "--quiet", "--scope", f"--unit={name}", "-p", "Delegate=yes", "--"]
    script = f"""
for h in systemd unified freezer; do
    [ -d {CGROUP}/$h ] || continue
    mkdir -p {CGROUP}/$h/{name} && echo $$ > {CGROUP}/$h/{name}/cgroup.procs
done
exec "$@"
"""
    return ["sh", "-ec", script, "sh"]


def freeze(name: str, *, frozen: bool) -> None:
    """Stop or continue every process of a machine at once, its systemd included."""
    v1 = CGROUP / "freezer" / name / "freezer.state"
    if v1.exists():
        wanted = "FROZEN" if frozen else "THAWED"
        v1.write_text(wanted)
        until(lambda: v1.read_text().strip() == wanted, 5, f"{name} {wanted}")
    else:
        (CGROUP / "system.slice" / f"{name}.scope" / "cgroup.freeze").write_text("1" if frozen else "0")


def unit_pids(name: str, unit: str) -> list[int]:
    """The processes of a unit inside a machine, by this host's process ids."""
    pids: set[int] = set()
    for directory in cgroups(name):
        for group in groups_below(directory):
            if unit in group.relative_to(directory).parts:
                pids.update(members(group))
    return sorted(pids)


def groups_below(directory: Path) -> list[Path]:
    """A control group's directory and all below it, the deepest last; those that vanish meanwhile may be missing."""
    return [Path(path) for path, _, _ in os.walk(directory)]  # which passes over what it cannot read any more


def members(group: Path) -> set[int]:
    """The processes of one control group; none where it has vanished, or has threads only (ENODEV, EOPNOTSUPP)."""
    try:
        return {int(line) for line in (group / "cgroup.procs").read_text().split()}
    except OSError:
        return set()


def remove_machine(name: str) -> None:
    """End what still runs in a machine's control groups, and remove them."""
    for directory in cgroups(name):
        thaw(directory)
        for _ in range(100):
            pids = {pid for group in groups_below(directory) for pid in members(group)}
            if not pids:
                break
            for pid in pids:
                kill(pid, signal.SIGKILL)
            time.sleep(0.02)
        for group in reversed(groups_below(directory)):
            try:
                group.rmdir()
            except OSError:
                continue  # gone, or the kernel still counts a dying process in it: the next lab removes it


def thaw(directory: Path) -> None:
    """Let a machine's frozen processes go on, so that they can end. Its group may vanish meanwhile."""
    for name, word in (("freezer.state", "THAWED"), ("cgroup.freeze", "0")):
        with suppress(OSError):
            if (directory / name).exists():
                (directory / name).write_text(word)


def kill(pid: int, number: signal.Signals) -> None:
    """Send a signal to a process that may be gone."""
    try:
        os.kill(pid, number)
    except ProcessLookupError:
        return


def unmount(below: Path) -> None:
    """Unmount everything below a directory, the newest first."""
    targets = [line.split()[4] for line in Path("/proc/self/mountinfo").read_text().splitlines()]
    for target in reversed([t for t in targets if t == str(below) or t.startswith(f"{below}/")]):
        run("umount", "-l", target, check=False)


def remove_lab(pid: int) -> None:
    """Remove everything that the lab of process `pid` made."""
    names = {p.name for parent in [NETNS, *CGROUP.glob("*")] if parent.is_dir() for p in parent.iterdir()}
    names = {n.removesuffix(".scope") for n in names}
    for name in sorted(n for n in names if n.startswith(f"govip{pid}-")):
        remove_machine(name)
        if (NETNS / name).exists():
            run("ip", "netns", "del", name, check=False)
    unmount(RUN / str(pid))
    shutil.rmtree(RUN / str(pid), ignore_errors=True)


def remove_dead_labs() -> None:
    """Remove what labs left whose process is gone."""
    pids = {int(p.name) for p in RUN.glob("*") if p.name.isdigit()}
    leftovers = [p.name.removesuffix(".scope") for d in (NETNS, *CGROUP.glob("*")) for p in d.glob("govip*")]
    pids |= {int(m[1]) for name in leftovers if (m := _NAME.match(name))}
    for pid in pids:
        if not Path(f"/proc/{pid}").exists():
            remove_lab(pid)

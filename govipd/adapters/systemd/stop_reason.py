"""Why systemd stops this process: the type of the unit's job (org.freedesktop.systemd1(5), Unit.Job)."""

import os

from govipd.adapters.systemd.dbus import MANAGER, SYSTEMD, BusError, call, connection, get


async def job_type(bus_address: str | None = None) -> str:
    """The type of the job that runs for this process's unit: "restart", "stop", ...

    Returns "" when there is no job, or D-Bus does not answer. Measured on systemd 252: the job is "restart" from a
    restart of the unit until the new process runs, and "stop" while the unit is stopped or the machine shuts down.
    """
    try:
        async with connection(bus_address) as (bus, _):
            (unit,) = await call(bus, MANAGER, f"{SYSTEMD}.Manager", "GetUnitByPID", "u", os.getpid())
            number, job = await get(bus, unit, f"{SYSTEMD}.Unit", "Job")
            return str(await get(bus, job, f"{SYSTEMD}.Job", "JobType")) if number else ""
    except BusError:
        return ""

"""The decisions, as pure functions of events and time: no clock, no I/O, no asyncio."""

"""`python -m tests.adapters.hostile SOCKET`: attacks by a user that may open the control socket.

100 000 messages on as many connections as it lets in: garbage, calls of what is not there, calls of what is; slow ones
that never come to an end; 1000 connections at once. Prints how many were sent and how many were answered.
"""

import asyncio
import json
import random
import resource
import sys
from contextlib import suppress

MESSAGES = 100_000
CROWD = 1000
VALID = [json.dumps({"method": f"org.govipd.Node.{name}"}).encode() for name in ("Status", "Fly", "Fly", "Fly")]
GARBAGE = [b"", b"{", b"\xff\xfe", b"[" * 5000, b"{}", b'{"method": 1}', b"null", b'"' + b"x" * 3000 + b'"']


async def flood(path: str, choice: random.Random, count: int) -> tuple[int, int]:
    """Send so many messages in bunches, reading what comes; begin anew whenever the connection is closed."""
    sent = answered = 0
    while sent < count:
        bunch = choice.choices(VALID, k=200)
        if choice.random() < 0.5:
            bunch.insert(choice.randrange(200), choice.choice(GARBAGE))
        with suppress(OSError, EOFError):
            reader, writer = await asyncio.open_unix_connection(path, limit=1 << 20)
            try:
                writer.write(b"\0".join(bunch) + b"\0")
                sent += len(bunch)
                for _ in bunch:
                    await asyncio.wait_for(reader.readuntil(b"\0"), 5)
                    answered += 1
            finally:
                writer.close()
    return sent, answered


async def loris(path: str) -> None:
    """Send a byte now and then, without an end."""
    while True:
        with suppress(OSError):
            _, writer = await asyncio.open_unix_connection(path)
            with suppress(OSError):
                while not writer.is_closing():
                    writer.write(b"{")
                    await writer.drain()
                    await asyncio.sleep(0.2)
        await asyncio.sleep(0.05)


async def crowd(path: str) -> None:
    """As many connections as one process can open, again and again."""
    while True:
        opened = await asyncio.gather(
            *(asyncio.open_unix_connection(path) for _ in range(CROWD)), return_exceptions=True
        )
        await asyncio.sleep(1.0)
        for one in opened:
            if not isinstance(one, BaseException):
                one[1].close()


async def main(path: str) -> None:
    """All of it at once, until the messages are sent."""
    beside = [asyncio.ensure_future(work) for work in (loris(path), loris(path), crowd(path))]
    done = await asyncio.gather(*(flood(path, random.Random(i), MESSAGES // 8) for i in range(8)))
    for task in beside:
        task.cancel()
    print(sum(sent for sent, _ in done), sum(answered for _, answered in done))


if __name__ == "__main__":
    resource.setrlimit(resource.RLIMIT_NOFILE, (4096, 4096))
    asyncio.run(main(sys.argv[1]))

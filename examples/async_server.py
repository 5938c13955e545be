"""A server that computes on every core and never stops listening: asyncio and `plan(...).submit()`.

One client asks for the next frame of a simulation; the event loop awaits the futures of its calls,
and answers another client meanwhile.
"""

import asyncio
import json

import numba as nb
import numpy as np

import shmcompute as sc

SIZE, STEPS = 400, 25


@nb.njit
def spread(new, old):
    """One step of heat that flows to the four neighbours; the border stays."""
    for i in range(new.shape[0]):
        for j in range(1, new.shape[1] - 1):
            around = old[i, j] + old[i + 2, j] + old[i + 1, j - 1] + old[i + 1, j + 1]
            new[i, j] = 0.2 * (around + old[i + 1, j])


async def answer(reader, writer):
    """One client: it names what it wants, and gets a line of JSON."""
    wanted = (await reader.readline()).decode().strip()
    if wanted == "frame":
        for _ in range(STEPS):  # all are submitted at once, and run in this order
            calls = [there.submit(), back.submit()]
        await asyncio.gather(*map(asyncio.wrap_future, calls))
        told = {"warm": int((hot.array > 1.0).sum()), "heat": round(float(hot.array.sum()))}
    else:
        told = {"listening": True}
    writer.write(json.dumps(told).encode() + b"\n")
    writer.close()


async def ask(port, wanted):
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(wanted.encode() + b"\n")
    print(wanted, "->", (await reader.readline()).decode().strip(), flush=True)
    writer.close()


async def main():
    async with await asyncio.start_server(answer, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        await asyncio.gather(ask(port, "frame"), ask(port, "status"))
        await ask(port, "frame")


with sc.SharedArray(np.zeros((SIZE, SIZE))) as hot, sc.SharedArray(np.zeros((SIZE, SIZE))) as other:
    hot[SIZE // 2 - 10 : SIZE // 2 + 10, SIZE // 2 - 10 : SIZE // 2 + 10] = 100.0
    there = sc.plan(spread, other[1:-1], sc.halo(hot, 1))
    back = sc.plan(spread, hot[1:-1], sc.halo(other, 1))
    asyncio.run(main())

"""Does with Python clients what life.mjs says, line by line; see puppets.mjs."""

import asyncio
import json
import os
import sys


async def obey(sdk):
    connections = {}

    async def ready():
        pass

    async def connect(name, url, headers=None):
        """Holds the connection in a task of its own: who has entered its scopes must leave them."""
        ready, closing = asyncio.get_running_loop().create_future(), asyncio.Event()

        async def hold():
            try:
                async with sdk.connect(url, headers=headers) as connection:
                    ready.set_result(connection)
                    await closing.wait()
            except (Exception, BaseExceptionGroup) as error:
                if not ready.done():
                    ready.set_exception(RuntimeError(repr(error)))

        holding = asyncio.create_task(hold())
        connections[name] = (await ready, closing, holding)

    async def call(name, tool, args={}, limit=None):
        return await connections[name][0].call(tool, limit and limit / 1000, **args)

    async def heard(name):
        return connections[name][0].heard

    async def wire(name):
        def exchange(response):
            sent, got = response.request.headers, response.headers
            return {
                "method": response.request.method,
                "status": response.status_code,
                "id": sent.get("mcp-session-id") or got.get("mcp-session-id"),
                "ended": response.is_closed,
            }

        return [exchange(response) for response in connections[name][0].wire]

    async def close(name):
        _, closing, holding = connections[name]
        closing.set()
        await holding

    does = {"ready": ready, "connect": connect, "call": call, "heard": heard, "wire": wire, "close": close}

    async def follow(order, do, **args):
        try:
            said = {"result": await does[do](**args)}
        # Even cancelled, which is how a client's end looks to its calls.
        except BaseException as error:
            said = {"error": repr(error)}
        print(json.dumps({"order": order} | said), flush=True)

    following = set()
    while line := await asyncio.to_thread(sys.stdin.readline):
        task = asyncio.create_task(follow(**json.loads(line)))
        following.add(task)
        task.add_done_callback(following.discard)
    # What hangs in a client does not hang this.
    os._exit(0)

"""What every Python client has to live through. mcp1.py and mcp2.py say how theirs connects."""

import asyncio
import http.client
import logging
import sys
import traceback
from urllib.parse import urlsplit

import puppet

MIB = "x" * 1024 * 1024
NOT_FOUND = '{"jsonrpc":"2.0","error":{"code":-32001,"message":"Session not found"}}'


class Connection:
    """A connected client, and the HTTP responses that it got."""

    def __init__(self, client, wire, limited=lambda seconds: seconds):
        self.client = client
        self.wire = wire
        self.limited = limited
        # How many notifications have come.
        self.heard = 0

    @property
    def id(self):
        """The session id, as the server sent it."""
        return next((r.headers["mcp-session-id"] for r in self.wire if "mcp-session-id" in r.headers), None)

    def answers(self, method):
        return [response for response in self.wire if response.request.method == method]

    async def call(self, name, limit=None, **args):
        """`limit`: how many seconds the client gives it."""
        result = await self.client.call_tool(name, args, limit and self.limited(limit))
        return result.content[0].text

    async def hear(self, message):
        """Handles what comes besides answers."""
        self.heard += not isinstance(message, Exception)


async def tools(sdk, url, check):
    async with sdk.connect(url) as connection:
        listed = await connection.client.list_tools()
        check("lists the tools", sorted(tool.name for tool in listed.tools), ["add", "counter", "echo"])
        check("echo answers", await connection.call("echo", message="hello"), "hello")
        check("add adds", await connection.call("add", a=2, b=3), "5")
        check("counter starts", await connection.call("counter"), "1")
        check("counter goes on", await connection.call("counter"), "2")
    async with sdk.connect(url) as other:
        check("another session has its own counter", await other.call("counter"), "1")


async def stream(sdk, url, check):
    async with sdk.connect(url) as connection:
        await until(lambda: connection.answers("GET"))
        get = connection.answers("GET")[0]
        check("opens the GET stream", get.status_code, 200)
        check("as an event stream", get.headers["content-type"], "text/event-stream")
        await asyncio.sleep(1)
        check("calls go on beside it", await connection.call("echo", message="hello"), "hello")
        check("it stays open while silent", get.is_closed, False)
        await end_from_outside(url, connection.id, check)
        await until(lambda: get.is_closed)
        check("the stream ends with its session", get.is_closed, True)


async def delete(sdk, url, check):
    async with sdk.connect(url) as connection:
        check("the session is alive", await connection.call("echo", message="hello"), "hello")
    deleted = connection.answers("DELETE")
    check("deletes its session when it leaves", [r.status_code // 100 for r in deleted], [2])
    for method in ["POST", "GET", "DELETE"]:
        status, text = await raw(url, method, connection.id)
        check(f"{method} with the dead id is 404", status, 404)
        check(f"{method} is told why", text, NOT_FOUND)


async def ended(sdk, url, check):
    async with sdk.connect(url) as connection:
        check("1 MiB goes through a live session", len(await connection.call("echo", message=MIB)), len(MIB))
        await end_from_outside(url, connection.id, check)
        for size in ["1 MiB", "small"]:
            try:
                got = await connection.call("echo", message=MIB if size == "1 MiB" else "hello")
            except sdk.Error as error:
                got = (error.error.code, error.error.message)
            check(f"a {size} call fails and says why", got, sdk.terminated)
        check("because of a 404", [r.status_code for r in connection.answers("POST")][-2:], [404, 404])
    async with sdk.connect(url) as again:
        check("a new connect has a new session", again.id not in (connection.id, None), True)
        check("and works", len(await again.call("echo", message=MIB)), len(MIB))


async def modern(sdk, url, check):
    """A client that prefers 2026-07-28, and a server that speaks it: nobody needs a session."""
    async with sdk.connect(url, "auto") as connection:
        check("calls without a session", await connection.call("echo", message="hello"), "hello")
        ids = [r for r in connection.wire for head in (r.headers, r.request.headers) if "mcp-session-id" in head]
        check("no session id goes over the wire", ids, [])


async def fallback(sdk, url, check):
    """The same client, and a server that has only sessions."""
    async with sdk.connect(url, "auto") as connection:
        check("takes a session instead", type(connection.id), str)
        check("and works", await connection.call("counter"), "1")


SCENARIOS = {scenario.__name__: scenario for scenario in [tools, stream, delete, ended, modern, fallback]}


def main(sdk):
    """Runs the scenarios named on the command line: `python mcp1.py URL SCENARIO...`. Or obeys: `python mcp1.py puppet`."""
    # They warn of a DELETE that is answered 202.
    logging.getLogger("mcp").setLevel(logging.ERROR)
    if sys.argv[1] == "puppet":
        return asyncio.run(puppet.obey(sdk))
    url, *names = sys.argv[1:]
    passed = failed = 0
    for name in names:

        def check(what, got, wanted):
            nonlocal passed, failed
            ok = got == wanted
            passed, failed = passed + ok, failed + (not ok)
            but = "" if ok else f": got {got!r}, wanted {wanted!r}"
            print(f"{'ok  ' if ok else 'FAIL'} {sdk.name} {name}: {what}{but}", flush=True)

        try:
            asyncio.run(SCENARIOS[name](sdk, url, check))
        except (Exception, BaseExceptionGroup):
            failed += 1
            print(f"FAIL {sdk.name} {name}: {traceback.format_exc()}", flush=True)
    print(f"{sdk.name}: {passed} passed, {failed} failed")
    sys.exit(1 if failed or not passed else 0)


def watch(http):
    """The responses that an HTTP client gets, as they come in."""
    wire = []

    async def note(response):
        wire.append(response)

    http.event_hooks = {"response": [note]}
    return wire


async def end_from_outside(url, id, check):
    status, _ = await raw(url, "DELETE", id)
    check("the session is ended from outside", status // 100, 2)


async def raw(url, method, id):
    """A request past the client, on a connection of its own: its status and body."""

    def send():
        at = urlsplit(url)
        connection = http.client.HTTPConnection(at.netloc, timeout=10)
        connection.request(
            method,
            at.path,
            body='{"jsonrpc":"2.0","id":1,"method":"ping"}' if method == "POST" else None,
            headers={
                "accept": "application/json, text/event-stream",
                "content-type": "application/json",
                "mcp-protocol-version": "2025-11-25",
                "mcp-session-id": id,
            },
        )
        response = connection.getresponse()
        text = response.read().decode()
        connection.close()
        return response.status, text

    return await asyncio.to_thread(send)


async def until(so):
    """Waits until it is so, 10 seconds at most. What comes next checks it."""
    for _ in range(200):
        if so():
            return
        await asyncio.sleep(0.05)

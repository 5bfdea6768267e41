"""A server of FastMCP, the package of its own."""

import asyncio
import os

from fastmcp import FastMCP

server = FastMCP("fastmcp")


@server.tool
def echo(message: str) -> str:
    return message


@server.tool
async def sleep(seconds: float) -> str:
    await asyncio.sleep(seconds)
    return f"slept {seconds:g} s"


server.run(transport="http", host="127.0.0.1", port=int(os.environ["PORT"]), show_banner=False)

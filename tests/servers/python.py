"""A server of the Python SDK, 1.x or 2.x, whichever is installed."""

import asyncio
import os

options = {"host": "127.0.0.1", "port": int(os.environ["PORT"])}
try:
    from mcp.server.fastmcp import FastMCP

    server, run = FastMCP("python", **options), {}
except ImportError:
    from mcp.server.mcpserver import MCPServer

    server, run = MCPServer("python"), options


@server.tool()
def echo(message: str) -> str:
    return message


@server.tool()
async def sleep(seconds: float) -> str:
    await asyncio.sleep(seconds)
    return f"slept {seconds:g} s"


server.run(transport="streamable-http", **run)

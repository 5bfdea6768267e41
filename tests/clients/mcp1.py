from contextlib import asynccontextmanager
from datetime import timedelta

import scenarios
from mcp import ClientSession, McpError
from mcp.client.streamable_http import streamable_http_client
from mcp.shared._httpx_utils import create_mcp_http_client


class Sdk:
    name = "mcp1"
    Error = McpError
    # The code is positive indeed.
    terminated = (32600, "Session terminated")

    @asynccontextmanager
    async def connect(self, url, headers=None):
        async with create_mcp_http_client(headers=headers) as http:
            wire = scenarios.watch(http)
            async with streamable_http_client(url, http_client=http) as (read, write, _):
                connection = scenarios.Connection(None, wire, lambda seconds: timedelta(seconds=seconds))
                async with ClientSession(read, write, message_handler=connection.hear) as connection.client:
                    await connection.client.initialize()
                    yield connection


if __name__ == "__main__":
    scenarios.main(Sdk())

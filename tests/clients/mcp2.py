from contextlib import asynccontextmanager

import scenarios
from mcp import Client, MCPError
from mcp.client.streamable_http import streamable_http_client
from mcp.shared._httpx_utils import create_mcp_http_client


class Sdk:
    name = "mcp2"
    Error = MCPError
    terminated = (-32600, "Session terminated")

    @asynccontextmanager
    async def connect(self, url, mode="legacy", headers=None):
        async with create_mcp_http_client(headers=headers) as http:
            wire = scenarios.watch(http)
            # By default an event of 1 MiB is one too long.
            transport = streamable_http_client(url, http_client=http, max_sse_event_size=None)
            connection = scenarios.Connection(None, wire)
            async with Client(transport, mode=mode, message_handler=connection.hear) as connection.client:
                yield connection


if __name__ == "__main__":
    scenarios.main(Sdk())

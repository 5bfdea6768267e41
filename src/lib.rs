//! A Tower layer that answers 404 for dead MCP sessions before your MCP service runs.

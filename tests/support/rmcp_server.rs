//! rmcp's server as the inner service, with a manager that says which sessions it holds.

use std::sync::Arc;

use rmcp::{
    ServerHandler,
    transport::streamable_http_server::{
        StreamableHttpServerConfig, StreamableHttpService, session::local::LocalSessionManager,
    },
};

#[derive(Clone)]
pub(crate) struct Server;

impl ServerHandler for Server {}

pub(crate) fn rmcp_server(
    config: StreamableHttpServerConfig,
) -> (
    StreamableHttpService<Server, LocalSessionManager>,
    Arc<LocalSessionManager>,
) {
    let manager = Arc::new(LocalSessionManager::default());
    let service = StreamableHttpService::new(|| Ok(Server), Arc::clone(&manager), config);
    (service, manager)
}

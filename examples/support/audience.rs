//! Clients to whom something can be said at any time, if they have a GET stream on this node.

use std::{sync::Arc, time::Duration};

use parking_lot::Mutex;
use rmcp::{Peer, RoleServer, model::ResourceUpdatedNotificationParam};
use tokio::{task::JoinSet, time::timeout};

#[derive(Clone, Default)]
pub(crate) struct Audience(Arc<Mutex<Vec<Peer<RoleServer>>>>);

impl Audience {
    pub(crate) fn join(&self, peer: Peer<RoleServer>) {
        let mut peers = self.0.lock();
        peers.retain(|peer| !peer.is_transport_closed());
        peers.push(peer);
    }

    /// Tells all that a resource was updated, and answers how many they are.
    pub(crate) async fn tell_updated(&self, uri: &'static str) -> usize {
        let peers = self.0.lock().clone();
        let told = peers.into_iter().map(|peer| async move {
            let uri = ResourceUpdatedNotificationParam::new(uri);
            let told = timeout(PATIENCE, peer.notify_resource_updated(uri)).await;
            matches!(told, Ok(Ok(())))
        });
        let told = told.collect::<JoinSet<_>>().join_all().await;
        told.into_iter().filter(|told| *told).count()
    }
}

/// A client that does not read does not hold up the others.
const PATIENCE: Duration = Duration::from_secs(1);

//! What a cluster demands: no script touches keys of two hash tags.

use std::time::Duration;

use mcp_session_layer::{
    SessionStore,
    store::{AtLimit, Created, EndReason, Limit, SessionFilter, Terms},
};

use crate::{create_many, created, owner, send, server::Server, session, terms, touch, words};

/// A cluster of one node that has all slots. It refuses what a larger one would, but leads nowhere else.
pub(crate) async fn of_one() -> Option<Server> {
    let server = Server::start("--cluster-enabled yes")?;
    let _: () = send(&server.url(), &mut words("CLUSTER ADDSLOTSRANGE 0 16383")).await;
    for _ in 0..500 {
        let info: String = send(&server.url(), &mut words("CLUSTER INFO")).await;
        if info.contains("cluster_state:ok") {
            return Some(server);
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    panic!("the cluster does not come up");
}

#[tokio::test]
async fn all_verbs_work_on_a_cluster() {
    let Some(server) = of_one().await else {
        return;
    };
    let store = server.store().await;
    let directory = store.directory().expect("there is one");
    let (ann, anonymous) = (owner("a", Some("ann")), owner("a", None));
    let limited = Terms {
        total: 60.try_into().ok(),
        per_principal: 40.try_into().ok(),
        ..terms()
    };

    // Sessions in all shards count together.
    create_many(&store, &ann, &limited, 20).await;
    for _ in 0..20 {
        created(&store, &ann, &limited).await;
    }
    let refused = store
        .create(&session(&ann), &limited)
        .await
        .expect("answers");
    assert_eq!(refused, Created::Full(Limit::PerPrincipal));
    for _ in 0..20 {
        created(&store, &anonymous, &limited).await;
    }
    let refused = store
        .create(&session(&anonymous), &limited)
        .await
        .expect("answers");
    assert_eq!(refused, Created::Full(Limit::Total));

    // The victim may be in any shard: with one session in the scope it is in another one 15 times of 16.
    let (bob, one) = (owner("b", Some("bob")), 1.try_into().ok());
    let nobody = owner("nobody", None);
    for (owner, limits) in [(&nobody, (one, None)), (&bob, (None, one))] {
        let evicting = Terms {
            total: limits.0,
            per_principal: limits.1,
            at_limit: AtLimit::Evict {
                unused: Duration::ZERO,
                untouched: Duration::ZERO,
            },
            ..terms()
        };
        let mut last = None;
        for _ in 0..30 {
            let newcomer = session(owner);
            let created = store.create(&newcomer, &evicting).await.expect("answers");
            let Created::New { evicted, .. } = created else {
                panic!("there is one to be evicted: {created:?}");
            };
            if let Some(last) = &last {
                assert_eq!(evicted, Some(*last));
            }
            last = Some(*newcomer.reference());
        }
        let count = directory.count(&SessionFilter::Owner(owner.clone())).await;
        assert_eq!(count.expect("answers"), 1);
    }
    let in_use = Terms {
        total: one,
        at_limit: AtLimit::Evict {
            unused: Duration::from_secs(30),
            untouched: Duration::from_secs(30),
        },
        ..terms()
    };
    let refused = store
        .create(&session(&nobody), &in_use)
        .await
        .expect("answers");
    assert_eq!(refused, Created::Full(Limit::Total));

    let claimed = created(&store, &anonymous, &terms()).await;
    let claim = store.claim(claimed.id(), &ann, terms().idle).await;
    assert!(claim.expect("answers").is_some());
    assert!(touch(&store, &claimed).await.expect("answers").is_none());
    let ended = directory
        .end_all(&SessionFilter::Owner(ann), EndReason::Revoked)
        .await;
    assert_eq!(ended.expect("answers"), 41);
    let listed = directory
        .list(&SessionFilter::Scope(anonymous.scope.clone()), None, 100)
        .await;
    assert_eq!(listed.expect("answers").len(), 20);
}

#[tokio::test]
async fn creates_and_ends_are_many_at_a_time() {
    let Some(server) = of_one().await else {
        return;
    };
    let store = server.store().await;
    let owner = owner("a", None);
    let limited = Terms {
        total: 10_000.try_into().ok(),
        ..terms()
    };
    let sessions = create_many(&store, &owner, &limited, 300).await;
    for session in &sessions {
        assert!(
            store
                .delete(session.id(), EndReason::Deleted)
                .await
                .expect("answers")
        );
    }
}

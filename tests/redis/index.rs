//! The index does not rot.

use std::time::Duration;

use mcp_session_layer::{
    SessionStore,
    store::{EndReason, SessionFilter, Terms},
};
use tokio::time::sleep;

use crate::{
    MINUTE, create_many, created, owner,
    server::{clean, keys, shared},
    terms,
};

/// 20,000 creations and expiries, or as many as `REDIS_CREATES` says, leave nothing. The index goes by itself.
#[tokio::test(flavor = "multi_thread")]
async fn creates_and_expiries_leave_nothing() {
    let Some((store, url, prefix)) = shared().await else {
        return;
    };
    let creations = std::env::var("REDIS_CREATES")
        .map_or(20_000, |creations| creations.parse().expect("a number"));
    let short = Terms {
        idle: Duration::from_secs(2),
        total: 1_000_000.try_into().ok(),
        per_principal: 1_000_000.try_into().ok(),
        ..terms()
    };
    for i in 0..creations / 1000 {
        // Sessions of many owners.
        create_many(&store, &owner("a", Some(&format!("{i}"))), &short, 1000).await;
    }
    // The last one's time, and a quarter of it for the index; the server removes what expired at leisure.
    sleep(Duration::from_secs(3)).await;
    for _ in 0..100 {
        if keys(&url, &prefix).await.is_empty() {
            return;
        }
        sleep(Duration::from_millis(200)).await;
    }
    panic!("left: {:?}", keys(&url, &prefix).await);
}

/// While others are created, what expired goes although nobody asks for it.
#[tokio::test(flavor = "multi_thread")]
async fn later_creates_remove_what_expired() {
    let Some((store, url, prefix)) = shared().await else {
        return;
    };
    let (ann, bob) = (owner("a", Some("ann")), owner("b", None));
    let short = Terms {
        idle: Duration::from_secs(2),
        ..terms()
    };
    // Some stay and keep the index alive.
    let stays = create_many(&store, &ann, &terms(), 100).await;
    create_many(&store, &ann, &short, 3000).await;
    sleep(short.idle).await;
    let entries = async || {
        let mut sum = 0_usize;
        for key in keys(&url, &prefix)
            .await
            .iter()
            .filter(|key| key.ends_with(":due"))
        {
            sum += crate::send::<usize>(&url, redis::cmd("ZCARD").arg(key)).await;
        }
        sum
    };
    assert!(entries().await > stays.len(), "nobody has looked yet");
    let mut later = Vec::new();
    for _ in 0..300 {
        later.push(created(&store, &bob, &terms()).await);
    }
    assert_eq!(entries().await, stays.len() + later.len());

    for session in stays.iter().chain(&later) {
        assert!(
            store
                .delete(session.id(), EndReason::Deleted)
                .await
                .expect("answers")
        );
    }
    assert_eq!(
        keys(&url, &prefix).await,
        Vec::<String>::new(),
        "ends leave nothing"
    );
}

/// A session that is touched stays in the index, however long it lives and although nobody is created meanwhile.
#[tokio::test]
async fn a_session_in_use_stays_in_the_index() {
    let Some((store, url, prefix)) = shared().await else {
        return;
    };
    let ann = owner("a", Some("ann"));
    let idle = Duration::from_millis(400);
    let unused = Terms {
        idle,
        initial_idle: idle / 2,
        ..terms()
    };
    let session = created(&store, &ann, &unused).await;
    for _ in 0..20 {
        sleep(idle / 4).await;
        if store
            .touch(session.id(), &ann, idle)
            .await
            .expect("answers")
            .is_none()
        {
            // Too slow a machine for this test.
            return;
        }
    }
    let directory = store.directory().expect("there is one");
    store
        .touch(session.id(), &ann, MINUTE)
        .await
        .expect("answers");
    for filter in [
        SessionFilter::Scope(ann.scope.clone()),
        SessionFilter::Owner(ann),
    ] {
        assert_eq!(directory.count(&filter).await.expect("answers"), 1);
        assert_eq!(
            directory
                .list(&filter, None, 10)
                .await
                .expect("answers")
                .len(),
            1
        );
    }
    let filter = SessionFilter::Scope(session.owner().scope.clone());
    assert_eq!(
        directory
            .end_all(&filter, EndReason::Revoked)
            .await
            .expect("answers"),
        1
    );
    clean(&url, &prefix).await;
}

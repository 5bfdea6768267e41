//! What goes over the wire, and what is kept.

use std::time::Duration;

use mcp_session_layer::{
    ClientInfo, Issuer, RedisStore, Session, SessionId, SessionRecord, SessionStore,
    store::{AtLimit, Created, EndReason, SessionFilter, StoreError, StoreErrorKind, Terms},
};

use crate::{
    MINUTE, assert_unavailable, created, owner,
    proxy::Proxy,
    send,
    server::{Server, keys, shared},
    session, terms, touch, words,
};

/// Each verb: one command, which is one script call, in one read of the server's.
#[tokio::test]
async fn each_verb_is_one_script_call_and_one_round_trip() {
    let Some(server) = Server::start("") else {
        return;
    };
    let (store, ann) = (server.store().await, owner("a", Some("ann")));
    let limited = Terms {
        total: 3.try_into().ok(),
        per_principal: 2.try_into().ok(),
        at_limit: AtLimit::Evict {
            unused: Duration::ZERO,
            untouched: Duration::ZERO,
        },
        life: Some(MINUTE),
        ..terms()
    };
    // The server learns the scripts, and the store has asked for the eviction policy.
    let known = created(&store, &ann, &limited).await;
    store.load(known.id()).await.expect("answers");
    store.expire(known.id()).await.expect("answers");
    touch(&store, &known).await.expect("answers");
    assert!(
        store
            .delete(known.id(), EndReason::Deleted)
            .await
            .expect("answers")
    );
    let watch = Watch::new(&server.url()).await;
    let (one, two) = (session(&ann), session(&ann));
    for (verb, calls) in [("create", 1), ("create another", 2)] {
        watch.begin().await;
        if calls == 1 {
            store.create(&one, &limited).await.expect("answers");
        } else {
            store.create(&two, &limited).await.expect("answers");
        }
        watch.saw_one_script_call(verb).await;
    }
    watch.begin().await;
    let newcomer = created(&store, &ann, &limited).await;
    watch.saw_one_script_call("create and evict").await;
    assert!(
        store.load(one.id()).await.expect("answers").is_none(),
        "one was evicted"
    );

    watch.begin().await;
    assert!(store.load(two.id()).await.expect("answers").is_some());
    watch.saw_one_script_call("load").await;
    watch.begin().await;
    assert!(touch(&store, &two).await.expect("answers").is_some());
    watch.saw_one_script_call("touch").await;
    watch.begin().await;
    assert!(
        touch(&store, &session(&ann))
            .await
            .expect("answers")
            .is_none()
    );
    watch.saw_one_script_call("touch of an absent one").await;
    watch.begin().await;
    assert!(
        store
            .claim(two.id(), &ann, MINUTE)
            .await
            .expect("answers")
            .is_some()
    );
    watch.saw_one_script_call("claim").await;
    watch.begin().await;
    store.expire(two.id()).await.expect("answers");
    watch.saw_one_script_call("expire").await;
    watch.begin().await;
    assert!(
        store
            .delete(newcomer.id(), EndReason::Deleted)
            .await
            .expect("answers")
    );
    watch.saw_one_script_call("delete").await;
}

/// Counts the commands and the reads of a server between two moments.
struct Watch(redis::aio::MultiplexedConnection);

impl Watch {
    async fn new(url: &str) -> Self {
        let client = redis::Client::open(url).expect("a URL");
        let connection = client.get_multiplexed_async_connection().await;
        Self(connection.expect("the server answers"))
    }

    async fn begin(&self) {
        let mut connection = self.0.clone();
        let reset: redis::RedisResult<()> =
            words("CONFIG RESETSTAT").query_async(&mut connection).await;
        reset.expect("answers");
    }

    async fn saw_one_script_call(&self, verb: &str) {
        let mut connection = self.0.clone();
        let info: redis::RedisResult<String> = words("INFO all").query_async(&mut connection).await;
        let info = info.expect("answers");
        let calls = |command: &str| {
            let line = info
                .lines()
                .find_map(|line| line.strip_prefix(&format!("cmdstat_{command}:calls=")));
            line.map_or("0", |line| line.split(',').next().unwrap_or_default())
        };
        assert_eq!(calls("evalsha"), "1", "{verb}");
        for command in ["eval", "script|load", "info", "keys", "scan", "multi"] {
            assert_eq!(calls(command), "0", "{verb}: {command}");
        }
        // The verb's, and this question.
        assert!(
            info.contains("total_reads_processed:2\r\n"),
            "{verb}: one round trip"
        );
    }
}

/// A touch that finds the idle time left changes nothing, so that there is nothing to replicate. The first one, one that
/// asks for more, and those near the end of life do.
#[tokio::test]
async fn a_touch_that_is_not_due_writes_nothing() {
    let Some(server) = Server::start("") else {
        return;
    };
    let store = server.store().await;
    let changes = async || {
        let info: String = send(&server.url(), &mut words("INFO persistence")).await;
        let mut lines = info.lines();
        let changes = lines.find_map(|line| line.strip_prefix("rdb_changes_since_last_save:"));
        changes
            .expect("it counts")
            .parse::<u64>()
            .expect("a number")
    };
    let writes = async |session: &Session, idle: Duration| {
        let before = changes().await;
        let touched = store.touch(session.id(), session.owner(), idle).await;
        assert!(touched.expect("answers").is_some(), "it is live");
        before != changes().await
    };
    let (ann, anonymous) = (owner("a", Some("ann")), owner("a", None));
    let new = created(&store, &anonymous, &terms()).await;
    assert!(
        writes(&new, MINUTE / 2).await,
        "the first, whatever is left"
    );
    assert!(writes(&new, MINUTE).await, "less than that is left");
    for _ in 0..5 {
        assert!(!writes(&new, MINUTE).await, "that is left");
    }
    assert!(writes(&new, MINUTE * 2).await, "less than that is left");
    let before = changes().await;
    let claimed = store.claim(new.id(), &ann, MINUTE).await;
    assert!(claimed.expect("answers").is_some());
    assert_ne!(changes().await, before, "a claim");
    let mortal = Terms {
        life: Some(MINUTE),
        ..terms()
    };
    let mortal = created(&store, &ann, &mortal).await;
    for _ in 0..3 {
        assert!(writes(&mortal, MINUTE).await, "near the end of life");
    }
}

#[tokio::test]
async fn scripts_that_the_server_forgot_are_sent_again() {
    let Some(server) = Server::start("") else {
        return;
    };
    let store = server.store().await;
    let ann = owner("a", Some("ann"));
    let forget = async || {
        let _: () = send(&server.url(), &mut words("SCRIPT FLUSH")).await;
    };
    let session = created(&store, &ann, &terms()).await;
    forget().await;
    created(&store, &ann, &terms()).await;
    forget().await;
    assert!(touch(&store, &session).await.expect("answers").is_some());
    forget().await;
    assert!(store.load(session.id()).await.expect("answers").is_some());
    forget().await;
    assert!(
        store
            .delete(session.id(), EndReason::Deleted)
            .await
            .expect("answers")
    );
}

/// Nothing that is stored holds an id, and every key begins with the prefix.
#[tokio::test]
async fn no_id_is_stored() {
    let Some(server) = Server::start("") else {
        return;
    };
    let store = server.store().await.with_prefix("my app");
    let id: SessionId = "a-very-secret-id".parse().expect("an id");
    let mut record = SessionRecord::new(owner("a", Some("ann")), Issuer::Inner);
    record.client = Some(ClientInfo {
        name: "client".to_owned(),
        version: "1".to_owned(),
    });
    let secret = Session::new(id, record);
    store.create(&secret, &terms()).await.expect("answers");
    touch(&store, &secret).await.expect("answers");

    let size: usize = send(&server.url(), &mut words("DBSIZE")).await;
    let keys = keys(&server.url(), "my app").await;
    assert_eq!(keys.len(), size, "all keys have the prefix");
    let mut values = Vec::new();
    for key in &keys {
        let dump: Vec<u8> = send(&server.url(), redis::cmd("DUMP").arg(key)).await;
        values.push(String::from_utf8_lossy(&dump).into_owned());
    }
    assert!(
        values.concat().contains("client"),
        "this is where it would be"
    );
    assert!(!keys.concat().contains("secret") && !values.concat().contains("secret"));
}

#[tokio::test]
async fn stores_with_one_prefix_share_their_sessions_and_others_do_not() {
    let Some((store, url, prefix)) = shared().await else {
        return;
    };
    let connect = || async { RedisStore::connect(url.as_str()).await.expect("answers") };
    let same = connect().await.with_prefix(prefix.as_str());
    let other = connect().await.with_prefix(format!("{prefix}2"));
    let session = created(&store, &owner("a", None), &terms()).await;
    assert!(touch(&other, &session).await.expect("answers").is_none());
    assert!(
        !other
            .delete(session.id(), EndReason::Deleted)
            .await
            .expect("answers")
    );
    assert!(touch(&same, &session).await.expect("answers").is_some());
    assert!(
        same.delete(session.id(), EndReason::Deleted)
            .await
            .expect("answers")
    );
    assert!(touch(&store, &session).await.expect("answers").is_none());
    assert_eq!(keys(&url, &prefix).await, Vec::<String>::new());
}

#[tokio::test]
async fn what_others_wrote_is_corrupt_and_not_absent() {
    let Some(server) = Server::start("") else {
        return;
    };
    let store = server.store().await;
    let ann = owner("a", Some("ann"));
    let corrupt = |error: StoreError| error.kind() == StoreErrorKind::Corrupt;

    let session = created(&store, &ann, &terms()).await;
    let key = keys(&server.url(), "mcp")
        .await
        .into_iter()
        .find(|key| key.contains(":s:"))
        .expect("a session");
    let _: () = send(
        &server.url(),
        redis::cmd("HSET").arg(&key).arg("i").arg("who?"),
    )
    .await;
    assert!(touch(&store, &session).await.is_err_and(corrupt));
    assert!(store.load(session.id()).await.is_err_and(corrupt));
    let _: () = send(
        &server.url(),
        redis::cmd("SET").arg(&key).arg("text").arg("EX").arg(60),
    )
    .await;
    assert!(touch(&store, &session).await.is_err_and(corrupt));
    assert!(store.load(session.id()).await.is_err_and(corrupt));
}

/// A server without memory takes no creations, and goes on serving those who are in.
#[tokio::test]
async fn a_full_server_serves_those_who_are_in() {
    let Some(server) = Server::start("") else {
        return;
    };
    let store = server.store().await;
    let anonymous = owner("a", None);
    let (stays, goes) = (
        created(&store, &anonymous, &terms()).await,
        created(&store, &anonymous, &terms()).await,
    );
    let _: () = send(&server.url(), &mut words("CONFIG SET maxmemory 1")).await;
    assert_unavailable(store.create(&session(&anonymous), &terms()).await);
    assert!(touch(&store, &stays).await.expect("answers").is_some());
    assert!(store.load(stays.id()).await.expect("answers").is_some());
    let ann = owner("a", Some("ann"));
    assert!(
        store
            .claim(stays.id(), &ann, MINUTE)
            .await
            .expect("answers")
            .is_some()
    );
    assert!(
        store
            .delete(goes.id(), EndReason::Deleted)
            .await
            .expect("answers")
    );
    let directory = store.directory().expect("there is one");
    let filter = SessionFilter::Scope(anonymous.scope.clone());
    assert_eq!(directory.count(&filter).await.expect("answers"), 1);
    assert_eq!(
        directory
            .end_all(&filter, EndReason::Revoked)
            .await
            .expect("answers"),
        1
    );
}

/// A creation at a limit does not count what has expired, however much that is.
#[tokio::test]
async fn thousands_that_expired_do_not_count() {
    let Some(server) = Server::start("") else {
        return;
    };
    let store = server.store().await;
    let anonymous = owner("a", None);
    let short = Terms {
        idle: Duration::from_secs(2),
        ..terms()
    };
    crate::create_many(&store, &anonymous, &short, 4000).await;
    tokio::time::sleep(short.idle).await;
    for _ in 0..2 {
        created(
            &store,
            &anonymous,
            &Terms {
                total: 2.try_into().ok(),
                ..terms()
            },
        )
        .await;
    }
}

/// A creation that is long on its way does not look younger than it is.
#[tokio::test]
async fn a_create_on_its_way_while_all_are_ended_is_revoked() {
    let Some(server) = Server::start("") else {
        return;
    };
    let proxy = Proxy::to(server.port()).await;
    let slow = RedisStore::connect(proxy.url()).await.expect("answers");
    let store = server.store().await;
    let directory = store.directory().expect("there is one");
    let ann = owner("a", Some("ann"));
    created(&slow, &ann, &terms()).await;

    let newcomer = session(&ann);
    proxy.hold(true);
    let (id, on_its_way) = (newcomer.id().clone(), terms());
    let creation = tokio::spawn(async move { slow.create(&newcomer, &on_its_way).await });
    tokio::time::sleep(Duration::from_millis(100)).await;
    let ended = directory
        .end_all(&SessionFilter::Owner(ann.clone()), EndReason::Revoked)
        .await;
    assert_eq!(ended.expect("answers"), 1);
    proxy.hold(false);
    let answer = creation.await.expect("no panic").expect("answers");
    assert_eq!(answer, Created::Revoked);
    assert!(store.load(&id).await.expect("answers").is_none());
    tokio::time::sleep(Duration::from_millis(50)).await;
    created(&store, &ann, &terms()).await;
}

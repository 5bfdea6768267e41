//! `create`: what it keeps, and that it is the only insert.

use std::time::Duration;

use super::{
    case::{Case, LONG, RACERS, SHORT, at_once, session, terms, unique},
    time::ROUNDING,
};
use crate::{
    protocol::{ClientInfo, SessionId},
    session::{Issuer, Owner, Principal, Scope, Session, SessionRecord, Values},
    store::{Created, EndReason, Now, SessionStore, Terms},
};

/// What was created is what [`load`](SessionStore::load) and [`touch`](SessionStore::touch) return, whatever
/// the names contain; `touch` may leave out the `initialize` parameters.
pub async fn create_keeps_every_field<S: SessionStore + Clone>(
    store: &S,
    wait: impl AsyncFn(Duration),
) {
    let case = Case::new(store, wait).await;
    for name in odd_names() {
        for record in records(&name) {
            let created = Session::new(SessionId::issue(), record);
            let answer = case.create(&created, &terms()).await;
            assert!(matches!(answer, Created::New { .. }), "{answer:?}");
            let loaded = case.load(&created).await.expect("a new session is live");
            assert_eq!(loaded.session.id(), created.id(), "load returns the id");
            assert_eq!(loaded.session.record(), created.record(), "load");
            let touched = case
                .touch(&created, LONG)
                .await
                .expect("a new session is its owner's");
            assert_eq!(touched.session.id(), created.id(), "touch returns the id");
            let mut record = touched.session.record();
            if record.initialize_params.is_none() {
                record.initialize_params = created.record().initialize_params.clone();
            }
            assert_eq!(record, created.record(), "touch");
            case.delete(&created).await;
        }
    }
}

/// The `initialize` parameters come back byte for byte, 256 KiB of them, spaces, order and escapes included.
pub async fn initialize_params_are_kept_byte_for_byte<S: SessionStore + Clone>(
    store: &S,
    wait: impl AsyncFn(Duration),
) {
    let case = Case::new(store, wait).await;
    let long = format!("{{\"long\":\"{}\"}}", "\u{FC}x".repeat(256 * 1024 / 3));
    for params in [
        "{}",
        "",
        " {\"b\" : 1e0,\r\n\t\"a\":2, \"b\":1.0, \"z\":\"\\u0000 \\ud83d\\ude00 \u{1F600}\" } ",
        &long,
    ] {
        let mut record = SessionRecord::new(case.anonymous(), Issuer::Inner);
        record.initialize_params = Some(params.to_owned().into());
        let session = Session::new(SessionId::issue(), record);
        case.create(&session, &terms()).await;
        let loaded = case.load(&session).await.expect("a new session is live");
        let record = loaded.session.record();
        let kept = record.initialize_params.as_deref();
        assert!(
            kept == Some(params.as_bytes()),
            "{} bytes of parameters come back unchanged",
            params.len()
        );
        case.delete(&session).await;
    }
}

/// Ids are bytes: what differs in case, or by a trailing character, is another session. The longest id is kept
/// whole.
pub async fn ids_are_compared_byte_for_byte<S: SessionStore + Clone>(
    store: &S,
    wait: impl AsyncFn(Duration),
) {
    let case = Case::new(store, wait).await;
    let base = unique("Id");
    let long = format!("{base}{}", "x".repeat(SessionId::MAX_LEN - base.len()));
    let all = [
        base.clone(),
        base.to_lowercase(),
        base.to_uppercase(),
        format!("{base}."),
        format!("{base}%"),
        format!("{base}_'\"\\`*?[a-z]{{}}:;,~!"),
        long[1..].to_owned(),
        long,
    ];
    let sessions = all.map(|id| {
        let record = SessionRecord::new(case.owner(&id), Issuer::Inner);
        Session::new(id.parse().expect("visible ASCII"), record)
    });
    for session in &sessions {
        let created = case.create(session, &terms()).await;
        assert!(
            matches!(created, Created::New { .. }),
            "another id is another session: {created:?}"
        );
    }
    for session in &sessions {
        let found = case.load(session).await.expect("each is live");
        assert_eq!(found.session.record(), session.record());
        assert!(case.delete(session).await, "each is ended by its own id");
    }
}

/// A creation with an id that is live answers [`Created::Exists`] and changes nothing: not the record, not the
/// owner, not the time left.
pub async fn create_never_replaces<S: SessionStore + Clone>(
    store: &S,
    wait: impl AsyncFn(Duration),
) {
    let case = Case::new(store, wait).await;
    let terms_of_first = Terms {
        initial_idle: LONG / 2,
        ..terms()
    };
    let first = case.created(&case.owner("first"), &terms_of_first).await;
    let elsewhere = Owner {
        scope: Scope::new(unique("elsewhere")),
        ..case.owner("first")
    };
    for owner in [
        case.owner("second"),
        case.anonymous(),
        elsewhere,
        case.owner("first"),
    ] {
        let mut record = SessionRecord::new(owner, Issuer::Inner);
        record.protocol_version = Some("2025-11-25".to_owned());
        let second = Session::new(first.id().clone(), record);
        let created = case.create(&second, &terms()).await;
        assert_eq!(created, Created::Exists, "the id is taken");
    }
    let found = case.load(&first).await.expect("the first stays live");
    assert_eq!(found.session.record(), first.record(), "the first is kept");
    assert!(
        found.idle_left <= terms_of_first.initial_idle + ROUNDING,
        "a refused creation extends nothing"
    );
    let stranger = case.owner("second");
    let touched = case.touch_as(&stranger, &first, LONG).await;
    assert!(
        touched.is_none(),
        "a refused creation gives nobody the session"
    );
}

/// Of many creations of one id at once, exactly one is [`Created::New`], and its record is the one that is kept.
pub async fn of_creates_of_one_id_one_is_new<S: SessionStore + Clone>(
    store: &S,
    wait: impl AsyncFn(Duration),
) {
    let case = Case::new(store, wait).await;
    for _ in 0..ROUNDS {
        let id = SessionId::issue();
        let answers = at_once((0..RACERS).map(|racer| {
            let store = store.clone();
            let owner = case.owner(&racer.to_string());
            let session = Session::new(id.clone(), SessionRecord::new(owner, Issuer::Inner));
            async move {
                let created = store.create(&session, &terms()).await;
                (session, created.expect("create answers"))
            }
        }))
        .await;
        let (new, rest): (Vec<_>, Vec<_>) = answers
            .into_iter()
            .partition(|(_, created)| matches!(created, Created::New { .. }));
        assert_eq!(new.len(), 1, "exactly one creation of an id is new");
        for (_, created) in rest {
            assert_eq!(created, Created::Exists, "the others hear that it exists");
        }
        let kept = case.load(&new[0].0).await.expect("the new one is live");
        assert_eq!(
            kept.session.record(),
            new[0].0.record(),
            "and is the one kept"
        );
    }
}

/// `touch`, `load`, `delete`, `touch_now` and `claim` of a session that never was, has ended or has expired say
/// so, and bring nothing to life.
pub async fn only_create_inserts<S: SessionStore + Clone>(store: &S, wait: impl AsyncFn(Duration)) {
    let case = Case::new(store, wait).await;
    let never = session(&case.owner("a"));

    let ended = case.created(&case.owner("a"), &terms()).await;
    assert!(case.delete(&ended).await, "a live session is ended");

    let ended_after_use = case.created(&case.owner("a"), &terms()).await;
    assert!(case.touch(&ended_after_use, LONG).await.is_some());
    assert!(
        case.delete(&ended_after_use).await,
        "a live session is ended"
    );

    let short = Terms {
        initial_idle: SHORT,
        ..terms()
    };
    let (expired, creation) = case.timed(case.created(&case.owner("a"), &short)).await;
    case.time.until_over(creation, SHORT).await;

    for (absent, what) in [
        (&never, "never created"),
        (&ended, "ended"),
        (&ended_after_use, "ended after use"),
        (&expired, "expired"),
    ] {
        for _ in 0..2 {
            assert!(case.touch(absent, LONG).await.is_none(), "touch: {what}");
            assert!(!case.is_live(absent).await, "touch inserts nothing: {what}");
            assert!(!case.delete(absent).await, "delete: {what}");
            let now = store.touch_now(absent.id(), absent.owner(), LONG);
            assert!(!matches!(now, Now::Live(_)), "touch_now: {what}");
            // A store may not support claims; it must not support insertion by claim.
            let claimed = store.claim(absent.id(), absent.owner(), LONG).await;
            assert!(!matches!(claimed, Ok(Some(_))), "claim: {what}");
            assert!(!case.is_live(absent).await, "nothing inserts: {what}");
        }
    }
}

/// An id that has ended or expired is free again, and the session created with it then is a new one.
pub async fn a_free_id_can_be_created_again<S: SessionStore + Clone>(
    store: &S,
    wait: impl AsyncFn(Duration),
) {
    let case = Case::new(store, wait).await;
    let short = Terms {
        initial_idle: SHORT,
        life: Some(SHORT),
        ..terms()
    };
    let ended = case.created(&case.owner("before"), &terms()).await;
    let (expired, creation) = case
        .timed(case.created(&case.owner("before"), &short))
        .await;
    assert!(case.delete(&ended).await);
    case.time.until_over(creation, SHORT).await;
    for (old, what) in [(&ended, "ended"), (&expired, "expired")] {
        let record = SessionRecord::new(case.owner("after"), Issuer::Inner);
        let new = Session::new(old.id().clone(), record);
        let (created, recreation) = case.timed(case.create(&new, &terms())).await;
        assert!(
            matches!(created, Created::New { .. }),
            "an id that has {what} is free: {created:?}"
        );
        assert!(
            case.touch(old, LONG).await.is_none(),
            "the old owner is out"
        );
        let found = case.touch(&new, LONG).await.expect("the new owner is in");
        assert_eq!(found.session.record(), new.record(), "the record is new");
        assert!(
            found.age <= case.time.since(recreation.before) + ROUNDING,
            "the age counts from the new creation"
        );
        assert_eq!(found.life_left, None, "the new creation has its own terms");
        let end = store.delete(new.id(), EndReason::Deleted).await;
        assert!(end.expect("delete answers"), "the new one can be ended");
    }
}

/// Records in which every field takes this name, and those in which each is absent.
fn records(name: &str) -> Vec<SessionRecord> {
    let named = |principal| SessionRecord {
        owner: Owner {
            scope: Scope::new(unique(name)),
            principal,
        },
        issuer: Issuer::Inner,
        client: Some(ClientInfo {
            name: name.to_owned(),
            version: format!("{name}1"),
        }),
        protocol_version: Some(name.to_owned()),
        initialize_params: Some("{}".into()),
        // None, where the name is longer than they may be.
        values: Values::of([(name, name)]).unwrap_or_default(),
    };
    let full = named(Some(Principal::new(name)));
    let anonymous = SessionRecord {
        issuer: Issuer::Layer,
        ..named(None)
    };
    let nameless = SessionRecord {
        client: None,
        ..full.clone()
    };
    let versionless = SessionRecord {
        protocol_version: None,
        initialize_params: None,
        values: Values::default(),
        ..full.clone()
    };
    vec![full, anonymous, nameless, versionless]
}

/// Names that some encoding, quoting or column would spoil.
fn odd_names() -> Vec<String> {
    let mut names: Vec<String> = [
        "",
        " ",
        "plain",
        " spaces around ",
        "'single' \"double\" `back`",
        "semi;colon -- comment /* */",
        "per%cent under_score back\\slash",
        "a\\u0000b \\x00 \\n",
        "nul\0inside\0",
        "\0",
        "line\nfeed\r\ntab\tbell\u{7}escape\u{1b}",
        "NULL",
        "null",
        "0",
        "[\"issuer\",\"subject\"]",
        "{\"json\":true}",
        "$1 ?1 :name @p {tag} {0}",
        "\u{1F468}\u{200D}\u{1F469}\u{200D}\u{1F467} \u{1F1E9}\u{1F1EA}",
        "\u{5E9}\u{5DC}\u{5D5}\u{5DD} \u{202E}reversed\u{202C}",
        "e\u{301} \u{E9} \u{FB01}",
        "\u{FFFD}\u{FFFE}\u{FFFF}\u{10FFFF}\u{FEFF}",
        "\u{7F}\u{80}\u{9F}\u{A0}\u{2028}",
    ]
    .map(str::to_owned)
    .into();
    names.push("long \u{1F4CF}'\0".repeat(10 * 1024 / 11));
    names
}

const ROUNDS: usize = 8;

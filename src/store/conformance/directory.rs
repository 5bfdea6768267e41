//! `directory`: lists, counts and ends one. Not asked of a store that has none.

use std::{collections::BTreeMap, time::Duration};

use super::case::{Case, LONG, SHORT, at_once, granted, session, terms, terms_of_idle, unique};
use crate::{
    protocol::{ClientInfo, SessionId, SessionRef},
    session::{Issuer, Owner, Scope, Session, SessionRecord},
    store::{Created, Directory, EndReason, SessionFilter, SessionInfo, SessionStore, Terms},
};

/// A listing holds every live session of those that are meant exactly once, in the order of their references, with
/// what the store keeps of it but the `initialize` parameters.
pub async fn a_listing_is_complete<S: SessionStore + Clone>(
    store: &S,
    wait: impl AsyncFn(Duration),
) {
    let case = Case::new(store, wait).await;
    let Some(directory) = store.directory() else {
        return;
    };
    let elsewhere = Owner {
        scope: Scope::new(unique("elsewhere")),
        ..case.owner("a")
    };
    let mut owners = vec![
        case.owner("a"),
        case.owner("A"),
        case.owner(""),
        case.anonymous(),
        elsewhere.clone(),
    ];
    // Alike, where scope and principal are put together carelessly.
    for between in [":", "/", "|", "\0"] {
        owners.push(case.owner(&format!("a{between}b")));
        owners.push(Owner {
            scope: Scope::new(format!("{}{between}a", case.scope)),
            ..case.owner("b")
        });
    }
    let mut created = BTreeMap::new();
    for number in 0..3 * owners.len() {
        let owner = &owners[number % owners.len()];
        let mut record = SessionRecord::new(owner.clone(), Issuer::Inner);
        record.client = Some(ClientInfo {
            name: format!("client \u{1F600} {number}"),
            version: "\0".to_owned(),
        });
        record.protocol_version = Some("2025-11-25".to_owned());
        record.initialize_params = Some("{}".into());
        let session = Session::new(SessionId::issue(), record);
        case.create(&session, &terms()).await;
        created.insert(*session.reference(), session);
    }
    let everyone = SessionFilter::Scope(case.scope.clone());
    let there = SessionFilter::Scope(elsewhere.scope.clone());
    let nowhere = SessionFilter::Scope(Scope::new(unique("nowhere")));
    let stranger = SessionFilter::Owner(case.owner("stranger"));
    let each: Vec<_> = owners.into_iter().map(SessionFilter::Owner).collect();
    for filter in [&everyone, &there, &nowhere, &stranger]
        .into_iter()
        .chain(&each)
    {
        let expected: Vec<_> = created
            .values()
            .filter(|session| filter.includes(session.owner()))
            .collect();
        let count = directory.count(filter).await.expect("count answers");
        assert_eq!(count, expected.len() as u64, "count of {filter:?}");
        for page in [1, 3, 4, 1000, usize::MAX] {
            let listed = read(directory, filter, page).await;
            let references = |sessions: &[SessionInfo]| -> Vec<SessionRef> {
                sessions.iter().map(|listed| listed.reference).collect()
            };
            let expected_references: Vec<_> = expected.iter().map(|s| *s.reference()).collect();
            assert_eq!(
                references(&listed),
                expected_references,
                "in pages of {page}: {filter:?}"
            );
            for (listed, session) in listed.iter().zip(&expected) {
                let mut record = session.record();
                record.initialize_params = None;
                assert_eq!(listed.record, record, "what is listed is what was created");
                assert!(listed.idle_left <= LONG && !listed.idle_left.is_zero());
                assert_eq!(listed.life_left, None);
                assert!(listed.age < LONG, "{listed:?}");
            }
        }
    }

    // A reference to continue after may have ended since.
    let all = read(directory, &everyone, 1000).await;
    let (gone, rest) = (&all[3], &all[4..]);
    assert!(case.delete(&created[&gone.reference]).await);
    let next = directory.list(&everyone, Some(&gone.reference), 1000).await;
    let next = next.expect("list answers");
    assert!(
        next.iter()
            .map(|l| l.reference)
            .eq(rest.iter().map(|l| l.reference)),
        "a page continues after a session that has ended"
    );
    let count = directory.count(&everyone).await.expect("count answers");
    assert_eq!(
        count as usize,
        all.len() - 1,
        "what has ended is not counted"
    );
}

/// Not among [`CASES`](super::CASES): this many sessions of one owner, created at once in bunches, are listed in pages
/// of a thousand, counted, and ended. With 10,000, this takes a database some time.
pub async fn a_long_list_is_read_in_pages<S: SessionStore + Clone>(
    store: &S,
    wait: impl AsyncFn(Duration),
    sessions: usize,
) {
    let case = Case::new(store, wait).await;
    let Some(directory) = store.directory() else {
        return;
    };
    let owner = case.owner("a");
    // Long enough for a slow machine, short enough for a shared database.
    let terms = terms_of_idle(Duration::from_secs(20 * 60));
    let mut created = Vec::new();
    while created.len() < sessions {
        let bunch = (sessions - created.len()).min(32);
        let of_bunch = at_once((0..bunch).map(|_| {
            let (store, session, terms) = (store.clone(), session(&owner), terms.clone());
            async move {
                let created = store.create(&session, &terms).await;
                assert!(matches!(created, Ok(Created::New { .. })), "{created:?}");
                *session.reference()
            }
        }))
        .await;
        created.extend(of_bunch);
    }
    created.sort_unstable();
    let filter = SessionFilter::Owner(owner);
    let count = directory.count(&filter).await.expect("count answers");
    assert_eq!(count as usize, sessions);
    let listed = read(directory, &filter, 1000).await;
    assert!(
        listed.iter().map(|listed| listed.reference).eq(created),
        "each session is listed exactly once, in order"
    );
    let ended = directory.end_all(&filter, EndReason::Revoked).await;
    assert_eq!(ended.expect("end_all answers") as usize, sessions);
    let count = directory.count(&filter).await.expect("count answers");
    assert_eq!(count, 0, "all are ended");
}

/// What has expired is neither listed nor counted nor ended.
pub async fn the_expired_are_not_listed<S: SessionStore + Clone>(
    store: &S,
    wait: impl AsyncFn(Duration),
) {
    let case = Case::new(store, wait).await;
    let Some(directory) = store.directory() else {
        return;
    };
    let owner = case.owner("a");
    let stays = case.created(&owner, &terms()).await;
    let mortal = Terms {
        life: Some(SHORT),
        ..terms()
    };
    let lived = case.created(&owner, &mortal).await;
    case.touch(&lived, LONG).await;
    let used = case.created(&owner, &terms_of_idle(SHORT)).await;
    case.touch(&used, SHORT).await;
    let (_, last) = case
        .timed(case.created(&owner, &terms_of_idle(SHORT)))
        .await;
    case.time.until_over(last, granted(SHORT)).await;
    for filter in [
        SessionFilter::Scope(case.scope.clone()),
        SessionFilter::Owner(owner),
    ] {
        let count = directory.count(&filter).await.expect("count answers");
        assert_eq!(count, 1, "the expired are not counted");
        let listed = read(directory, &filter, 2).await;
        assert!(
            listed.iter().map(|l| &l.reference).eq([stays.reference()]),
            "the expired are not listed"
        );
    }
    let everyone = SessionFilter::Scope(case.scope.clone());
    let ended = directory.end_all(&everyone, EndReason::Revoked).await;
    assert_eq!(ended.expect("end_all answers"), 1, "nor ended");
}

/// [`Directory::end`] ends a session of its scope, once, and finds none of another.
pub async fn end_is_within_its_scope<S: SessionStore + Clone>(
    store: &S,
    wait: impl AsyncFn(Duration),
) {
    let case = Case::new(store, wait).await;
    let Some(directory) = store.directory() else {
        return;
    };
    let end = async |scope: &Scope, session: &Session| {
        let end = directory.end(scope, session.reference(), EndReason::Revoked);
        end.await.expect("end answers")
    };
    for owner in [case.owner("a"), case.anonymous()] {
        let session = case.created(&owner, &terms()).await;
        let other = case.created(&owner, &terms()).await;
        let elsewhere = Scope::new(unique("elsewhere"));
        assert!(!end(&elsewhere, &session).await, "end in another scope");
        assert!(case.is_live(&session).await, "end in another scope");
        assert!(end(&case.scope, &session).await, "end of a live session");
        assert!(!case.is_live(&session).await, "one ended is absent");
        assert!(case.touch(&session, LONG).await.is_none(), "and stays so");
        assert!(!end(&case.scope, &session).await, "a second end");
        assert!(!case.delete(&session).await, "a delete after the end");
        assert!(case.is_live(&other).await, "only one is ended");
    }
    let never = session(&case.anonymous());
    assert!(!end(&case.scope, &never).await, "never created");
}

/// All that are meant, read in pages of this size.
async fn read(directory: &dyn Directory, filter: &SessionFilter, page: usize) -> Vec<SessionInfo> {
    let mut all: Vec<SessionInfo> = Vec::new();
    loop {
        let after = all.last().map(|listed| listed.reference);
        let next = directory.list(filter, after.as_ref(), page).await;
        let next = next.expect("list answers");
        assert!(next.len() <= page, "no page is longer than asked for");
        if next.is_empty() {
            return all;
        }
        all.extend(next);
        assert!(
            all.is_sorted_by(|one, next| one.reference < next.reference),
            "pages go on in the order of references, and repeat none"
        );
    }
}

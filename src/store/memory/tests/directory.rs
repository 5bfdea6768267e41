//! Listing, counting and ending sessions.

use super::*;

#[test]
fn the_directory_lists_each_session_once_in_order() {
    let store = MemoryStore::new();
    let (me, you) = (owner("me"), owner("you"));
    let mut expected: Vec<_> = (0..25)
        .map(|_| {
            let mut record = SessionRecord::new(me.clone(), Issuer::Layer);
            record.initialize_params = Some("{}".into());
            let session = Session::new(SessionId::issue(), record);
            create(&store, &session, &terms());
            *session.reference()
        })
        .collect();
    expected.sort();
    create(&store, &session_of(&you), &terms());
    new_session(&store, &terms());
    let mine = SessionFilter::Owner(me);
    let mut listed = Vec::new();
    loop {
        let page = wait(store.list(&mine, listed.last(), 10)).unwrap();
        assert!(
            page.iter()
                .all(|one| one.record.initialize_params.is_none())
        );
        assert!(page.len() <= 10);
        if page.is_empty() {
            break;
        }
        listed.extend(page.iter().map(|one| one.reference));
    }
    assert_eq!(listed, expected);
    assert_eq!(count(&store, &mine), 25);
    assert_eq!(count(&store, &SessionFilter::Owner(owner(None))), 1);
    assert_eq!(count(&store, &in_scope()), 27);
    assert_eq!(wait(store.list(&in_scope(), None, 100)).unwrap().len(), 27);
    assert!(wait(store.list(&in_scope(), None, 0)).unwrap().is_empty());
}

#[test]
fn the_directory_ends_sessions_of_its_scope_only() {
    let store = MemoryStore::new();
    let session = new_session(&store, &terms());
    let end = |scope: &Scope| wait(store.end(scope, session.reference(), EndReason::Revoked));
    assert!(!end(&Scope::new("elsewhere")).unwrap());
    assert!(end(&Scope::default()).unwrap());
    assert!(!end(&Scope::default()).unwrap());

    let (me, you) = (session_of(&owner("me")), session_of(&owner("you")));
    let anonymous = new_session(&store, &terms());
    create(&store, &me, &terms());
    create(&store, &you, &terms());
    let end_all = |filter: &SessionFilter| wait(store.end_all(filter, EndReason::Revoked)).unwrap();
    assert_eq!(end_all(&SessionFilter::Scope(Scope::new("elsewhere"))), 0);
    assert_eq!(end_all(&SessionFilter::Owner(owner("me"))), 1);
    assert!(!is_live(&store, &me) && is_live(&store, &you) && is_live(&store, &anonymous));
    assert_eq!(end_all(&SessionFilter::Owner(owner(None))), 1);
    assert!(is_live(&store, &you) && !is_live(&store, &anonymous));
    assert_eq!(end_all(&in_scope()), 1);
}

//! How much is remembered.

use super::*;

#[tokio::test(start_paused = true)]
async fn what_is_remembered_is_bounded() {
    let primary = Arc::new(Primary::default());
    for most in [0, 1, 10, 1000] {
        let cached = CachedStore::new(Arc::clone(&primary), STALENESS).with_max_entries(most);
        for _ in 0..3000 {
            let mine = created_elsewhere(&primary, &terms()).await;
            assert!(is_live(&cached, &mine).await);
            let kept = matches!(now(&cached, &mine), Now::Live(_));
            assert!(kept || most == 0, "the newest is kept");
        }
        let (known, names, _) = cached.cache.entries.len();
        assert!(known <= most, "{known} of {most}");
        assert!(known >= most / 2, "{known} of {most}");
        assert_eq!(names, known);
    }
    let cached = CachedStore::new(primary, STALENESS);
    for _ in 0..20_000 {
        assert!(!is_live(&cached, &session()).await);
    }
    let (.., absences) = cached.cache.entries.len();
    assert!((1..=8192).contains(&absences), "{absences}");
}

#[tokio::test(start_paused = true)]
async fn the_oldest_answer_makes_room() {
    let primary = Arc::new(Primary::default());
    let cached = CachedStore::new(Arc::clone(&primary), HOUR).with_max_entries(8);
    let mut all = Vec::new();
    for _ in 0..9 {
        let mine = created_elsewhere(&primary, &terms()).await;
        assert!(is_live(&cached, &mine).await);
        advance(SECOND).await;
        all.push(mine);
    }
    assert!(matches!(now(&cached, &all[0]), Now::Unknown));
    for mine in &all[1..] {
        assert!(matches!(now(&cached, mine), Now::Live(_)));
    }
}

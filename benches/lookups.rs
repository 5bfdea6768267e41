//! What it takes to find one of many sessions and let it live longer, and to make one more.

use std::{
    hash::BuildHasher as _,
    hint::black_box,
    num::NonZeroU64,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

use dashmap::DashMap;
use foldhash::quality::RandomState;
use hashbrown::HashTable;
use mcp_session_layer::{
    Issuer, MemoryStore, Owner, Principal, Session, SessionId, SessionRecord, SessionStore as _,
    store::{AtLimit, Created, Now, Terms},
};
use moka::sync::Cache;
use tokio::runtime::Builder;

use crate::{
    each, id_of, median,
    peers::ByHand,
    scrambled,
    services::{HOUR, owner, terms},
};

/// Nanoseconds of a touch, among so many sessions. All ways of it take turns within one run, so that what else
/// the machine does meets all.
pub fn touches(sizes: &[usize]) {
    println!("sessions\tway\tns");
    for sessions in sizes {
        let ways = ways(*sessions);
        let mut took = vec![Vec::new(); ways.len()];
        let mut random = 0;
        for _ in 0..ROUNDS {
            for ((_, touch), took) in ways.iter().zip(&mut took) {
                let mut time = Duration::ZERO;
                for _ in 0..BATCHES {
                    let batch: Vec<_> = (0..BATCH)
                        .map(|_| {
                            random += 1;
                            Asked::new(scrambled(random) % *sessions as u64)
                        })
                        .collect();
                    let begun = Instant::now();
                    black_box(touch(&batch));
                    time += begun.elapsed();
                }
                took.push(each(time, BATCHES * BATCH));
            }
        }
        for ((name, _), took) in ways.into_iter().zip(took) {
            println!("{sessions}\t{name}\t{:.0}", median(took));
        }
    }
}

/// What a request says: fresh from the socket, so in the nearest cache.
struct Asked {
    id: SessionId,
    anonymous: Owner,
    owner: Owner,
}

impl Asked {
    fn new(number: u64) -> Self {
        Self {
            id: id_of(number).parse().expect("an id"),
            anonymous: owner(None),
            owner: owner(Some(principal_of(number))),
        }
    }
}

/// 20 characters; ten sessions each.
fn principal_of(number: u64) -> Principal {
    Principal::new(format!("user-{:015}", number / 10))
}

type Way = Box<dyn Fn(&[Asked]) -> u64>;

fn ways(sessions: usize) -> Vec<(&'static str, Way)> {
    let ids: Vec<_> = (0..sessions as u64).map(id_of).collect();
    let mut ways: Vec<(&'static str, Way)> = Vec::new();
    let hasher = RandomState::default();

    let hash = hasher.clone();
    ways.push((
        "hash alone",
        Box::new(move |batch| chained(batch, |asked| hash.hash_one(asked.id.expose()))),
    ));

    let lines: Vec<Line> = (0..sessions.next_power_of_two())
        .map(|_| Line::default())
        .collect();
    let hash = hasher.clone();
    ways.push((
        "hash + one random cache line",
        Box::new(move |batch| {
            chained(batch, |asked| {
                let place = hash.hash_one(asked.id.expose()) as usize & (lines.len() - 1);
                bump(&lines[place].0)
            })
        }),
    ));

    let mut table: HashTable<Box<Named>> = HashTable::new();
    for id in &ids {
        let named = Box::new(Named {
            id: id.as_bytes().try_into().expect("36 characters"),
            seen: AtomicU64::new(0),
        });
        table.insert_unique(hasher.hash_one(id.as_str()), named, |named| {
            hasher.hash_one(named.id())
        });
    }
    ways.push((
        "hashbrown table + boxed line",
        Box::new(move |batch| {
            chained(batch, |asked| {
                let id = asked.id.expose();
                let found = table.find(hasher.hash_one(id), |named| named.id() == id);
                bump(&found.expect("is there").seen)
            })
        }),
    ));

    let store = filled(&ids, |_| None);
    ways.push((
        "MemoryStore, anonymous sessions",
        Box::new(move |batch| chained(batch, |asked| touch(&store, &asked.id, &asked.anonymous))),
    ));

    let store = filled(&ids, |number| Some(principal_of(number)));
    ways.push((
        "MemoryStore, with principals",
        Box::new(move |batch| chained(batch, |asked| touch(&store, &asked.id, &asked.owner))),
    ));

    let by_hand = ByHand::new(&ids);
    ways.push((
        "RwLock<HashMap>",
        Box::new(move |batch| {
            chained(batch, |asked| {
                by_hand.touch(asked.id.expose()).expect("is there").until()
            })
        }),
    ));

    let epoch = Instant::now();
    let map: DashMap<String, AtomicU64> = ids
        .iter()
        .map(|id| (id.clone(), AtomicU64::new(u64::MAX)))
        .collect();
    ways.push((
        "dashmap",
        Box::new(move |batch| {
            chained(batch, |asked| {
                let found = map.get(asked.id.expose()).expect("is there");
                let now = epoch.elapsed().as_secs();
                assert!(found.load(Relaxed) > now);
                found.store(now + HOUR.as_secs(), Relaxed);
                found.load(Relaxed)
            })
        }),
    ));

    let cache: Cache<String, Arc<AtomicU64>> = Cache::builder().time_to_idle(HOUR).build();
    for id in &ids {
        cache.insert(id.clone(), Arc::default());
    }
    cache.run_pending_tasks();
    ways.push((
        "moka",
        Box::new(move |batch| {
            chained(batch, |asked| {
                let found = cache.get(asked.id.expose()).expect("is there");
                found.load(Relaxed)
            })
        }),
    ));
    ways
}

/// Asks for one after the other, each only when the one before is answered, as a request does: without that a processor
/// waits for the memory of several at once.
fn chained(batch: &[Asked], touch: impl Fn(&Asked) -> u64) -> u64 {
    let nothing = black_box(0);
    let mut seen = 0;
    for nth in 0..batch.len() {
        seen = touch(&batch[nth + (seen & nothing) as usize]);
    }
    seen
}

fn touch(store: &MemoryStore, id: &SessionId, owner: &Owner) -> u64 {
    match store.touch_now(id, owner, HOUR) {
        Now::Live(found) => found.idle_left.as_nanos() as u64,
        _ => panic!("is there"),
    }
}

fn bump(seen: &AtomicU64) -> u64 {
    let value = seen.load(Relaxed) + 1;
    seen.store(value, Relaxed);
    value
}

#[derive(Default)]
#[repr(align(64))]
struct Line(AtomicU64);

/// As one wants to have it: the id, and what changes, in one line.
#[repr(align(64))]
struct Named {
    id: [u8; 36],
    seen: AtomicU64,
}

impl Named {
    fn id(&self) -> &str {
        std::str::from_utf8(&self.id).unwrap_or_default()
    }
}

fn filled(ids: &[String], principal: impl Fn(u64) -> Option<Principal>) -> MemoryStore {
    let store = MemoryStore::new();
    let runtime = Builder::new_current_thread().build().expect("a runtime");
    runtime.block_on(async {
        for (number, id) in ids.iter().enumerate() {
            let owner = owner(principal(number as u64));
            let id = id.parse().expect("an id");
            let created = bear(&store, id, owner, &terms()).await;
            assert!(matches!(created, Created::New { .. }));
        }
    });
    store
}

async fn bear(store: &MemoryStore, id: SessionId, owner: Owner, terms: &Terms) -> Created {
    let session = Session::new(id, SessionRecord::new(owner, Issuer::Inner));
    store.create(&session, terms).await.expect("an answer")
}

/// Microseconds of a creation among so many sessions: below the limit, and at it, where another one goes.
pub fn creations(sizes: &[usize]) {
    println!("sessions\tway\tus");
    let runtime = Builder::new_current_thread().build().expect("a runtime");
    for sessions in sizes {
        let ids: Vec<_> = (0..*sessions as u64).map(id_of).collect();
        for (way, total) in [
            ("below the limit", *sessions * 2),
            ("at the limit, with eviction", *sessions),
        ] {
            let store = filled(&ids, |_| None);
            let terms = Terms {
                total: NonZeroU64::new(total as u64),
                at_limit: AtLimit::Evict {
                    unused: Duration::ZERO,
                    untouched: Duration::ZERO,
                },
                ..terms()
            };
            let mut took = Vec::new();
            let mut newcomer = *sessions as u64;
            for _ in 0..ROUNDS * 2 {
                let newcomers: Vec<SessionId> = (0..NEWCOMERS)
                    .map(|_| {
                        newcomer += 1;
                        id_of(newcomer).parse().expect("an id")
                    })
                    .collect();
                let begun = Instant::now();
                runtime.block_on(async {
                    for id in newcomers {
                        let Created::New { evicted, .. } =
                            bear(&store, id, owner(None), &terms).await
                        else {
                            panic!("refused");
                        };
                        assert_eq!(evicted.is_some(), total == *sessions);
                    }
                });
                took.push(each(begun.elapsed(), NEWCOMERS));
            }
            println!("{sessions}\t{way}\t{:.2}", median(took) / 1000.0);
        }
    }
}

const ROUNDS: usize = 15;
const BATCHES: usize = 60;
const BATCH: usize = 64;
const NEWCOMERS: usize = 500;

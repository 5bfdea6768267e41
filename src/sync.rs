//! Locks and atomics, all from here. Built with `--cfg shuttle` they are a checker's, which runs threads in many orders: the
//! tests named `permutations` are then the same code under it, and no model of it.
//!
//! Without that flag nothing is wrapped: these are `parking_lot`'s and `std`'s own. `Arc`, `OnceLock` and tokio's channels
//! stay what they are; the checker switches threads before and after them, at what stands here.

/// For a `static`: it outlives what the checker runs.
pub(crate) use std::sync::atomic::AtomicU64 as StaticAtomicU64;

#[cfg(not(shuttle))]
pub(crate) use std::sync::atomic;

#[cfg(not(shuttle))]
pub(crate) use parking_lot::{Mutex, MutexGuard, RwLock, RwLockReadGuard, RwLockWriteGuard};

#[cfg(shuttle)]
pub(crate) use shuttle::sync::atomic;
#[cfg(shuttle)]
pub(crate) use shuttle_parking_lot::{
    Mutex, MutexGuard, RwLock, RwLockReadGuard, RwLockWriteGuard,
};

/// Runs this in many orders of its threads: at random, and then with few switches at random places, which finds what takes
/// a long run of one thread. `PERMUTATIONS` says in how many.
#[cfg(all(test, shuttle))]
pub(crate) fn permute(run: impl Fn() + Send + Sync + 'static) {
    let orders = std::env::var("PERMUTATIONS").map_or(1_000, |orders| orders.parse().unwrap());
    let run = std::sync::Arc::new(run);
    let again = std::sync::Arc::clone(&run);
    shuttle::check_random(move || run(), orders);
    shuttle::check_pct(move || again(), orders, 3);
}

//! Values that a node keeps beside a session, by their type.

use std::{
    any::{Any, TypeId},
    sync::Arc,
};

use hashbrown::HashMap;

type Value = Arc<dyn Any + Send + Sync>;

/// What [`Session::local`](super::Session::local) made. Lives under the session's lock.
#[derive(Default)]
pub(crate) struct Locals(HashMap<TypeId, Value, foldhash::fast::RandomState>);

impl Locals {
    pub(crate) fn get<T: Send + Sync + 'static>(&self) -> Option<Arc<T>> {
        self.0.get(&TypeId::of::<T>()).map(downcast)
    }

    /// Of two made at once the first stays.
    pub(crate) fn get_or_insert<T: Send + Sync + 'static>(&mut self, made: Arc<T>) -> Arc<T> {
        downcast(self.0.entry(TypeId::of::<T>()).or_insert(made))
    }
}

fn downcast<T: Send + Sync + 'static>(value: &Value) -> Arc<T> {
    Arc::clone(value)
        .downcast()
        .expect("values are kept under their own type")
}

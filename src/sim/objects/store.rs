//! A bounded map of objects by id, which also knows the order of their creation.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use parking_lot::Mutex;
use serde_json::Value;

/// The maximum number of objects of one kind.
const MAX_OBJECTS: usize = 10_000;

/// An object whose memory is counted.
pub(in crate::sim) trait Weighed {
    /// Returns the approximate number of bytes that the object occupies.
    fn weight(&self) -> usize;
}

impl Weighed for Value {
    fn weight(&self) -> usize {
        const NODE: usize = 32;
        NODE + match self {
            Self::String(text) => text.len(),
            Self::Array(values) => values.iter().map(Self::weight).sum(),
            Self::Object(fields) => fields.iter().map(|(name, value)| name.len() + value.weight()).sum(),
            _ => 0,
        }
    }
}

impl Weighed for (Value, Vec<Value>) {
    fn weight(&self) -> usize {
        self.0.weight() + self.1.iter().map(Value::weight).sum::<usize>()
    }
}

/// Objects of one kind. The oldest are forgotten when there are more than 10,000 of them, or more bytes than allowed.
pub(in crate::sim) struct ObjectStore<T> {
    max_bytes: usize,
    state: Mutex<StoreState<T>>,
}

struct StoreState<T> {
    known: HashMap<Arc<str>, (u64, T)>,
    /// The ids in the order of creation.
    order: BTreeMap<u64, Arc<str>>,
    /// The number of objects that were ever created.
    created: u64,
    /// The weight of all known objects.
    bytes: usize,
}

impl<T: Weighed + Clone> ObjectStore<T> {
    /// Creates an empty store for at most `max_bytes` bytes of objects.
    pub(in crate::sim) fn new(max_bytes: usize) -> Self {
        Self {
            max_bytes,
            state: Mutex::new(StoreState {
                known: HashMap::new(),
                order: BTreeMap::new(),
                created: 0,
                bytes: 0,
            }),
        }
    }

    /// Remembers an object as the newest. An object with the same id is replaced.
    pub(in crate::sim) fn insert(&self, id: &str, object: T) {
        let mut state = self.state.lock();
        state.forget(id);
        let (id, number): (Arc<str>, u64) = (id.into(), state.created);
        state.created += 1;
        state.bytes += object.weight();
        state.order.insert(number, Arc::clone(&id));
        state.known.insert(id, (number, object));
        state.shrink(self.max_bytes);
    }

    /// Returns the object with this id, if this account made it and still remembers it.
    pub(in crate::sim) fn get(&self, id: &str) -> Option<T> {
        self.state.lock().known.get(id).map(|(_, object)| object.clone())
    }

    /// Whether this account made the object with this id and still remembers it.
    pub(in crate::sim) fn contains(&self, id: &str) -> bool {
        self.state.lock().known.contains_key(id)
    }

    /// Changes the object with this id. Returns what `change` returns, or `None` if the object is unknown.
    pub(in crate::sim) fn update<R>(&self, id: &str, change: impl FnOnce(&mut T) -> R) -> Option<R> {
        let mut state = self.state.lock();
        let (_, object) = state.known.get_mut(id)?;
        let before = object.weight();
        let changed = change(object);
        let after = object.weight();
        state.bytes = state.bytes + after - before;
        state.shrink(self.max_bytes);
        Some(changed)
    }

    /// Forgets an object and returns it.
    pub(in crate::sim) fn remove(&self, id: &str) -> Option<T> {
        self.state.lock().forget(id)
    }

    /// Returns all objects, the oldest first.
    pub(in crate::sim) fn list(&self) -> Vec<T> {
        let state = self.state.lock();
        let objects = state.order.values().filter_map(|id| state.known.get(id));
        objects.map(|(_, object)| object.clone()).collect()
    }
}

impl<T: Weighed> StoreState<T> {
    fn forget(&mut self, id: &str) -> Option<T> {
        let (number, object) = self.known.remove(id)?;
        self.order.remove(&number);
        self.bytes -= object.weight();
        Some(object)
    }

    fn shrink(&mut self, max_bytes: usize) {
        while self.known.len() > MAX_OBJECTS || self.bytes > max_bytes {
            let (_, oldest) = self
                .order
                .first_key_value()
                .expect("every known object has a place in the order");
            let oldest = Arc::clone(oldest);
            self.forget(&oldest);
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn memory_is_bounded_in_number_and_bytes() {
        let store = ObjectStore::new(4_000_000);
        (0..=MAX_OBJECTS).for_each(|n| store.insert(&n.to_string(), json!(n)));
        assert!(!store.contains("0") && store.contains("1"), "the oldest was forgotten");
        assert_eq!(store.list().len(), MAX_OBJECTS);
        store.insert("big", json!("x".repeat(3_900_000)));
        assert!(store.contains("big") && !store.contains("1"));
        assert!(store.state.lock().bytes <= 4_000_000);
        store.update("big", |object| *object = json!("small"));
        let left = store.list().len();
        assert!(store.remove("big").is_some() && store.remove("big").is_none());
        assert_eq!(store.list().len(), left - 1);
        let counted: usize = store.list().iter().map(Value::weight).sum();
        assert_eq!(store.state.lock().bytes, counted, "every byte is counted once");
    }

    #[test]
    fn objects_that_grow_too_large_are_forgotten() {
        let store = ObjectStore::new(1000);
        store.insert("a", json!("x"));
        assert_eq!(store.update("a", |object| *object = json!("x".repeat(2000))), Some(()));
        assert!(!store.contains("a"));
        assert_eq!(store.state.lock().bytes, 0);
        assert_eq!(store.update("a", |_| ()), None);
    }
}

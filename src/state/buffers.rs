//! The memory for request bodies: its limits by the configuration, and the accounts of the callers that share it.
//!
//! A caller is a client key or, without client keys, a client's network. The accounts outlive snapshots, because bodies
//! that are held count after a reload too.

use std::{
    collections::HashMap,
    hash::{BuildHasher as _, RandomState},
    sync::{Arc, Weak},
};

use parking_lot::Mutex;

use crate::{
    config,
    wire::{BodyAccount, ClientNetwork, MemoryLimits},
};

/// The number of parts of the table of networks, each with a lock of its own. It is a power of two.
const SHARDS: usize = 16;

type Networks = HashMap<ClientNetwork, Arc<BodyAccount>>;

/// The accounts of all callers that hold request bodies.
#[derive(Default)]
pub struct BodyAccounts {
    /// The accounts of client keys by the name of the key. Snapshots and bodies own them.
    keys: Mutex<HashMap<Arc<str>, Weak<BodyAccount>>>,
    /// The accounts of networks. An account stays for up to a second after its last body, so that a client that comes back
    /// finds it.
    networks: [Mutex<Networks>; SHARDS],
    hasher: RandomState,
}

impl BodyAccounts {
    /// Returns the account of the client key called `name`.
    pub(super) fn of_key(&self, name: &Arc<str>) -> Arc<BodyAccount> {
        let mut keys = self.keys.lock();
        if let Some(known) = keys.get(name).and_then(Weak::upgrade) {
            return known;
        }
        let account = Arc::default();
        keys.insert(name.clone(), Arc::downgrade(&account));
        account
    }

    /// Returns the account of the clients of `network`, which need no client key.
    pub fn of_network(&self, network: ClientNetwork) -> Arc<BodyAccount> {
        let shard = self.hasher.hash_one(network) as usize % SHARDS;
        self.networks[shard].lock().entry(network).or_default().clone()
    }

    /// Drops the accounts that no body and no snapshot refers to.
    pub(super) fn drop_unused(&self) {
        self.keys.lock().retain(|_, account| account.strong_count() > 0);
        for networks in &self.networks {
            networks.lock().retain(|_, account| Arc::strong_count(account) > 1);
        }
    }
}

/// The limits of `server.buffered_bodies` and `server.buffered_share`. Each caller may hold at least one body of the maximum
/// size.
pub(super) fn memory_limits(server: &config::ServerSettings) -> MemoryLimits {
    let bytes = |size: u64| usize::try_from(size).unwrap_or(usize::MAX);
    let all = bytes(server.buffered_bodies);
    let share = (all as f64 * server.buffered_share) as usize;
    MemoryLimits {
        all,
        share: share.max(bytes(server.max_body)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn network(address: &str) -> ClientNetwork {
        ClientNetwork::from(Some(address.parse().expect("an address")))
    }

    #[test]
    fn an_account_stays_while_it_is_used() {
        let accounts = BodyAccounts::default();
        let key: Arc<str> = "alice".into();
        let (of_key, of_network) = (accounts.of_key(&key), accounts.of_network(network("127.0.0.1")));
        accounts.drop_unused();
        assert!(Arc::ptr_eq(&of_key, &accounts.of_key(&key)));
        assert!(Arc::ptr_eq(&of_network, &accounts.of_network(network("127.0.0.1"))));
        assert!(!Arc::ptr_eq(&of_network, &accounts.of_network(network("127.0.0.2"))));
        drop((of_key, of_network));
        accounts.drop_unused();
        assert!(accounts.keys.lock().is_empty());
        assert!(accounts.networks.iter().all(|networks| networks.lock().is_empty()));
    }

    #[test]
    fn a_share_is_at_least_one_body_of_the_maximum_size() {
        for (buffered_bodies, max_body, buffered_share, share) in [
            (1000, 10, 0.25, 250),
            (1000, 300, 0.25, 300),
            (1000, 1000, 0.01, 1000),
            (1000, 10, 1.0, 1000),
        ] {
            let server = config::ServerSettings {
                buffered_bodies,
                max_body,
                buffered_share,
                ..config::ServerSettings::default()
            };
            assert_eq!(memory_limits(&server), MemoryLimits { all: 1000, share });
        }
    }
}

//! Connection ids that encode the worker.

use std::time::Duration;

use quinn_proto::{ConnectionId, ConnectionIdGenerator, RandomConnectionIdGenerator};

/// Bytes of our connection ids.
pub const SIZE: usize = 8;

/// Generates connection ids whose first byte, modulo `workers`, is `worker`.
#[derive(Clone, Copy)]
pub struct WorkerIds {
    pub worker: u8,
    pub workers: u8,
}

impl ConnectionIdGenerator for WorkerIds {
    fn generate_cid(&mut self) -> ConnectionId {
        let mut id = [0; SIZE];
        id.copy_from_slice(&RandomConnectionIdGenerator::new(SIZE).generate_cid());
        let first = id[0] - id[0] % self.workers;
        id[0] = first
            .checked_add(self.worker)
            .unwrap_or_else(|| first - self.workers + self.worker);
        ConnectionId::new(&id)
    }

    fn cid_len(&self) -> usize {
        SIZE
    }

    fn cid_lifetime(&self) -> Option<Duration> {
        None
    }
}

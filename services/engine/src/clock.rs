//! Turns the times that Python passes into those of quinn-proto.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime};

use quinn_proto::TimeSource;

/// The latest time that was passed in. It never goes back.
#[derive(Clone)]
pub struct Clock {
    base: Instant,
    base_ns: u64,
    now_ns: Arc<AtomicU64>,
}

impl Clock {
    /// `now` is the first time. An `Instant` cannot be made of a number, so this one is the real
    /// clock's; only differences to it count.
    pub fn new(now: u64) -> Self {
        Self {
            base: Instant::now(),
            base_ns: now,
            now_ns: Arc::new(AtomicU64::new(now)),
        }
    }

    pub fn set(&self, now: u64) -> Instant {
        self.now_ns.fetch_max(now, Ordering::Relaxed);
        self.now()
    }

    pub fn now(&self) -> Instant {
        let now = self.now_ns.load(Ordering::Relaxed);
        self.base + Duration::from_nanos(now - self.base_ns)
    }

    pub fn nanoseconds(&self, at: Instant) -> u64 {
        let since = at.saturating_duration_since(self.base).as_nanos();
        self.base_ns
            .saturating_add(u64::try_from(since).unwrap_or(u64::MAX))
    }
}

/// The age of Retry tokens. All workers of a machine share its monotonic clock.
impl TimeSource for Clock {
    fn now(&self) -> SystemTime {
        let now = self.now_ns.load(Ordering::Relaxed);
        SystemTime::UNIX_EPOCH + Duration::from_nanos(now)
    }
}

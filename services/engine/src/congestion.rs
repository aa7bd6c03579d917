//! Congestion control that lets a close pass: quinn-proto sends no `CONNECTION_CLOSE` while data that
//! is queued is blocked, and a connection that is closed processes no acknowledgement any more.

use std::any::Any;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use quinn_proto::RttEstimator;
use quinn_proto::congestion::{Controller, ControllerFactory, CubicConfig};

/// Cubic (RFC 9438), until the connection is closed.
struct Closable {
    cubic: Box<dyn Controller>,
    is_closing: Arc<AtomicBool>,
}

impl Controller for Closable {
    fn on_sent(&mut self, now: Instant, bytes: u64, last_packet_number: u64) {
        self.cubic.on_sent(now, bytes, last_packet_number);
    }

    fn on_ack(
        &mut self,
        now: Instant,
        sent: Instant,
        bytes: u64,
        app_limited: bool,
        rtt: &RttEstimator,
    ) {
        self.cubic.on_ack(now, sent, bytes, app_limited, rtt);
    }

    fn on_end_acks(
        &mut self,
        now: Instant,
        in_flight: u64,
        app_limited: bool,
        largest_packet_num_acked: Option<u64>,
    ) {
        self.cubic
            .on_end_acks(now, in_flight, app_limited, largest_packet_num_acked);
    }

    fn on_congestion_event(
        &mut self,
        now: Instant,
        sent: Instant,
        is_persistent_congestion: bool,
        lost_bytes: u64,
    ) {
        self.cubic
            .on_congestion_event(now, sent, is_persistent_congestion, lost_bytes);
    }

    fn on_mtu_update(&mut self, new_mtu: u16) {
        self.cubic.on_mtu_update(new_mtu);
    }

    fn window(&self) -> u64 {
        if self.is_closing.load(Ordering::Relaxed) {
            // It also ends pacing.
            1 << 40
        } else {
            self.cubic.window()
        }
    }

    fn clone_box(&self) -> Box<dyn Controller> {
        Box::new(Self {
            cubic: self.cubic.clone_box(),
            is_closing: self.is_closing.clone(),
        })
    }

    fn initial_window(&self) -> u64 {
        self.cubic.initial_window()
    }

    fn into_any(self: Box<Self>) -> Box<dyn Any> {
        self
    }
}

/// Makes the controllers of new paths.
pub struct ClosableConfig;

impl ControllerFactory for ClosableConfig {
    fn build(self: Arc<Self>, now: Instant, current_mtu: u16) -> Box<dyn Controller> {
        Box::new(Closable {
            cubic: Arc::new(CubicConfig::default()).build(now, current_mtu),
            is_closing: Arc::default(),
        })
    }
}

/// The connection with this controller is closed.
pub fn let_close_pass(controller: &dyn Controller) {
    if let Ok(controller) = controller.clone_box().into_any().downcast::<Closable>() {
        controller.is_closing.store(true, Ordering::Relaxed);
    }
}

//! One connection: its events, and the packets that it sends.

use std::net::SocketAddr;
use std::sync::PoisonError;
use std::time::{Duration, Instant};

use bytes::Bytes;
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyList, PyTuple};
use quinn_proto::{self as q, ConnectionError, Dir, Event, Side, StreamEvent, StreamId, VarInt};

use crate::congestion;
use crate::memory;
use crate::parameters;
use crate::streams::{Read, Streams, Windows};
use crate::tls::Shown;
use crate::watch::Seen;

/// Kinds of events. An event is a tuple that begins with its kind.
const READY: u8 = 0;
const CONNECTED: u8 = 1;
const DATAGRAM: u8 = 2;
const STREAM_DATA: u8 = 3;
const STREAM_RESET: u8 = 4;
const STOP_SENDING: u8 = 5;
const WRITABLE: u8 = 6;
const STREAM_CREDIT: u8 = 7;
const LOST: u8 = 8;

pub fn add_kinds(module: &Bound<'_, PyModule>) -> PyResult<()> {
    for (name, kind) in [
        ("READY", READY),
        ("CONNECTED", CONNECTED),
        ("DATAGRAM", DATAGRAM),
        ("STREAM_DATA", STREAM_DATA),
        ("STREAM_RESET", STREAM_RESET),
        ("STOP_SENDING", STOP_SENDING),
        ("WRITABLE", WRITABLE),
        ("STREAM_CREDIT", STREAM_CREDIT),
        ("LOST", LOST),
    ] {
        module.add(name, kind)?;
    }
    Ok(())
}

const INTERNAL_ERROR: u64 = 0x01;
const VERSION_NEGOTIATION_ERROR: u64 = 0x11;

/// Packets of one call of the kernel, at most.
pub const MAX_SEGMENTS: usize = 16;
/// Bytes that a connection may allocate after its handshake before they count as buffered: quinn-proto
/// keeps tables of streams and packets. They take 5 KiB with pings in datagrams or on one stream, and
/// 28 KiB after 200 streams in turn, so what does no harm counts as little or nothing.
const UNCOUNTED: usize = 16 << 10;
/// Bytes that a connection may receive, or buffer more than before, before it is to be counted.
const COUNT_AFTER: usize = 16 << 10;

#[expect(clippy::struct_excessive_bools, reason = "none excludes another")]
pub struct Connection {
    pub quic: q::Connection,
    pub streams: Streams,
    /// The peer's address, twice; see `follow`.
    pub address: Py<PyTuple>,
    remote: SocketAddr,
    pub generation: u32,
    /// Whether it may have something to send.
    pub is_dirty: bool,
    /// Whether a peer's handshake is not complete.
    pub is_unfinished: bool,
    /// The earliest entry in the queue of timers.
    pub timer: Option<Instant>,
    pub shown: Option<Shown>,
    pub seen: Seen,
    /// Whether its packets are to wait.
    pub is_throttled: bool,
    /// Whether it is in the list of those to be counted.
    pub has_grown: bool,
    /// Bytes that it has allocated, from some zero.
    allocated: usize,
    /// The same when the handshake was complete.
    at_first: usize,
    /// Bytes that were received.
    received: usize,
    /// When to count next: at this sum of the bytes that are buffered, and that were received.
    count_at: usize,
    is_connected: bool,
    is_ready: bool,
    has_ended: bool,
}

impl Connection {
    pub fn new(
        quic: q::Connection,
        address: Py<PyTuple>,
        generation: u32,
        windows: Windows,
    ) -> Self {
        let side = quic.side();
        let remote = quic.remote_address();
        let seen = Seen::of(quic.crypto_session());
        Self {
            quic,
            streams: Streams::new(side, windows),
            address,
            remote,
            generation,
            is_dirty: false,
            is_unfinished: false,
            timer: None,
            shown: None,
            seen,
            is_throttled: false,
            has_grown: false,
            allocated: 0,
            at_first: 0,
            received: 0,
            count_at: COUNT_AFTER,
            is_connected: false,
            is_ready: false,
            has_ended: false,
        }
    }

    /// A stream of this connection that has a side of ours.
    pub fn sendable(&self, id: u64) -> Option<StreamId> {
        let id = StreamId::from(VarInt::from_u64(id).ok()?);
        (id.dir() == Dir::Bi || id.initiator() == self.quic.side()).then_some(id)
    }

    /// A stream of this connection that has a side of the peer.
    pub fn receivable(&self, id: u64) -> Option<StreamId> {
        let id = StreamId::from(VarInt::from_u64(id).ok()?);
        (id.dir() == Dir::Bi || id.initiator() != self.quic.side()).then_some(id)
    }

    pub fn idle_timeout(&self, own: Duration) -> Duration {
        let parameters = self.quic.crypto_session().transport_parameters();
        let theirs = parameters
            .ok()
            .flatten()
            .and_then(|known| parameters::idle_timeout(&known));
        theirs.map_or(own, |theirs| theirs.min(own))
    }

    /// The certificate that the server showed, in DER.
    pub fn peer_certificate(&self) -> Option<Vec<u8>> {
        let shown = self.shown.as_ref()?;
        shown.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub fn close(&mut self, now: Instant, code: VarInt, reason: &str) {
        let reason = Bytes::copy_from_slice(reason.as_bytes());
        congestion::let_close_pass(self.quic.congestion_state());
        self.quic.close(now, code, reason);
        self.end();
    }

    /// Follow the peer to another address, `from` it may be that a packet came. It goes back to the
    /// one before where the new one is not validated.
    pub fn follow(
        &mut self,
        py: Python<'_>,
        from: Option<(Py<PyTuple>, SocketAddr)>,
    ) -> PyResult<()> {
        let now = self.quic.remote_address();
        if now != self.remote {
            self.address = match from {
                Some((address, remote)) if remote == now => address,
                _ => crate::address::write(py, now)?,
            };
            self.remote = now;
        }
        Ok(())
    }

    /// It has worked; `before` was `memory::allocated` then.
    pub fn note_memory(&mut self, before: usize) {
        let change = memory::allocated().wrapping_sub(before);
        self.allocated = self.allocated.wrapping_add(change);
    }

    /// Bytes that it buffers, received or to be sent, with what quinn-proto needs to keep them.
    pub fn buffered(&self) -> usize {
        let more = self.allocated.wrapping_sub(self.at_first);
        // It may be less than at first: the handshake's keys are gone.
        let counts = self.is_connected && more <= usize::MAX / 2;
        let counted = if counts { more } else { 0 };
        let counted = counted.saturating_sub(UNCOUNTED);
        counted.saturating_add(self.streams.held_total())
    }

    /// Whether it may buffer much more than when it was counted last, here or above.
    pub fn is_to_count(&self) -> bool {
        self.buffered().saturating_add(self.received) >= self.count_at
    }

    /// Count what it buffers.
    pub fn count(&mut self) -> usize {
        let buffered = self.buffered();
        self.count_at = buffered.saturating_add(COUNT_AFTER);
        self.received = 0;
        buffered
    }

    fn end(&mut self) {
        self.has_ended = true;
        self.is_unfinished = false;
        self.streams = self.streams.emptied();
    }

    /// Add what happened, in order. A stream may have more: see `Streams::has_unread`.
    pub fn take_events<'py>(&mut self, py: Python<'py>, out: &Bound<'py, PyList>) -> PyResult<()> {
        if self.has_ended {
            while self.quic.poll().is_some() {}
            self.seen.take_ends();
            return Ok(());
        }
        if !self.is_ready && self.quic.side() == Side::Server && !self.quic.is_closed() {
            // It can send as soon as it has the peer's transport parameters, and keys with them.
            let parameters = self.quic.crypto_session().transport_parameters();
            if matches!(parameters, Ok(Some(_))) {
                self.become_ready(out)?;
            }
        }
        // These come after the data of other streams, which may have the reason.
        let mut stopped = Vec::new();
        let (mut has_datagrams, mut lost) = (false, None);
        while let Some(event) = self.quic.poll() {
            match event {
                Event::HandshakeDataReady | Event::DatagramsUnblocked => {}
                Event::Connected => {
                    self.is_connected = true;
                    self.at_first = self.allocated;
                    self.is_unfinished = false;
                    self.become_ready(out)?;
                    out.append((CONNECTED,))?;
                }
                Event::ConnectionLost { reason } => lost = Some(reason),
                Event::DatagramReceived => has_datagrams = true,
                Event::Stream(StreamEvent::Stopped { id, error_code }) => {
                    stopped.push((id, error_code.into_inner()));
                }
                Event::Stream(event) => self.take_stream_event(&event, out)?,
            }
        }
        for end in self.seen.take_ends() {
            self.streams.note_end(end);
        }
        self.take_reads(py, out)?;
        for (id, code) in stopped {
            if self.streams.is_sending(id) {
                out.append((STOP_SENDING, u64::from(id), code))?;
            }
        }
        if has_datagrams {
            while let Some(data) = self.quic.datagrams().recv() {
                self.received += data.len();
                out.append((DATAGRAM, PyBytes::new(py, &data)))?;
            }
        }
        for id in std::mem::take(&mut self.streams.writable) {
            out.append((WRITABLE, u64::from(id)))?;
        }
        for end in std::mem::take(&mut self.streams.ended) {
            out.append((STREAM_RESET, end.stream, end.code.unwrap_or(0), end.size))?;
        }
        if let Some(reason) = lost {
            let (code, reason, by_peer, is_application, timed_out) = Self::describe(reason);
            let ending = (code, reason, by_peer, is_application, timed_out);
            out.append((LOST, ending, self.is_connected))?;
            self.end();
        }
        Ok(())
    }

    fn become_ready(&mut self, out: &Bound<'_, PyList>) -> PyResult<()> {
        if !self.is_ready {
            self.is_ready = true;
            out.append((READY,))?;
        }
        Ok(())
    }

    fn take_stream_event(&mut self, event: &StreamEvent, out: &Bound<'_, PyList>) -> PyResult<()> {
        match *event {
            StreamEvent::Opened { dir } => self.streams.accept(&mut self.quic, dir),
            StreamEvent::Readable { id } => self.streams.set_readable(id),
            StreamEvent::Writable { id } => self.streams.flush(&mut self.quic, id),
            StreamEvent::Finished { id } => self.streams.finished(id),
            StreamEvent::Stopped { .. } => {}
            StreamEvent::Available { dir } => {
                self.streams.credit_received(&mut self.quic, dir);
                out.append((STREAM_CREDIT,))?;
            }
        }
        Ok(())
    }

    fn take_reads<'py>(&mut self, py: Python<'py>, out: &Bound<'py, PyList>) -> PyResult<()> {
        // Each stream once: what its reader holds of the first part decides on the next one.
        // Resets come last, as the reason for one may be in the data of another stream.
        let mut resets = Vec::new();
        for id in self.streams.take_readable() {
            let number = u64::from(id);
            match self.streams.read(&mut self.quic, id) {
                None => {}
                Some(Read::Reset(code, size)) => resets.push((STREAM_RESET, number, code, size)),
                Some(Read::Data(chunks, end)) => {
                    let data = match chunks.as_slice() {
                        [only] => PyBytes::new(py, only),
                        many => PyBytes::new(py, &many.concat()),
                    };
                    self.received += data.as_bytes().len();
                    out.append((STREAM_DATA, number, data, end))?;
                }
            }
        }
        resets.into_iter().try_for_each(|reset| out.append(reset))
    }

    /// Code, reason, whether by the peer, by the application, by the idle timeout.
    fn describe(reason: ConnectionError) -> (u64, String, bool, bool, bool) {
        let text = |reason: &[u8]| String::from_utf8_lossy(reason).into_owned();
        match reason {
            ConnectionError::ApplicationClosed(close) => {
                let code = close.error_code.into_inner();
                (code, text(&close.reason), true, true, false)
            }
            ConnectionError::ConnectionClosed(close) => {
                let code = u64::from(close.error_code);
                (code, text(&close.reason), true, false, false)
            }
            ConnectionError::TransportError(error) => {
                (u64::from(error.code), error.reason, false, false, false)
            }
            ConnectionError::Reset => {
                let reason = "stateless reset: the peer no longer has this connection";
                (INTERNAL_ERROR, reason.into(), true, false, false)
            }
            ConnectionError::TimedOut => {
                (INTERNAL_ERROR, "Idle timeout".into(), false, false, true)
            }
            ConnectionError::VersionMismatch => {
                let reason = "the peer has no version of QUIC that is known here";
                (
                    VERSION_NEGOTIATION_ERROR,
                    reason.into(),
                    false,
                    false,
                    false,
                )
            }
            other @ (ConnectionError::LocallyClosed | ConnectionError::CidsExhausted) => {
                (INTERNAL_ERROR, other.to_string(), false, false, false)
            }
        }
    }

    /// Add the packets to send now: `(address, [packet, …])`, each packet but the last of one size.
    pub fn take_packets<'py>(
        &mut self,
        py: Python<'py>,
        now: Instant,
        buffer: &mut Vec<u8>,
        out: &Bound<'py, PyList>,
    ) -> PyResult<()> {
        loop {
            buffer.clear();
            let Some(sent) = self.quic.poll_transmit(now, MAX_SEGMENTS, buffer) else {
                if self.streams.reset_now(&mut self.quic) {
                    continue;
                }
                return Ok(());
            };
            let address = if sent.destination == self.remote {
                self.address.clone_ref(py)
            } else {
                crate::address::write(py, sent.destination)?
            };
            let size = sent.segment_size.unwrap_or(sent.size).max(1);
            let packets = buffer[..sent.size]
                .chunks(size)
                .map(|packet| PyBytes::new(py, packet));
            out.append((address, PyList::new(py, packets)?))?;
        }
    }
}

//! All connections of one UDP socket.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use pyo3::exceptions::{PyOSError, PyValueError};
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyList, PyTuple};
use quinn_proto::{
    self as q, ConnectError, ConnectionHandle, ConnectionIdGenerator, DatagramEvent, Dir,
    EndpointEvent, VarInt,
};

use crate::QuicError;
use crate::address;
use crate::clock::Clock;
use crate::congestion::ClosableConfig;
use crate::connection::{Connection, MAX_SEGMENTS};
use crate::ids::WorkerIds;
use crate::memory;
use crate::streams::{FIRST_STREAMS, Windows};
use crate::tls::{self, Authorities};
use crate::watch::Watched;

/// What became of a packet.
const DROPPED: u8 = 0;
const RECEIVED: u8 = 1;
const ACCEPTED: u8 = 2;
const VERSION_NEGOTIATION: u8 = 3;
const RETRY: u8 = 4;
const INVALID: u8 = 5;
const REFUSED: u8 = 6;
const STATELESS_RESET: u8 = 7;
const FAILED: u8 = 8;
const WAITING: u8 = 9;

pub fn add_outcomes(module: &Bound<'_, PyModule>) -> PyResult<()> {
    for (name, outcome) in [
        ("DROPPED", DROPPED),
        ("RECEIVED", RECEIVED),
        ("ACCEPTED", ACCEPTED),
        ("VERSION_NEGOTIATION", VERSION_NEGOTIATION),
        ("RETRY", RETRY),
        ("INVALID", INVALID),
        ("REFUSED", REFUSED),
        ("STATELESS_RESET", STATELESS_RESET),
        ("FAILED", FAILED),
        ("WAITING", WAITING),
    ] {
        module.add(name, outcome)?;
    }
    Ok(())
}

const CONNECTION_REFUSED: u64 = 0x02;
const LONG_HEADER: u8 = 0x80;
/// Stateless resets are sent at most once in this time.
const RESET_INTERVAL: Duration = Duration::from_millis(1);
/// Refusals are sent at most once in this time, on average of the longer one.
const REFUSAL_INTERVAL: Duration = Duration::from_millis(1);
const REFUSAL_BURST: Duration = Duration::from_secs(1);
/// Bytes of a connection's datagrams that wait to be sent: of a burst of 256, as many as wait with
/// aioquic, of 1 KiB each.
const DATAGRAM_QUEUE: usize = 256 << 10;
/// Bytes of a connection that quinn-proto keeps until they are acknowledged.
const SEND_WINDOW: u64 = 1 << 20;
/// Timers may fire this much early: event loops count in milliseconds.
const EARLY: Duration = Duration::from_micros(500);

/// Bytes of the buffer for the packets of one call of the kernel. It must not grow, since that would
/// count as memory of the connection that happens to send.
const PACKETS: usize = MAX_SEGMENTS * 1500;

type Outcome<'py> = (u8, u64, Option<Bound<'py, PyAny>>, bool);

/// A packet of a connection that is throttled, for `Endpoint.process`.
#[pyclass]
pub struct Waiting {
    handle: u64,
    packet: Option<Packet>,
    /// Bytes that were allocated for it, which are freed when it is processed.
    allocated: usize,
}

/// A packet of a connection.
struct Packet {
    event: q::ConnectionEvent,
    address: Py<PyTuple>,
    remote: SocketAddr,
}

#[derive(Default)]
struct Slot {
    generation: u32,
    connection: Option<Box<Connection>>,
}

/// All connections of one UDP socket.
#[pyclass]
pub struct Endpoint {
    quic: q::Endpoint,
    clock: Clock,
    transport: Arc<q::TransportConfig>,
    idle_timeout: Duration,
    windows: Windows,
    ids: WorkerIds,
    token_key: Arc<ring::hkdf::Prk>,
    max_connections: usize,
    max_handshakes: usize,
    slots: Vec<Slot>,
    count: usize,
    /// Connections of clients whose handshake is not complete.
    unfinished: usize,
    dirty: Vec<usize>,
    timers: BinaryHeap<Reverse<(Instant, usize, u32)>>,
    stateless: Vec<(Py<PyTuple>, Py<PyBytes>)>,
    drained: Vec<u64>,
    /// Connections to count the buffers of.
    grown: Vec<u64>,
    buffer: Vec<u8>,
    last_address: Option<(Py<PyTuple>, SocketAddr)>,
    /// Until when the refusals that were sent would have been sent one by one.
    refused_until: Instant,
}

#[pymethods]
impl Endpoint {
    /// `now` and `idle_timeout` are in nanoseconds.
    #[new]
    #[pyo3(signature = (
        now, *, idle_timeout, window, stream_window, streams_bidi, streams_uni, worker, workers,
        retry_key, reset_key, max_connections, max_handshakes,
    ))]
    #[expect(clippy::too_many_arguments, reason = "all have names in Python")]
    fn new(
        now: u64,
        idle_timeout: u64,
        window: u32,
        stream_window: u32,
        streams_bidi: u32,
        streams_uni: u32,
        worker: u8,
        workers: u8,
        retry_key: &[u8],
        reset_key: &[u8],
        max_connections: usize,
        max_handshakes: usize,
    ) -> PyResult<Self> {
        if worker >= workers || workers > 64 {
            let text = format!("no worker {worker} of {workers}, 64 at most");
            return Err(PyValueError::new_err(text));
        }
        let idle_timeout = Duration::from_nanos(idle_timeout);
        let mut transport = q::TransportConfig::default();
        let idle = q::IdleTimeout::try_from(idle_timeout)
            .map_err(|error| PyValueError::new_err(error.to_string()))?;
        transport
            .max_idle_timeout(Some(idle))
            .receive_window(window.into())
            .stream_receive_window(stream_window.into())
            .max_concurrent_bidi_streams(streams_bidi.min(FIRST_STREAMS).into())
            .max_concurrent_uni_streams(streams_uni.min(FIRST_STREAMS).into())
            .send_window(SEND_WINDOW)
            .congestion_controller_factory(Arc::new(ClosableConfig))
            .datagram_receive_buffer_size(Some(1 << 16))
            .datagram_send_buffer_size(DATAGRAM_QUEUE)
            // Its probes are several packets for each connection, and errors where an interface takes
            // less than 1500 bytes; pings are small. ECN is off as the pump has none.
            .mtu_discovery_config(None);
        let ids = WorkerIds { worker, workers };
        let clock = Clock::new(now);
        let refused_until = clock.now();
        let reset_key = ring::hmac::Key::new(ring::hmac::HMAC_SHA256, reset_key);
        let mut config = q::EndpointConfig::new(Arc::new(reset_key));
        config
            .cid_generator(move || Box::new(ids))
            .supported_versions(vec![1])
            // Packets without the fixed bit would pass by what tells those that begin connections
            // by their first byte.
            .grease_quic_bit(false)
            .min_reset_interval(RESET_INTERVAL);
        let token_key = ring::hkdf::Salt::new(ring::hkdf::HKDF_SHA256, b"").extract(retry_key);
        Ok(Self {
            quic: q::Endpoint::new(Arc::new(config), None, false, None),
            clock,
            transport: Arc::new(transport),
            idle_timeout,
            windows: Windows {
                stream: stream_window as usize,
                connection: window as usize,
                streams: [streams_bidi, streams_uni],
            },
            ids,
            token_key: Arc::new(token_key),
            max_connections,
            max_handshakes,
            slots: Vec::new(),
            count: 0,
            unfinished: 0,
            dirty: Vec::new(),
            timers: BinaryHeap::new(),
            stateless: Vec::new(),
            drained: Vec::new(),
            grown: Vec::new(),
            buffer: Vec::with_capacity(PACKETS),
            last_address: None,
            refused_until,
        })
    }

    /// The number of connections, with those in the closing or draining period.
    fn __len__(&self) -> usize {
        self.count
    }

    /// Be a server, with a certificate for new connections: its chain and its PKCS 8 key in DER.
    fn use_certificate(&mut self, chain: Vec<Vec<u8>>, key: Vec<u8>) -> PyResult<()> {
        let crypto = tls::server(chain, key)?;
        let crypto = Arc::new(Watched(crypto));
        let mut config = q::ServerConfig::new(crypto, self.token_key.clone());
        config.validation_token.sent(0);
        config
            .transport_config(self.transport.clone())
            .time_source(Arc::new(self.clock.clone()));
        self.quic.set_server_config(Some(Arc::new(config)));
        Ok(())
    }

    /// Begin a connection. Without `authorities` and `pin`, a SHA-256, any certificate will do.
    /// One of authorities is refused if `server_name` is neither a DNS name nor an address.
    #[pyo3(signature = (address, server_name, now, *, authorities=None, pin=None))]
    fn connect(
        &mut self,
        address: &Bound<'_, PyTuple>,
        server_name: &str,
        now: u64,
        authorities: Option<&Authorities>,
        pin: Option<[u8; 32]>,
    ) -> PyResult<u64> {
        let remote = address::read(address)?;
        // A host such as 127.1 is found by the system, but is no name in TLS: the address stands in
        // for it, so that no name is sent.
        let is_named = tls::can_be_named(server_name);
        let ip = remote.ip().to_string();
        let server_name = if is_named { server_name } else { &ip };
        let (crypto, shown) = tls::client(authorities, pin, is_named)?;
        let mut config = q::ClientConfig::new(Arc::new(Watched(crypto)));
        let ids = self.ids;
        config
            .transport_config(self.transport.clone())
            .initial_dst_cid_provider(Arc::new(move || { ids }.generate_cid()));
        let now = self.clock.set(now);
        let (handle, quic) = self
            .quic
            .connect(now, config, remote, server_name)
            .map_err(connect_error)?;
        let number = self.add(handle, quic, address.clone().unbind());
        if let Some(connection) = self.find(number) {
            connection.shown = Some(shown);
        }
        Ok(number)
    }

    /// Process a UDP payload. Returns what became of it: an outcome, the handle of the connection,
    /// its events, and whether `events` has more.
    fn receive<'py>(
        &mut self,
        py: Python<'py>,
        data: &[u8],
        address: &Bound<'py, PyTuple>,
        now: u64,
    ) -> PyResult<Outcome<'py>> {
        let remote = match &self.last_address {
            Some((last, remote)) if last.is(address) => *remote,
            _ => {
                let remote = address::read(address)?;
                self.last_address = Some((address.clone().unbind(), remote));
                remote
            }
        };
        let now = self.clock.set(now);
        let before = memory::allocated();
        let mut buffer = std::mem::take(&mut self.buffer);
        buffer.clear();
        let event = self.quic.handle(
            now,
            remote,
            None,
            None,
            bytes::BytesMut::from(data),
            &mut buffer,
        );
        let result = match event {
            None => Ok((DROPPED, 0, None, false)),
            Some(DatagramEvent::ConnectionEvent(handle, event)) => {
                let packet = Packet {
                    event,
                    address: address.clone().unbind(),
                    remote,
                };
                self.routed(py, handle, packet, before)
            }
            Some(DatagramEvent::Response(sent)) => {
                let packet = &buffer[..sent.size];
                let outcome = match packet.first() {
                    Some(first) if first & LONG_HEADER == 0 => STATELESS_RESET,
                    _ if packet.get(1..5) == Some(&[0; 4]) => VERSION_NEGOTIATION,
                    _ => INVALID,
                };
                self.answer(py, address, packet);
                Ok((outcome, 0, None, false))
            }
            Some(DatagramEvent::NewConnection(incoming)) => {
                self.admit(py, incoming, address, now, &mut buffer)
            }
        };
        self.buffer = buffer;
        result
    }

    /// Process a packet that waited. The same as `receive`.
    fn process<'py>(&mut self, py: Python<'py>, waiting: &mut Waiting) -> PyResult<Outcome<'py>> {
        match waiting.packet.take() {
            Some(packet) if self.find(waiting.handle).is_some() => {
                let before = memory::allocated().wrapping_sub(waiting.allocated);
                self.received(py, waiting.handle, packet, before)
            }
            _ => Ok((DROPPED, 0, None, false)),
        }
    }

    /// From now on packets of a connection wait, or no longer.
    fn throttle(&mut self, handle: u64, throttled: bool) {
        if let Some(connection) = self.find(handle) {
            connection.is_throttled = throttled;
        }
    }

    /// More events of a connection: its events, and whether there are more.
    fn events<'py>(
        &mut self,
        py: Python<'py>,
        handle: u64,
    ) -> PyResult<(Bound<'py, PyList>, bool)> {
        let events = PyList::empty(py);
        let more = self.with(handle, |connection| {
            connection.take_events(py, &events)?;
            PyResult::Ok(connection.streams.has_unread())
        });
        Ok((events, more.transpose()?.unwrap_or(false)))
    }

    /// Build the packets to send now: `(address, [packet, …])`, in order. Also whether `take_drained`
    /// or `take_grown` have something.
    fn transmit<'py>(&mut self, py: Python<'py>, now: u64) -> PyResult<(Bound<'py, PyList>, bool)> {
        let now = self.clock.set(now);
        let out = PyList::empty(py);
        for (address, packet) in self.stateless.drain(..) {
            out.append((address, [packet]))?;
        }
        let mut buffer = std::mem::take(&mut self.buffer);
        for index in std::mem::take(&mut self.dirty) {
            let Some(connection) = self.slots[index].connection.as_mut() else {
                continue;
            };
            connection.is_dirty = false;
            let before = memory::allocated();
            connection.take_packets(py, now, &mut buffer, &out)?;
            connection.note_memory(before);
            self.settle(index);
            self.arm(index);
        }
        self.buffer = buffer;
        let is_news = !(self.drained.is_empty() && self.grown.is_empty());
        Ok((out, is_news))
    }

    /// When to call `handle_timers`; None: never.
    fn next_timer(&mut self) -> Option<u64> {
        loop {
            let Reverse((at, index, generation)) = *self.timers.peek()?;
            let connection = self.find(number(index, generation));
            if connection.is_some_and(|connection| connection.timer == Some(at)) {
                return Some(self.clock.nanoseconds(at));
            }
            self.timers.pop();
        }
    }

    /// Handle the timers that are due: handles, with their events, and whether there are more.
    fn handle_timers<'py>(
        &mut self,
        py: Python<'py>,
        now: u64,
    ) -> PyResult<Vec<(u64, Bound<'py, PyList>, bool)>> {
        let now = self.clock.set(now);
        let due = now + EARLY;
        let mut handled = Vec::new();
        while let Some(Reverse((at, index, generation))) = self.timers.peek().copied() {
            if at > due {
                break;
            }
            self.timers.pop();
            let handle = number(index, generation);
            let Some(connection) = self.find(handle) else {
                continue;
            };
            if connection.timer != Some(at) {
                continue;
            }
            connection.timer = None;
            match connection.quic.poll_timeout() {
                Some(timer) if timer <= due => {
                    let events = PyList::empty(py);
                    let more = self.with(handle, |connection| {
                        connection.quic.handle_timeout(now.max(timer));
                        connection.follow(py, None)?;
                        connection.take_events(py, &events)?;
                        PyResult::Ok(connection.streams.has_unread())
                    });
                    self.settle(index);
                    handled.push((handle, events, more.transpose()?.unwrap_or(false)));
                }
                _ => self.arm(index),
            }
        }
        Ok(handled)
    }

    /// The handles of connections that are forgotten since the last call.
    fn take_drained(&mut self) -> Vec<u64> {
        std::mem::take(&mut self.drained)
    }

    /// The handles of connections whose buffers may have grown much, since the last call.
    fn take_grown(&mut self) -> Vec<u64> {
        let grown = std::mem::take(&mut self.grown);
        for handle in &grown {
            if let Some(connection) = self.find(*handle) {
                connection.has_grown = false;
            }
        }
        grown
    }

    // Of one connection.

    /// Forget a connection without sending anything.
    fn abandon(&mut self, handle: u64) {
        if self.find(handle).is_some() {
            let index = index_of(handle);
            self.quic
                .handle_event(ConnectionHandle(index), EndpointEvent::drained());
            self.forget(index);
        }
    }

    fn close(&mut self, handle: u64, code: u64, reason: &str) -> PyResult<()> {
        let code = varint(code)?;
        let now = self.clock.now();
        self.with(handle, |connection| connection.close(now, code, reason));
        Ok(())
    }

    fn ping(&mut self, handle: u64) {
        self.with(handle, |connection| connection.quic.ping());
    }

    /// Queue a datagram; false if it was dropped because the queue is full.
    fn send_datagram(&mut self, handle: u64, data: &[u8]) -> bool {
        self.with(handle, |connection| {
            let data = bytes::Bytes::copy_from_slice(data);
            connection.quic.datagrams().send(data, false).is_ok()
        })
        .unwrap_or(false)
    }

    /// Bytes of the largest DATAGRAM payload; 0: the peer accepts none.
    fn max_datagram_size(&mut self, handle: u64) -> usize {
        let connection = self.find(handle);
        connection.map_or(0, |connection| {
            connection.quic.datagrams().max_size().unwrap_or(0)
        })
    }

    fn can_open_stream(&mut self, handle: u64, unidirectional: bool) -> bool {
        self.find(handle).is_some_and(|connection| {
            let dir = direction(unidirectional);
            connection.streams.can_open(&mut connection.quic, dir)
        })
    }

    /// Open a stream, and return its id. It waits for credit if there is none.
    fn open_stream(&mut self, handle: u64, header: &[u8], unidirectional: bool) -> PyResult<u64> {
        self.with(handle, |connection| {
            let quic = &mut connection.quic;
            let id = connection.streams.open(quic, direction(unidirectional));
            connection.streams.send(quic, id, header, false);
            id.into()
        })
        .ok_or_else(is_over)
    }

    fn send_stream(&mut self, handle: u64, stream_id: u64, data: &[u8], end_stream: bool) {
        self.with(handle, |connection| {
            if let Some(id) = connection.sendable(stream_id) {
                let quic = &mut connection.quic;
                connection.streams.send(quic, id, data, end_stream);
            }
        });
    }

    /// Reset our side. Returns the number of bytes that will not be sent.
    fn reset_stream(&mut self, handle: u64, stream_id: u64, code: u64) -> PyResult<usize> {
        let code = varint(code)?;
        let unsent = self.with(handle, |connection| {
            let id = connection.sendable(stream_id)?;
            Some(connection.streams.reset(id, code))
        });
        Ok(unsent.flatten().unwrap_or(0))
    }

    /// Send `STOP_SENDING`. Whether the peer's side had not ended.
    fn stop_sending(&mut self, handle: u64, stream_id: u64, code: u64) -> PyResult<bool> {
        let code = varint(code)?;
        let stopped = self.with(handle, |connection| {
            let id = connection.receivable(stream_id)?;
            Some(connection.streams.stop(id, code))
        });
        Ok(stopped.flatten().unwrap_or(false))
    }

    /// Bytes of a stream that wait for the peer's credit.
    fn buffered(&mut self, handle: u64, stream_id: u64) -> usize {
        let Some(connection) = self.find(handle) else {
            return 0;
        };
        let id = connection.sendable(stream_id);
        id.map_or(0, |id| connection.streams.buffered(id))
    }

    /// Report `WRITABLE` once, when `buffered` is at most `below`.
    fn notify_writable(&mut self, handle: u64, stream_id: u64, below: usize) {
        if let Some(connection) = self.find(handle) {
            if let Some(id) = connection.sendable(stream_id) {
                connection.streams.notify_writable(id, below);
            }
        }
    }

    /// The reader keeps `size` bytes: read no more of the stream.
    fn hold(&mut self, handle: u64, stream_id: u64, size: usize) {
        if let Some(connection) = self.find(handle) {
            if let Some(id) = connection.receivable(stream_id) {
                connection.streams.hold(id, size);
            }
        }
    }

    /// `size` held bytes were read. Whether `events` has some now.
    fn release(&mut self, handle: u64, stream_id: u64, size: usize) -> bool {
        let Some(connection) = self.find(handle) else {
            return false;
        };
        let Some(id) = connection.receivable(stream_id) else {
            return false;
        };
        connection.streams.release(id, size);
        connection.streams.has_unread()
    }

    /// Whether the peer's side of a stream that it opened has ended.
    fn is_receive_closed(&mut self, handle: u64, stream_id: u64) -> bool {
        let Some(connection) = self.find(handle) else {
            return true;
        };
        let id = connection.receivable(stream_id);
        id.is_some_and(|id| {
            id.initiator() != connection.quic.side() && connection.streams.is_receive_closed(id)
        })
    }

    /// Count the bytes that a connection buffers, received or to be sent, or that readers hold.
    fn count_buffers(&mut self, handle: u64) -> usize {
        self.find(handle).map_or(0, Connection::count)
    }

    /// The peer's address; None if the connection is forgotten.
    fn address(&mut self, py: Python<'_>, handle: u64) -> Option<Py<PyTuple>> {
        let connection = self.find(handle)?;
        Some(connection.address.clone_ref(py))
    }

    /// The negotiated idle timeout, in nanoseconds.
    fn idle_timeout(&mut self, handle: u64) -> u64 {
        let own = self.idle_timeout;
        let timeout = self
            .find(handle)
            .map_or(own, |connection| connection.idle_timeout(own));
        u64::try_from(timeout.as_nanos()).unwrap_or(u64::MAX)
    }

    /// The peer's certificate in DER, or None.
    fn peer_certificate<'py>(
        &mut self,
        py: Python<'py>,
        handle: u64,
    ) -> Option<Bound<'py, PyBytes>> {
        let certificate = self.find(handle)?.peer_certificate()?;
        Some(PyBytes::new(py, &certificate))
    }

    /// 1-RTT packets that the network duplicated.
    fn duplicate_packets(&mut self, handle: u64) -> u64 {
        self.find(handle)
            .map_or(0, |connection| connection.seen.duplicates())
    }

    /// Of the path: smoothed RTT in nanoseconds, congestion window in bytes, lost packets.
    fn statistics(&mut self, handle: u64) -> Option<(u64, u64, u64)> {
        let path = self.find(handle)?.quic.stats().path;
        let rtt = u64::try_from(path.rtt.as_nanos()).unwrap_or(u64::MAX);
        Some((rtt, path.cwnd, path.lost_packets))
    }
}

impl Endpoint {
    fn find(&mut self, handle: u64) -> Option<&mut Connection> {
        let slot = self.slots.get_mut(index_of(handle))?;
        let connection = slot.connection.as_deref_mut()?;
        (u64::from(connection.generation) == handle >> 32).then_some(connection)
    }

    fn add(&mut self, handle: ConnectionHandle, quic: q::Connection, address: Py<PyTuple>) -> u64 {
        let index = handle.0;
        if self.slots.len() <= index {
            self.slots.resize_with(index + 1, Slot::default);
        }
        let slot = &mut self.slots[index];
        slot.generation = slot.generation.wrapping_add(1);
        let generation = slot.generation;
        slot.connection = Some(Box::new(Connection::new(
            quic,
            address,
            generation,
            self.windows,
        )));
        self.count += 1;
        let handle = number(index, generation);
        self.settle(index);
        self.with(handle, |connection| {
            connection.is_unfinished = connection.quic.side().is_server();
        });
        handle
    }

    fn forget(&mut self, index: usize) {
        if let Some(connection) = self.slots[index].connection.take() {
            self.count -= 1;
            self.unfinished -= usize::from(connection.is_unfinished);
            self.drained.push(number(index, connection.generation));
        }
    }

    /// Have a connection do something that may give it something to send.
    fn with<R>(&mut self, handle: u64, act: impl FnOnce(&mut Connection) -> R) -> Option<R> {
        let before = memory::allocated();
        self.with_since(before, handle, act)
    }

    /// The same, where `memory::allocated` was `before` when it began.
    fn with_since<R>(
        &mut self,
        before: usize,
        handle: u64,
        act: impl FnOnce(&mut Connection) -> R,
    ) -> Option<R> {
        let connection = self.find(handle)?;
        let was_unfinished = connection.is_unfinished;
        let result = act(connection);
        connection.note_memory(before);
        let is_unfinished = connection.is_unfinished;
        let is_new = !std::mem::replace(&mut connection.is_dirty, true);
        if !connection.has_grown && connection.is_to_count() {
            connection.has_grown = true;
            self.grown.push(handle);
        }
        if is_new {
            self.dirty.push(index_of(handle));
        }
        self.unfinished =
            self.unfinished + usize::from(is_unfinished) - usize::from(was_unfinished);
        Some(result)
    }

    fn arm(&mut self, index: usize) {
        let Some(connection) = self.slots[index].connection.as_mut() else {
            return;
        };
        if let Some(at) = connection.quic.poll_timeout() {
            // A later time is found out when this one fires.
            if connection.timer.is_none_or(|timer| at < timer) {
                connection.timer = Some(at);
                self.timers
                    .push(Reverse((at, index, connection.generation)));
            }
        }
    }

    /// Exchange what quinn-proto's connection and endpoint have for one another.
    fn settle(&mut self, index: usize) {
        let Some(connection) = self.slots[index].connection.as_mut() else {
            return;
        };
        let mut is_drained = false;
        while let Some(event) = connection.quic.poll_endpoint_events() {
            is_drained |= event.is_drained();
            if let Some(answer) = self.quic.handle_event(ConnectionHandle(index), event) {
                let before = memory::allocated();
                connection.quic.handle_event(answer);
                connection.note_memory(before);
            }
        }
        if is_drained {
            self.forget(index);
        }
    }

    fn answer(&mut self, py: Python<'_>, address: &Bound<'_, PyTuple>, packet: &[u8]) {
        let packet = PyBytes::new(py, packet).unbind();
        self.stateless.push((address.clone().unbind(), packet));
    }

    /// A packet is of this connection.
    fn routed<'py>(
        &mut self,
        py: Python<'py>,
        handle: ConnectionHandle,
        packet: Packet,
        before: usize,
    ) -> PyResult<Outcome<'py>> {
        let Some(connection) = self
            .slots
            .get_mut(handle.0)
            .and_then(|slot| slot.connection.as_deref_mut())
        else {
            return Ok((DROPPED, 0, None, false));
        };
        let number = number(handle.0, connection.generation);
        if connection.is_throttled {
            let waiting = Waiting {
                handle: number,
                packet: Some(packet),
                allocated: memory::allocated().wrapping_sub(before),
            };
            let waiting = Bound::new(py, waiting)?.into_any();
            return Ok((WAITING, number, Some(waiting), false));
        }
        self.received(py, number, packet, before)
    }

    fn received<'py>(
        &mut self,
        py: Python<'py>,
        handle: u64,
        packet: Packet,
        before: usize,
    ) -> PyResult<Outcome<'py>> {
        let events = PyList::empty(py);
        let more = self.with_since(before, handle, |connection| {
            connection.quic.handle_event(packet.event);
            connection.follow(py, Some((packet.address, packet.remote)))?;
            connection.take_events(py, &events)?;
            PyResult::Ok(connection.streams.has_unread())
        });
        self.settle(index_of(handle));
        let more = more.transpose()?.unwrap_or(false);
        Ok((RECEIVED, handle, Some(events.into_any()), more))
    }

    fn admit<'py>(
        &mut self,
        py: Python<'py>,
        incoming: q::Incoming,
        address: &Bound<'py, PyTuple>,
        now: Instant,
        buffer: &mut Vec<u8>,
    ) -> PyResult<Outcome<'py>> {
        let outcome = |outcome| Ok((outcome, 0, None, false));
        if self.count >= self.max_connections {
            let until = self.refused_until.max(now) + REFUSAL_INTERVAL;
            if until > now + REFUSAL_BURST {
                self.quic.ignore(incoming);
            } else {
                self.refused_until = until;
                let sent = self.quic.refuse(incoming, buffer);
                self.answer(py, address, &buffer[..sent.size]);
            }
            return outcome(REFUSED);
        }
        if !incoming.remote_address_validated() && self.unfinished >= self.max_handshakes {
            return match self.quic.retry(incoming, buffer) {
                Ok(sent) => {
                    self.answer(py, address, &buffer[..sent.size]);
                    outcome(RETRY)
                }
                Err(error) => {
                    self.quic.ignore(error.into_incoming());
                    outcome(DROPPED)
                }
            };
        }
        match self.quic.accept(incoming, now, buffer, None) {
            Ok((handle, quic)) => {
                let number = self.add(handle, quic, address.clone().unbind());
                Ok((ACCEPTED, number, None, true))
            }
            Err(error) => {
                if let Some(sent) = error.response {
                    self.answer(py, address, &buffer[..sent.size]);
                    return outcome(FAILED);
                }
                outcome(DROPPED)
            }
        }
    }
}

fn number(index: usize, generation: u32) -> u64 {
    u64::from(generation) << 32 | index as u64
}

fn index_of(handle: u64) -> usize {
    (handle & 0xffff_ffff) as usize
}

fn direction(unidirectional: bool) -> Dir {
    if unidirectional { Dir::Uni } else { Dir::Bi }
}

fn varint(value: u64) -> PyResult<VarInt> {
    VarInt::from_u64(value)
        .map_err(|_| PyValueError::new_err(format!("{value} is more than 2^62 - 1")))
}

fn is_over() -> PyErr {
    QuicError::new_err((1, "the connection has ended"))
}

#[expect(clippy::needless_pass_by_value, reason = "for map_err")]
fn connect_error(error: ConnectError) -> PyErr {
    match error {
        ConnectError::CidsExhausted => QuicError::new_err((CONNECTION_REFUSED, error.to_string())),
        _ => PyOSError::new_err(error.to_string()),
    }
}

//! What quinn-proto does not keep of streams: bytes that it takes no more of, streams that wait for
//! credit, and which bytes a reader holds.

use std::collections::hash_map::Entry;
use std::collections::{HashMap, VecDeque};

use bytes::{Buf, Bytes};
use quinn_proto::{self as q, Dir, ReadError, Side, StreamId, VarInt, WriteError};

use crate::watch::End;

/// Bytes of a stream that are read at one time, unless one packet brought more. Credit is granted
/// for what is read, so as much may be granted for bytes that the reader then holds.
const READ_AT_ONCE: usize = 16 << 10;

/// Streams of a kind that the peer may have open at first: as many as with most servers, since pages
/// open many at once, and browsers do not wait for more. quinn-proto keeps a place for each that the
/// peer may open, so the limit is raised only when half of them are in use.
pub const FIRST_STREAMS: u32 = 100;

/// Receive windows, in bytes, and how many streams of each kind the peer may have open. Readers may
/// hold as much as a window before no more is read. As much again waits in quinn-proto then, so a
/// peer can have twice its window buffered.
#[derive(Clone, Copy)]
pub struct Windows {
    pub stream: usize,
    pub connection: usize,
    pub streams: [u32; 2],
}

/// Our side of a stream.
#[derive(Default)]
struct Sending {
    /// Whether the peer's limit has allowed it.
    opened: bool,
    queue: VecDeque<Bytes>,
    size: usize,
    end: bool,
    /// Whether quinn-proto has all bytes and the end.
    complete: bool,
    notify_below: Option<usize>,
}

/// The peer's side of a stream.
#[derive(Default)]
struct Receiving {
    /// Bytes that were read.
    read: u64,
    /// The final size, once it is known.
    size: Option<u64>,
    /// Whether it was stopped: it brings nothing more but its end.
    stopped: bool,
}

/// What reading a stream brought.
pub enum Read {
    Data(Vec<Bytes>, bool),
    /// With the code, and the final size.
    Reset(u64, u64),
}

/// The streams of one connection.
pub struct Streams {
    side: Side,
    sending: HashMap<StreamId, Sending>,
    /// The peer's sides that have not ended.
    receiving: HashMap<StreamId, Receiving>,
    /// The number of streams that the peer has opened.
    accepted: [u64; 2],
    /// The number of streams that we have opened, with those that wait for credit.
    given: [u64; 2],
    waiting: [VecDeque<StreamId>; 2],
    /// What to do with streams that were reset or stopped while they waited: the peer counts them as
    /// open once a later one is.
    reset_early: HashMap<StreamId, VarInt>,
    stopped_early: HashMap<StreamId, VarInt>,
    /// A stream that is open and not in use yet: quinn-proto says in no other way that one may be.
    reserve: [Option<StreamId>; 2],
    readable: VecDeque<StreamId>,
    held: HashMap<StreamId, usize>,
    held_total: usize,
    windows: Windows,
    /// Streams to reset when what was queued before has been sent, as far as it may be.
    resets: Vec<(StreamId, VarInt)>,
    stops: Vec<(StreamId, VarInt)>,
    /// The ends of streams that were stopped, of which quinn-proto says nothing more.
    pub ended: Vec<End>,
    pub writable: Vec<StreamId>,
}

impl Streams {
    pub fn new(side: Side, windows: Windows) -> Self {
        Self {
            side,
            sending: HashMap::new(),
            receiving: HashMap::new(),
            accepted: [0; 2],
            given: [0; 2],
            waiting: Default::default(),
            reset_early: HashMap::new(),
            stopped_early: HashMap::new(),
            reserve: [None; 2],
            readable: VecDeque::new(),
            held: HashMap::new(),
            held_total: 0,
            windows,
            resets: Vec::new(),
            stops: Vec::new(),
            ended: Vec::new(),
            writable: Vec::new(),
        }
    }

    /// The streams of a connection that has ended: none.
    pub fn emptied(&self) -> Self {
        Self::new(self.side, self.windows)
    }

    // Opening.

    pub fn can_open(&mut self, quic: &mut q::Connection, dir: Dir) -> bool {
        let at = dir as usize;
        if !self.waiting[at].is_empty() {
            return false;
        }
        if self.reserve[at].is_none() {
            self.reserve[at] = quic.streams().open(dir);
        }
        self.reserve[at].is_some()
    }

    pub fn open(&mut self, quic: &mut q::Connection, dir: Dir) -> StreamId {
        let at = dir as usize;
        let opened = self.can_open(quic, dir);
        let id = StreamId::new(self.side, dir, self.given[at]);
        self.given[at] += 1;
        self.reserve[at] = None;
        if !opened {
            self.waiting[at].push_back(id);
        }
        let state = Sending {
            opened,
            ..Sending::default()
        };
        self.sending.insert(id, state);
        if dir == Dir::Bi {
            self.receiving.insert(id, Receiving::default());
        }
        id
    }

    /// The peer raised its limit.
    pub fn credit_received(&mut self, quic: &mut q::Connection, dir: Dir) {
        while !self.waiting[dir as usize].is_empty() && quic.streams().open(dir).is_some() {
            let Some(id) = self.waiting[dir as usize].pop_front() else {
                return;
            };
            if let Some(state) = self.sending.get_mut(&id) {
                state.opened = true;
                self.flush(quic, id);
            } else if let Some(code) = self.reset_early.remove(&id) {
                self.resets.push((id, code));
            }
            if let Some(code) = self.stopped_early.remove(&id) {
                self.stops.push((id, code));
            }
        }
    }

    /// The peer opened streams.
    pub fn accept(&mut self, quic: &mut q::Connection, dir: Dir) {
        while let Some(id) = quic.streams().accept(dir) {
            self.accepted[dir as usize] = id.index() + 1;
            self.receiving.insert(id, Receiving::default());
            if dir == Dir::Bi {
                let state = Sending {
                    opened: true,
                    ..Sending::default()
                };
                self.sending.insert(id, state);
            }
            self.set_readable(id);
        }
        let limit = quic.max_concurrent_streams(dir);
        let most = u64::from(self.windows.streams[dir as usize]);
        if limit < most && 2 * quic.streams().remote_open_streams(dir) > limit {
            let limit = VarInt::from_u64((2 * limit).min(most));
            quic.set_max_concurrent_streams(dir, limit.unwrap_or(VarInt::MAX));
        }
    }

    // Sending.

    pub fn send(&mut self, quic: &mut q::Connection, id: StreamId, data: &[u8], end: bool) {
        let Some(state) = self.sending.get_mut(&id) else {
            return;
        };
        if state.end {
            return;
        }
        state.end = end;
        let mut rest = data;
        if state.opened && state.queue.is_empty() {
            while !rest.is_empty() {
                match quic.send_stream(id).write(rest) {
                    Ok(written) => rest = &rest[written..],
                    Err(WriteError::Blocked) => break,
                    // The owner of the stream is about to reset it.
                    Err(_) => return,
                }
            }
        }
        if !rest.is_empty() {
            state.size += rest.len();
            state.queue.push_back(Bytes::copy_from_slice(rest));
        } else if end && state.opened && state.queue.is_empty() {
            state.complete = true;
            let _ = quic.send_stream(id).finish();
        }
    }

    /// Pass what is queued on to quinn-proto.
    pub fn flush(&mut self, quic: &mut q::Connection, id: StreamId) {
        let Some(state) = self.sending.get_mut(&id).filter(|state| state.opened) else {
            return;
        };
        while let Some(first) = state.queue.front_mut() {
            match quic.send_stream(id).write(first) {
                Ok(written) => {
                    state.size -= written;
                    first.advance(written);
                    if first.is_empty() {
                        state.queue.pop_front();
                    }
                }
                Err(WriteError::Blocked) => break,
                Err(_) => {
                    state.queue.clear();
                    state.size = 0;
                }
            }
        }
        if state.end && !state.complete && state.queue.is_empty() {
            state.complete = true;
            let _ = quic.send_stream(id).finish();
        }
        if state.notify_below.is_some_and(|below| state.size <= below) {
            state.notify_below = None;
            self.writable.push(id);
        }
    }

    /// Everything arrived.
    pub fn finished(&mut self, id: StreamId) {
        self.sending.remove(&id);
    }

    /// Reset a stream later, when `reset_now` is called.
    pub fn reset(&mut self, id: StreamId, code: VarInt) -> usize {
        let Some(state) = self.sending.remove(&id) else {
            return 0;
        };
        if state.opened {
            self.resets.push((id, code));
        } else {
            self.reset_early.insert(id, code);
        }
        if state.notify_below.is_some() {
            self.writable.push(id);
        }
        state.size
    }

    /// Reset and stop the streams that are to be. Whether there are any.
    ///
    /// quinn-proto forgets what a stream that is reset has not sent, its header too, and sends
    /// these frames before the data of other streams, such as the reason why a session ended.
    pub fn reset_now(&mut self, quic: &mut q::Connection) -> bool {
        let any = !self.resets.is_empty() || !self.stops.is_empty();
        for (id, code) in self.stops.drain(..) {
            let _ = quic.recv_stream(id).stop(code);
        }
        for (id, code) in self.resets.drain(..) {
            let _ = quic.send_stream(id).reset(code);
        }
        any
    }

    pub fn buffered(&self, id: StreamId) -> usize {
        self.sending.get(&id).map_or(0, |state| state.size)
    }

    pub fn notify_writable(&mut self, id: StreamId, below: usize) {
        match self.sending.get_mut(&id) {
            Some(state) if state.size > below => state.notify_below = Some(below),
            _ => self.writable.push(id),
        }
    }

    /// Whether `STOP_SENDING` still matters (RFC 9000, section 3.5).
    pub fn is_sending(&self, id: StreamId) -> bool {
        self.sending.get(&id).is_some_and(|state| !state.complete)
    }

    // Receiving.

    pub fn set_readable(&mut self, id: StreamId) {
        if !self.readable.contains(&id) {
            self.readable.push_back(id);
        }
    }

    /// The streams to read. `read` keeps those that have more.
    pub fn take_readable(&mut self) -> VecDeque<StreamId> {
        std::mem::take(&mut self.readable)
    }

    /// A frame said where the peer's side of a stream ends.
    pub fn note_end(&mut self, end: End) {
        let Ok(id) = VarInt::from_u64(end.stream) else {
            return;
        };
        let id = StreamId::from(id);
        // Not of a stream that has ended: such a frame may be repeated.
        let Entry::Occupied(mut receiving) = self.receiving.entry(id) else {
            return;
        };
        if receiving.get().stopped {
            receiving.remove();
            self.ended.push(end);
        } else {
            receiving.get_mut().size = Some(end.size);
        }
    }

    /// Read what a stream has, unless its reader holds bytes.
    pub fn read(&mut self, quic: &mut q::Connection, id: StreamId) -> Option<Read> {
        let is_held = self.is_held(id);
        let Entry::Occupied(mut entry) = self.receiving.entry(id) else {
            return None;
        };
        if entry.get().stopped {
            return None;
        }
        let reset = |receiving: Receiving, code: VarInt| {
            let size = receiving.size.unwrap_or(receiving.read);
            Some(Read::Reset(code.into_inner(), size))
        };
        let mut stream = quic.recv_stream(id);
        if is_held {
            if let Ok(Some(code)) = stream.received_reset() {
                return reset(entry.remove(), code);
            }
            self.readable.push_back(id);
            return None;
        }
        let Ok(mut chunks) = stream.read(true) else {
            entry.remove();
            return None;
        };
        let (mut data, mut size, mut end) = (Vec::new(), 0, false);
        while size < READ_AT_ONCE {
            match chunks.next(usize::MAX) {
                Ok(Some(chunk)) => {
                    size += chunk.bytes.len();
                    data.push(chunk.bytes);
                }
                Ok(None) => {
                    end = true;
                    break;
                }
                Err(ReadError::Blocked) => break,
                Err(ReadError::Reset(code)) => {
                    let _ = chunks.finalize();
                    return reset(entry.remove(), code);
                }
            }
        }
        let _ = chunks.finalize();
        if end {
            entry.remove();
        } else {
            entry.get_mut().read += size as u64;
            if size >= READ_AT_ONCE {
                self.readable.push_back(id);
            }
        }
        (end || size > 0).then_some(Read::Data(data, end))
    }

    /// Whether `read` may bring something.
    pub fn has_unread(&self) -> bool {
        self.readable.iter().any(|id| !self.is_held(*id))
    }

    pub fn hold(&mut self, id: StreamId, size: usize) {
        let held = self.held.entry(id).or_default();
        *held = held.saturating_add(size);
        self.held_total = self.held_total.saturating_add(size);
    }

    pub fn release(&mut self, id: StreamId, size: usize) {
        if let Entry::Occupied(mut held) = self.held.entry(id) {
            if *held.get() > size {
                *held.get_mut() -= size;
                self.held_total = self.held_total.saturating_sub(size);
            } else {
                self.held_total = self.held_total.saturating_sub(held.remove());
            }
        }
    }

    /// Stop a stream later, when `reset_now` is called. It brings nothing more but its end.
    pub fn stop(&mut self, id: StreamId, code: VarInt) -> bool {
        let is_waiting = self.is_waiting(id);
        let Entry::Occupied(mut entry) = self.receiving.entry(id) else {
            return false;
        };
        if entry.get().stopped {
            return false;
        }
        if is_waiting {
            self.stopped_early.insert(id, code);
        } else {
            self.stops.push((id, code));
        }
        if let Some(size) = entry.get().size {
            entry.remove();
            let (stream, code) = (id.into(), None);
            self.ended.push(End { stream, code, size });
        } else {
            entry.get_mut().stopped = true;
        }
        true
    }

    /// Whether the peer's side of a stream that it opened has ended.
    pub fn is_receive_closed(&self, id: StreamId) -> bool {
        id.index() < self.accepted[id.dir() as usize] && !self.receiving.contains_key(&id)
    }

    /// Bytes that readers hold.
    pub fn held_total(&self) -> usize {
        self.held_total
    }

    fn is_held(&self, id: StreamId) -> bool {
        self.held.get(&id).is_some_and(|held| {
            *held >= self.windows.stream || self.held_total >= self.windows.connection
        })
    }

    fn is_waiting(&self, id: StreamId) -> bool {
        id.initiator() == self.side && self.waiting[id.dir() as usize].contains(&id)
    }
}

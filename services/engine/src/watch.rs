//! What quinn-proto does not say of the packets that a peer sends: with which size a stream ended
//! that was not read to its end, and how many packets were duplicates. Both are taken from packets
//! as they are decrypted, so of authentic ones only.

use std::any::Any;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::BytesMut;
use quinn_proto::crypto::{
    ClientConfig, CryptoError, ExportKeyingMaterialError, HeaderKey, KeyPair, Keys, PacketKey,
    ServerConfig, Session, UnsupportedVersion,
};
use quinn_proto::transport_parameters::TransportParameters;
use quinn_proto::{ConnectError, ConnectionId, Side, TransportError};

use crate::frames;

/// The end of a stream.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct End {
    pub stream: u64,
    /// Of `RESET_STREAM`; none of a stream that was sent completely.
    pub code: Option<u64>,
    /// Bytes that the peer sent, whether they arrived or not.
    pub size: u64,
}

/// What was seen of a connection's packets.
#[derive(Default)]
struct Record {
    ends: Vec<End>,
    duplicates: u64,
    /// The highest packet number, and which of the 128 up to it arrived.
    highest: u64,
    arrived: u128,
}

impl Record {
    fn add(&mut self, packet: u64, payload: &[u8]) {
        let ahead = packet.saturating_sub(self.highest);
        if ahead > 0 {
            let shift = u32::try_from(ahead).unwrap_or(u32::MAX);
            self.arrived = self.arrived.checked_shl(shift).unwrap_or(0);
            self.highest = packet;
        }
        let behind = u32::try_from(self.highest - packet).unwrap_or(u32::MAX);
        match 1_u128.checked_shl(behind) {
            Some(bit) if self.arrived & bit != 0 => {
                self.duplicates += 1;
                return;
            }
            Some(bit) => self.arrived |= bit,
            // Whether it is a duplicate is not known, but quinn-proto remembers one packet more and
            // may process it. Where it does not, an end that is noted too early does no harm.
            None => {}
        }
        frames::find_ends(payload, &mut self.ends);
    }
}

/// What was seen of a connection's packets, for those who share it.
#[derive(Clone, Default)]
pub struct Seen(Arc<Mutex<Record>>);

impl Seen {
    /// That of a connection.
    pub fn of(session: &dyn Session) -> Self {
        let data = session.handshake_data();
        let seen = data.and_then(|data| data.downcast::<Self>().ok());
        seen.map_or_else(Self::default, |seen| *seen)
    }

    /// The ends that were seen since the last call. A packet that is repeated has none, but a frame
    /// that is has.
    pub fn take_ends(&self) -> Vec<End> {
        std::mem::take(&mut self.lock().ends)
    }

    /// 1-RTT packets that the network duplicated.
    pub fn duplicates(&self) -> u64 {
        self.lock().duplicates
    }

    fn lock(&self) -> MutexGuard<'_, Record> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A configuration of TLS whose sessions are watched.
pub struct Watched<T>(pub Arc<T>);

impl<T: ClientConfig> ClientConfig for Watched<T> {
    fn start_session(
        self: Arc<Self>,
        version: u32,
        server_name: &str,
        params: &TransportParameters,
    ) -> Result<Box<dyn Session>, ConnectError> {
        let session = self.0.clone().start_session(version, server_name, params)?;
        Ok(Box::new(WatchedSession::new(session)))
    }
}

impl<T: ServerConfig> ServerConfig for Watched<T> {
    fn initial_keys(
        &self,
        version: u32,
        dst_cid: &ConnectionId,
    ) -> Result<Keys, UnsupportedVersion> {
        self.0.initial_keys(version, dst_cid)
    }

    fn retry_tag(&self, version: u32, orig_dst_cid: &ConnectionId, packet: &[u8]) -> [u8; 16] {
        self.0.retry_tag(version, orig_dst_cid, packet)
    }

    fn start_session(
        self: Arc<Self>,
        version: u32,
        params: &TransportParameters,
    ) -> Box<dyn Session> {
        let session = self.0.clone().start_session(version, params);
        Box::new(WatchedSession::new(session))
    }
}

struct WatchedSession {
    session: Box<dyn Session>,
    seen: Seen,
    has_handshake_keys: bool,
}

impl WatchedSession {
    fn new(session: Box<dyn Session>) -> Self {
        Self {
            session,
            seen: Seen::default(),
            has_handshake_keys: false,
        }
    }

    fn watch(&self, key: Box<dyn PacketKey>) -> Box<dyn PacketKey> {
        let seen = self.seen.clone();
        Box::new(WatchedKey { key, seen })
    }
}

impl Session for WatchedSession {
    fn initial_keys(&self, dst_cid: &ConnectionId, side: Side) -> Keys {
        self.session.initial_keys(dst_cid, side)
    }

    /// What is seen. quinn-proto has no other way from a session to its connection, and what it has
    /// of the handshake here, the name and the protocol, is of no use: both are known.
    fn handshake_data(&self) -> Option<Box<dyn Any>> {
        Some(Box::new(self.seen.clone()))
    }

    fn peer_identity(&self) -> Option<Box<dyn Any>> {
        self.session.peer_identity()
    }

    fn early_crypto(&self) -> Option<(Box<dyn HeaderKey>, Box<dyn PacketKey>)> {
        self.session.early_crypto()
    }

    fn early_data_accepted(&self) -> Option<bool> {
        self.session.early_data_accepted()
    }

    fn is_handshaking(&self) -> bool {
        self.session.is_handshaking()
    }

    fn read_handshake(&mut self, buf: &[u8]) -> Result<bool, TransportError> {
        self.session.read_handshake(buf)
    }

    fn transport_parameters(&self) -> Result<Option<TransportParameters>, TransportError> {
        self.session.transport_parameters()
    }

    fn write_handshake(&mut self, buf: &mut Vec<u8>) -> Option<Keys> {
        let mut keys = self.session.write_handshake(buf)?;
        // The keys of Handshake packets are the first ones, those of 1-RTT packets the second.
        if self.has_handshake_keys {
            keys.packet.remote = self.watch(keys.packet.remote);
        }
        self.has_handshake_keys = true;
        Some(keys)
    }

    fn next_1rtt_keys(&mut self) -> Option<KeyPair<Box<dyn PacketKey>>> {
        let mut keys = self.session.next_1rtt_keys()?;
        keys.remote = self.watch(keys.remote);
        Some(keys)
    }

    fn is_valid_retry(&self, orig_dst_cid: &ConnectionId, header: &[u8], payload: &[u8]) -> bool {
        self.session.is_valid_retry(orig_dst_cid, header, payload)
    }

    fn export_keying_material(
        &self,
        output: &mut [u8],
        label: &[u8],
        context: &[u8],
    ) -> Result<(), ExportKeyingMaterialError> {
        self.session.export_keying_material(output, label, context)
    }
}

struct WatchedKey {
    key: Box<dyn PacketKey>,
    seen: Seen,
}

impl PacketKey for WatchedKey {
    fn encrypt(&self, packet: u64, buf: &mut [u8], header_len: usize) {
        self.key.encrypt(packet, buf, header_len);
    }

    fn decrypt(
        &self,
        packet: u64,
        header: &[u8],
        payload: &mut BytesMut,
    ) -> Result<(), CryptoError> {
        self.key.decrypt(packet, header, payload)?;
        self.seen.lock().add(packet, payload);
        Ok(())
    }

    fn tag_len(&self) -> usize {
        self.key.tag_len()
    }

    fn confidentiality_limit(&self) -> u64 {
        self.key.confidentiality_limit()
    }

    fn integrity_limit(&self) -> u64 {
        self.key.integrity_limit()
    }
}

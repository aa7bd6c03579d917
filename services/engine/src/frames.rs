//! Finds the ends of streams in the frames of a packet (RFC 9000, section 19).

use crate::varint;
use crate::watch::End;

const ACK: u64 = 0x02;
const ACK_ECN: u64 = 0x03;
const RESET_STREAM: u64 = 0x04;
const NEW_TOKEN: u64 = 0x07;
const STREAM: u64 = 0x08;
const STREAM_LAST: u64 = 0x0f;
const NEW_CONNECTION_ID: u64 = 0x18;
const PATH_CHALLENGE: u64 = 0x1a;
const PATH_RESPONSE: u64 = 0x1b;
const DATAGRAM_WITH_LENGTH: u64 = 0x31;
/// Of the extension by which quinn-proto lets its peer ask for fewer acknowledgements, with
/// `IMMEDIATE_ACK`.
const ACK_FREQUENCY: u64 = 0xaf;
/// Bits of the type of a STREAM frame.
const OFFSET: u64 = 0x04;
const LENGTH: u64 = 0x02;
const FIN: u64 = 0x01;
const RESET_TOKEN: u64 = 16;

/// Add the ends of streams. What follows a frame that cannot be read is left: the connection ends
/// by it.
pub fn find_ends(payload: &[u8], ends: &mut Vec<End>) {
    let mut rest = payload;
    while !rest.is_empty() {
        if take_frame(&mut rest, ends).is_none() {
            return;
        }
    }
}

/// Take a frame; None if it cannot be read, or if the packet has no more.
fn take_frame(rest: &mut &[u8], ends: &mut Vec<End>) -> Option<()> {
    let kind = varint::take(rest)?;
    match kind {
        // PADDING, PING, HANDSHAKE_DONE, IMMEDIATE_ACK.
        0x00 | 0x01 | 0x1e | 0x1f => {}
        ACK | ACK_ECN => {
            skip_integers(rest, 2)?;
            let ranges = varint::take(rest)?;
            skip_integers(rest, 1)?;
            for _ in 0..ranges {
                skip_integers(rest, 2)?;
            }
            if kind == ACK_ECN {
                skip_integers(rest, 3)?;
            }
        }
        RESET_STREAM => {
            let stream = varint::take(rest)?;
            let code = Some(varint::take(rest)?);
            let size = varint::take(rest)?;
            ends.push(End { stream, code, size });
        }
        NEW_TOKEN => {
            let size = varint::take(rest)?;
            skip(rest, size)?;
        }
        STREAM..=STREAM_LAST => {
            let stream = varint::take(rest)?;
            let has = |bit| kind & bit != 0;
            let offset = if has(OFFSET) { varint::take(rest)? } else { 0 };
            let size = if has(LENGTH) {
                varint::take(rest)?
            } else {
                rest.len() as u64
            };
            skip(rest, size)?;
            if has(FIN) {
                let size = offset.checked_add(size)?;
                let code = None;
                ends.push(End { stream, code, size });
            }
        }
        // MAX_DATA, MAX_STREAMS, DATA_BLOCKED, STREAMS_BLOCKED, RETIRE_CONNECTION_ID.
        0x10 | 0x12..=0x14 | 0x16 | 0x17 | 0x19 => skip_integers(rest, 1)?,
        // STOP_SENDING, MAX_STREAM_DATA, STREAM_DATA_BLOCKED.
        0x05 | 0x11 | 0x15 => skip_integers(rest, 2)?,
        // CRYPTO.
        0x06 => {
            skip_integers(rest, 1)?;
            let size = varint::take(rest)?;
            skip(rest, size)?;
        }
        NEW_CONNECTION_ID => {
            skip_integers(rest, 2)?;
            let (size, after) = rest.split_first()?;
            *rest = after;
            skip(rest, u64::from(*size) + RESET_TOKEN)?;
        }
        PATH_CHALLENGE | PATH_RESPONSE => skip(rest, 8)?,
        ACK_FREQUENCY => skip_integers(rest, 4)?,
        DATAGRAM_WITH_LENGTH => {
            let size = varint::take(rest)?;
            skip(rest, size)?;
        }
        // CONNECTION_CLOSE, a DATAGRAM that has the rest of the packet, and extensions that are not
        // offered.
        _ => return None,
    }
    Some(())
}

fn skip_integers(rest: &mut &[u8], count: usize) -> Option<()> {
    for _ in 0..count {
        varint::take(rest)?;
    }
    Some(())
}

fn skip(rest: &mut &[u8], size: u64) -> Option<()> {
    let size = usize::try_from(size).ok()?;
    *rest = rest.get(size..)?;
    Some(())
}

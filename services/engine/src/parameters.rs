//! Reads what quinn-proto does not tell of the peer's transport parameters.

use std::time::Duration;

use quinn_proto::transport_parameters::TransportParameters;

const MAX_IDLE_TIMEOUT: u64 = 0x01;

/// The peer's idle timeout; none if it has none (RFC 9000, section 18.2).
pub fn idle_timeout(parameters: &TransportParameters) -> Option<Duration> {
    let mut encoded = Vec::new();
    parameters.write(&mut encoded);
    let mut rest = encoded.as_slice();
    while !rest.is_empty() {
        let id = varint(&mut rest)?;
        let size = usize::try_from(varint(&mut rest)?).ok()?;
        let (mut value, after) = rest.split_at_checked(size)?;
        if id == MAX_IDLE_TIMEOUT {
            return varint(&mut value)
                .filter(|ms| *ms > 0)
                .map(Duration::from_millis);
        }
        rest = after;
    }
    None
}

/// Take a variable-length integer (RFC 9000, section 16).
fn varint(data: &mut &[u8]) -> Option<u64> {
    let first = *data.first()?;
    let (encoded, rest) = data.split_at_checked(1 << (first >> 6))?;
    *data = rest;
    Some(
        encoded[1..]
            .iter()
            .fold(u64::from(first & 0x3f), |value, byte| {
                value << 8 | u64::from(*byte)
            }),
    )
}

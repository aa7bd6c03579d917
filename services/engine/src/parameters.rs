//! Reads what quinn-proto does not tell of the peer's transport parameters.

use std::time::Duration;

use quinn_proto::transport_parameters::TransportParameters;

use crate::varint;

const MAX_IDLE_TIMEOUT: u64 = 0x01;

/// The peer's idle timeout; none if it has none (RFC 9000, section 18.2).
pub fn idle_timeout(parameters: &TransportParameters) -> Option<Duration> {
    let mut encoded = Vec::new();
    parameters.write(&mut encoded);
    let mut rest = encoded.as_slice();
    while !rest.is_empty() {
        let id = varint::take(&mut rest)?;
        let size = usize::try_from(varint::take(&mut rest)?).ok()?;
        let (mut value, after) = rest.split_at_checked(size)?;
        if id == MAX_IDLE_TIMEOUT {
            return varint::take(&mut value)
                .filter(|ms| *ms > 0)
                .map(Duration::from_millis);
        }
        rest = after;
    }
    None
}

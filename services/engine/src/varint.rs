//! Variable-length integers (RFC 9000, section 16).

/// Take an integer from the front.
pub fn take(data: &mut &[u8]) -> Option<u64> {
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

//! Reading numbers and names from bytes that may end anywhere.

/// A 32-bit number in this machine's byte order.
pub fn u32_at(data: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_ne_bytes(*data.get(at..)?.first_chunk()?))
}

/// FNV-1a: names are short, and the standard hasher costs more than the look-ups it saves.
pub fn hash(name: &[u8]) -> u32 {
    name.iter().fold(0x811c_9dc5, |hash, byte| (hash ^ u32::from(*byte)).wrapping_mul(0x0100_0193))
}

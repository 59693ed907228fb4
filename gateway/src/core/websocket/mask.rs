//! The masking of RFC 6455 §5.3: an XOR with a four-byte key, eight bytes at a time.
//!
//! The key comes from the caller: this file has no randomness, and masking is no secret, it only keeps middleboxes from
//! taking a client's payload for HTTP.

/// Masks or unmasks `data` in place; the two are the same operation. `offset` is how many bytes of the frame's payload came
/// before `data`: "Octet i of the transformed data is the XOR of octet i of the original data with octet at index i modulo 4
/// of the masking key" (RFC 6455 §5.3).
pub fn apply_mask(data: &mut [u8], key: [u8; 4], offset: u64) {
    let mut key = key;
    // Below 4 whatever the type, so the cast loses nothing.
    key.rotate_left((offset % 4) as usize);
    let [a, b, c, d] = key;
    let wide = u64::from_ne_bytes([a, b, c, d, a, b, c, d]);
    let (chunks, tail) = data.as_chunks_mut::<8>();
    for chunk in chunks {
        *chunk = (u64::from_ne_bytes(*chunk) ^ wide).to_ne_bytes();
    }
    for (byte, key) in tail.iter_mut().zip(key.iter().cycle()) {
        *byte ^= key;
    }
}

#[cfg(test)]
mod tests {
    use super::apply_mask;

    fn naive(data: &mut [u8], key: [u8; 4], offset: u64) {
        for (index, byte) in data.iter_mut().enumerate() {
            *byte ^= key[(index + offset as usize) % 4];
        }
    }

    #[test]
    fn equals_the_definition_at_every_length_alignment_and_offset() {
        let original: Vec<u8> = (0..96_u8).map(|n| n.wrapping_mul(37)).collect();
        let key = [0x37, 0xfa, 0x21, 0x3d];
        for start in 0..8 {
            for end in start..original.len() {
                for offset in [0, 1, 2, 3, 4, 7, u64::from(u32::MAX)] {
                    let mut fast = original[start..end].to_vec();
                    let mut slow = fast.clone();
                    apply_mask(&mut fast, key, offset);
                    naive(&mut slow, key, offset);
                    assert_eq!(fast, slow, "{start}..{end} at {offset}");
                    apply_mask(&mut fast, key, offset);
                    assert_eq!(fast, original[start..end]);
                }
            }
        }
    }

    #[test]
    fn masks_the_hello_of_rfc_6455_section_5_7() {
        let mut data = *b"Hello";
        apply_mask(&mut data, [0x37, 0xfa, 0x21, 0x3d], 0);
        assert_eq!(data, [0x7f, 0x9f, 0x4d, 0x51, 0x58]);
    }
}

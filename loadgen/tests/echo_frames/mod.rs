//! What an echo server makes of a client's frames.

/// A frame as the server sends it back, and how many bytes it took.
pub(crate) fn unmask(input: &[u8]) -> Option<(Vec<u8>, usize)> {
    let (&first, &second) = (input.first()?, input.get(1)?);
    let (length, header) = match second & 0x7F {
        126 => (usize::from(u16::from_be_bytes([*input.get(2)?, *input.get(3)?])), 4),
        length => (usize::from(length), 2),
    };
    let (mask, payload) = (input.get(header..header + 4)?, input.get(header + 4..header + 4 + length)?);
    let mut frame = vec![first, second & 0x7F];
    frame.extend(&input[2..header]);
    frame.extend(payload.iter().zip(mask.iter().cycle()).map(|(byte, mask)| byte ^ mask));
    Some((frame, header + 4 + length))
}

//! Histograms as text, for `serde(with)`: HdrHistogram's own V2 form in base64. Nothing is lost on the way, so what several
//! processes measured merges as if one had.

use base64::{Engine as _, engine::general_purpose::STANDARD};
use hdrhistogram::{
    Histogram,
    serialization::{Deserializer as Reader, Serializer as _, V2Serializer},
};
use serde::{Deserialize as _, Deserializer, Serializer, de::Error as _, ser::Error as _};

/// Longest text that is read: three digits up to ten minutes need less than 200 KB before base64.
const TEXT_BYTES_MAX: usize = 1 << 20;

/// Writes.
pub fn serialize<S: Serializer>(histogram: &Histogram<u64>, serializer: S) -> Result<S::Ok, S::Error> {
    let mut bytes = Vec::new();
    V2Serializer::new().serialize(histogram, &mut bytes).map_err(|error| S::Error::custom(format!("{error:?}")))?;
    serializer.serialize_str(&STANDARD.encode(bytes))
}

/// Reads.
pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Histogram<u64>, D::Error> {
    let text = String::deserialize(deserializer)?;
    if text.len() > TEXT_BYTES_MAX {
        return Err(D::Error::custom("a histogram is too long"));
    }
    let bytes = STANDARD.decode(text).map_err(D::Error::custom)?;
    Reader::new().deserialize(&mut bytes.as_slice()).map_err(|error| D::Error::custom(format!("{error:?}")))
}

#[cfg(test)]
mod tests {
    use crate::measure::{Latencies, record};

    #[test]
    fn histograms_merge_over_text_exactly() {
        let (mut whole, mut halves) = (Latencies::new(1), [Latencies::new(1), Latencies::new(1)]);
        for step in 0..50_000_u64 {
            let until_ns = step * step * 37;
            record(&mut whole.send_to_ack, 0, until_ns);
            record(&mut halves[(step % 2) as usize].send_to_ack, 0, until_ns);
        }
        let mut merged = Latencies::new(1);
        for half in &halves {
            let text = serde_json::to_string(half).unwrap();
            merged.add(&serde_json::from_str(&text).unwrap());
        }
        assert_eq!(merged.send_to_ack, whole.send_to_ack);
        assert_eq!(merged.send_to_ack.max(), whole.send_to_ack.max());
    }

    #[test]
    fn broken_text_is_an_error() {
        for text in [r#""""#, r#""!!!""#, r#""AAAA""#, "7"] {
            let mut reader = serde_json::Deserializer::from_str(text);
            assert!(super::deserialize(&mut reader).is_err(), "{text}");
        }
    }
}

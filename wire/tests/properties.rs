//! Any frame survives either encoding, and one encoding after the other; any bytes are read without a panic.

mod arbitrary;

use antiphon_wire::{
    codec::Encoding,
    frame::{EntryBytes, ServerFrame},
    ids::RequestId,
};
use proptest::prelude::*;

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(512) })]

    #[test]
    fn requests_survive(request in arbitrary::request(), id in any::<u32>()) {
        let id = (id != 0).then_some(RequestId(id));
        let json = Encoding::Json.encode_request(id, &request);
        let (json_id, from_json) = Encoding::Json.decode_request(&json).unwrap();
        let rkyv = Encoding::Rkyv.encode_request(json_id, &from_json);
        let from_both = Encoding::Rkyv.decode_request(&rkyv).unwrap();
        prop_assert_eq!(&from_both, &(id, request));
        prop_assert_eq!(Encoding::Json.encode_request(from_both.0, &from_both.1), json);
    }

    #[test]
    fn server_frames_survive(frame in arbitrary::server(), id in any::<u32>()) {
        let id = (id != 0).then_some(RequestId(id));
        let json = Encoding::Json.encode_server(id, &frame);
        let (json_id, from_json) = Encoding::Json.decode_server(&json).unwrap();
        let rkyv = Encoding::Rkyv.encode_server(json_id, &from_json);
        let from_both = Encoding::Rkyv.decode_server(&rkyv).unwrap();
        prop_assert_eq!(&from_both, &(id, frame));
        prop_assert_eq!(Encoding::Json.encode_server(from_both.0, &from_both.1), json);
    }

    #[test]
    fn an_entry_is_its_archive_whichever_way_it_goes(entry in arbitrary::entry()) {
        let archive = entry.to_archive();
        for encoding in Encoding::ALL {
            let (_, frame) = encoding.decode_server(&encoding.encode_message(&archive)).unwrap();
            prop_assert_eq!(frame, ServerFrame::Message(EntryBytes(archive.to_vec())));
        }
    }

    #[test]
    fn cut_and_changed_frames_are_refused_or_read(
        request in arbitrary::request(),
        server in arbitrary::server(),
        cut in any::<prop::sample::Index>(),
        change in any::<(prop::sample::Index, u8)>(),
    ) {
        for encoding in Encoding::ALL {
            for mut bytes in [encoding.encode_request(None, &request), encoding.encode_server(None, &server)] {
                let _ = encoding.decode_request(&bytes[..cut.index(bytes.len())]);
                let _ = encoding.decode_server(&bytes[..cut.index(bytes.len())]);
                let place = change.0.index(bytes.len());
                bytes[place] = change.1;
                let _ = encoding.decode_request(&bytes);
                let _ = encoding.decode_server(&bytes);
            }
        }
    }
}

//! Golden vectors: every frame in both encodings and every kind of entry, as files. A file that no longer fits fails here: the wire
//! of a published version does not change. `GOLDEN_WRITE=1` writes files that are missing, never ones that are there.

mod samples;

use std::{collections::BTreeSet, fs, path::Path};

use antiphon_wire::{
    codec::Encoding,
    frame::{EntryBytes, Request, ServerFrame},
    ids::RequestId,
};

const ID: Option<RequestId> = Some(RequestId(7));

fn directory() -> std::path::PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/v1")
}

/// The file's text, which is `expect` unless something changed.
fn golden(seen: &mut BTreeSet<String>, name: String, expect: &str) -> String {
    let path = directory().join(&name);
    if !path.exists() && std::env::var_os("GOLDEN_WRITE").is_some() {
        fs::write(&path, expect).unwrap();
    }
    let text = fs::read_to_string(&path).unwrap_or_else(|_| panic!("{name} is missing; GOLDEN_WRITE=1 writes it"));
    assert_eq!(text, expect, "{name} no longer fits");
    seen.insert(name);
    text
}

/// Lines of 32 bytes.
fn hex(bytes: &[u8]) -> String {
    let line = |chunk: &[u8]| chunk.iter().map(|byte| format!("{byte:02x}")).collect::<String>() + "\n";
    bytes.chunks(32).map(line).collect()
}

fn unhex(text: &str) -> Vec<u8> {
    let digits: Vec<u8> = text.bytes().filter(u8::is_ascii_hexdigit).collect();
    digits.chunks(2).map(|pair| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap()).collect()
}

/// A push has no id, and neither has an error of the connection.
fn id_of(frame: &ServerFrame) -> Option<RequestId> {
    use ServerFrame::{
        Advanced, CaughtUp, Event, Expiring, Goodbye, Left, Mentioned, Message, Present, Receipt, States, TooFar,
    };
    match frame {
        Message(_) | Receipt(_) | Left(_) | TooFar(_) | CaughtUp(_) | Goodbye(_) | States(_) | Event(_)
        | Expiring(_) | Present(_) | Advanced(_) | Mentioned(_) => None,
        _ => ID,
    }
}

#[test]
fn every_frame_is_as_it_was() {
    let mut seen = BTreeSet::new();
    for (name, request) in samples::requests() {
        let json = String::from_utf8(Encoding::Json.encode_request(ID, &request)).unwrap() + "\n";
        let json = golden(&mut seen, format!("request-{name}.json"), &json);
        assert_eq!(Encoding::Json.decode_request(json.as_bytes()).unwrap(), (ID, request.clone()), "{name}");
        let rkyv = hex(&Encoding::Rkyv.encode_request(ID, &request));
        let rkyv = unhex(&golden(&mut seen, format!("request-{name}.hex"), &rkyv));
        assert_eq!(Encoding::Rkyv.decode_request(&rkyv).unwrap(), (ID, request), "{name}");
    }
    for (name, frame) in samples::server() {
        let id = id_of(&frame);
        let json = String::from_utf8(Encoding::Json.encode_server(id, &frame)).unwrap() + "\n";
        let json = golden(&mut seen, format!("server-{name}.json"), &json);
        assert_eq!(Encoding::Json.decode_server(json.as_bytes()).unwrap(), (id, frame.clone()), "{name}");
        let rkyv = hex(&Encoding::Rkyv.encode_server(id, &frame));
        let rkyv = unhex(&golden(&mut seen, format!("server-{name}.hex"), &rkyv));
        assert_eq!(Encoding::Rkyv.decode_server(&rkyv).unwrap(), (id, frame), "{name}");
    }
    for (name, entry) in samples::entries() {
        let archive = entry.to_archive();
        let stored = unhex(&golden(&mut seen, format!("entry-{name}.hex"), &hex(&archive)));
        let push = ServerFrame::Message(EntryBytes(stored));
        for encoding in Encoding::ALL {
            assert_eq!(encoding.encode_message(&archive), encoding.encode_server(None, &push), "{name}");
        }
    }
    let files = fs::read_dir(directory()).unwrap().map(|file| file.unwrap().file_name().into_string().unwrap());
    assert_eq!(files.collect::<BTreeSet<_>>(), seen, "a file without a sample");
}

#[test]
fn every_kind_has_a_sample() {
    let kinds = |frames: Vec<Vec<u8>>| frames.iter().map(|bytes| bytes[0]).collect::<BTreeSet<u8>>();
    let requests = samples::requests();
    let requests = requests.iter().map(|(_, request)| Encoding::Rkyv.encode_request(ID, request));
    assert!(kinds(requests.collect()).into_iter().eq(1..=28));
    let server = samples::server();
    let server = server.iter().map(|(_, frame)| Encoding::Rkyv.encode_server(ID, frame));
    assert!(kinds(server.collect()).into_iter().eq((1..=28).chain(64..=76)));
}

#[test]
fn small_frames_stay_small() {
    let length = |name: &str| {
        let requests = samples::requests();
        let (_, request) = requests.iter().find(|(other, _)| *other == name).unwrap();
        Encoding::Rkyv.encode_request(ID, request).len()
    };
    let server_length = |name: &str| {
        let server = samples::server();
        let (_, frame) = server.iter().find(|(other, _)| *other == name).unwrap();
        Encoding::Rkyv.encode_server(ID, frame).len()
    };
    assert!(length("ping") <= 16);
    assert!(length("read") <= 40 && length("delivered") <= 40);
    assert!(length("send") <= 8 + 16 + 16 + 8 + 1 + "Hi \"Bob\" 🎵".len());
    assert!(server_length("ack") <= 40);
    assert!(server_length("receipt") <= 64);
    assert!(server_length("left") <= 40);
    assert!(server_length("pong") <= 48);
    // What an entry costs beside its text.
    let (_, entry) = samples::entries().swap_remove(1);
    assert!(entry.to_archive().len() <= entry.body.len() + 80, "{}", entry.to_archive().len());
    assert!(size_of::<Request>() <= 160 && size_of::<ServerFrame>() <= 160);
}

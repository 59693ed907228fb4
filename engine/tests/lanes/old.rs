//! A store of an older version is given other lanes like any other; one of a newer version is left alone.

use std::{fs, path::PathBuf};

use antiphon_engine::{
    EngineError, error::StoreError, manifest::VERSION, memory_files::MemoryFiles, offline::LanesError,
};

use crate::world::{assert_sound, dump_all, image, manifest, spread};

fn golden() -> (MemoryFiles, Vec<String>) {
    let place = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/golden/store-v1");
    let files = MemoryFiles::new(0);
    for entry in fs::read_dir(&place).unwrap() {
        let path = entry.unwrap().path();
        files.put(path.file_name().unwrap().to_str().unwrap(), fs::read(&path).unwrap());
    }
    let dump = fs::read_to_string(place.with_extension("jsonl")).unwrap();
    let is_content = |line: &&str| !line.starts_with("{\"lane\":") && !line.starts_with("{\"end\":");
    let mut lines: Vec<String> = dump.lines().filter(is_content).map(str::to_owned).collect();
    lines.sort();
    (files, lines)
}

#[test]
fn a_store_of_version_1_is_given_lanes_and_back() {
    let (files, lines) = golden();
    let mut folders = vec![files];
    for (lanes, seed) in [(3, 1), (2, 2), (1, 3)] {
        let (new, made) = spread(&folders, lanes, seed);
        made.unwrap();
        for (lane, files) in (0..).zip(&new) {
            assert_sound(lane, files);
        }
        assert_eq!(dump_all(&new), lines, "{lanes} lanes");
        folders = new;
    }
    assert!(manifest(&folders[0]).segments.iter().any(|of| of.adopted.is_some()));
}

/// A program from before lanes could change refuses a manifest that names adopted segments, and reads any other.
#[test]
fn the_manifests_version_tells_whether_segments_were_adopted() {
    let version = |files: &MemoryFiles| files.contents("manifest").unwrap()[8];
    let (files, _) = golden();
    assert_eq!(version(&files), 1);
    let (new, _) = spread(std::slice::from_ref(&files), 2, 1);
    assert_eq!(new.iter().map(version).collect::<Vec<_>>(), [2, 2]);
    let (empty, made) = spread(&[MemoryFiles::new(1)], 2, 1);
    made.unwrap();
    assert_eq!(empty.iter().map(version).collect::<Vec<_>>(), [1, 1]);
}

#[test]
fn a_newer_store_is_left_alone() {
    let (files, _) = golden();
    let mut bytes = files.contents("manifest").unwrap();
    bytes[8] = VERSION as u8 + 1;
    let length = u32::from_le_bytes(bytes[12..16].try_into().unwrap()) as usize;
    let checksum = crc32c::crc32c_append(crc32c::crc32c(&bytes[..16]), &bytes[20..length]);
    bytes[16..20].copy_from_slice(&checksum.to_le_bytes());
    files.put("manifest", bytes);
    let before = image(&files);
    let (_, made) = spread(std::slice::from_ref(&files), 2, 1);
    let newer = EngineError::Store(StoreError::NewerVersion {
        file: "manifest".into(),
        found: VERSION + 1,
        supported: VERSION,
    });
    assert_eq!(made, Err(LanesError::Old { lane: 0, source: newer }));
    assert!(image(&files) == before);
}

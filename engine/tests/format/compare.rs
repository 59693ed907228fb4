//! Decoded files held against what was put in and what the engine's reports say.

use std::{collections::BTreeMap, fs, path::PathBuf};

use antiphon_engine::{
    cache::Cache,
    compaction,
    memory_files::MemoryFiles,
    row::Change,
    segment::SegmentSettings,
    sorted::{FlushMark, Sorted, SortedSettings},
};

use crate::{
    files::{self, Adopted, Batch, Listed, Manifest, Record, Row, Segment},
    keys::Keys,
    support::{block_on, entry},
    tables::{Document, Fault, Value, require},
    world::{Expected, Mended, Sample, newest, time_of, unlikely, witness_of},
};

/// The store and segment of the fixed files.
const GOLDEN_STORE: u64 = 0x0123_4567_89ab_cdef;
const GOLDEN_SEGMENT: u64 = 7;

pub(crate) fn compare(document: &Document, sample: &Sample) -> Result<(), Fault> {
    let file = |name: &str| {
        let found = sample.files.iter().find(|(of, _)| of == name);
        found.map(|(_, bytes)| bytes.as_slice()).ok_or_else(|| format!("there is no {name}"))
    };
    let manifest = files::manifest(document, file("manifest")?)?;
    let blob = files::blob(document, &manifest.blob)?;
    let inspection = &sample.inspection;
    require!((manifest.store, manifest.lane) == (sample.store, sample.lane), "{manifest:?}");
    require!(manifest.edit == inspection.manifest_edit, "edit {}", manifest.edit);
    require!(manifest.flushed_position == inspection.flushed_position.0, "flushed to {}", manifest.flushed_position);
    require!(manifest.segments.iter().all(|listed| listed.id < manifest.next_segment), "{manifest:?}");
    let names = manifest.segments.iter().map(|listed| (format!("segment-{:016x}", listed.id), listed.level));
    let shown = inspection.segments.iter().map(|segment| (segment.file.clone(), u64::from(segment.level)));
    require!(names.eq(shown), "segments are {:?}, not {:?}", manifest.segments, inspection.segments);

    let keys = sample.node.map(|node| Keys::read(document, file("keys")?, &node)).transpose()?;
    require!(blob.keys.is_some() == keys.is_some() && blob.others_until.is_none(), "{blob:?}");
    if let (Some((generation, entries)), Some(keys)) = (blob.keys, &keys) {
        require!((keys.store, keys.origin, keys.generation) == (sample.store, sample.store, generation), "{blob:?}");
        require!((1..=keys.entries.len() as u64).contains(&entries), "{entries} keys, not {}", keys.entries.len());
    }
    let newest_generation = log(document, sample, blob.salt, keys.as_ref())?;
    let times = sample.expected.times_from(manifest.flushed_position);
    let named = inspection.log_files.iter().find(|facts| facts.generation == blob.generation);
    require!(named.map(|facts| facts.bytes) == Some(blob.file_bytes), "{blob:?}, but {:?}", inspection.log_files);
    require!(times.contains(&blob.time) && blob.generation == newest_generation, "{blob:?} of {newest_generation}");
    require!((blob.horizons, blob.old_rows_until) == (sample.horizons, 0), "{blob:?}, but {:?}", sample.horizons);

    let (mut rows, mut replacing) = (Vec::new(), 0);
    for listed in &manifest.segments {
        let mut erasing = 0;
        let name = format!("segment-{:016x}", listed.id);
        let mut segment = files::segment(document, file(&name)?).map_err(|fault| format!("{name}: {fault}"))?;
        if let Some(keys) = &keys {
            let opened = segment.rows.into_iter().map(|row| keys.row(document, row)?.ok_or("erased".to_owned()));
            segment.rows = opened.collect::<Result<_, Fault>>().map_err(|fault| format!("{name}: {fault}"))?;
        }
        check_segment(&segment, listed, &manifest).map_err(|fault| format!("{name}: {fault}"))?;
        for (key, value) in &segment.rows {
            let (name, key, mut value) = document.row(key, value.as_deref())?;
            if let Some(Value::Number(position)) = value.as_mut().and_then(|value| value.get_mut("position")) {
                erasing += u64::from(name == "entry" && *position >> 63 == 1);
                *position &= u64::MAX >> 1;
            }
            rows.push((name, key, value));
        }
        require!(segment.erasing.0 == erasing, "{name}: {erasing} rows erase, not {:?}", segment.erasing);
        replacing += erasing;
    }
    let (found, expected) = (newest(rows), sample.expected.rows(manifest.flushed_position));
    let has_changes = sample.expected.has_changes(manifest.flushed_position);
    require!(blob.changes == u64::from(has_changes), "changes are {}, not {has_changes}", blob.changes);
    require!(!has_changes || replacing > 0, "no row takes the place of another");
    for (key, value) in &found {
        require!(expected.get(key) == Some(value), "{key:?} is {value:?}, not {:?}", expected.get(key));
    }
    let missing = expected.keys().find(|key| !found.contains_key(*key));
    require!(missing.is_none(), "{missing:?} is in no segment");
    Ok(())
}

/// What a repaired store's rows tell of lost entries, held against what was found lost.
pub(crate) fn compare_lost(document: &Document, mended: &Mended) -> Result<(), Fault> {
    let manifest = files::manifest(document, &mended.files.contents("manifest").unwrap())?;
    let mut found = Vec::new();
    for listed in &manifest.segments {
        let bytes = mended.files.contents(&format!("segment-{:016x}", listed.id)).unwrap();
        for (key, value) in files::segment(document, &bytes)?.rows {
            let (name, key, value) = document.row(&key, value.as_deref())?;
            if name == "lost" {
                found.push((key, value));
            }
        }
    }
    let expected = mended.lost.iter().map(|(conversation, first, last)| {
        let key = [("conversation", conversation.to_vec()), ("sequence", first.to_be_bytes().to_vec())];
        let key = key.into_iter().map(|(field, bytes)| (field.to_owned(), bytes)).collect();
        (key, Some(BTreeMap::from([("last".to_owned(), Value::Number(*last))])))
    });
    let expected: Vec<_> = expected.collect();
    require!(found == expected, "lost are {found:?}, not {expected:?}");
    Ok(())
}

/// All log files, held against what was given out. Gives the newest generation.
fn log(document: &Document, sample: &Sample, salt: u64, keys: Option<&Keys>) -> Result<u64, Fault> {
    let mut logs: Vec<(&str, Vec<Batch>)> = Vec::new();
    for (name, bytes) in sample.files.iter().filter(|(name, _)| name.starts_with("log-")) {
        let batches = files::log(document, bytes, keys).map_err(|fault| format!("{name}: {fault}"))?;
        logs.push((name, batches));
    }
    logs.sort_by_key(|(_, batches)| batches.first().map(|batch| batch.generation));
    for (name, batches) in &logs {
        let facts = sample.inspection.log_files.iter().find(|facts| facts.file == *name);
        let facts = facts.ok_or_else(|| format!("{name} is not reported"))?;
        let generation = batches.first().map(|batch| batch.generation);
        require!(generation == Some(facts.generation), "{name}: generation {generation:?}, not {}", facts.generation);
        require!(generation == Some(0) || batches.len() as u64 == facts.batches, "{name}: {} batches", batches.len());
    }
    for (name, bytes) in sample.files.iter().filter(|(name, _)| name.starts_with("log-")) {
        let limit = files::limit(document, bytes).map_err(|fault| format!("{name}: {fault}"))?;
        let batches = logs.iter().find(|(of, _)| of == name).map(|(_, batches)| batches.as_slice()).unwrap_or_default();
        check_limit(limit.as_ref(), batches, bytes.len()).map_err(|fault| format!("{name}: {fault}"))?;
    }
    let used: Vec<&Vec<Batch>> = logs.iter().map(|(_, of)| of).filter(|of| of[0].generation > 0).collect();
    let generations: Vec<u64> = used.iter().map(|batches| batches[0].generation).collect();
    require!(generations.is_sorted_by(|one, other| one + 1 == *other), "generations {generations:?}");
    let mut before: Option<(&Batch, Vec<Record>)> = None;
    for batch in used.into_iter().flatten() {
        require!((batch.lane, batch.salt) == (sample.lane, salt), "lane {}, salt {:x}", batch.lane, batch.salt);
        follows(batch, before.as_ref(), &sample.expected)?;
        let held = match before.take() {
            Some((_, held)) if batch.records.is_empty() => held,
            // A seal of a batch that is not there any more.
            None if batch.records.is_empty() => continue,
            _ => batch.records.clone(),
        };
        before = Some((batch, held));
    }
    let last = before.map_or(0, |(batch, _)| batch.first_position + batch.records.len() as u64 - 1);
    require!(last == sample.position, "the log ends at {last}, not {}", sample.position);
    // A file that waits for its first use has one batch, of no generation.
    for (name, batches) in logs.iter().filter(|(_, batches)| batches[0].generation == 0) {
        let [Batch { lane, chain: 0, first_position: 0, records_before: 0, witness, records, .. }] = batches.as_slice()
        else {
            return Err(format!("{name}: never used, and not empty: {batches:?}"));
        };
        require!(*lane == sample.lane && witness.is_empty() && records.is_empty(), "{name}: never used, and not empty");
    }
    Ok(generations.last().copied().unwrap_or(0))
}

/// Holds a file's last page against its batches.
fn check_limit(limit: Option<&files::Limit>, batches: &[Batch], file_bytes: usize) -> Result<(), Fault> {
    let [first, .., last] = batches else {
        return if limit.is_none() || batches.len() == 1 { Ok(()) } else { Err(format!("{limit:?} of no batch")) };
    };
    let limit = limit.ok_or("there is no limit")?;
    let said = (limit.lane, limit.salt, limit.generation);
    require!(said == (first.lane, first.salt, first.generation), "{limit:x?}, but {first:?}");
    let within = last.place.1 as u64..=(file_bytes - files::PAGE) as u64;
    require!(within.contains(&limit.limit), "the limit is {}, not in {within:?}", limit.limit);
    require!(limit.landmarks.first() == Some(&(0, first.first_position)), "{limit:?}, but {first:?}");
    for &(begin, position) in &limit.landmarks {
        let batch = batches.iter().find(|batch| batch.place.0 as u64 == begin);
        require!(batch.is_some_and(|batch| batch.first_position == position), "no batch at {begin}: {limit:?}");
    }
    Ok(())
}

/// Holds a batch against the one before it, with the records of which that one or its witness tells, and against what
/// was given out.
fn follows(batch: &Batch, before: Option<&(&Batch, Vec<Record>)>, expected: &Expected) -> Result<(), Fault> {
    let first = batch.first_position;
    match before {
        Some((last, held)) => {
            require!(batch.chain == last.checksum, "position {first}: the chain is not the checksum before");
            require!(first == last.first_position + last.records.len() as u64, "position {first} follows {last:?}");
            require!(batch.records_before == held.len() as u64, "position {first}: {} before", batch.records_before);
            require!(batch.witness == witness_of(held), "position {first}: the witness is {:?}", batch.witness);
        }
        None if first == 1 => {
            require!((batch.chain, batch.records_before, batch.witness.len()) == (0, 0, 0), "{batch:?} is the first");
        }
        None => {}
    }
    let from = (first as usize).checked_sub(1).ok_or("a first position of 0")?;
    let given_out = expected.records.get(from..from + batch.records.len());
    require!(given_out == Some(&batch.records[..]), "position {first}: {:?}, not {given_out:?}", batch.records);
    Ok(())
}

fn check_segment(segment: &Segment, listed: &Listed, manifest: &Manifest) -> Result<(), Fault> {
    require!(segment.store == manifest.store, "of store {:x}", segment.store);
    let found = Listed { level: listed.level, ..segment.listed.clone() };
    require!(found == *listed, "{found:?}, but listed as {listed:?}");
    require!(listed.level == 0 || segment.blocks_compressed > 0, "merged, but not compressed");
    let times = segment.rows.iter().filter_map(|(key, value)| {
        let archive = value.as_ref().filter(|_| key.len() == 26 && key[17] == 7)?.get(8..)?;
        time_of(&Record::Entry(archive.to_vec()))
    });
    let times: Vec<u64> = times.collect();
    let range = times.iter().min().copied().zip(times.iter().max().copied());
    // Message ids have the times of the entries beside which they were flushed.
    let ids = segment.rows.iter().filter(|(key, _)| key[0] > 2).count();
    require!(ids == 0 || ids == segment.rows.len(), "{ids} message ids among {} rows", segment.rows.len());
    require!(segment.times == range || (ids > 0 && segment.times.is_some()), "times {:?}", segment.times);
    match segment.filter_id {
        2 => check_filter(segment, pieces),
        3 if ids == 0 => check_filter(segment, pieces_with_stretches),
        other => Err(format!("filter id {other}")),
    }
}

fn pieces(key: &[u8]) -> Vec<Vec<u8>> {
    match key[0] {
        1 if key[17] == 6 => vec![key[..17].to_vec(), key.to_vec()],
        1 => vec![key[..17].to_vec()],
        3 | 4 => vec![key.to_vec()],
        _ => vec![key[..=key.iter().position(|byte| *byte == 0).unwrap_or(0)].to_vec()],
    }
}

fn pieces_with_stretches(key: &[u8]) -> Vec<Vec<u8>> {
    let mut pieces = pieces(key);
    if key[0] == 1 && key[17] == 7 {
        let sequence = u64::from_be_bytes(key[18..26].try_into().expect("as the format says"));
        pieces.push([&key[..18], &(sequence / 32).to_be_bytes()].concat());
    }
    pieces
}

/// Every piece of every key is in the part that answers for the key, and of what is in none hardly any.
fn check_filter(segment: &Segment, pieces: impl Fn(&[u8]) -> Vec<Vec<u8>>) -> Result<(), Fault> {
    let parts = &segment.filter;
    require!(parts.is_sorted_by(|one, other| one.last_key < other.last_key), "the filter's parts do not ascend");
    require!(parts.last().is_some_and(|part| part.last_key == segment.listed.last_key), "the filter ends early");
    for (key, _) in &segment.rows {
        let part = parts.iter().find(|part| part.last_key >= *key).ok_or("no part answers for a key")?;
        let missing = pieces(key).into_iter().find(|piece| !part.holds(piece));
        require!(missing.is_none(), "the filter does not hold {missing:02x?} of {key:02x?}");
    }
    let held = (0..1_000).filter(|seed| parts.iter().any(|part| part.holds(&unlikely(*seed).to_le_bytes()))).count();
    require!(held < 10 && parts.iter().any(|part| part.pieces() > 0), "the filter holds {held} of 1,000 others");
    Ok(())
}

fn golden(name: &str) -> Vec<u8> {
    fs::read(PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(name)).unwrap()
}

/// The rows that the fixed segments were made of.
fn golden_rows(count: u32) -> Vec<Row> {
    let row = |number: u32| {
        let value = (number % 7 != 3).then(|| format!("message {number}").into_bytes());
        ([&b"room"[..], &number.to_be_bytes()].concat(), value)
    };
    (1..=count).map(row).collect()
}

/// A segment of which some rows erase others.
fn erasing(document: &Document) -> Result<(), Fault> {
    let segment =
        SegmentSettings { erases: |_, change| matches!(change, Change::Delete), ..SegmentSettings::default() };
    let settings =
        SortedSettings { segment, compaction: compaction::Settings::default(), cache: Cache::new(0), apart: None };
    let files = MemoryFiles::new(0);
    block_on(async {
        let sorted = Sorted::create(files.clone(), settings, GOLDEN_STORE, 0, Vec::new()).await.unwrap();
        let mark = FlushMark { times: Some((5, 9)), ..FlushMark::default() };
        sorted.flush([(b"a", Change::Put(b"x")), (b"b", Change::Delete)], mark).await.unwrap();
    });
    let segment = files::segment(document, &files.contents("segment-0000000000000001").unwrap())?;
    require!(segment.erasing == (1, 5) && segment.times == Some((5, 9)), "{:?}", segment.erasing);
    Ok(())
}

/// Segments from before there was a horizon: each message in them has its id's row.
fn old_rows(document: &Document) -> Result<(), Fault> {
    let mut ids = 0;
    for name in ["store-v1/segment-0000000000000009", "store-v1/segment-000000000000000a"] {
        let segment = files::segment(document, &golden(name)).map_err(|fault| format!("{name}: {fault}"))?;
        check_filter(&segment, pieces).map_err(|fault| format!("{name}: {fault}"))?;
        let mut rows = Vec::new();
        for (key, value) in &segment.rows {
            rows.push(document.row(key, value.as_deref())?);
        }
        for (_, key, value) in rows.iter().filter(|(name, ..)| name == "old message id") {
            let (conversation, id) = (key.get("conversation"), key.get("id").map(Vec::as_slice));
            let sequence = value.as_ref().and_then(|value| value.get("sequence")).cloned();
            let is_it = rows.iter().any(|(name, key, value)| {
                let archive = value.as_ref().and_then(|value| value.get("archive"));
                let (Some(Value::Bytes(archive)), "entry") = (archive, name.as_str()) else { return false };
                let entry = entry(archive);
                key.get("conversation") == conversation
                    && Some(&entry.client_message_id.0[..]) == id
                    && Some(Value::Number(entry.sequence.0)) == sequence
            });
            require!(is_it, "{name}: {key:?} is of no entry");
            ids += 1;
        }
    }
    require!(ids > 10, "{ids} rows of message ids in the old form");
    Ok(())
}

/// The fixed files, held against what they were made of.
pub(crate) fn compare_golden(document: &Document) -> Result<(), Fault> {
    for (name, count, times, compressed) in
        [("segment-v1", 40, Some((1_700, 1_800)), false), ("segment-v1-zstd", 200, None, true)]
    {
        let segment = files::segment(document, &golden(name)).map_err(|fault| format!("{name}: {fault}"))?;
        require!((segment.store, segment.listed.id) == (GOLDEN_STORE, GOLDEN_SEGMENT), "{name}: {:?}", segment.listed);
        require!(segment.rows == golden_rows(count), "{name}: {:?}", segment.rows);
        require!((segment.times, segment.filter_id) == (times, 1), "{name}: {:?}", segment.times);
        require!((segment.blocks_compressed > 0) == compressed, "{name}: {} compressed", segment.blocks_compressed);
        check_filter(&segment, |key| vec![key.to_vec()]).map_err(|fault| format!("{name}: {fault}"))?;
    }
    old_rows(document)?;
    erasing(document)?;
    let manifests =
        [files::manifest(document, &golden("manifest-v1"))?, files::manifest(document, &golden("manifest-v2"))?];
    for manifest in &manifests {
        let numbers = (manifest.store, manifest.lane, manifest.edit, manifest.next_segment, manifest.flushed_position);
        require!(numbers == (GOLDEN_STORE, 2, 11, 10, 123_456), "{manifest:?}");
        require!(manifest.blob == b"the caller's", "{manifest:?}");
    }
    let listed = |id: u64, level: u64| Listed {
        id,
        file_bytes: id * 4096,
        rows: id * 100,
        deletes: id,
        level,
        first_key: vec![id as u8; 3],
        last_key: vec![0xff; 5],
        adopted: None,
    };
    require!(manifests[0].segments == [listed(9, 0), listed(4, 1)], "{manifests:?}");
    // A partition's bit is by its number, from the first byte's least significant one on.
    let set = |holds: fn(usize) -> bool| {
        let bits = |byte: usize| (0..8).filter(|bit| holds(byte * 8 + bit)).map(|bit| 1 << bit).sum();
        (0..128).map(bits).collect::<Vec<u8>>()
    };
    let (held, shown) =
        (set(|partition| partition % 2 == 1), set(|partition| partition % 2 == 1 && partition % 3 == 2));
    let adopted = Some(Adopted { store: GOLDEN_STORE + 1, id: 3, held, shown });
    let adopted = Listed { id: 8, adopted, ..listed(4, 1) };
    require!(manifests[1].segments == [listed(9, 0), adopted, listed(4, 1)], "{manifests:?}");
    Ok(())
}

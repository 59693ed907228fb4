//! fjall: a log-structured merge tree in Rust. Its journal is synced with every batch (`fdatasync`); blocks are
//! compressed by LZ4, which is all it has.

use std::path::Path;

use antiphon_bench_store::{CACHE_BYTES, General, MEMTABLE_BYTES, Rows, rows::Key};
use antiphon_foreign_engines as _;
use fjall::{Database, Keyspace, KeyspaceCreateOptions, PersistMode};

struct Fjall {
    database: Database,
    messages: Keyspace,
}

impl Rows for Fjall {
    fn open(folder: &Path) -> anyhow::Result<Self> {
        let database = Database::builder(folder).cache_size(CACHE_BYTES as u64).open()?;
        let options = || KeyspaceCreateOptions::default().max_memtable_size(MEMTABLE_BYTES as u64);
        let messages = database.keyspace("messages", options)?;
        Ok(Self { database, messages })
    }

    fn commit(&mut self, rows: Vec<(Key, Vec<u8>)>) -> anyhow::Result<()> {
        let mut batch = self.database.batch().durability(Some(PersistMode::SyncData));
        for (key, value) in rows {
            batch.insert(&self.messages, key, value);
        }
        Ok(batch.commit()?)
    }

    fn last(&mut self, from: &Key, below: &Key, limit: usize) -> anyhow::Result<Vec<(Vec<u8>, Vec<u8>)>> {
        let rows = self.messages.range(*from..*below).rev().take(limit);
        rows.map(|row| row.into_inner().map(|(key, value)| (key.to_vec(), value.to_vec())).map_err(Into::into))
            .collect()
    }

    fn is_log(name: &str) -> bool {
        name.ends_with(".jnl")
    }
}

fn main() -> anyhow::Result<()> {
    antiphon_bench_store::main::<General<Fjall>>()
}

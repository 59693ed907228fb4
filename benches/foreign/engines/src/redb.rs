//! redb: a copy-on-write B-tree in Rust. A commit is durable when it returns (`Durability::Immediate`, one phase with
//! checksums: its default). It compresses nothing.

use std::path::Path;

use antiphon_bench_store::{CACHE_BYTES, General, Rows, rows::Key};
use antiphon_foreign_engines as _;
use redb::{Database, Durability, ReadableDatabase, TableDefinition};

const MESSAGES: TableDefinition<&[u8], &[u8]> = TableDefinition::new("messages");

struct Redb(Database);

impl Rows for Redb {
    fn open(folder: &Path) -> anyhow::Result<Self> {
        let database = Database::builder().set_cache_size(CACHE_BYTES).create(folder.join("messages.redb"))?;
        // A table that was never opened for writing cannot be read.
        let transaction = database.begin_write()?;
        transaction.open_table(MESSAGES)?;
        transaction.commit()?;
        Ok(Self(database))
    }

    fn commit(&mut self, rows: Vec<(Key, Vec<u8>)>) -> anyhow::Result<()> {
        let mut transaction = self.0.begin_write()?;
        transaction.set_durability(Durability::Immediate)?;
        let mut messages = transaction.open_table(MESSAGES)?;
        for (key, value) in rows {
            messages.insert(key.as_slice(), value.as_slice())?;
        }
        drop(messages);
        Ok(transaction.commit()?)
    }

    fn last(&mut self, from: &Key, below: &Key, limit: usize) -> anyhow::Result<Vec<(Vec<u8>, Vec<u8>)>> {
        let messages = self.0.begin_read()?.open_table(MESSAGES)?;
        let rows = messages.range(from.as_slice()..below.as_slice())?.rev().take(limit);
        rows.map(|row| row.map(|(key, value)| (key.value().to_vec(), value.value().to_vec())).map_err(Into::into))
            .collect()
    }

    fn is_log(_: &str) -> bool {
        false
    }
}

fn main() -> anyhow::Result<()> {
    antiphon_bench_store::main::<General<Redb>>()
}

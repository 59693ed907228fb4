//! LMDB, by heed: a copy-on-write B-tree in C over a memory map. A commit is durable when it returns: no flag that
//! weakens it is set. It has no cache of its own, so it may use all of the machine's page cache, and it compresses
//! nothing.

use std::{ops::Bound, path::Path};

use antiphon_bench_store::{General, Rows, rows::Key};
use antiphon_foreign_engines as _;
use anyhow::Context;
use heed::{CommitOrAbort, Database, Env, EnvOpenOptions, types::Bytes};

/// Address space, of which LMDB uses what it needs: more than any comparison writes.
const MAP_BYTES: usize = 1 << 38;

struct Lmdb {
    environment: Env,
    messages: Database<'static, Bytes, Bytes>,
}

impl Rows for Lmdb {
    fn open(folder: &Path) -> anyhow::Result<Self> {
        let mut options = EnvOpenOptions::new();
        options.map_size(MAP_BYTES);
        // SAFETY: the map is of files in a folder that the comparison made for this process alone; nothing else opens
        // or changes them.
        let environment = unsafe { options.open(folder)? };
        let transaction = environment.write_txn()?;
        let made = environment.create_databases_and_commit(transaction, |opener, transaction| {
            opener.create_database::<Bytes, Bytes>(transaction, None).map(CommitOrAbort::<_, ()>::Commit)
        });
        let messages = made?.commit().context("nothing aborts it")?;
        Ok(Self { environment, messages })
    }

    fn commit(&mut self, rows: Vec<(Key, Vec<u8>)>) -> anyhow::Result<()> {
        let mut transaction = self.environment.write_txn()?;
        for (key, value) in &rows {
            self.messages.put(&mut transaction, key, value)?;
        }
        Ok(transaction.commit()?)
    }

    fn last(&mut self, from: &Key, below: &Key, limit: usize) -> anyhow::Result<Vec<(Vec<u8>, Vec<u8>)>> {
        let transaction = self.environment.read_txn()?;
        let range = (Bound::Included(from.as_slice()), Bound::Excluded(below.as_slice()));
        let rows = self.messages.rev_range(&transaction, &range)?.take(limit);
        rows.map(|row| row.map(|(key, value)| (key.to_vec(), value.to_vec())).map_err(Into::into)).collect()
    }

    fn is_log(_: &str) -> bool {
        false
    }
}

fn main() -> anyhow::Result<()> {
    antiphon_bench_store::main::<General<Lmdb>>()
}

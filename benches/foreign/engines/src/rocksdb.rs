//! RocksDB: a log-structured merge tree in C++. Its log is synced with every batch; tables are written and read past
//! the page cache (`O_DIRECT`), as ours are; blocks are compressed by zstd.

use std::path::Path;

use antiphon_bench_store::{CACHE_BYTES, General, MEMTABLE_BYTES, Rows, rows::Key};
use antiphon_foreign_engines as _;
use rocksdb::{
    BlockBasedOptions, Cache, DB, DBCompressionType, IteratorMode, Options, ReadOptions, WriteBatch, WriteOptions,
};

/// Threads for flushes and compactions: one of each, since the machine's other work is the writer's.
const BACKGROUND_JOBS: i32 = 2;

/// Bits of a Bloom filter for each key, as its documentation advises.
const FILTER_BITS: f64 = 10.0;

struct Rocksdb {
    database: DB,
    durable: WriteOptions,
}

impl Rows for Rocksdb {
    fn open(folder: &Path) -> anyhow::Result<Self> {
        let mut blocks = BlockBasedOptions::default();
        blocks.set_block_cache(&Cache::new_lru_cache(CACHE_BYTES));
        // 16 KiB, its documentation's advice and our own block's size.
        blocks.set_block_size(16 * 1024);
        blocks.set_bloom_filter(FILTER_BITS, false);
        blocks.set_cache_index_and_filter_blocks(true);
        let mut options = Options::default();
        options.create_if_missing(true);
        options.set_block_based_table_factory(&blocks);
        options.set_compression_type(DBCompressionType::Zstd);
        options.set_write_buffer_size(MEMTABLE_BYTES);
        options.set_max_background_jobs(BACKGROUND_JOBS);
        options.set_level_compaction_dynamic_level_bytes(true);
        options.set_use_direct_reads(true);
        options.set_use_direct_io_for_flush_and_compaction(true);
        let mut durable = WriteOptions::default();
        durable.set_sync(true);
        Ok(Self { database: DB::open(&options, folder)?, durable })
    }

    fn commit(&mut self, rows: Vec<(Key, Vec<u8>)>) -> anyhow::Result<()> {
        let mut batch = WriteBatch::default();
        for (key, value) in rows {
            batch.put(key, value);
        }
        Ok(self.database.write_opt(batch, &self.durable)?)
    }

    fn last(&mut self, from: &Key, below: &Key, limit: usize) -> anyhow::Result<Vec<(Vec<u8>, Vec<u8>)>> {
        let mut range = ReadOptions::default();
        range.set_iterate_lower_bound(from.to_vec());
        range.set_iterate_upper_bound(below.to_vec());
        let rows = self.database.iterator_opt(IteratorMode::End, range).take(limit);
        rows.map(|row| row.map(|(key, value)| (key.into_vec(), value.into_vec())).map_err(Into::into)).collect()
    }

    fn is_log(name: &str) -> bool {
        name.ends_with(".log")
    }
}

fn main() -> anyhow::Result<()> {
    antiphon_bench_store::main::<General<Rocksdb>>()
}

//! Duplicate detection: stores which keys an input has had, and on which line or how often, with bounded memory.
//!
//! Up to a threshold the hashes of the keys are in a map. Beyond it they move to an unlinked temporary file
//! with an open-addressing hash table that doubles at 60% load and whose pages the system may keep or drop. If
//! the file cannot be written, the keys move back to memory with a warning. No key is lost while it can be
//! read, and no error here rejects an item.

use std::collections::HashMap;
use std::fs::File;
use std::io;
#[cfg(unix)]
use std::os::unix::fs::FileExt;

use sha2::{Digest, Sha256};
use tracing::warn;

/// Keys held in memory before the file is created: a full map of 2^17 slots, about 3 MB.
const MAX_KEYS_IN_MEMORY: usize = 114_688;

/// Hash of a key. Two words instead of a `u128`, whose alignment would waste a quarter of the map.
type Hash = [u64; 2];

/// Creates a private temporary file.
type CreateFile = Box<dyn FnMut() -> io::Result<File> + Send>;

/// Set of keys, each with the line on which it first occurred, or with how often it has occurred.
pub(crate) struct DedupIndex {
    /// The line or the number of each key.
    memory: HashMap<Hash, u64>,
    table: Option<HashTable>,
    /// Size of `memory` at which the keys move to a file; `None` once that has failed.
    threshold: Option<usize>,
    create_file: CreateFile,
}

impl DedupIndex {
    pub(crate) fn new() -> Self {
        Self::with_threshold(MAX_KEYS_IN_MEMORY, Box::new(tempfile::tempfile))
    }

    fn with_threshold(threshold: usize, create_file: CreateFile) -> Self {
        Self { memory: HashMap::new(), table: None, threshold: Some(threshold), create_file }
    }

    /// Inserts `key` and returns the line on which it occurred before, if it did. Lines count from 1.
    pub(crate) fn insert(&mut self, key: &str, line: u64) -> Option<u64> {
        self.insert_hash(hash(key), line)
    }

    fn insert_hash(&mut self, hash: Hash, line: u64) -> Option<u64> {
        if let Some(table) = &mut self.table {
            match table.insert(hash, line, &mut self.create_file) {
                Ok(before) => return before,
                Err(error) => self.return_to_memory(&error),
            }
        }
        if let Some(before) = self.memory.get(&hash) {
            return Some(*before);
        }
        self.memory.insert(hash, line);
        if self.threshold.is_some_and(|threshold| self.memory.len() >= threshold) {
            self.move_to_file();
        }
        None
    }

    /// Counts an occurrence of `key` and returns its number, from 1. A key is either counted or inserted with its line.
    pub(crate) fn count(&mut self, key: &str) -> u64 {
        self.count_hash(hash(key))
    }

    fn count_hash(&mut self, hash: Hash) -> u64 {
        if let Some(table) = &mut self.table {
            match table.count(hash, &mut self.create_file) {
                Ok(count) => return count,
                Err(error) => self.return_to_memory(&error),
            }
        }
        if let Some(count) = self.memory.get_mut(&hash) {
            *count += 1;
            return *count;
        }
        // A count is stored as a line is: 0 marks an empty slot.
        self.insert_hash(hash, 1);
        1
    }

    fn move_to_file(&mut self) {
        let moved =
            HashTable::new(self.memory.len() as u64 * 2, &mut self.create_file).and_then(|mut table| {
                for (hash, line) in &self.memory {
                    table.insert_without_growing(*hash, *line)?;
                }
                Ok(table)
            });
        match moved {
            Ok(table) => {
                self.table = Some(table);
                self.memory = HashMap::new();
            }
            Err(error) => {
                self.threshold = None;
                warn!(%error, "cannot create a temporary file for duplicate detection; the keys stay in memory");
            }
        }
    }

    /// Moves back to memory permanently, with every key that can be read from the file.
    fn return_to_memory(&mut self, error: &io::Error) {
        self.threshold = None;
        let Some(table) = self.table.take() else { return };
        let memory = &mut self.memory;
        let restored = table.for_each_block(|_, pairs| {
            memory.extend(pairs);
            Ok(())
        });
        match restored {
            Ok(()) => warn!(%error, "the duplicate detection file failed; the keys move to memory"),
            Err(lost) => warn!(
                %error, %lost, kept = self.memory.len(), of = table.keys,
                "the duplicate detection file cannot be read; a duplicate key may not be detected"
            ),
        }
    }
}

fn hash(key: &str) -> Hash {
    let digest = Sha256::digest(key.as_bytes());
    let word = |at: usize| digest[at..at + 8].iter().fold(0, |word, byte| word << 8 | u64::from(*byte));
    [word(0), word(8)]
}

/// Bytes of a slot: the hash and the line or the number. 0 marks an empty slot.
const SLOT_BYTES: usize = 24;
/// Slots read at once to find a key: at 60% load nearly every search ends within them.
const SLOTS_PER_PROBE: u64 = 16;
/// Slots read at once to scan the table.
const SLOTS_PER_BLOCK: u64 = 4096;

/// Open-addressing hash table in a file.
struct HashTable {
    file: File,
    /// A power of two. The home slot of a hash is given by its highest bits.
    slots: u64,
    keys: u64,
}

impl HashTable {
    fn new(at_least: u64, create_file: &mut CreateFile) -> io::Result<Self> {
        let slots = at_least.next_power_of_two().max(2 * SLOTS_PER_PROBE);
        let file = create_file()?;
        file.set_len(slots * SLOT_BYTES as u64)?;
        Ok(Self { file, slots, keys: 0 })
    }

    fn insert(&mut self, hash: Hash, line: u64, create_file: &mut CreateFile) -> io::Result<Option<u64>> {
        self.make_room(create_file)?;
        self.insert_without_growing(hash, line)
    }

    /// Adds 1 to the number of the hash and returns it.
    fn count(&mut self, hash: Hash, create_file: &mut CreateFile) -> io::Result<u64> {
        self.make_room(create_file)?;
        let (slot, found) = self.find(hash)?;
        let count = found.unwrap_or_default() + 1;
        self.write(slot, hash, count)?;
        self.keys += u64::from(found.is_none());
        Ok(count)
    }

    /// Doubles the table if another hash would exceed its load.
    fn make_room(&mut self, create_file: &mut CreateFile) -> io::Result<()> {
        if (self.keys + 1) * 10 > self.slots * 6 {
            *self = self.doubled(create_file)?;
        }
        Ok(())
    }

    /// Writes the pair into the first free slot from its home slot on, unless the hash is already there.
    fn insert_without_growing(&mut self, hash: Hash, line: u64) -> io::Result<Option<u64>> {
        let (slot, found) = self.find(hash)?;
        if found.is_none() {
            self.write(slot, hash, line)?;
            self.keys += 1;
        }
        Ok(found)
    }

    /// Returns the slot of the hash and what is stored with it, or else the first free slot from its home slot on.
    fn find(&self, hash: Hash) -> io::Result<(u64, Option<u64>)> {
        let mut first = self.home_slot(hash);
        let mut bytes = [0; SLOTS_PER_PROBE as usize * SLOT_BYTES];
        loop {
            let block = self.read(first, SLOTS_PER_PROBE, &mut bytes)?;
            match find_slot(block, hash) {
                SlotSearch::Found(index, line) => return Ok((first + index as u64, Some(line))),
                SlotSearch::Free(index) => return Ok((first + index as u64, None)),
                SlotSearch::NotInBlock => first = (first + block.len() as u64) % self.slots,
            }
        }
    }

    fn write(&self, slot: u64, hash: Hash, line: u64) -> io::Result<()> {
        write_at(&self.file, &encode(hash, line), slot * SLOT_BYTES as u64)
    }

    /// Copies everything to a table of twice the size.
    ///
    /// Both tables are in the order of their hashes, or nearly so: the slots of one block of the old table
    /// belong to one block of the new table, which is read and written as a whole.
    fn doubled(&mut self, create_file: &mut CreateFile) -> io::Result<Self> {
        let mut new = Self::new(self.slots * 2, create_file)?;
        let mut bytes = vec![0; SLOT_BYTES * SLOTS_PER_BLOCK as usize * 2];
        let mut displaced = Vec::new();
        self.for_each_block(|start, pairs| {
            let start = start * 2;
            let block = new.read(start, SLOTS_PER_BLOCK * 2, &mut bytes)?;
            for (hash, line) in pairs {
                let from =
                    new.home_slot(hash).checked_sub(start).and_then(|from| block.get_mut(from as usize..));
                match from.map(|from| (find_slot(from, hash), from)) {
                    Some((SlotSearch::Free(index), from)) => {
                        from[index] = encode(hash, line);
                        new.keys += 1;
                    }
                    _ => displaced.push((hash, line)),
                }
            }
            write_at(&new.file, block.as_flattened(), start * SLOT_BYTES as u64)?;
            displaced.drain(..).try_for_each(|(hash, line)| new.insert_without_growing(hash, line).map(drop))
        })?;
        Ok(new)
    }

    fn for_each_block(
        &self,
        mut visit: impl FnMut(u64, &mut dyn Iterator<Item = (Hash, u64)>) -> io::Result<()>,
    ) -> io::Result<()> {
        let mut bytes = vec![0; SLOT_BYTES * SLOTS_PER_BLOCK as usize];
        for start in (0..self.slots).step_by(SLOTS_PER_BLOCK as usize) {
            let block = self.read(start, SLOTS_PER_BLOCK, &mut bytes)?;
            visit(start, &mut block.iter().map(decode).filter(|(_, line)| *line != 0))?;
        }
        Ok(())
    }

    /// Reads up to `count` slots from `first` on, but none beyond the end of the table.
    fn read<'a>(
        &self,
        first: u64,
        count: u64,
        bytes: &'a mut [u8],
    ) -> io::Result<&'a mut [[u8; SLOT_BYTES]]> {
        let count = count.min(self.slots - first) as usize;
        let bytes = &mut bytes[..count * SLOT_BYTES];
        read_at(&self.file, bytes, first * SLOT_BYTES as u64)?;
        Ok(bytes.as_chunks_mut().0)
    }

    fn home_slot(&self, hash: Hash) -> u64 {
        hash[0] >> (64 - self.slots.trailing_zeros())
    }
}

/// Result of the search for a hash in a block of slots that begins at or after its home slot: the index and the line of
/// the hash, the index of a free slot, or neither.
enum SlotSearch {
    Found(usize, u64),
    Free(usize),
    NotInBlock,
}

fn find_slot(block: &[[u8; SLOT_BYTES]], hash: Hash) -> SlotSearch {
    for (index, slot) in block.iter().enumerate() {
        let (slot_hash, line) = decode(slot);
        if line == 0 {
            return SlotSearch::Free(index);
        }
        if slot_hash == hash {
            return SlotSearch::Found(index, line);
        }
    }
    SlotSearch::NotInBlock
}

fn encode(hash: Hash, line: u64) -> [u8; SLOT_BYTES] {
    let mut slot = [0; SLOT_BYTES];
    for (bytes, word) in slot.as_chunks_mut::<8>().0.iter_mut().zip([hash[0], hash[1], line]) {
        *bytes = word.to_le_bytes();
    }
    slot
}

fn decode(slot: &[u8; SLOT_BYTES]) -> (Hash, u64) {
    let words = slot.as_chunks::<8>().0;
    ([u64::from_le_bytes(words[0]), u64::from_le_bytes(words[1])], u64::from_le_bytes(words[2]))
}

// Unix has one system call for what takes two on other systems.
#[cfg(unix)]
fn read_at(file: &File, bytes: &mut [u8], at: u64) -> io::Result<()> {
    file.read_exact_at(bytes, at)
}

#[cfg(unix)]
fn write_at(file: &File, bytes: &[u8], at: u64) -> io::Result<()> {
    file.write_all_at(bytes, at)
}

#[cfg(not(unix))]
fn read_at(mut file: &File, bytes: &mut [u8], at: u64) -> io::Result<()> {
    io::Seek::seek(&mut file, io::SeekFrom::Start(at))?;
    io::Read::read_exact(&mut file, bytes)
}

#[cfg(not(unix))]
fn write_at(mut file: &File, bytes: &[u8], at: u64) -> io::Result<()> {
    io::Seek::seek(&mut file, io::SeekFrom::Start(at))?;
    io::Write::write_all(&mut file, bytes)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn spilling_index(threshold: usize) -> DedupIndex {
        DedupIndex::with_threshold(threshold, Box::new(tempfile::tempfile))
    }

    proptest! {
        #[test]
        fn the_index_agrees_with_a_map_before_and_after_it_spills(
            keys in prop::collection::vec("[a-d]{0,4}", 0..400),
            threshold in 1usize..40,
        ) {
            let mut index = spilling_index(threshold);
            let mut expected = HashMap::new();
            for (line, key) in (1..).zip(&keys) {
                let before = expected.get(key).copied();
                expected.entry(key.clone()).or_insert(line);
                prop_assert_eq!(index.insert(key, line), before);
            }
            prop_assert_eq!(index.table.is_some(), expected.len() >= threshold);
        }

        #[test]
        fn occurrences_are_counted_before_and_after_the_index_spills(
            keys in prop::collection::vec("[a-d]{0,3}", 0..400),
            threshold in 1usize..40,
        ) {
            let mut index = spilling_index(threshold);
            let mut expected = HashMap::new();
            for key in &keys {
                let count = expected.entry(key.clone()).or_insert(0);
                *count += 1;
                prop_assert_eq!(index.count(key), *count);
            }
            prop_assert_eq!(index.table.is_some(), expected.len() >= threshold);
        }

        #[test]
        fn keys_that_share_a_home_slot_are_distinguished(
            tails in prop::collection::vec(0u64..40, 1..200),
            home_slot in prop::sample::select(vec![0, u64::MAX]),
        ) {
            // A search from the last home slot continues at the start of the table.
            let mut index = spilling_index(1);
            let mut expected = HashMap::new();
            for (line, tail) in (1..).zip(tails) {
                let before = expected.get(&tail).copied();
                expected.entry(tail).or_insert(line);
                prop_assert_eq!(index.insert_hash([home_slot, tail], line), before);
            }
        }
    }

    #[test]
    fn memory_is_released_once_the_keys_are_in_the_file() {
        let mut index = spilling_index(1000);
        for line in 1..=20_000 {
            assert_eq!(index.insert(&line.to_string(), line), None);
        }
        assert_eq!(index.memory.capacity(), 0);
        assert_eq!(index.table.as_ref().unwrap().keys, 20_000);
        assert_eq!(index.insert("17", 20_001), Some(17));
    }

    #[test]
    fn keys_stay_in_memory_when_no_file_can_be_created() {
        let mut index =
            DedupIndex::with_threshold(4, Box::new(|| Err(io::ErrorKind::PermissionDenied.into())));
        for line in 1..=100 {
            assert_eq!(index.insert(&line.to_string(), line), None);
        }
        assert_eq!(index.insert("3", 101), Some(3));
    }

    #[test]
    fn keys_move_back_to_memory_when_the_file_cannot_grow() {
        let mut files = 0;
        let mut index = DedupIndex::with_threshold(
            4,
            Box::new(move || {
                files += 1;
                if files > 2 { Err(io::ErrorKind::StorageFull.into()) } else { tempfile::tempfile() }
            }),
        );
        for line in 1..=1000 {
            assert_eq!(index.insert(&line.to_string(), line), None);
        }
        assert!(index.table.is_none());
        for line in 1..=1000 {
            assert_eq!(index.insert(&line.to_string(), 5000), Some(line));
        }
    }

    #[test]
    fn a_file_that_can_no_longer_be_written_loses_no_key() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("keys");
        let created_path = path.clone();
        let mut index = DedupIndex::with_threshold(
            4,
            Box::new(move || {
                File::options().read(true).write(true).create(true).truncate(true).open(&created_path)
            }),
        );
        for line in 1..=10 {
            index.insert(&line.to_string(), line);
        }
        index.table.as_mut().unwrap().file = File::open(&path).unwrap();
        for line in 11..=20 {
            assert_eq!(index.insert(&line.to_string(), line), None);
        }
        for line in 1..=20 {
            assert_eq!(index.insert(&line.to_string(), 99), Some(line));
        }
    }

    #[test]
    fn a_file_that_can_no_longer_be_written_loses_no_count() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("keys");
        let created_path = path.clone();
        let mut index = DedupIndex::with_threshold(
            4,
            Box::new(move || {
                File::options().read(true).write(true).create(true).truncate(true).open(&created_path)
            }),
        );
        for key in ["a", "b", "c", "d", "a"] {
            index.count(key);
        }
        index.table.as_mut().unwrap().file = File::open(&path).unwrap();
        assert_eq!((index.count("a"), index.count("b"), index.count("e")), (3, 2, 1));
        assert!(index.table.is_none());
    }
}

//! Remembers which keys an input has had, and on which line, in flat memory.
//!
//! Up to a threshold the keys' hashes live in a map. Beyond it they move into an unlinked temporary
//! file: an open-addressing table that doubles at 60% load, whose pages the system may keep or drop.
//! A file that cannot be written is given up for memory, with a warning. No key is ever forgotten
//! while it can be read, and no trouble here ever refuses an item.

use std::collections::HashMap;
use std::fs::File;
use std::io;
#[cfg(unix)]
use std::os::unix::fs::FileExt;

use sha2::{Digest, Sha256};
use tracing::warn;

/// Keys held in memory before the file is made: a full map of 2^17 places, about 3 MB.
const IN_MEMORY: usize = 114_688;

/// A key's hash. Two words rather than a `u128`, whose alignment would waste a quarter of the map.
type Hash = [u64; 2];

/// Makes a file that nobody else sees.
type NewFile = Box<dyn FnMut() -> io::Result<File> + Send>;

/// Set of keys, each with the line where it first stood.
pub(crate) struct Seen {
    memory: HashMap<Hash, u64>,
    table: Option<Table>,
    /// Size of `memory` at which the keys move to a file; `None` once that has failed.
    threshold: Option<usize>,
    new_file: NewFile,
}

impl Seen {
    pub(crate) fn new() -> Self {
        Self::with(IN_MEMORY, Box::new(tempfile::tempfile))
    }

    fn with(threshold: usize, new_file: NewFile) -> Self {
        Self { memory: HashMap::new(), table: None, threshold: Some(threshold), new_file }
    }

    /// Remembers `key`, and returns the line that had it before, if one had. Lines count from 1.
    pub(crate) fn insert(&mut self, key: &str, line: u64) -> Option<u64> {
        self.insert_hash(hash(key), line)
    }

    fn insert_hash(&mut self, hash: Hash, line: u64) -> Option<u64> {
        if let Some(table) = &mut self.table {
            match table.insert(hash, line, &mut self.new_file) {
                Ok(before) => return before,
                Err(error) => self.give_up_file(&error),
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

    fn move_to_file(&mut self) {
        let moved = Table::new(self.memory.len() as u64 * 2, &mut self.new_file).and_then(|mut table| {
            for (hash, line) in &self.memory {
                table.put(*hash, *line)?;
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
                warn!(%error, "no temporary file for the keys already seen; they stay in memory");
            }
        }
    }

    /// Goes back to memory for good, with every key that the file still tells.
    fn give_up_file(&mut self, error: &io::Error) {
        self.threshold = None;
        let Some(table) = self.table.take() else { return };
        let memory = &mut self.memory;
        let told = table.for_each_stretch(|_, pairs| {
            memory.extend(pairs);
            Ok(())
        });
        match told {
            Ok(()) => warn!(%error, "the file of the keys already seen failed; they move to memory"),
            Err(lost) => warn!(
                %error, %lost, kept = self.memory.len(), of = table.keys,
                "the file of the keys already seen cannot be read; a repeated key may pass unseen"
            ),
        }
    }
}

fn hash(key: &str) -> Hash {
    let digest = Sha256::digest(key.as_bytes());
    let word = |at: usize| digest[at..at + 8].iter().fold(0, |word, byte| word << 8 | u64::from(*byte));
    [word(0), word(8)]
}

/// Bytes of one slot: the hash and the line. Line 0 marks an empty slot.
const SLOT: usize = 24;
/// Slots read at once to find a place: at 60% load nearly every search ends within them.
const PROBE: u64 = 16;
/// Slots read at once to go through the table.
const STRETCH: u64 = 4096;

/// Open-addressing table in a file.
struct Table {
    file: File,
    /// A power of two. A hash's home is given by its highest bits.
    slots: u64,
    keys: u64,
}

impl Table {
    fn new(at_least: u64, new_file: &mut NewFile) -> io::Result<Self> {
        let slots = at_least.next_power_of_two().max(2 * PROBE);
        let file = new_file()?;
        file.set_len(slots * SLOT as u64)?;
        Ok(Self { file, slots, keys: 0 })
    }

    fn insert(&mut self, hash: Hash, line: u64, new_file: &mut NewFile) -> io::Result<Option<u64>> {
        if (self.keys + 1) * 10 > self.slots * 6 {
            *self = self.doubled(new_file)?;
        }
        self.put(hash, line)
    }

    /// Writes the pair into the first free slot from its home on, unless the hash is already there.
    fn put(&mut self, hash: Hash, line: u64) -> io::Result<Option<u64>> {
        let mut first = self.home(hash);
        let mut bytes = [0; PROBE as usize * SLOT];
        loop {
            let stretch = self.read(first, PROBE, &mut bytes)?;
            match place(stretch, hash) {
                Place::Taken(line) => return Ok(Some(line)),
                Place::Free(index) => {
                    write_at(&self.file, &encode(hash, line), (first + index as u64) * SLOT as u64)?;
                    self.keys += 1;
                    return Ok(None);
                }
                Place::Beyond => first = (first + stretch.len() as u64) % self.slots,
            }
        }
    }

    /// Copies everything into a table of twice the size.
    ///
    /// Both tables are in the order of their hashes, or nearly so: what stands in one stretch of the
    /// old one belongs into one stretch of the new one, which is read and written as a whole.
    fn doubled(&mut self, new_file: &mut NewFile) -> io::Result<Self> {
        let mut new = Self::new(self.slots * 2, new_file)?;
        let mut bytes = vec![0; SLOT * STRETCH as usize * 2];
        let mut displaced = Vec::new();
        self.for_each_stretch(|start, pairs| {
            let start = start * 2;
            let stretch = new.read(start, STRETCH * 2, &mut bytes)?;
            for (hash, line) in pairs {
                let from =
                    new.home(hash).checked_sub(start).and_then(|from| stretch.get_mut(from as usize..));
                match from.map(|from| (place(from, hash), from)) {
                    Some((Place::Free(index), from)) => {
                        from[index] = encode(hash, line);
                        new.keys += 1;
                    }
                    _ => displaced.push((hash, line)),
                }
            }
            write_at(&new.file, stretch.as_flattened(), start * SLOT as u64)?;
            displaced.drain(..).try_for_each(|(hash, line)| new.put(hash, line).map(drop))
        })?;
        Ok(new)
    }

    fn for_each_stretch(
        &self,
        mut visit: impl FnMut(u64, &mut dyn Iterator<Item = (Hash, u64)>) -> io::Result<()>,
    ) -> io::Result<()> {
        let mut bytes = vec![0; SLOT * STRETCH as usize];
        for start in (0..self.slots).step_by(STRETCH as usize) {
            let stretch = self.read(start, STRETCH, &mut bytes)?;
            visit(start, &mut stretch.iter().map(decode).filter(|(_, line)| *line != 0))?;
        }
        Ok(())
    }

    /// Reads up to `count` slots from `first` on, and none beyond the table's end.
    fn read<'a>(&self, first: u64, count: u64, bytes: &'a mut [u8]) -> io::Result<&'a mut [[u8; SLOT]]> {
        let count = count.min(self.slots - first) as usize;
        let bytes = &mut bytes[..count * SLOT];
        read_at(&self.file, bytes, first * SLOT as u64)?;
        Ok(bytes.as_chunks_mut().0)
    }

    fn home(&self, hash: Hash) -> u64 {
        hash[0] >> (64 - self.slots.trailing_zeros())
    }
}

/// Where a hash stands, or could stand, in a stretch of slots that begins at or behind its home.
enum Place {
    Taken(u64),
    Free(usize),
    Beyond,
}

fn place(stretch: &[[u8; SLOT]], hash: Hash) -> Place {
    for (index, slot) in stretch.iter().enumerate() {
        let (there, line) = decode(slot);
        if line == 0 {
            return Place::Free(index);
        }
        if there == hash {
            return Place::Taken(line);
        }
    }
    Place::Beyond
}

fn encode(hash: Hash, line: u64) -> [u8; SLOT] {
    let mut slot = [0; SLOT];
    for (bytes, word) in slot.as_chunks_mut::<8>().0.iter_mut().zip([hash[0], hash[1], line]) {
        *bytes = word.to_le_bytes();
    }
    slot
}

fn decode(slot: &[u8; SLOT]) -> (Hash, u64) {
    let words = slot.as_chunks::<8>().0;
    ([u64::from_le_bytes(words[0]), u64::from_le_bytes(words[1])], u64::from_le_bytes(words[2]))
}

// Unix has one system call for what takes two elsewhere.
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

    fn in_a_file(threshold: usize) -> Seen {
        Seen::with(threshold, Box::new(tempfile::tempfile))
    }

    proptest! {
        #[test]
        fn the_set_agrees_with_a_map_before_and_after_it_spills(
            keys in prop::collection::vec("[a-d]{0,4}", 0..400),
            threshold in 1usize..40,
        ) {
            let mut seen = in_a_file(threshold);
            let mut model = HashMap::new();
            for (line, key) in (1..).zip(&keys) {
                let before = model.get(key).copied();
                model.entry(key.clone()).or_insert(line);
                prop_assert_eq!(seen.insert(key, line), before);
            }
            prop_assert_eq!(seen.table.is_some(), model.len() >= threshold);
        }

        #[test]
        fn keys_that_share_a_home_are_told_apart(
            tails in prop::collection::vec(0u64..40, 1..200),
            home in prop::sample::select(vec![0, u64::MAX]),
        ) {
            // The last home wraps around to the table's start.
            let mut seen = in_a_file(1);
            let mut model = HashMap::new();
            for (line, tail) in (1..).zip(tails) {
                let before = model.get(&tail).copied();
                model.entry(tail).or_insert(line);
                prop_assert_eq!(seen.insert_hash([home, tail], line), before);
            }
        }
    }

    #[test]
    fn memory_is_given_back_once_the_keys_are_in_the_file() {
        let mut seen = in_a_file(1000);
        for line in 1..=20_000 {
            assert_eq!(seen.insert(&line.to_string(), line), None);
        }
        assert_eq!(seen.memory.capacity(), 0);
        assert_eq!(seen.table.as_ref().unwrap().keys, 20_000);
        assert_eq!(seen.insert("17", 20_001), Some(17));
    }

    #[test]
    fn keys_stay_in_memory_when_no_file_can_be_made() {
        let mut seen = Seen::with(4, Box::new(|| Err(io::ErrorKind::PermissionDenied.into())));
        for line in 1..=100 {
            assert_eq!(seen.insert(&line.to_string(), line), None);
        }
        assert_eq!(seen.insert("3", 101), Some(3));
    }

    #[test]
    fn keys_move_back_to_memory_when_the_file_cannot_grow() {
        let mut files = 0;
        let mut seen = Seen::with(
            4,
            Box::new(move || {
                files += 1;
                if files > 2 { Err(io::ErrorKind::StorageFull.into()) } else { tempfile::tempfile() }
            }),
        );
        for line in 1..=1000 {
            assert_eq!(seen.insert(&line.to_string(), line), None);
        }
        assert!(seen.table.is_none());
        for line in 1..=1000 {
            assert_eq!(seen.insert(&line.to_string(), 5000), Some(line));
        }
    }

    #[test]
    fn a_file_that_can_no_longer_be_written_loses_no_key() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("keys");
        let made = path.clone();
        let mut seen = Seen::with(
            4,
            Box::new(move || File::options().read(true).write(true).create(true).truncate(true).open(&made)),
        );
        for line in 1..=10 {
            seen.insert(&line.to_string(), line);
        }
        seen.table.as_mut().unwrap().file = File::open(&path).unwrap();
        for line in 11..=20 {
            assert_eq!(seen.insert(&line.to_string(), line), None);
        }
        for line in 1..=20 {
            assert_eq!(seen.insert(&line.to_string(), 99), Some(line));
        }
    }
}

//! The vendors' caches of prompts: which prefix of a prompt is read, what is written, and when it is dropped.
//!
//! A prefix can be read from the time on at which the response that wrote it began. Before, further requests with the
//! same prefix write it again. Pure: the caller passes `now`.

use std::collections::{BTreeMap, HashMap};

use serde::{Deserialize, Serialize};
use tokio::time::Instant;

use super::prompt_prefixes::{
    BlockPrefix, CacheRouting, CacheTtl, CacheablePrompt, STEP_TOKENS, looked_up_blocks,
};
use super::rng::mix;

/// Maximum number of cached prefixes. The one that was not used for the longest time is dropped.
const MAX_ENTRIES: usize = 10_000;

/// Whether prompts are cached.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PromptCaching {
    /// No prompt is cached.
    #[default]
    Off,
    /// Prompts are cached by the rules of the vendor.
    Vendor,
}

/// A prompt with what decides about its caching.
#[derive(Debug)]
pub(super) struct PromptToCache {
    prompt: CacheablePrompt,
    /// Digest of the account, the model and the key of the cache.
    scope: u64,
    /// Minimum tokens of a cached prefix.
    min_tokens: u64,
    /// Whether the request reaches a cache that can contain the prompt.
    can_hit: bool,
}

/// What a request reads from the cache and writes to it, in tokens.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct CacheUse {
    /// Whether the prompt has a prefix that the vendor caches.
    pub(super) is_cacheable: bool,
    pub(super) read: u64,
    pub(super) written_five_minutes: u64,
    pub(super) written_one_hour: u64,
}

impl CacheUse {
    /// Returns the written tokens.
    pub(super) fn written(&self) -> u64 {
        self.written_five_minutes + self.written_one_hour
    }

    /// Returns the input tokens that are neither read from the cache nor written to it.
    pub(super) fn rest_of(&self, input_tokens: u64) -> u64 {
        input_tokens.saturating_sub(self.read + self.written())
    }

    fn write(&mut self, tokens: u64, ttl: CacheTtl) {
        match ttl {
            CacheTtl::FiveMinutes | CacheTtl::TenMinutes => self.written_five_minutes += tokens,
            CacheTtl::OneHour => self.written_one_hour += tokens,
        }
    }
}

/// Prefixes that a response writes. They are readable from `begins_at` on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct CacheWrite {
    begins_at: Instant,
    /// Unique to the call.
    serial: u64,
}

/// A cached prefix.
#[derive(Debug)]
struct Entry {
    ttl: CacheTtl,
    expires_at: Instant,
    /// Number of its last use, among all uses.
    last_use: u64,
}

/// The cached prefixes of all accounts.
#[derive(Debug, Default)]
pub(super) struct PromptCache {
    entries: HashMap<u64, Entry>,
    /// Keys of the entries by their last use.
    keys_by_use: BTreeMap<u64, u64>,
    uses: u64,
    /// Prefixes of the responses that have not begun, with their keys.
    pending: BTreeMap<CacheWrite, Vec<(u64, CacheTtl)>>,
}

impl PromptCache {
    /// Returns what a request with this prompt reads and writes. Changes nothing that can be observed.
    pub(super) fn look_up(&mut self, request: &PromptToCache, now: Instant) -> CacheUse {
        self.apply_due_writes(now);
        match &request.prompt {
            CacheablePrompt::Blocks(blocks) => self.look_up_blocks(request, blocks, now),
            CacheablePrompt::Steps { digests, .. } => {
                let hit = self.longest_step(request, digests, now).unwrap_or(0);
                CacheUse {
                    is_cacheable: digests.len() >= first_step(request.min_tokens),
                    read: hit as u64 * STEP_TOKENS,
                    ..CacheUse::default()
                }
            }
        }
    }

    /// Refreshes what a request reads, and registers what its response writes when it begins.
    pub(super) fn use_prompt(
        &mut self,
        request: &PromptToCache,
        now: Instant,
        begins_at: Instant,
        serial: u64,
    ) -> CacheWrite {
        self.apply_due_writes(now);
        let written = match &request.prompt {
            CacheablePrompt::Blocks(blocks) => self.use_blocks(request, blocks, now),
            CacheablePrompt::Steps { digests, .. } => self.use_steps(request, digests, now),
        };
        let write = CacheWrite { begins_at, serial };
        if !written.is_empty() {
            self.pending.insert(write, written);
        }
        write
    }

    /// Discards what a response would write, unless it has begun.
    pub(super) fn cancel(&mut self, write: CacheWrite, now: Instant) {
        if write.begins_at > now {
            self.pending.remove(&write);
        }
    }

    fn look_up_blocks(&self, request: &PromptToCache, blocks: &[BlockPrefix], now: Instant) -> CacheUse {
        let hit = self.longest_block(request, blocks, now);
        let mut cache_use = CacheUse {
            is_cacheable: marked_blocks(request, blocks).next().is_some(),
            read: hit.map_or(0, |hit| blocks[hit].tokens),
            ..CacheUse::default()
        };
        let mut cached = cache_use.read;
        for (index, ttl) in marked_blocks(request, blocks) {
            let tokens = blocks[index].tokens;
            cache_use.write(tokens.saturating_sub(cached), ttl);
            cached = cached.max(tokens);
        }
        cache_use
    }

    /// Returns the index of the last block whose prefix is cached, among the marked blocks and those before them.
    fn longest_block(&self, request: &PromptToCache, blocks: &[BlockPrefix], now: Instant) -> Option<usize> {
        let is_hit = |index: &usize| {
            let block = &blocks[*index];
            block.tokens >= request.min_tokens && self.is_readable(request.key(block.digest), now)
        };
        let marks = marked_blocks(request, blocks).filter(|_| request.can_hit);
        marks.filter_map(|(mark, _)| looked_up_blocks(mark).rev().find(is_hit)).max()
    }

    fn use_blocks(
        &mut self,
        request: &PromptToCache,
        blocks: &[BlockPrefix],
        now: Instant,
    ) -> Vec<(u64, CacheTtl)> {
        if let Some(hit) = self.longest_block(request, blocks, now) {
            self.refresh(request.key(blocks[hit].digest), now);
        }
        let mut written = Vec::new();
        for (index, ttl) in marked_blocks(request, blocks) {
            let key = request.key(blocks[index].digest);
            if request.can_hit && self.is_readable(key, now) {
                self.refresh(key, now);
            } else {
                written.push((key, ttl));
            }
        }
        written
    }

    /// Returns the number of 128 tokens in the longest cached prefix.
    fn longest_step(&self, request: &PromptToCache, digests: &[u64], now: Instant) -> Option<usize> {
        let lengths = (first_step(request.min_tokens)..=digests.len()).filter(|_| request.can_hit);
        lengths.rev().find(|length| self.is_readable(request.key(digests[length - 1]), now))
    }

    /// Refreshes and writes the longest prefixes first, so that the shortest, which most prompts have in common, are
    /// dropped last.
    fn use_steps(&mut self, request: &PromptToCache, digests: &[u64], now: Instant) -> Vec<(u64, CacheTtl)> {
        let hit = self.longest_step(request, digests, now).unwrap_or(0);
        let first = first_step(request.min_tokens);
        for length in (first..=hit).rev() {
            self.refresh(request.key(digests[length - 1]), now);
        }
        let lengths = (first..=digests.len()).rev();
        lengths.map(|length| (request.key(digests[length - 1]), CacheTtl::TenMinutes)).collect()
    }

    fn is_readable(&self, key: u64, now: Instant) -> bool {
        self.entries.get(&key).is_some_and(|entry| entry.expires_at > now)
    }

    /// Adds the prefixes of all responses that have begun until `now`.
    fn apply_due_writes(&mut self, now: Instant) {
        while let Some(first) = self.pending.first_entry().filter(|first| first.key().begins_at <= now) {
            let (write, written) = first.remove_entry();
            for (key, ttl) in written {
                self.insert(key, ttl, write.begins_at);
            }
        }
    }

    fn insert(&mut self, key: u64, ttl: CacheTtl, at: Instant) {
        self.uses += 1;
        let mut entry = Entry { ttl, expires_at: at + ttl.duration(), last_use: self.uses };
        if let Some(old) = self.entries.remove(&key) {
            self.keys_by_use.remove(&old.last_use);
            if old.expires_at > at {
                // Two requests wrote it at the same time.
                entry.ttl = entry.ttl.max(old.ttl);
                entry.expires_at = entry.expires_at.max(old.expires_at);
            }
        }
        self.keys_by_use.insert(entry.last_use, key);
        self.entries.insert(key, entry);
        if self.entries.len() > MAX_ENTRIES
            && let Some((_, oldest)) = self.keys_by_use.pop_first()
        {
            self.entries.remove(&oldest);
        }
    }

    fn refresh(&mut self, key: u64, now: Instant) {
        let Some(entry) = self.entries.get_mut(&key) else { return };
        self.uses += 1;
        self.keys_by_use.remove(&entry.last_use);
        self.keys_by_use.insert(self.uses, key);
        entry.last_use = self.uses;
        entry.expires_at = entry.expires_at.max(now + entry.ttl.duration());
    }
}

impl PromptToCache {
    /// Creates a prompt. `owner` is the digest of its account and its model. `hits_by_chance` is whether a request that
    /// reaches any of several caches reaches one that can contain the prompt.
    pub(super) fn new(prompt: CacheablePrompt, owner: u64, min_tokens: u64, hits_by_chance: bool) -> Self {
        let routing = match &prompt {
            CacheablePrompt::Blocks(_) => CacheRouting::Single,
            CacheablePrompt::Steps { routing, .. } => *routing,
        };
        let scope = match routing {
            CacheRouting::Single | CacheRouting::Any => owner,
            CacheRouting::Key(key) => mix(owner ^ mix(key)),
        };
        let can_hit = match routing {
            CacheRouting::Single | CacheRouting::Key(_) => true,
            CacheRouting::Any => hits_by_chance,
        };
        Self { prompt, scope, min_tokens, can_hit }
    }

    fn key(&self, digest: u64) -> u64 {
        mix(self.scope ^ digest.rotate_left(32))
    }
}

/// Returns the marked blocks that end a prefix of at least the minimum, with how long they are cached.
fn marked_blocks(request: &PromptToCache, blocks: &[BlockPrefix]) -> impl Iterator<Item = (usize, CacheTtl)> {
    let min_tokens = request.min_tokens;
    let long_enough = blocks.iter().enumerate().filter(move |(_, block)| block.tokens >= min_tokens);
    long_enough.filter_map(|(index, block)| block.mark.map(|ttl| (index, ttl)))
}

/// Returns the number of 128 tokens in the shortest cached prefix.
fn first_step(min_tokens: u64) -> usize {
    usize::try_from(min_tokens.div_ceil(STEP_TOKENS).max(1)).unwrap_or(usize::MAX)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::simulator::prompt_prefixes::PrefixDigester;

    fn prompt(texts: &[&str]) -> PromptToCache {
        let mut digester = PrefixDigester::default();
        texts.iter().for_each(|text| digester.text(text));
        PromptToCache::new(digester.into_steps(CacheRouting::Single), 1, 1_024, false)
    }

    fn send(cache: &mut PromptCache, prompt: &PromptToCache, now: Instant, serial: u64) -> u64 {
        let read = cache.look_up(prompt, now).read;
        cache.use_prompt(prompt, now, now, serial);
        read
    }

    #[test]
    fn the_cache_is_bounded_and_drops_what_was_not_used_for_the_longest_time() {
        let mut cache = PromptCache::default();
        let now = Instant::now();
        let common = "x".repeat(1_024 * 4);
        let unused = prompt(&["unused", &common]);
        send(&mut cache, &unused, now, 0);
        for serial in 1..=5_000 {
            let own = format!("{serial:08}").repeat(200);
            let read = send(&mut cache, &prompt(&[&common, &own]), now, serial);
            assert_eq!(read, if serial == 1 { 0 } else { 1_024 });
            assert!(cache.entries.len() <= MAX_ENTRIES && cache.keys_by_use.len() == cache.entries.len());
        }
        assert_eq!(cache.entries.len(), MAX_ENTRIES);
        assert_eq!(cache.look_up(&unused, now).read, 0);
    }

    #[test]
    fn a_write_is_canceled_only_before_its_response_begins() {
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let prompt = prompt(&[&"x".repeat(1_024 * 4)]);
        for (canceled_at, read) in [(1, 0), (2, 1_024), (3, 1_024)] {
            let mut cache = PromptCache::default();
            let write = cache.use_prompt(&prompt, at(0), at(2), 1);
            assert_eq!(cache.look_up(&prompt, at(1)).read, 0);
            cache.cancel(write, at(canceled_at));
            assert_eq!(cache.look_up(&prompt, at(4)).read, read, "{canceled_at}");
            assert!(cache.pending.is_empty());
        }
    }
}

//! The prompt cache compared with a simple reference that keeps whole prefixes and every earlier request.

use std::time::Duration;

use proptest::prelude::*;
use tokio::time::Instant;

use crate::simulator::prompt_cache::{CacheUse, CacheWrite, PromptCache, PromptToCache};
use crate::simulator::prompt_prefixes::{CacheRouting, CacheTtl, PrefixDigester};

/// Tokens of one block, and of one step.
const PIECE_TOKENS: u64 = 128;
/// Minimum of a cached prefix, in pieces.
const MIN_PIECES: usize = 2;

/// A request. Its prompt consists of pieces of 128 tokens.
#[derive(Debug, Clone)]
struct Request {
    /// Seconds since the previous request.
    wait: u64,
    owner: u64,
    pieces: Vec<u8>,
    /// The mark of each piece, as far as it is a block.
    marks: Vec<Option<CacheTtl>>,
    /// The key of the cache; `None` reaches any of several.
    key: Option<u64>,
    hits_by_chance: bool,
    /// Seconds until the first token.
    first_token: u64,
    /// Seconds after which the client disconnects, if it does so before the end.
    disconnect: Option<u64>,
}

fn requests() -> impl Strategy<Value = Vec<Request>> {
    let mark = prop_oneof![
        3 => Just(None),
        2 => Just(Some(CacheTtl::FiveMinutes)),
        1 => Just(Some(CacheTtl::OneHour)),
    ];
    let wait = prop_oneof![4 => 0u64..5, 3 => 100u64..400, 1 => 500u64..4_000];
    let prompt = (prop::collection::vec(0u8..2, 1..7), prop::collection::vec(mark, 7));
    let routing = (0u64..2, prop::option::weighted(0.7, 0u64..2), any::<bool>());
    let times = (wait, 0u64..4, prop::option::weighted(0.2, 0u64..4));
    let request = (prompt, routing, times).prop_map(|(prompt, routing, times)| {
        let (pieces, marks) = prompt;
        let (owner, key, hits_by_chance) = routing;
        let (wait, first_token, disconnect) = times;
        Request { wait, owner, pieces, marks, key, hits_by_chance, first_token, disconnect }
    });
    prop::collection::vec(request, 1..40)
}

impl Request {
    /// Returns the prompt with a prefix for each piece, as blocks or as steps.
    fn prompt(&self, is_in_blocks: bool) -> PromptToCache {
        let mut digester = PrefixDigester::default();
        for (piece, mark) in self.pieces.iter().zip(&self.marks) {
            digester.counted(&piece.to_string().repeat(PIECE_TOKENS as usize * 4));
            digester.end_block(*mark);
        }
        let routing = self.key.map_or(CacheRouting::Any, CacheRouting::Key);
        let prompt = if is_in_blocks { digester.into_blocks() } else { digester.into_steps(routing) };
        PromptToCache::new(prompt, self.owner, MIN_PIECES as u64 * PIECE_TOKENS, self.hits_by_chance)
    }

    /// Returns whether the response begins although the client may disconnect.
    fn begins(&self) -> bool {
        self.disconnect.is_none_or(|disconnect| disconnect >= self.first_token)
    }
}

/// The cache with its clock.
struct TimedCache {
    cache: PromptCache,
    start: Instant,
    /// Writes to cancel, with their times.
    disconnects: Vec<(u64, CacheWrite)>,
}

impl TimedCache {
    fn new() -> Self {
        Self { cache: PromptCache::default(), start: Instant::now(), disconnects: Vec::new() }
    }

    fn at(&self, second: u64) -> Instant {
        self.start + Duration::from_secs(second)
    }

    fn send(&mut self, request: &Request, is_in_blocks: bool, now: u64, serial: u64) -> CacheUse {
        self.disconnects.sort();
        while self.disconnects.first().is_some_and(|(second, _)| *second <= now) {
            let (second, write) = self.disconnects.remove(0);
            self.cache.cancel(write, self.at(second));
        }
        let prompt = request.prompt(is_in_blocks);
        let cache_use = self.cache.look_up(&prompt, self.at(now));
        let begins_at = self.at(now + request.first_token);
        let write = self.cache.use_prompt(&prompt, self.at(now), begins_at, serial);
        self.disconnects.extend(request.disconnect.map(|disconnect| (now + disconnect, write)));
        cache_use
    }
}

/// A use of a prefix: from a time on it is cached, until it expires.
struct PrefixUse {
    scope: (u64, Option<u64>),
    prefix: Vec<u8>,
    from: u64,
    until: u64,
}

/// All earlier uses.
#[derive(Default)]
struct Reference(Vec<PrefixUse>);

impl Reference {
    fn is_cached(&self, scope: (u64, Option<u64>), prefix: &[u8], now: u64) -> bool {
        self.0.iter().any(|earlier| {
            let is_in_time = earlier.from <= now && now < earlier.until;
            is_in_time && earlier.scope == scope && earlier.prefix == prefix
        })
    }

    fn add(&mut self, scope: (u64, Option<u64>), prefix: &[u8], from: u64, seconds: u64) {
        self.0.push(PrefixUse { scope, prefix: prefix.to_vec(), from, until: from + seconds });
    }

    /// Returns the number of pieces that a request reads, if the vendor needs no marks.
    fn send_steps(&mut self, request: &Request, now: u64) -> usize {
        let scope = (request.owner, request.key);
        let lengths = MIN_PIECES..=request.pieces.len();
        let can_hit = request.key.is_some() || request.hits_by_chance;
        let is_hit = |length: &usize| can_hit && self.is_cached(scope, &request.pieces[..*length], now);
        let hit = lengths.clone().rev().find(is_hit).unwrap_or(0);
        for length in lengths {
            let prefix = &request.pieces[..length];
            if length <= hit {
                self.add(scope, prefix, now, 600);
            }
            if request.begins() {
                self.add(scope, prefix, now + request.first_token, 600);
            }
        }
        hit
    }

    /// Returns the tokens that a request reads and writes, if it marks what is cached.
    fn send_blocks(&mut self, request: &Request, ttl: CacheTtl, now: u64) -> CacheUse {
        let scope = (request.owner, None);
        let seconds = ttl.duration().as_secs();
        let marks = (MIN_PIECES..=request.pieces.len()).filter(|length| request.marks[length - 1].is_some());
        let marks: Vec<usize> = marks.collect();
        let Some(last) = marks.last() else { return CacheUse::default() };
        let is_hit = |length: &usize| self.is_cached(scope, &request.pieces[..*length], now);
        let hit = (MIN_PIECES..=*last).rev().find(is_hit).unwrap_or(0);
        let live: Vec<bool> = marks.iter().map(is_hit).collect();
        for (length, is_live) in marks.iter().zip(live).chain([(&hit, hit > 0)]) {
            let prefix = &request.pieces[..*length];
            if is_live {
                self.add(scope, prefix, now, seconds);
            } else if *length > 0 && request.begins() {
                self.add(scope, prefix, now + request.first_token, seconds);
            }
        }
        let written = (last - hit.min(*last)) as u64 * PIECE_TOKENS;
        let is_hour = ttl == CacheTtl::OneHour;
        CacheUse {
            is_cacheable: true,
            read: hit as u64 * PIECE_TOKENS,
            written_five_minutes: if is_hour { 0 } else { written },
            written_one_hour: if is_hour { written } else { 0 },
        }
    }
}

proptest! {
    #[test]
    fn the_longest_common_prefix_with_an_earlier_prompt_is_read(requests in requests()) {
        let mut cache = TimedCache::new();
        let mut reference = Reference::default();
        let mut now = 0;
        for (serial, request) in (0..).zip(&requests) {
            now += request.wait;
            let cache_use = cache.send(request, false, now, serial);
            let pieces = reference.send_steps(request, now);
            let expected = CacheUse {
                is_cacheable: request.pieces.len() >= MIN_PIECES,
                read: pieces as u64 * PIECE_TOKENS,
                ..CacheUse::default()
            };
            prop_assert_eq!(cache_use, expected, "request {} at {}", serial, now);
        }
    }

    #[test]
    fn marked_prefixes_are_read_or_written(requests in requests(), is_hour in any::<bool>()) {
        let ttl = if is_hour { CacheTtl::OneHour } else { CacheTtl::FiveMinutes };
        let mut cache = TimedCache::new();
        let mut reference = Reference::default();
        let mut now = 0;
        for (serial, request) in (0..).zip(&requests) {
            now += request.wait;
            let mut request = request.clone();
            request.marks.iter_mut().flatten().for_each(|mark| *mark = ttl);
            let cache_use = cache.send(&request, true, now, serial);
            let expected = reference.send_blocks(&request, ttl, now);
            prop_assert_eq!(cache_use, expected, "request {} at {}", serial, now);
        }
    }

    #[test]
    fn the_tokens_of_the_cache_and_the_rest_are_the_input(requests in requests()) {
        let mut cache = TimedCache::new();
        let mut now = 0;
        for (serial, request) in (0..).zip(&requests) {
            now += request.wait;
            for (is_in_blocks, serial) in [(true, 2 * serial), (false, 2 * serial + 1)] {
                let cache_use = cache.send(request, is_in_blocks, now, serial);
                let input = request.pieces.len() as u64 * PIECE_TOKENS;
                let rest = cache_use.rest_of(input);
                prop_assert_eq!(rest + cache_use.read + cache_use.written(), input);
                prop_assert!(cache_use.is_cacheable || cache_use.read + cache_use.written() == 0);
            }
        }
    }
}

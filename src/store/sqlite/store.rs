//! The interface of a store, for SQLite.

use std::collections::BTreeMap;
use std::path::PathBuf;

use futures_util::FutureExt;
use serde_json::Value;

use crate::store::answer_cache::{CacheLimits, CachedAnswer, CachedTarget, PrunedAnswers};
use crate::store::call_count::CallCount;
use crate::store::database_files::database_files;
use crate::store::document::{Document, DocumentKind, ExpectedVersion};
use crate::store::error::Error;
use crate::store::lock::RunLock;
use crate::store::record::{ItemNumber, Record, StoredItem};
use crate::store::run::{RunFilter, RunMetadata, RunNumber, RunState, RunTotals, StoredRun};
use crate::store::spending::{MAX_SPENDING_ROWS, ScopeSpendingRow, SpendingRow};
use crate::store::store::{Session, Store, StoreFuture};
use crate::types::{Day, Fingerprint, ItemKey, ProviderName, ScopeName, Spend, StepName, TargetName};

use super::database::Sqlite;
use super::documents::DocumentChange;
use super::runs::now;

impl Store for Sqlite {
    fn runs(&self) -> StoreFuture<'_, Vec<StoredRun>> {
        self.all_runs().boxed()
    }

    fn run(&self, run: RunNumber) -> StoreFuture<'_, StoredRun> {
        self.one_run(run).boxed()
    }

    fn state(&self, run: RunNumber) -> StoreFuture<'_, RunState> {
        self.state_of(run).boxed()
    }

    fn set_state(&self, run: RunNumber, state: RunState) -> StoreFuture<'_, ()> {
        self.set_state(run, state).boxed()
    }

    fn set_identity<'a>(&'a self, run: RunNumber, identity: &'a str) -> StoreFuture<'a, ()> {
        self.set_identity(run, identity).boxed()
    }

    fn find_latest<'a>(&'a self, identity: &'a str) -> StoreFuture<'a, Option<StoredRun>> {
        self.find_run(identity).boxed()
    }

    fn create<'a>(&'a self, identity: &'a str, metadata: &'a RunMetadata) -> StoreFuture<'a, RunNumber> {
        self.create_run(identity, metadata).boxed()
    }

    fn lock(&self, run: RunNumber) -> Result<RunLock, Error> {
        RunLock::take(&self.real_path, run)
    }

    fn files(&self, run: RunNumber) -> Vec<PathBuf> {
        let mut files = database_files(&self.real_path);
        files.push(RunLock::file(&self.real_path, run));
        files
    }

    fn is_locked(&self, run: RunNumber) -> bool {
        RunLock::is_taken(&self.real_path, run)
    }

    fn begin_session<'a>(
        &'a self,
        run: RunNumber,
        metadata: Option<&'a RunMetadata>,
        new_revision: bool,
    ) -> StoreFuture<'a, Session> {
        self.begin_session(run, metadata, new_revision).boxed()
    }

    fn finish_session<'a>(
        &'a self,
        run: RunNumber,
        state: RunState,
        outcome: &'a Value,
    ) -> StoreFuture<'a, ()> {
        self.touch_run(run, state, outcome).boxed()
    }

    fn record_outcome<'a>(&'a self, run: RunNumber, outcome: &'a Value) -> StoreFuture<'a, ()> {
        self.note_outcome(run, outcome).boxed()
    }

    fn write_records<'a>(&'a self, records: &'a [Record]) -> StoreFuture<'a, ()> {
        self.write_records(records, now()).boxed()
    }

    fn look_up<'a>(
        &'a self,
        run: RunNumber,
        keys: &'a [ItemKey],
    ) -> StoreFuture<'a, Vec<Option<StoredItem>>> {
        self.items_of(run, keys).boxed()
    }

    fn items(&self, run: RunNumber, after: ItemNumber, max: u32) -> StoreFuture<'_, Vec<StoredItem>> {
        self.items_after(run, after, max).boxed()
    }

    fn failed(&self, run: RunNumber, after: ItemNumber, max: u32) -> StoreFuture<'_, Vec<StoredItem>> {
        self.failed_after(run, after, max).boxed()
    }

    fn totals(&self, run: RunNumber) -> StoreFuture<'_, RunTotals> {
        self.totals_of(run).boxed()
    }

    fn item_counts<'a>(&'a self, run: RunNumber, groups: &'a [(i64, i64)]) -> StoreFuture<'a, RunTotals> {
        self.counts_of(run, groups).boxed()
    }

    fn verify_rows(&self, run: RunNumber) -> StoreFuture<'_, ()> {
        self.verify_rows_of(run).boxed()
    }

    fn damage(&self, what: String) -> Error {
        self.damaged(what)
    }

    fn spent_on(&self, day: Day) -> StoreFuture<'_, BTreeMap<ProviderName, Spend>> {
        self.booked_on(day).boxed()
    }

    fn scopes_spent_on<'a>(
        &'a self,
        day: Day,
        only: Option<&'a ScopeName>,
    ) -> StoreFuture<'a, BTreeMap<ScopeName, Spend>> {
        self.scopes_booked_on(day, only).boxed()
    }

    fn spent_by(&self, run: RunNumber) -> StoreFuture<'_, BTreeMap<ProviderName, Spend>> {
        self.booked_by(run).boxed()
    }

    fn add_spend<'a>(
        &'a self,
        run: RunNumber,
        scope: &'a ScopeName,
        day: Day,
        spent: &'a BTreeMap<ProviderName, Spend>,
    ) -> StoreFuture<'a, ()> {
        self.book_more(run, scope, day, spent).boxed()
    }

    fn count_calls<'a>(&'a self, calls: &'a BTreeMap<TargetName, u64>) -> StoreFuture<'a, ()> {
        self.count_calls_at(calls, now()).boxed()
    }

    fn calls_of_last_day(&self) -> StoreFuture<'_, Vec<CallCount>> {
        self.calls_of_day_at(now()).boxed()
    }

    fn cached_answers<'a>(&'a self, keys: &'a [Fingerprint]) -> StoreFuture<'a, Vec<CachedAnswer>> {
        self.answers_by_key(keys).boxed()
    }

    fn cached_targets(&self) -> StoreFuture<'_, Vec<CachedTarget>> {
        self.answers_by_target().boxed()
    }

    fn prune_cache(&self, limits: CacheLimits) -> StoreFuture<'_, PrunedAnswers> {
        self.prune_answers(limits, now()).boxed()
    }

    fn checkpoint(&self) -> StoreFuture<'_, ()> {
        self.fold_journal().boxed()
    }

    fn answer_counts(&self, run: RunNumber) -> StoreFuture<'_, BTreeMap<StepName, u64>> {
        self.answers_of(run).boxed()
    }

    fn delete_runs<'a>(&'a self, runs: &'a [RunNumber]) -> StoreFuture<'a, ()> {
        self.forget_runs(runs).boxed()
    }

    fn vacuum(&self) -> StoreFuture<'_, ()> {
        self.shrink_file().boxed()
    }

    fn runs_page<'a>(&'a self, filter: &'a RunFilter) -> StoreFuture<'a, Vec<StoredRun>> {
        self.page_of_runs(filter).boxed()
    }

    fn unfinished_runs<'a>(&'a self, identity_prefix: &'a str) -> StoreFuture<'a, Vec<StoredRun>> {
        self.runs_to_resume(identity_prefix).boxed()
    }

    fn spending(&self, from: Day, to: Day) -> StoreFuture<'_, Vec<SpendingRow>> {
        self.spending_rows(from, to, MAX_SPENDING_ROWS).boxed()
    }

    fn scope_spending(&self, from: Day, to: Day) -> StoreFuture<'_, Vec<ScopeSpendingRow>> {
        self.scope_spending_rows(from, to, MAX_SPENDING_ROWS).boxed()
    }

    fn check_writable(&self) -> StoreFuture<'_, ()> {
        self.write_check(now()).boxed()
    }

    fn put_document<'a>(
        &'a self,
        kind: DocumentKind,
        name: &'a str,
        value: &'a Value,
        by: &'a str,
        expires_at: Option<i64>,
        expected: ExpectedVersion,
    ) -> StoreFuture<'a, Document> {
        let change = DocumentChange { kind, name, value, by, expires_at, expected, overwrites: false };
        self.write_document(change, now()).boxed()
    }

    fn replace_document<'a>(
        &'a self,
        kind: DocumentKind,
        name: &'a str,
        value: &'a Value,
        by: &'a str,
        expires_at: Option<i64>,
        expected: ExpectedVersion,
    ) -> StoreFuture<'a, Document> {
        let change = DocumentChange { kind, name, value, by, expires_at, expected, overwrites: true };
        self.write_document(change, now()).boxed()
    }

    fn document<'a>(
        &'a self,
        kind: DocumentKind,
        name: &'a str,
        now: i64,
    ) -> StoreFuture<'a, Option<Document>> {
        self.document_at(kind, name, now).boxed()
    }

    fn document_version<'a>(
        &'a self,
        kind: DocumentKind,
        name: &'a str,
        version: i64,
    ) -> StoreFuture<'a, Option<Document>> {
        self.one_document_version(kind, name, version).boxed()
    }

    fn document_versions<'a>(&'a self, kind: DocumentKind, name: &'a str) -> StoreFuture<'a, Vec<Document>> {
        self.all_document_versions(kind, name).boxed()
    }

    fn documents<'a>(
        &'a self,
        kind: DocumentKind,
        after: Option<&'a str>,
        max: u32,
    ) -> StoreFuture<'a, Vec<Document>> {
        self.documents_after(kind, after, max).boxed()
    }

    fn delete_document<'a>(
        &'a self,
        kind: DocumentKind,
        name: &'a str,
        by: &'a str,
    ) -> StoreFuture<'a, bool> {
        self.delete_document_at(kind, name, by, now()).boxed()
    }

    fn remove_document<'a>(&'a self, kind: DocumentKind, name: &'a str) -> StoreFuture<'a, bool> {
        self.forget_document(kind, name).boxed()
    }

    fn remove_expired(&self, kind: DocumentKind, now: i64) -> StoreFuture<'_, u64> {
        self.forget_expired(kind, now).boxed()
    }
}

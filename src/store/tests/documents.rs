//! Documents are stored with their history, and a change is written completely or not at all.

use proptest::collection::vec;
use proptest::option;
use proptest::prelude::{ProptestConfig, any, proptest};

use super::*;
use crate::store::sqlite::DocumentChange;

const KINDS: [DocumentKind; 3] = [DocumentKind::Pipeline, DocumentKind::Token, DocumentKind::IdempotencyKey];

/// Returns a change of the pipeline `email` without conditions.
fn change<'a>(value: &'a Value, by: &'a str) -> DocumentChange<'a> {
    DocumentChange {
        kind: DocumentKind::Pipeline,
        name: "email",
        value,
        by,
        expires_at: None,
        expected: ExpectedVersion::Any,
        overwrites: false,
    }
}

async fn put(store: &Sqlite, name: &str, value: Value, expected: ExpectedVersion) -> Result<Document, Error> {
    store.put_document(DocumentKind::Pipeline, name, &value, "ann", None, expected).await
}

/// Returns the version and the value of the pipeline `email` at a time.
async fn current(store: &Sqlite, now: i64) -> Option<(i64, Value)> {
    let found = store.document(DocumentKind::Pipeline, "email", now).await.unwrap();
    found.map(|found| (found.version, found.value))
}

#[tokio::test]
async fn every_change_of_a_document_is_a_version_with_its_writer_and_time() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(folder.path()).await;
    let values = [json!({ "text": "a" }), json!(null), json!([1, "é"])];
    let first = store.write_document(change(&values[0], "ann"), 10).await.unwrap();
    let second = change(&values[1], "bob");
    let second = DocumentChange { expected: ExpectedVersion::Is(1), expires_at: Some(99), ..second };
    let second = store.write_document(second, 20).await.unwrap();
    assert!(store.delete_document_at(DocumentKind::Pipeline, "email", "cyd", 30).await.unwrap());
    assert_eq!(current(&store, 30).await, None);
    assert!(!store.delete_document_at(DocumentKind::Pipeline, "email", "cyd", 35).await.unwrap());
    let fourth = DocumentChange { expected: ExpectedVersion::None, ..change(&values[2], "dan") };
    let fourth = store.write_document(fourth, 40).await.unwrap();
    store.close().await;

    let store = open(folder.path()).await;
    let document = |version, created_at, by: &str, expires_at, value: &Value, is_deleted| Document {
        kind: DocumentKind::Pipeline,
        name: "email".into(),
        version,
        created_at,
        created_by: by.into(),
        expires_at,
        value: value.clone(),
        is_deleted,
    };
    let expected = [
        document(4, 40, "dan", None, &values[2], false),
        document(3, 30, "cyd", None, &Value::Null, true),
        document(2, 20, "bob", Some(99), &values[1], false),
        document(1, 10, "ann", None, &values[0], false),
    ];
    assert_eq!([&fourth, &second, &first], [&expected[0], &expected[2], &expected[3]]);
    assert_eq!(store.document_versions(DocumentKind::Pipeline, "email").await.unwrap(), expected);
    assert_eq!(store.document(DocumentKind::Pipeline, "email", 50).await.unwrap(), Some(fourth));
    for version in &expected {
        let found = store.document_version(DocumentKind::Pipeline, "email", version.version).await.unwrap();
        assert_eq!(found.as_ref(), Some(version));
    }
    assert_eq!(store.document_version(DocumentKind::Pipeline, "email", 5).await.unwrap(), None);
    // The same name in another kind is another document.
    assert_eq!(store.document(DocumentKind::Token, "email", 50).await.unwrap(), None);
    assert_eq!(store.document_versions(DocumentKind::Token, "email").await.unwrap(), []);
    assert!(!store.delete_document(DocumentKind::Token, "email", "eve").await.unwrap());
}

#[tokio::test]
async fn a_change_that_expects_another_version_is_refused_and_writes_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(folder.path()).await;
    let refused = async |expected, found| {
        let refused = put(&store, "email", json!(9), expected).await.unwrap_err();
        let Error::VersionConflict { kind: DocumentKind::Pipeline, ref name, found: is } = refused else {
            panic!("{refused:?}");
        };
        assert_eq!((name.as_str(), is), ("email", found), "{expected:?}");
        refused.to_string()
    };
    let message = refused(ExpectedVersion::Is(1), None).await;
    assert!(message.contains("the pipeline \"email\" does not exist"), "{message}");
    put(&store, "email", json!(1), ExpectedVersion::None).await.unwrap();
    let message = refused(ExpectedVersion::None, Some(1)).await;
    assert!(message.contains("its latest version is 1"), "{message}");
    refused(ExpectedVersion::Is(2), Some(1)).await;
    put(&store, "email", json!(2), ExpectedVersion::Is(1)).await.unwrap();
    refused(ExpectedVersion::Is(1), Some(2)).await;
    store.delete_document(DocumentKind::Pipeline, "email", "ann").await.unwrap();
    for version in 1..=3 {
        refused(ExpectedVersion::Is(version), None).await;
    }
    assert_eq!(store.document_versions(DocumentKind::Pipeline, "email").await.unwrap().len(), 3);
    assert_eq!(put(&store, "email", json!(4), ExpectedVersion::None).await.unwrap().version, 4);
}

#[tokio::test]
async fn of_two_changes_at_the_same_time_that_expect_the_same_version_one_is_written() {
    let folder = tempfile::tempdir().unwrap();
    let one = open(folder.path()).await;
    let other = open(folder.path()).await;
    for expected in [ExpectedVersion::None, ExpectedVersion::Is(1), ExpectedVersion::Is(2)] {
        for store in [&one, &other] {
            let [left, right] = [json!("left"), json!("right")];
            let changes =
                [put(&one, "email", left.clone(), expected), put(store, "email", right.clone(), expected)];
            let [left_change, right_change] = changes;
            let (written, refused, value) = match tokio::join!(left_change, right_change) {
                (Ok(written), Err(refused)) => (written, refused, left),
                (Err(refused), Ok(written)) => (written, refused, right),
                both => panic!("{both:?}"),
            };
            assert_eq!(written.value, value);
            let found = Some(written.version);
            assert!(
                matches!(refused, Error::VersionConflict { found: is, .. } if is == found),
                "{refused:?}"
            );
            assert_eq!(current(&other, 0).await, Some((written.version, value)));
            // The other pair begins with the same version.
            let sql = match written.version {
                1 => "DELETE FROM documents WHERE version = 1",
                2 => "DELETE FROM documents WHERE version = 2",
                _ => "DELETE FROM documents WHERE version = 3",
            };
            edit(&folder.path().join("a.db"), sql).await;
        }
        put(&one, "email", json!("next"), ExpectedVersion::Any).await.unwrap();
    }
}

#[tokio::test]
async fn an_expired_document_does_not_exist_and_its_name_can_be_used_again() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(folder.path()).await;
    let value = json!(1);
    let expiring = || DocumentChange { expires_at: Some(100), ..change(&value, "ann") };
    let new = || DocumentChange { expected: ExpectedVersion::None, ..expiring() };
    store.write_document(expiring(), 10).await.unwrap();
    assert_eq!(current(&store, 99).await, Some((1, json!(1))));
    assert_eq!(current(&store, 100).await, None);
    assert_eq!(store.documents(DocumentKind::Pipeline, None, 9).await.unwrap().len(), 1);

    let refused = store.write_document(new(), 99).await.unwrap_err();
    assert!(matches!(refused, Error::VersionConflict { found: Some(1), .. }), "{refused:?}");
    let again = DocumentChange { expires_at: Some(200), overwrites: true, ..new() };
    assert_eq!(store.write_document(again, 100).await.unwrap().version, 1);
    assert_eq!(current(&store, 199).await, Some((1, json!(1))));
    let next = DocumentChange { expires_at: Some(300), ..new() };
    assert_eq!(store.write_document(next, 200).await.unwrap().version, 2);
    // A user can delete what has expired, so that it is listed no more.
    assert!(store.delete_document_at(DocumentKind::Pipeline, "email", "bob", 400).await.unwrap());
    assert_eq!(store.documents(DocumentKind::Pipeline, None, 9).await.unwrap(), []);
}

#[tokio::test]
async fn expired_documents_are_removed_with_all_their_versions() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(folder.path()).await;
    let value = json!(1);
    let write = async |kind, name, expires_at| {
        let change = DocumentChange { kind, name, expires_at, ..change(&value, "ann") };
        store.write_document(change, 1).await.unwrap();
    };
    write(DocumentKind::Token, "expired", None).await;
    write(DocumentKind::Token, "expired", Some(100)).await;
    write(DocumentKind::Token, "renewed", Some(50)).await;
    write(DocumentKind::Token, "renewed", Some(101)).await;
    write(DocumentKind::Token, "unlimited", Some(50)).await;
    write(DocumentKind::Token, "unlimited", None).await;
    write(DocumentKind::Token, "deleted", Some(50)).await;
    store.delete_document_at(DocumentKind::Token, "deleted", "ann", 1).await.unwrap();
    write(DocumentKind::Pipeline, "other", Some(50)).await;
    assert_eq!(store.remove_expired(DocumentKind::Token, 49).await.unwrap(), 0);
    assert_eq!(store.remove_expired(DocumentKind::Token, 100).await.unwrap(), 1);
    assert_eq!(store.remove_expired(DocumentKind::Token, 100).await.unwrap(), 0);
    let mut left = Vec::new();
    for kind in KINDS {
        for name in ["deleted", "expired", "other", "renewed", "unlimited"] {
            left.push(store.document_versions(kind, name).await.unwrap().len());
        }
    }
    assert_eq!(left, [0, 0, 1, 0, 0, 2, 0, 0, 2, 2, 0, 0, 0, 0, 0]);

    // More than are removed in one transaction.
    let many = "WITH RECURSIVE n (n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM n WHERE n < 1100) \
                INSERT INTO documents SELECT 'idempotency_key', 'key ' || n, 1, 1, 'ann', n, 0, '1' FROM n";
    edit(&folder.path().join("a.db"), many).await;
    assert_eq!(store.remove_expired(DocumentKind::IdempotencyKey, 1_050).await.unwrap(), 1_050);
    assert_eq!(store.remove_expired(DocumentKind::IdempotencyKey, 2_000).await.unwrap(), 50);
}

#[tokio::test]
async fn a_replaced_document_keeps_its_version_unless_it_was_deleted() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(folder.path()).await;
    let kind = DocumentKind::Token;
    let replace =
        async |value, by, expected| store.replace_document(kind, "ci", &value, by, None, expected).await;
    assert_eq!(replace(json!(1), "ann", ExpectedVersion::None).await.unwrap().version, 1);
    assert_eq!(replace(json!(2), "bob", ExpectedVersion::Is(1)).await.unwrap().version, 1);
    let refused = replace(json!(3), "cyd", ExpectedVersion::None).await.unwrap_err();
    assert!(matches!(refused, Error::VersionConflict { found: Some(1), .. }), "{refused:?}");
    assert!(refused.to_string().contains("the token \"ci\""), "{refused}");
    let versions = store.document_versions(kind, "ci").await.unwrap();
    let seen: Vec<_> =
        versions.iter().map(|found| (found.version, &found.value, &*found.created_by)).collect();
    assert_eq!(seen, [(1, &json!(2), "bob")]);

    store.delete_document(kind, "ci", "dan").await.unwrap();
    assert_eq!(replace(json!(4), "eve", ExpectedVersion::None).await.unwrap().version, 3);
    assert_eq!(replace(json!(5), "eve", ExpectedVersion::Any).await.unwrap().version, 3);
    let versions = store.document_versions(kind, "ci").await.unwrap();
    let seen: Vec<_> = versions.iter().map(|found| (found.version, &*found.created_by)).collect();
    assert_eq!(seen, [(3, "eve"), (2, "dan"), (1, "bob")]);

    assert!(store.remove_document(kind, "ci").await.unwrap());
    assert!(!store.remove_document(kind, "ci").await.unwrap());
    assert_eq!(store.document_versions(kind, "ci").await.unwrap(), []);
    assert_eq!(replace(json!(6), "ann", ExpectedVersion::None).await.unwrap().version, 1);
}

#[tokio::test]
async fn documents_are_listed_by_name_in_pages() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(folder.path()).await;
    for name in ["b", "é", "B", "a b", "", "c", "a"] {
        put(&store, name, json!(1), ExpectedVersion::Any).await.unwrap();
        put(&store, name, json!(name), ExpectedVersion::Any).await.unwrap();
    }
    store
        .replace_document(DocumentKind::Token, "z", &json!(1), "ann", None, ExpectedVersion::Any)
        .await
        .unwrap();
    store.delete_document(DocumentKind::Pipeline, "c", "ann").await.unwrap();
    store.remove_document(DocumentKind::Pipeline, "a b").await.unwrap();
    let names = async |after, max| {
        let found = store.documents(DocumentKind::Pipeline, after, max).await.unwrap();
        assert!(
            found.iter().all(|found| found.version == 2 && found.value == json!(found.name)),
            "{found:?}"
        );
        found.into_iter().map(|found| found.name).collect::<Vec<_>>()
    };
    assert_eq!(names(None, 10).await, ["", "B", "a", "b", "é"]);
    assert_eq!(names(None, 2).await, ["", "B"]);
    assert_eq!(names(Some(""), 2).await, ["B", "a"]);
    assert_eq!(names(Some("a"), 10).await, ["b", "é"]);
    assert_eq!(names(Some("b"), 1).await, ["é"]);
    assert_eq!(names(Some("é"), 10).await, [""; 0]);
    assert_eq!(names(None, 0).await, [""; 0]);
}

#[tokio::test]
async fn a_document_that_is_too_large_or_too_deep_is_refused_with_the_limit() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(folder.path()).await;
    // The quotation marks are two bytes.
    let largest = json!("x".repeat(MAX_DOCUMENT_BYTES - 2));
    put(&store, "email", largest.clone(), ExpectedVersion::None).await.unwrap();
    assert!(current(&store, 0).await == Some((1, largest)));
    let larger = json!("x".repeat(MAX_DOCUMENT_BYTES - 1));
    let refused = put(&store, "email", larger, ExpectedVersion::Any).await.unwrap_err();
    assert!(matches!(refused, Error::DocumentTooLarge { bytes: 16_777_217, .. }));
    assert!(
        refused.to_string().contains("16777217 bytes as JSON, and at most 16777216 are allowed"),
        "{refused}"
    );

    let nested = |levels| (0..levels).fold(json!(1), |inner, _| json!([inner]));
    let deepest = nested(MAX_DOCUMENT_DEPTH);
    put(&store, "email", deepest.clone(), ExpectedVersion::Is(1)).await.unwrap();
    assert_eq!(current(&store, 0).await, Some((2, deepest.clone())));
    for deeper in [json!({ "a": deepest }), nested(1_000)] {
        let refused = put(&store, "email", deeper, ExpectedVersion::Any).await.unwrap_err();
        assert!(matches!(refused, Error::DocumentTooDeep { .. }), "{refused:?}");
    }
    assert_eq!(store.document_versions(DocumentKind::Pipeline, "email").await.unwrap().len(), 2);
}

#[tokio::test]
async fn documents_that_are_not_what_was_written_are_reported_and_not_built_upon() {
    let changes = [
        "UPDATE documents SET value = '2'",
        "UPDATE documents SET value = NULL",
        "UPDATE documents SET created_by = 'bob'",
        "UPDATE documents SET created_at = created_at + 1",
        "UPDATE documents SET expires_at = NULL",
        "UPDATE documents SET expires_at = expires_at + 1",
        "UPDATE documents SET version = 2",
        "UPDATE documents SET name = 'other'",
        "UPDATE documents SET kind = 'token'",
    ];
    for sql in changes {
        let folder = tempfile::tempdir().unwrap();
        let store = open(folder.path()).await;
        let value = json!(1);
        let expiring = DocumentChange { expires_at: Some(100), ..change(&value, "ann") };
        store.write_document(expiring, 1).await.unwrap();
        store.close().await;
        edit(&folder.path().join("a.db"), sql).await;
        let store = open(folder.path()).await;
        let kind = if sql.contains("kind") { DocumentKind::Token } else { DocumentKind::Pipeline };
        let name = if sql.contains("name") { "other" } else { "email" };
        let refused = [
            store.document(kind, name, 0).await.map(drop),
            store.document_versions(kind, name).await.map(drop),
            store.document_version(kind, name, if sql.contains("version") { 2 } else { 1 }).await.map(drop),
            store.put_document(kind, name, &value, "bob", None, ExpectedVersion::Any).await.map(drop),
            store.replace_document(kind, name, &value, "bob", None, ExpectedVersion::Any).await.map(drop),
            store.delete_document(kind, name, "bob").await.map(drop),
        ];
        for refused in refused {
            let refused = refused.unwrap_err().to_string();
            assert!(refused.contains("is damaged"), "{sql}: {refused}");
            assert!(refused.contains("a row of documents, of a"), "{sql}: {refused}");
        }
        // A changed row looks like a deletion, which the list does not contain.
        if !sql.contains("value = NULL") {
            let refused = store.documents(kind, None, 9).await.unwrap_err().to_string();
            assert!(refused.contains("a row of documents"), "{sql}: {refused}");
        }
        put(&store, "third", json!(3), ExpectedVersion::None).await.unwrap();
        // The user can remove it.
        assert!(store.remove_document(kind, name).await.unwrap());
        assert_eq!(store.document(kind, name, 0).await.unwrap(), None);
    }
}

#[tokio::test]
async fn a_database_of_an_earlier_program_has_no_documents_and_stores_them_from_its_next_opening() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.db");
    let run = stored_run(folder.path(), true).await;
    edit(&path, "DROP TABLE documents; DROP TABLE write_check; DROP TABLE scope_spending").await;
    let store = Sqlite::open_read_only(&path).await.unwrap();
    assert_eq!(current(&store, 0).await, None);
    for kind in KINDS {
        assert_eq!(store.documents(kind, None, 9).await.unwrap(), []);
        assert_eq!(store.document_versions(kind, "email").await.unwrap(), []);
        assert_eq!(store.document_version(kind, "email", 1).await.unwrap(), None);
    }
    let days = (Day(i64::MIN), Day(i64::MAX));
    assert!(!store.spending(days.0, days.1).await.unwrap().is_empty());
    assert_eq!(store.scope_spending(days.0, days.1).await.unwrap(), []);
    assert_eq!(store.runs_page(&RunFilter { max: 9, ..RunFilter::default() }).await.unwrap().len(), 1);
    put(&store, "email", json!(1), ExpectedVersion::Any).await.unwrap_err();
    store.check_writable().await.unwrap_err();
    store.close().await;

    let store = open(folder.path()).await;
    put(&store, "email", json!(1), ExpectedVersion::None).await.unwrap();
    store.check_writable().await.unwrap();
    store.verify_rows(run).await.unwrap();
    store.close().await;
    let store = Sqlite::open_read_only(&path).await.unwrap();
    assert_eq!(current(&store, 0).await, Some((1, json!(1))));
}

/// What the store should have: the versions of each document, the earliest first.
type Reference = BTreeMap<(DocumentKind, &'static str), Vec<Document>>;

/// Changes the reference. Returns the latest version that prevents it, if one does.
fn change_reference(
    reference: &mut Reference,
    name: &'static str,
    change: &DocumentChange<'_>,
    now: i64,
) -> Result<Document, Option<i64>> {
    let versions = reference.entry((change.kind, name)).or_default();
    let last = versions.last().map_or(0, |last| last.version);
    let undeleted = versions.last().filter(|last| !last.is_deleted).cloned();
    let number = undeleted.as_ref().map(|found| found.version);
    let is_expected = match (change.expected, &undeleted) {
        (ExpectedVersion::Any, _) | (ExpectedVersion::None, None) => true,
        (ExpectedVersion::None, Some(found)) => found.expires_at.is_some_and(|end| end <= now),
        (ExpectedVersion::Is(version), _) => number == Some(version),
    };
    if !is_expected {
        return Err(number);
    }
    let overwritten = number.filter(|_| change.overwrites);
    if overwritten.is_some() {
        versions.pop();
    }
    let document = Document {
        kind: change.kind,
        name: name.to_owned(),
        version: overwritten.unwrap_or(last + 1),
        created_at: now,
        created_by: change.by.to_owned(),
        expires_at: change.expires_at,
        value: change.value.clone(),
        is_deleted: false,
    };
    versions.push(document.clone());
    Ok(document)
}

/// A step of the property below: the action, the document, the value, the time to live, the expected version, and the time
/// since the step before.
type Step = (u8, usize, usize, u8, Option<i64>, i64, i64);

/// Does these steps in a store and in a reference, and compares them after each.
async fn compare(steps: Vec<Step>) {
    const NAMES: [&str; 3] = ["a", "a b", "é"];
    let folder = tempfile::tempdir().unwrap();
    let store = open(folder.path()).await;
    let mut reference = Reference::new();
    let mut now = 1_000;
    for (action, kind, name, value, lifetime, expected, waited) in steps {
        now += waited;
        let kind = KINDS[kind];
        let name = NAMES[name];
        match action {
            0..5 => {
                let value = json!({ "value": value });
                let expected = match expected {
                    0 => ExpectedVersion::Any,
                    1 => ExpectedVersion::None,
                    number => ExpectedVersion::Is(number - 1),
                };
                let change = || DocumentChange {
                    kind,
                    name,
                    value: &value,
                    by: NAMES[waited as usize % NAMES.len()],
                    expires_at: lifetime.map(|lifetime| now + lifetime),
                    expected,
                    overwrites: action < 2,
                };
                let expected = change_reference(&mut reference, name, &change(), now);
                match store.write_document(change(), now).await {
                    Ok(written) => assert_eq!(Ok(written), expected),
                    Err(Error::VersionConflict { found, .. }) => assert_eq!(Err(found), expected),
                    Err(other) => panic!("{other}"),
                }
            }
            5 => {
                let versions = reference.entry((kind, name)).or_default();
                let found = versions.last().filter(|last| !last.is_deleted);
                let deletion = found.map(|found| Document {
                    version: found.version + 1,
                    created_at: now,
                    created_by: "eve".into(),
                    expires_at: None,
                    value: Value::Null,
                    is_deleted: true,
                    ..found.clone()
                });
                let is_deleted = store.delete_document_at(kind, name, "eve", now).await.unwrap();
                assert_eq!(is_deleted, deletion.is_some());
                versions.extend(deletion);
            }
            6 => {
                let had = reference.remove(&(kind, name)).is_some_and(|versions| !versions.is_empty());
                assert_eq!(store.remove_document(kind, name).await.unwrap(), had);
            }
            _ => {
                let before = reference.len();
                reference.retain(|(of, _), versions| {
                    let end = versions.last().and_then(|last| last.expires_at);
                    *of != kind || end.is_none_or(|end| end > now)
                });
                let removed = store.remove_expired(kind, now).await.unwrap();
                assert_eq!(removed, (before - reference.len()) as u64);
            }
        }
        verify(&store, &reference, &NAMES, now).await;
    }
}

/// Compares all that the store returns at a time with the reference.
async fn verify(store: &Sqlite, reference: &Reference, names: &[&'static str], now: i64) {
    for kind in KINDS {
        let mut listed = Vec::new();
        for name in names {
            let versions = reference.get(&(kind, *name)).cloned().unwrap_or_default();
            let last = versions.last().filter(|last| !last.is_deleted).cloned();
            listed.extend(last.clone());
            let is_live = |last: &Document| last.expires_at.is_none_or(|end| end > now);
            assert_eq!(store.document(kind, name, now).await.unwrap(), last.filter(is_live));
            let latest_first: Vec<_> = versions.into_iter().rev().collect();
            assert_eq!(store.document_versions(kind, name).await.unwrap(), latest_first);
        }
        assert_eq!(store.documents(kind, None, 9).await.unwrap(), listed);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]

    #[test]
    fn a_store_of_documents_does_what_a_list_of_their_versions_does(
        steps in vec(
            (0..8_u8, 0..3_usize, 0..3_usize, any::<u8>(), option::of(0..8_i64), 0..5_i64, 0..4_i64),
            0..32,
        ),
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(compare(steps));
    }
}

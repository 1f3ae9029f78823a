//! Inputs as people have them, through the program: compressed, other delimiters, keys, folders.

use std::fs;
use std::io::Write;

use serde_json::Value;

use super::program::*;

fn gzip(text: &str) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(text.as_bytes()).unwrap();
    encoder.finish().unwrap()
}

fn keys_in_order(lines: &[Value]) -> Vec<&str> {
    lines.iter().map(|line| line["key"].as_str().unwrap()).collect()
}

#[test]
fn a_key_column_names_the_results_and_is_part_of_the_run() {
    let workspace = Workspace::new("");
    workspace.write("items.csv", "sku|text\na-1|one\n|two\na-2|three\n");
    let run = "run pipeline.toml --items items.csv --ordered";
    workspace.run(&format!("{run} --out o.jsonl --rejects r.jsonl --key sku --limit 1")).expect_code(0);
    // The stored run keeps its key.
    workspace
        .run("resume 1")
        .expect_stderr(1, &["1 rejected", "line 3: has an empty \"sku\", which is to be the key"]);
    assert_eq!(keys_in_order(&workspace.output_lines("o.jsonl")), ["a-1", "a-2"]);
    workspace.run(&format!("{run} --out n.jsonl --key skuu")).expect_stderr(
        4,
        &["items.csv, line 1: there is no column \"skuu\", which is to be the key; did you mean \"sku\"? The columns are"],
    );
    // The same file with another key is another run.
    let other = workspace.run("run pipeline.toml --items items.csv --out p.jsonl --key text --ordered");
    other.expect_code(0);
    assert_eq!(keys_in_order(&workspace.output_lines("p.jsonl")), ["one", "two", "three"]);
}

#[test]
fn a_compressed_file_and_a_compressed_stream_are_read() {
    let workspace = Workspace::new("");
    let text = "{\"id\":\"a\",\"text\":\"x\"}\n{\"id\":\"b\",\"text\":\"y\"}\n";
    workspace.write("items.jsonl.gz", gzip(text));
    workspace.run("run pipeline.toml --items items.jsonl.gz --out o.jsonl").expect_code(0);
    assert_eq!(workspace.output_lines("o.jsonl").len(), 2);
    // The digest is that of the compressed file.
    workspace
        .run("run pipeline.toml --items items.jsonl.gz --out o.jsonl")
        .expect_stderr(0, &["there is nothing to do"]);
    let stream = workspace.command("run pipeline.toml --items - --out p.jsonl");
    run_program_with_stdin(stream, &gzip(text)).expect_code(0);
    assert_eq!(workspace.output_lines("p.jsonl").len(), 2);
    let whole = gzip(text);
    workspace.write("cut.jsonl.gz", &whole[..whole.len() - 5]);
    workspace.run("run pipeline.toml --items cut.jsonl.gz --out q.jsonl").expect_stderr(
        4,
        &["cut.jsonl.gz", "the gzip data are incomplete; copy, download or compress the file again"],
    );
}

#[test]
fn an_object_with_several_arrays_needs_a_key_and_a_delimiter_is_named_by_its_option() {
    let workspace = Workspace::new("");
    workspace
        .write("two.json", r#"{"users": [{"id": "u", "text": "x"}], "orders": [{"id": "o", "text": "y"}]}"#);
    let run = "run pipeline.toml --items two.json --out o.jsonl";
    workspace.run(run).expect_stderr(
        4,
        &["two.json, line 1: the object has several arrays: \"users\", \"orders\"", "(--items-key KEY)"],
    );
    workspace.run(&format!("{run} --items-key orders")).expect_code(0);
    assert_eq!(keys_in_order(&workspace.output_lines("o.jsonl")), ["o"]);
    workspace.write("unclear.csv", "id;text, long;note\n1;x;y\n");
    workspace
        .run("run pipeline.toml --items unclear.csv --out p.jsonl")
        .expect_stderr(4, &["it is unclear what separates the columns", "(--delimiter CHARACTER)"]);
    workspace.write(
        "pipeline.toml",
        "name = \"one\"\n[[step]]\nname = \"answer\"\nprompt = \"{{ item.note }}\"\n",
    );
    workspace.run("run pipeline.toml --items unclear.csv --out p.jsonl --delimiter ;").expect_code(0);
    workspace
        .run("run pipeline.toml --items unclear.csv --out p.jsonl --delimiter ;;")
        .expect_stderr(2, &["a delimiter is one character"]);
}

/// A pipeline in another folder than the documents, which attaches each of them.
const ATTACHING: &str = r#"
name = "read"
[[step]]
name = "answer"
prompt = "What is in {{ item.name }}?"
attach = ["{{ item.path }}"]
"#;

#[test]
fn documents_of_a_pattern_are_attached_and_other_files_are_not() {
    let workspace = Workspace::new("");
    for folder in ["pipelines", "scans/sub"] {
        fs::create_dir_all(workspace.path(folder)).unwrap();
    }
    workspace.write("pipelines/read.toml", ATTACHING);
    for name in
        ["scans/b.pdf", "scans/a.pdf", "scans/sub/c.pdf", "scans/.d.pdf", "scans/notes.md", "secret.pdf"]
    {
        workspace.write(name, b"%PDF-1.7\n");
    }
    std::os::unix::fs::symlink(workspace.path("secret.pdf"), workspace.path("scans/link.pdf")).unwrap();
    let run = "run pipelines/read.toml --rejects r.jsonl --ordered";
    workspace
        .run("run pipelines/read.toml --rejects links.jsonl --ordered --items scans/*.pdf --out o.jsonl")
        .expect_stderr(
            1,
            &["2 completed", "1 rejected", "is the file \"link.pdf\", which is a link to a file"],
        );
    assert_eq!(keys_in_order(&workspace.output_lines("o.jsonl")), ["a.pdf", "b.pdf"]);
    assert!(workspace.read("links.jsonl").contains("link.pdf"));
    // A pipeline that names the link still does not send what is outside.
    workspace.write(
        "pipelines/link.toml",
        format!(
            "name = \"link\"\n[[step]]\nname = \"answer\"\nprompt = \"x\"\nattach = ['{}/{{{{ \"link.pdf\" }}}}']\n",
            workspace.path("scans").display()
        ),
    );
    workspace
        .run("run pipelines/link.toml --items scans/*.pdf --out l.jsonl")
        .expect_stderr(1, &["2 failed", "it is outside the pipeline's directory"]);
    fs::remove_file(workspace.path("scans/link.pdf")).unwrap();
    workspace.run(&format!("{run} --items scans --out scans/p.jsonl")).expect_code(0);
    let lines = workspace.output_lines("scans/p.jsonl");
    assert_eq!(keys_in_order(&lines), ["a.pdf", "b.pdf", "notes.md", "sub/c.pdf"]);
    // The same command reads the same files: its own output is none of them.
    workspace.run(&format!("{run} --items scans --out scans/p.jsonl")).expect_code(0);
    assert_eq!(workspace.output_lines("scans/p.jsonl").len(), 4);
    workspace.run("run pipelines/read.toml --items scans/*.png --out q.jsonl").expect_stderr(
        4,
        &["--items: no files for scans/*.png: none is found in that place; check the path and the pattern"],
    );
    // An item that is no file of the pattern still cannot choose one.
    workspace
        .write("items.jsonl", format!("{{\"name\":\"x\",\"path\":{:?}}}\n", workspace.path("secret.pdf")));
    workspace
        .run("run pipelines/read.toml --items items.jsonl --out s.jsonl")
        .expect_stderr(1, &["it is outside the pipeline's directory"]);
}

/// A pipeline that sends the text of each file.
const TEXT: &str = "name = \"read\"\n[[step]]\nname = \"answer\"\nprompt = \"{{ item.text }}\"\n";

#[test]
fn a_folder_run_opens_no_file_that_the_program_uses_and_follows_no_link_out_of_the_folder() {
    let outside = Workspace::empty();
    outside.write("secret.txt", "outside-secret");
    let workspace = Workspace::new(
        "[store]\nurl = \"sqlite:runs.data\"\n[provider.p]\nkeys = [\"file:key.txt\"]\n[provider.p.models.m]\n",
    );
    workspace.write("pipeline.toml", TEXT);
    workspace.write("key.txt", "inside-secret");
    workspace.write("a.txt", "one");
    workspace.write("b.txt", "two");
    workspace.write("other.db", "no database");
    workspace.write("other.db-wal", "no journal");
    fs::hard_link(workspace.path("key.txt"), workspace.path("copy.txt")).unwrap();
    std::os::unix::fs::symlink(outside.path("secret.txt"), workspace.path("link.txt")).unwrap();
    assert!(std::process::Command::new("mkfifo").arg(workspace.path("pipe.txt")).status().unwrap().success());
    let run = "run pipeline.toml --items . --out o.jsonl --rejects r.jsonl --report report.json --ordered --simulate";
    // The second run finds the database, the output and the other files of the first.
    for _ in 0..2 {
        workspace.run(&format!("{run} --new --overwrite")).expect_stderr(
            1,
            &[
                "2 completed",
                "4 rejected",
                "skipped 6 files that the program itself uses",
                "is the file \"link.txt\", which is a link to a file that is not in the folder",
            ],
        );
        assert_eq!(keys_in_order(&workspace.output_lines("o.jsonl")), ["a.txt", "b.txt"]);
        let rejects = workspace.read("r.jsonl");
        for name in ["link.txt", "pipe.txt", "other.db", "other.db-wal"] {
            assert!(rejects.contains(name), "{name}: {rejects}");
        }
        for text in [workspace.read("o.jsonl"), rejects] {
            assert!(!text.contains("secret.txt") && !text.contains("-secret"), "{text}");
            assert!(!text.contains("runs.data"), "{text}");
        }
    }
    // A pattern that names every file reads none of them either.
    let checked = workspace.run("check pipeline.toml --items *.txt --show 20 --simulate");
    assert!(checked.stdout.contains("one") && !format!("{checked:?}").contains("-secret"), "{checked:?}");
}

#[test]
fn a_file_without_items_is_refused_with_what_it_looks_like() {
    let workspace = Workspace::new("");
    workspace.write("report.pdf", b"%PDF-1.7\n");
    workspace.run("run pipeline.toml --items report.pdf --out o.jsonl").expect_stderr(
        4,
        &["report.pdf: it looks like a PDF document, not like items; to process such files, one item per file, name"],
    );
}

#[test]
fn a_table_that_is_piped_or_has_an_unknown_name_is_read_as_one() {
    let workspace = Workspace::new("");
    let piped = workspace.command("run pipeline.toml --items - --out o.jsonl --ordered");
    run_program_with_stdin(piped, b"id,text\na,\"x, y\"\nb,z\n").expect_code(0);
    assert_eq!(keys_in_order(&workspace.output_lines("o.jsonl")), ["a", "b"]);
    workspace.write("items.dat", "id\ttext\na\tx, y\n");
    workspace.run("run pipeline.toml --items items.dat --out p.jsonl").expect_code(0);
    assert_eq!(keys_in_order(&workspace.output_lines("p.jsonl")), ["a"]);
}

#[test]
fn a_text_without_a_known_format_is_refused_once_and_the_advice_works() {
    let workspace = Workspace::new("");
    let lines = "Good, I like it\nBad\nBad\n";
    for (name, text) in [("commas.txt", lines), ("feedback.txt", "Bad\nGood, I like it\nBad\n")] {
        workspace.write(name, text);
        let refused =
            workspace.run(&format!("run pipeline.toml --items {name} --out o.jsonl --rejects r.jsonl"));
        refused.expect_stderr(
            4,
            &[
                &format!("{name}, line 1: it has no known format"),
                "(--input-format csv)",
                "one item per file",
            ],
        );
        assert!(!refused.stderr.contains("is not JSON"), "{}", refused.stderr);
    }
    workspace.write("feedback.txt", format!("text\n{lines}"));
    let advised =
        "run pipeline.toml --items feedback.txt --input-format tsv --out p.jsonl --ordered --with-item";
    workspace.run(advised).expect_code(0);
    let texts: Vec<Value> =
        workspace.output_lines("p.jsonl").iter().map(|line| line["item"]["text"].clone()).collect();
    assert_eq!(texts, ["Good, I like it", "Bad", "Bad"]);
}

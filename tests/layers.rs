//! The structure of `src/`: layers, import cycles, heavy dependencies, and the words of the project.
//!
//! Cargo enforces the order of crates. Inside one crate only this test enforces the order of modules. It reads every path
//! that begins with `crate::`, `super::` or `self::`, and every `use`.
#![expect(clippy::unwrap_used, reason = "a test that cannot read the sources fails")]

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

/// The modules and their layers, as in docs/architecture.md. A module imports only from lower layers.
const LAYERS: [(&str, u8); 24] = [
    ("chaos", 0),
    ("clock", 0),
    ("terminal_text", 0),
    ("tls", 0),
    ("types", 0),
    ("diagnostics", 1),
    ("files", 1),
    ("telemetry", 1),
    ("wire", 2),
    ("guard", 2),
    ("supervisor", 2),
    ("store", 2),
    ("source", 3),
    ("sink", 3),
    ("provider", 3),
    ("ledger", 3),
    ("simulator", 3),
    ("router", 4),
    ("pipeline", 5),
    ("run", 6),
    ("config", 7),
    ("runtime", 8),
    ("daemon", 9),
    ("server", 10),
];

/// The layer of the program, above all others.
const CLI: (&str, u8) = ("cli", 11);

/// Heavy dependencies, and the only files that may use them.
const HEAVY_DEPENDENCIES: [(&str, &[&str]); 18] = [
    ("actix_web::", &["src/server/"]),
    ("maud::", &["src/server/"]),
    ("use notify::", &["src/daemon/"]),
    (
        "reqwest::",
        &["src/cli/remote/", "src/provider/dispatch/transport.rs", "src/simulator/", "src/telemetry/otlp.rs"],
    ),
    ("ratatui::", &["src/cli/top/"]),
    ("governor::", &["src/guard/gcra.rs"]),
    ("sse_stream::", &["src/provider/dispatch/event_stream.rs", "src/wire/"]),
    ("sqlx::", &["src/store/"]),
    ("minijinja::", &["src/pipeline/"]),
    ("hyper::", &["src/cli/metrics/server.rs", "src/simulator/"]),
    ("prometheus_client::", &["src/telemetry/text.rs"]),
    ("opentelemetry::", &["src/telemetry/exported_span.rs", "src/telemetry/otlp.rs", "src/telemetry/otlp/"]),
    ("clap::", &["src/cli/"]),
    ("clap_complete::", &["src/cli/completions.rs"]),
    ("clap_mangen::", &["src/cli/man.rs"]),
    // It panics after the year 9999.
    ("Timestamp::now()", &["src/clock.rs", "src/simulator/tests/"]),
    // These files make printed text safe for a terminal.
    ("stdout()", &["src/cli/print.rs", "src/sink/destination.rs"]),
    ("stderr()", &["src/cli/print.rs", "src/cli/progress.rs", "src/cli/stderr.rs"]),
];

fn rust_files(folder: &Path, files: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            rust_files(&path, files);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            files.push(path);
        }
    }
}

/// Returns every file of `src` by its path from the root, with its text.
fn sources() -> Vec<(String, String)> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut files = Vec::new();
    rust_files(&root.join("src"), &mut files);
    let named = files.into_iter().map(|path| {
        let name = path.strip_prefix(root).unwrap().to_str().unwrap().to_owned();
        let text = fs::read_to_string(&path).unwrap();
        (name, text)
    });
    named.collect()
}

/// Returns the path of the module that a file contains: `["run", "actor"]` for `src/run/actor.rs`.
fn module_path(file: &str) -> Vec<&str> {
    let inside = file.strip_prefix("src/").unwrap_or(file);
    let inside = inside.strip_suffix(".rs").unwrap_or(inside);
    let inside = inside.strip_suffix("/mod").unwrap_or(inside);
    if matches!(inside, "lib" | "main") { Vec::new() } else { inside.split('/').collect() }
}

#[test]
fn a_module_imports_only_from_lower_layers() {
    let layers: BTreeMap<&str, u8> = LAYERS.into_iter().chain([CLI]).collect();
    let mut wrong = Vec::new();
    let mut seen = 0;
    for (file, text) in sources() {
        let path = module_path(&file);
        let Some(module) = path.first() else { continue };
        let layer = layers.get(module).unwrap_or_else(|| panic!("{file}: the module {module} has no layer"));
        for (number, line) in text.lines().enumerate() {
            for path in line.split("crate::").skip(1) {
                let other = identifier(path);
                seen += 1;
                match layers.get(other) {
                    Some(other_layer) if other_layer < layer || other == *module => {}
                    Some(_) => wrong.push(format!("{file}:{}: {module} imports {other}", number + 1)),
                    // The test would not see `crate::{a, b}`, and a macro has no layer.
                    None => wrong.push(format!("{file}:{}: crate::{other} is not a module", number + 1)),
                }
            }
        }
    }
    assert!(seen > 100, "the test has read nothing");
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// Returns the identifier at the start of a text.
fn identifier(text: &str) -> &str {
    let end = text.find(|letter: char| !letter.is_alphanumeric() && letter != '_').unwrap_or(text.len());
    &text[..end]
}

#[test]
fn a_heavy_dependency_is_used_in_one_place() {
    let mut wrong = Vec::new();
    for (file, text) in sources() {
        for (dependency, allowed) in HEAVY_DEPENDENCIES {
            let is_allowed = allowed.iter().any(|prefix| file.starts_with(prefix));
            let is_code =
                |line: &&str| !line.trim_start().starts_with("//") && !line.trim_start().starts_with("#[");
            let mut code = text.lines().filter(is_code);
            if !is_allowed && code.any(|line| line.contains(dependency)) {
                wrong.push(format!("{file} uses {dependency}"));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// The imports between the files of `src`. Test code does not count.
#[derive(Default)]
struct Imports {
    /// The file of each module.
    files: BTreeMap<Vec<String>, String>,
    /// What `use` gives another name in a module, such as the re-exports of a `mod.rs`, with what it is.
    names: BTreeMap<Vec<String>, Vec<String>>,
    /// The paths in each file, from the root of the crate.
    paths: BTreeMap<String, Vec<Vec<String>>>,
}

impl Imports {
    fn of(sources: &[(String, String)]) -> Self {
        let mut imports = Self::default();
        let is_test = |file: &str| {
            let is_test_name = |part: &str| matches!(part, "tests" | "properties" | "fixtures");
            module_path(file).into_iter().any(|part| is_test_name(part) || part.ends_with("_tests"))
        };
        let sources: Vec<_> = sources.iter().filter(|(file, _)| !is_test(file)).collect();
        for (file, _) in &sources {
            imports.files.insert(owned(&module_path(file)), file.clone());
        }
        for (file, text) in &sources {
            imports.read(file, &code_of(text));
        }
        imports
    }

    /// Reads the `use` declarations and the other paths of a file.
    fn read(&mut self, file: &str, code: &str) {
        let module = owned(&module_path(file));
        let mut paths = Vec::new();
        let mut rest = String::new();
        for statement in code.split_inclusive(';') {
            let Some((before, tree)) = statement.split_once("use ").filter(|(before, tree)| {
                let before = before.rsplit(['{', '}', ';', ']', '\n']).next().unwrap_or(before).trim();
                (before.is_empty() || before.starts_with("pub")) && !tree.contains('=') && tree.ends_with(';')
            }) else {
                rest.push_str(statement);
                continue;
            };
            rest.push_str(before);
            for leaf in leaves(tree.trim_end_matches(';')) {
                let (path, alias) = leaf.split_once(" as ").unwrap_or((&leaf, ""));
                let path = path.trim().trim_end_matches("::self").trim_end_matches("::*");
                let Some(path) = self.absolute(path, &module) else { continue };
                let name =
                    if alias.is_empty() { path.last().cloned().unwrap_or_default() } else { alias.into() };
                self.names.insert([module.clone(), vec![name]].concat(), path.clone());
                paths.push(path);
            }
        }
        for start in ["crate::", "super::", "self::"] {
            for (at, _) in rest.match_indices(start) {
                let is_inside =
                    rest[..at].ends_with(|letter: char| letter.is_alphanumeric() || "_:".contains(letter));
                let end = rest[at..].find(|letter: char| !letter.is_alphanumeric() && !"_:".contains(letter));
                let path = &rest[at..end.map_or(rest.len(), |end| at + end)];
                if !is_inside {
                    paths.extend(self.absolute(path.trim_end_matches(':'), &module));
                }
            }
        }
        self.paths.insert(file.to_owned(), paths);
    }

    /// Returns a path from the root of the crate; `None` for a path to another crate.
    fn absolute(&self, path: &str, module: &[String]) -> Option<Vec<String>> {
        let mut base = module.to_vec();
        let mut parts = path.split("::").peekable();
        match *parts.peek()? {
            "crate" => {
                parts.next();
                base.clear();
            }
            "self" => {
                parts.next();
            }
            "super" => {
                while parts.next_if_eq(&"super").is_some() {
                    base.pop()?;
                }
            }
            child => {
                let child = [module, &[child.to_owned()]].concat();
                self.files.get(&child)?;
            }
        }
        base.extend(parts.map(str::to_owned));
        Some(base)
    }

    /// Returns the file that defines what is at a path.
    fn file_of(&self, path: &[String], depth: usize) -> Option<&str> {
        if depth > 8 {
            return None;
        }
        for end in (1..=path.len()).rev() {
            let start = &path[..end];
            if let Some(renamed) = self.names.get(start).filter(|renamed| !renamed.starts_with(start)) {
                return self.file_of(&[renamed, &path[end..]].concat(), depth + 1);
            }
            if let Some(file) = self.files.get(start) {
                return Some(file);
            }
        }
        None
    }

    /// Returns the files of the same module that each file imports.
    fn graph(&self) -> BTreeMap<&str, BTreeSet<&str>> {
        let mut graph = BTreeMap::new();
        for (file, paths) in &self.paths {
            let imported = paths.iter().filter_map(|path| self.file_of(path, 0));
            let same_module = imported
                .filter(|other| *other != file && module_path(other).first() == module_path(file).first());
            graph.insert(file.as_str(), same_module.collect::<BTreeSet<_>>());
        }
        graph
    }
}

fn owned(path: &[&str]) -> Vec<String> {
    path.iter().map(|part| (*part).to_owned()).collect()
}

/// Returns a file without comments, test modules and `pub(in path)`.
fn code_of(text: &str) -> String {
    let mut code = String::new();
    let mut follows_test_attribute = false;
    for line in text.lines() {
        let line = line.split("//").next().unwrap_or_default();
        if follows_test_attribute && line.starts_with("mod ") && line.trim_end().ends_with('{') {
            break;
        }
        follows_test_attribute = line.starts_with("#[cfg(test")
            || line.starts_with("#[cfg(all(test")
            || follows_test_attribute && line.starts_with("#[");
        let mut parts = line.split("pub(in ");
        code.push_str(parts.next().unwrap_or_default());
        for part in parts {
            code.push_str("pub ");
            code.push_str(part.split_once(')').map_or("", |(_, after)| after));
        }
        code.push('\n');
    }
    code
}

/// Returns the leaves of a `use` tree.
fn leaves(tree: &str) -> Vec<String> {
    let tree = tree.split_whitespace().collect::<Vec<_>>().join(" ");
    let Some((prefix, inner)) = tree.split_once('{') else { return vec![tree] };
    let inner = inner.trim_end().strip_suffix('}').unwrap_or(inner);
    let mut parts = vec![String::new()];
    let mut depth = 0;
    for letter in inner.chars() {
        match letter {
            '{' => depth += 1,
            '}' => depth -= 1,
            ',' if depth == 0 => {
                parts.push(String::new());
                continue;
            }
            _ => {}
        }
        if let Some(part) = parts.last_mut() {
            part.push(letter);
        }
    }
    let parts = parts.into_iter().filter(|part| !part.trim().is_empty());
    parts.flat_map(|part| leaves(part.trim())).map(|leaf| format!("{prefix}{leaf}")).collect()
}

/// Returns the files that are left after all files without imports, and all files that nothing imports, are removed again
/// and again: those in cycles, and those between cycles.
fn in_cycles<'a>(mut graph: BTreeMap<&'a str, BTreeSet<&'a str>>) -> BTreeMap<&'a str, BTreeSet<&'a str>> {
    loop {
        let imported: BTreeSet<&str> = graph.values().flatten().copied().collect();
        let before = graph.len();
        graph.retain(|file, imports| !imports.is_empty() && imported.contains(file));
        let files: BTreeSet<&str> = graph.keys().copied().collect();
        graph.values_mut().for_each(|imports| imports.retain(|file| files.contains(file)));
        if graph.len() == before && graph.values().all(|imports| !imports.is_empty()) {
            return graph;
        }
    }
}

#[test]
fn no_module_has_an_import_cycle_between_its_files() {
    let sources = sources();
    let imports = Imports::of(&sources);
    let graph = imports.graph();
    assert!(graph.values().map(BTreeSet::len).sum::<usize>() > 300, "the test has read nothing");
    let cycles = in_cycles(graph);
    let list: Vec<_> = cycles.iter().map(|(file, imports)| format!("{file} imports {imports:?}")).collect();
    assert!(cycles.is_empty(), "move what two files share to a leaf file:\n{}", list.join("\n"));
}

#[test]
fn an_import_cycle_is_found_through_a_re_export() {
    let sources = [
        ("src/a/mod.rs", "mod b;\nmod c;\npub use b::B;\npub use c::{C, D as E};\n"),
        ("src/a/b.rs", "use super::E;\npub struct B(E);\n"),
        (
            "src/a/c.rs",
            "pub struct C;\npub struct D(Box<super::B>);\n#[cfg(test)]\nmod tests {\n    use super::*;\n}\n",
        ),
        ("src/a/d.rs", "use crate::a::{b::B, c::C};\nfn d(_: B, _: C) {}\n"),
    ];
    let sources = sources.map(|(file, text)| (file.to_owned(), text.to_owned()));
    let imports = Imports::of(&sources);
    let cycles = in_cycles(imports.graph());
    assert_eq!(cycles.keys().copied().collect::<Vec<_>>(), ["src/a/b.rs", "src/a/c.rs"]);
}

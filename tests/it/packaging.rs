//! The files for packages and releases: they parse, their facts are those of Cargo.toml, and their paths exist.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use toml::{Table, Value};

use super::program::{program, repository_path, run_program};

/// The folder that stands for the results of a build in the metadata of cargo-deb.
const BUILT: &str = "target/release/";

fn read(name: &str) -> String {
    fs::read_to_string(repository_path(name)).unwrap_or_else(|error| panic!("{name}: {error}"))
}

fn parse(name: &str) -> Table {
    toml::from_str(&read(name)).unwrap_or_else(|error| panic!("{name}: {error}"))
}

/// Returns the value at these keys.
fn at<'a>(table: &'a Table, keys: &[&str]) -> &'a Value {
    let (last, tables) = keys.split_last().unwrap();
    let inner = tables.iter().fold(table, |table, key| table[*key].as_table().unwrap());
    inner.get(*last).unwrap_or_else(|| panic!("no {keys:?}"))
}

fn text<'a>(table: &'a Table, keys: &[&str]) -> &'a str {
    at(table, keys).as_str().unwrap_or_else(|| panic!("{keys:?} is not a text"))
}

fn texts(value: &Value) -> Vec<&str> {
    value.as_array().unwrap().iter().map(|value| value.as_str().unwrap()).collect()
}

#[test]
fn the_python_package_has_the_facts_of_the_manifest() {
    let manifest = parse("Cargo.toml");
    let folder = "docs/install/python";
    let python = parse(&format!("{folder}/pyproject.toml"));
    for key in ["name", "description", "license"] {
        assert_eq!(text(&python, &["project", key]), text(&manifest, &["package", key]), "{key}");
    }
    // The version has one place.
    assert_eq!(texts(at(&python, &["project", "dynamic"])), ["version"]);
    assert_eq!(text(&python, &["tool", "maturin", "bindings"]), "bin");
    let named = repository_path(folder).join(text(&python, &["tool", "maturin", "manifest-path"]));
    assert_eq!(named.canonicalize().unwrap(), repository_path("Cargo.toml").canonicalize().unwrap());
    let licences = texts(at(&python, &["project", "license-files"]));
    assert_eq!(licences, ["LICENSE-APACHE", "LICENSE-MIT"]);
    for licence in licences {
        assert_eq!(read(&format!("{folder}/{licence}")), read(licence), "{licence}");
    }
    assert_eq!(text(&python, &["build-system", "build-backend"]), "maturin");
    let workflow = read(".github/workflows/release.yml");
    let version = workflow_variable(&workflow, "MATURIN_VERSION");
    assert!(version.starts_with("1."), "pyproject.toml requires maturin 1, and the release uses {version}");
}

/// The assets of the Debian package: the source, the destination and the mode of each.
fn assets(manifest: &Table) -> Vec<[String; 3]> {
    let assets = at(manifest, &["package", "metadata", "deb", "assets"]).as_array().unwrap();
    let fields = assets.iter().map(|asset| <[&str; 3]>::try_from(texts(asset)).unwrap());
    fields.map(|fields| fields.map(str::to_owned)).collect()
}

/// Returns where an asset is installed. A destination that ends with `/` is a folder.
fn destination([source, destination, _]: &[String; 3]) -> String {
    let name = Path::new(source).file_name().unwrap().to_str().unwrap();
    if destination.ends_with('/') { format!("{destination}{name}") } else { destination.clone() }
}

#[test]
fn the_files_of_the_debian_package_exist_or_are_written_by_its_script() {
    let manifest = parse("Cargo.toml");
    let script = read("docs/install/debian/build");
    let mut destinations = BTreeSet::new();
    for asset in assets(&manifest) {
        let [source, _, mode] = &asset;
        match source.strip_prefix(BUILT) {
            Some("pointsman") => assert_eq!(mode, "755"),
            Some("package/man/*.1.gz") => {
                assert!(script.contains("man --dir \"$package/man\"\n"));
                assert!(script.contains("gzip -9n \"$package\"/man/*.1\n"));
            }
            Some(written) => {
                let name = written.strip_prefix("package/").unwrap_or_else(|| panic!("{source}"));
                assert!(script.contains(&format!(" > \"$package/{name}\"")), "no line writes {source}");
            }
            None => assert!(repository_path(source).is_file(), "{source}"),
        }
        assert!(matches!(mode.as_str(), "644" | "755"), "{source}: {mode}");
        assert!(destinations.insert(destination(&asset)), "{source} has the place of another file");
    }
    for place in [
        "usr/bin/pointsman",
        "usr/share/man/man1/*.1.gz",
        "usr/share/bash-completion/completions/pointsman",
        "usr/share/zsh/vendor-completions/_pointsman",
        "usr/share/fish/vendor_completions.d/pointsman.fish",
        "usr/lib/systemd/system/pointsman.service",
        "usr/lib/sysusers.d/pointsman.conf",
        "etc/pointsman/pointsman.toml",
    ] {
        assert!(destinations.contains(place), "no asset is {place}");
    }
    let deb = ["package", "metadata", "deb"];
    let key = |name| [deb.as_slice(), &[name]].concat();
    // What the user may change is kept by an update.
    let kept: BTreeSet<_> = texts(at(&manifest, &key("conf-files"))).into_iter().map(str::to_owned).collect();
    let in_etc = destinations.iter().filter(|place| place.starts_with("etc/"));
    assert_eq!(kept, in_etc.map(|place| format!("/{place}")).collect());
    let licence = texts(at(&manifest, &key("license-file")))[0];
    assert!(text(&manifest, &["package", "license"]).contains("MIT") && licence == "LICENSE-MIT");
    assert!(repository_path(licence).is_file());
    assert!(read(licence).contains(text(&manifest, &key("copyright"))));
}

#[test]
fn the_unit_of_the_debian_package_starts_the_program_that_it_installs() {
    let script = read("docs/install/debian/build");
    let from = "/usr/local/bin/pointsman";
    assert!(script.contains(&format!("s|{from}|/usr/bin/pointsman|g")));
    let unit = read("docs/deploy/systemd/pointsman.service");
    assert!(unit.matches(from).count() >= 2, "the unit has another path");
    assert!(
        !unit.replace(from, "").contains("/usr/local"),
        "the unit has a path that the script does not change"
    );
    let configuration = "/etc/pointsman/pointsman.toml";
    assert!(unit.contains(configuration));
    assert!(
        assets(&parse("Cargo.toml")).iter().any(|asset| format!("/{}", destination(asset)) == configuration)
    );
}

#[cfg(unix)]
#[test]
fn the_scripts_of_the_debian_package_are_executable_and_have_valid_syntax() {
    use std::os::unix::fs::PermissionsExt;
    let folder = text(&parse("Cargo.toml"), &["package", "metadata", "deb", "maintainer-scripts"]).to_owned();
    let names: BTreeSet<String> = fs::read_dir(repository_path(&folder))
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    assert_eq!(names, ["build", "postinst", "postrm", "prerm"].map(str::to_owned).into());
    for name in names {
        let path: PathBuf = repository_path(&folder).join(&name);
        let mode = path.metadata().unwrap().permissions().mode();
        assert_eq!(mode & 0o111, 0o111, "{name} is not executable");
        let shell = if name == "build" { "bash" } else { "sh" };
        assert!(read(&format!("{folder}/{name}")).contains("\nset -e"), "{name} continues after an error");
        let checked = Command::new(shell).arg("-n").arg(&path).status().unwrap();
        assert!(checked.success(), "{name}");
    }
}

/// Returns the value of a variable of the workflow.
fn workflow_variable<'a>(workflow: &'a str, name: &str) -> &'a str {
    let line = workflow.lines().find_map(|line| line.trim().strip_prefix(&format!("{name}: ")));
    line.unwrap_or_else(|| panic!("no {name}")).trim_matches('"')
}

#[test]
fn the_release_uses_pinned_tools_the_rust_of_the_manifest_and_no_secret() {
    let workflow = read(".github/workflows/release.yml");
    let manifest = parse("Cargo.toml");
    assert_eq!(workflow_variable(&workflow, "RUST_VERSION"), text(&manifest, &["package", "rust-version"]));
    let actions: Vec<&str> =
        workflow.lines().filter_map(|line| line.trim().strip_prefix("- uses: ")).collect();
    assert!(actions.len() >= 3, "{actions:?}");
    for action in actions {
        let (name, version) = action.split_once("@v").unwrap_or_else(|| panic!("{action} has no version"));
        assert!(name.starts_with("actions/"), "{action}");
        let numbers: Vec<&str> = version.split('.').collect();
        let is_full = numbers.len() == 3 && numbers.iter().all(|number| number.parse::<u32>().is_ok());
        assert!(is_full, "{action}: write the whole version");
    }
    for tool in ["MATURIN_VERSION", "CARGO_DEB_VERSION"] {
        assert_eq!(workflow_variable(&workflow, tool).split('.').count(), 3, "{tool}");
        assert!(workflow.contains(&format!("${tool}")), "{tool} is not used");
    }
    assert!(!workflow.contains("secrets."), "the token of the workflow suffices");
    // Only the job that publishes may write.
    assert_eq!(workflow.matches("contents: write").count(), 1);
    let (build, publish) = workflow.split_once("\n  publish:\n").unwrap();
    assert!(build.contains("\npermissions:\n  contents: read\n") && publish.contains("contents: write"));
    // YAML has no tabs.
    assert!(!workflow.contains('\t'));
}

#[test]
fn the_release_builds_each_archive_of_its_page_with_the_profile_for_releases() {
    let workflow = read(".github/workflows/release.yml");
    let built: BTreeSet<&str> =
        workflow.split("{ target: ").skip(1).map(|rest| rest.split(',').next().unwrap()).collect();
    let page = read("docs/install/archives.md");
    let rows = page.lines().filter_map(|line| line.strip_prefix("| `pointsman-VERSION-"));
    let documented: BTreeSet<&str> = rows.map(|row| row.split(".tar.gz`").next().unwrap()).collect();
    assert_eq!(built.len(), 6);
    assert_eq!(built, documented);
    let manifest = parse("Cargo.toml");
    assert!(at(&manifest, &["profile"]).as_table().unwrap().contains_key("dist"));
    assert!(workflow.contains("cargo build --profile dist --locked --bin pointsman"));
    for (file, words) in [
        ("docs/deploy/Dockerfile", "cargo build --profile dist --locked --bin pointsman"),
        ("docs/install/debian/build", "profile=${1:-dist}"),
    ] {
        assert!(read(file).contains(words), "{file}: {words}");
    }
    // What the archive copies.
    for name in ["README.md", "CHANGELOG.md", "LICENSE-APACHE", "LICENSE-MIT", "config.toml"] {
        assert!(workflow.contains(name) && repository_path(name).is_file(), "{name}");
    }
}

#[test]
fn the_commands_of_the_packages_exist() {
    for file in ["docs/install/debian/build", ".github/workflows/release.yml"] {
        let script = read(file);
        for shell in ["bash", "zsh", "fish"] {
            assert!(script.contains(&format!("completions {shell} > ")), "{file}: {shell}");
            run_program(program(&format!("completions {shell}"))).expect_code(0);
        }
        assert!(script.contains(" man --dir "), "{file}");
    }
    // The workflow takes the version from this line.
    let version = run_program(program("-V")).stdout;
    assert_eq!(version.trim_end().split(' ').nth(1), Some(env!("CARGO_PKG_VERSION")));
}

#[test]
fn every_way_to_install_has_a_page_that_the_index_names() {
    let index = read("docs/install/README.md");
    for entry in fs::read_dir(repository_path("docs/install")).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_str().unwrap();
        if name == "README.md" || path.is_dir() {
            continue;
        }
        assert!(index.contains(&format!("]({name})")), "the index does not name {name}");
    }
    let version = env!("CARGO_PKG_VERSION");
    for (page, words) in [
        ("python.md", format!("pointsman-{version}-")),
        ("debian.md", format!("pointsman_{version}-1_")),
        ("archives.md", format!("pointsman-{version}-")),
        ("container.md", format!("pointsman:{version} ")),
        ("cargo.md", format!("--tag v{version} ")),
    ] {
        assert!(read(&format!("docs/install/{page}")).contains(&words), "{page}: {words}");
    }
}

//! The version of the program, with the features that are built in.

use std::sync::LazyLock;

/// Returns the features of `Cargo.toml`, each with whether it is built in.
macro_rules! features {
    ($($name:tt)*) => { [$(($name, cfg!(feature = $name))),*] };
}

/// What `--version` shows after the name. `-V` shows the version alone.
pub(super) static LONG: LazyLock<String> = LazyLock::new(|| {
    let features = features!(
        "bench" "chaos" "cli" "exact-numbers" "otel" "parquet" "server" "simulator" "sqlite" "tui" "xlsx"
    );
    let built_in: Vec<&str> = features.iter().filter(|(_, is_on)| *is_on).map(|(name, _)| *name).collect();
    format!("{} (features: {})", env!("CARGO_PKG_VERSION"), built_in.join(", "))
});

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    #[test]
    fn every_feature_of_the_manifest_is_known() {
        let manifest = Path::new(env!("CARGO_MANIFEST_DIR")).join("Cargo.toml");
        let manifest: toml::Table = toml::from_str(&std::fs::read_to_string(manifest).unwrap()).unwrap();
        let mut declared: Vec<&str> =
            manifest["features"].as_table().unwrap().keys().map(String::as_str).collect();
        declared.retain(|name| *name != "default");
        declared.sort_unstable();
        let source = include_str!("version.rs");
        let (_, list) = source.split_once("let features = features!(").unwrap();
        let (list, _) = list.split_once(");").unwrap();
        let listed: Vec<&str> = list.split('"').skip(1).step_by(2).collect();
        assert_eq!(listed, declared, "`LONG` lists the features of Cargo.toml in alphabetical order");
    }

    #[test]
    fn the_long_version_is_one_line_with_the_features_that_are_built_in() {
        let text = LONG.as_str();
        assert!(text.starts_with(concat!(env!("CARGO_PKG_VERSION"), " (features: ")), "{text}");
        assert!(text.ends_with(')') && !text.contains('\n'), "{text}");
        assert_eq!(text.contains("server"), cfg!(feature = "server"), "{text}");
        // The program has no other way to be built.
        assert!(text.contains("cli"), "{text}");
    }
}

//! `pointsman man`: the manual pages, from the same definitions as `--help`.

use std::fs;
use std::path::Path;

use anyhow::Context;
use clap::{Command, CommandFactory};
use clap_mangen::Man as Writer;
use clap_mangen::roff::{Roff, roman};

use super::args::Args;
use super::exit::Exit;
use super::open_store::fail;
use super::print::print;
use super::progress::{Mode, eprint_line};
use super::progress_text::counted;
use super::shell_args::Man;

/// The section of the manual that has programs.
const SECTION: &str = "1";

/// What the foot of a page shows in its corner.
const SOURCE: &str = concat!("pointsman ", env!("CARGO_PKG_VERSION"));

/// Writes the page of the program to stdout, or all pages to a folder.
pub(super) fn man(args: &Man) -> Exit {
    let written = match &args.dir {
        Some(dir) => write_all(dir),
        None => print_main(),
    };
    written.map_or_else(|error| fail(Mode::Lines, error), |()| Exit::Success)
}

fn print_main() -> anyhow::Result<()> {
    let mut root = Args::command();
    root.build();
    Ok(print(page(&root)?.trim_end())?)
}

fn write_all(dir: &Path) -> anyhow::Result<()> {
    fs::create_dir_all(dir).with_context(|| format!("cannot create {}", dir.display()))?;
    let pages = pages()?;
    for (name, text) in &pages {
        let path = dir.join(name);
        fs::write(&path, text).with_context(|| format!("cannot write {}", path.display()))?;
    }
    eprint_line(&format!("{} written to {}", counted(pages.len() as u64, "page"), dir.display()));
    Ok(())
}

/// Returns the pages by the names of their files.
fn pages() -> anyhow::Result<Vec<(String, String)>> {
    let mut root = Args::command();
    root.build();
    let mut pages = Vec::new();
    add_pages(&root, &mut pages)?;
    Ok(pages)
}

fn add_pages(command: &Command, pages: &mut Vec<(String, String)>) -> anyhow::Result<()> {
    pages.push((format!("{}.{SECTION}", page_name(command)), page(command)?));
    for command in command.get_subcommands().filter(|command| !command.is_hide_set()) {
        add_pages(command, pages)?;
    }
    Ok(())
}

/// Returns the name of a command's page, such as `pointsman-token-new`.
fn page_name(command: &Command) -> &str {
    command.get_display_name().unwrap_or_else(|| command.get_name())
}

/// Returns the page of a command.
///
/// The text after the help has tables and examples. They keep their lines, so that this function writes them itself.
fn page(command: &Command) -> anyhow::Result<String> {
    let writer = Writer::new(command.clone()).section(SECTION).source(SOURCE).manual("Pointsman manual");
    let mut page = Vec::new();
    writer.render_title(&mut page)?;
    writer.render_name_section(&mut page)?;
    writer.render_synopsis_section(&mut page)?;
    writer.render_description_section(&mut page)?;
    if command.get_arguments().any(|argument| !argument.is_hide_set()) {
        writer.render_options_section(&mut page)?;
    }
    if command.get_subcommands().any(|command| !command.is_hide_set()) {
        writer.render_subcommands_section(&mut page)?;
    }
    let after_help = command.get_after_long_help().or_else(|| command.get_after_help());
    if let Some(text) = after_help {
        notes(&text.to_string()).to_writer(&mut page)?;
    }
    if command.get_long_version().is_some() {
        writer.render_version_section(&mut page)?;
    }
    see_also(command).to_writer(&mut page)?;
    // Each section begins with the definitions of roff, which a page needs once.
    let definitions = Roff::new().render();
    Ok(format!("{definitions}{}", String::from_utf8_lossy(&page).replace(&definitions, "")))
}

/// Returns the text after the help: a section for each line that ends with a colon and is not indented.
fn notes(text: &str) -> Roff {
    let mut roff = Roff::new();
    let mut is_open = false;
    for line in text.lines() {
        let heading = line.strip_suffix(':').filter(|heading| !heading.starts_with(' '));
        if heading.is_some() && is_open {
            roff.control("fi", []);
        }
        if heading.is_some() || !is_open {
            let heading = heading.unwrap_or("Notes").to_uppercase();
            roff.control("SH", [heading.as_str()]);
            roff.control("nf", []);
            is_open = true;
        }
        if heading.is_none() {
            roff.text([roman(line)]);
        }
    }
    if is_open {
        roff.control("fi", []);
    }
    roff
}

/// Returns the pages to read next: that of the program, or those of its commands.
fn see_also(command: &Command) -> Roff {
    let others = match page_name(command).rsplit_once('-') {
        Some((parent, _)) => vec![format!("{parent}({SECTION})")],
        None => {
            let commands = command.get_subcommands().filter(|command| !command.is_hide_set());
            commands.map(|command| format!("{}({SECTION})", page_name(command))).collect()
        }
    };
    let mut roff = Roff::new();
    roff.control("SH", ["SEE ALSO"]);
    roff.text([roman(others.join(", "))]);
    roff
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::terminal_text;

    #[test]
    fn every_command_has_a_page_with_its_options_and_arguments() {
        let pages = pages().unwrap();
        let mut root = Args::command();
        root.build();
        let mut commands = vec![&root];
        let mut seen = 0;
        while let Some(command) = commands.pop() {
            commands.extend(command.get_subcommands().filter(|command| !command.is_hide_set()));
            let name = format!("{}.1", page_name(command));
            let (_, page) = pages.iter().find(|(of, _)| *of == name).unwrap_or_else(|| panic!("no {name}"));
            for argument in command.get_arguments().filter(|argument| !argument.is_hide_set()) {
                if let Some(option) = argument.get_long() {
                    let option = option.replace('-', "\\-");
                    assert!(page.contains(&format!("\\fB\\-\\-{option}\\fR")), "{name}: {option}\n{page}");
                    seen += 1;
                } else if let Some([value]) = argument.get_value_names() {
                    assert!(page.contains(&format!("\\fI{value}\\fR")), "{name}: {value}\n{page}");
                }
            }
            for command in command.get_subcommands().filter(|command| !command.is_hide_set()) {
                let other = page_name(command).replace('-', "\\-");
                assert!(page.contains(&format!("{other}(1)")), "{name} does not name {other}");
            }
        }
        assert!(seen > 60, "the test has seen {seen} options");
        assert!(pages.len() > 15, "{}", pages.len());
    }

    #[test]
    fn the_page_of_the_program_has_its_version_with_the_features_and_the_exit_codes() {
        let pages = pages().unwrap();
        let (name, page) = &pages[0];
        assert_eq!(name, "pointsman.1");
        for words in [
            &format!("\n.SH VERSION\nv{}", env!("CARGO_PKG_VERSION")),
            "(features: ",
            "\n.SH \"EXIT CODES\"\n.nf\n",
            "\n    0  every item completed",
            "\n.SH \"SEE ALSO\"\n",
        ] {
            assert!(page.contains(words), "{words:?} is not in:\n{page}");
        }
        // The page is printed as it is.
        assert_eq!(terminal_text::lines(page), page.as_str());
    }

    #[test]
    fn a_page_keeps_the_lines_of_tables_and_examples() {
        let page = notes("Codes:\n  0  all\n  1  some\n\nExamples:\n  a -b").to_roff();
        let (_, text) = page.split_once(".SH CODES").unwrap();
        assert_eq!(text, "\n.nf\n  0  all\n  1  some\n\n.fi\n.SH EXAMPLES\n.nf\n  a \\-b\n.fi\n", "{page}");
    }
}

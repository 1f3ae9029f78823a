//! The progress display of a run: in a terminal, without one, and as the options request it.

use std::io::Read;
use std::process::{Command, Stdio};

use super::program::*;

/// What ends each drawing of the display: the rest of the terminal is erased, and the cursor returns.
const DRAWN: &str = "\u{1b}[J\r";

/// Items that take a few seconds, two at a time.
const SLOW: &str = "[simulator]\nlatency = \"300ms\"\n[run]\nmax_in_flight_items = 2";

const RUN: &str = "run pipeline.toml --items items.jsonl --out o.jsonl";

/// Runs the program in a terminal of 24 rows and 80 columns, and returns what it writes there. `before` is run first by
/// the shell. Returns `None` on a system without `script`.
fn run_in_terminal(
    workspace: &Workspace,
    before: &str,
    arguments: &str,
    environment: &[(&str, &str)],
) -> Option<String> {
    if Command::new("script").arg("--version").stdout(Stdio::null()).status().is_err() {
        return None;
    }
    let program = env!("CARGO_BIN_EXE_pointsman");
    let script = format!("stty rows 24 cols 80; {before} {program} {arguments}");
    let mut terminal = Command::new("timeout");
    terminal.args(["--kill-after=1", "30", "script", "-qec", &script, "/dev/null"]);
    terminal.current_dir(workspace.path("")).env_clear().env("TERM", "xterm");
    if let Some(path) = std::env::var_os("PATH") {
        terminal.env("PATH", path);
    }
    terminal.envs(environment.iter().copied());
    let mut terminal =
        terminal.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
    // Open until the end, because its end would end the terminal.
    let typed = terminal.stdin.take().unwrap();
    let mut shown = Vec::new();
    terminal.stdout.take().unwrap().read_to_end(&mut shown).unwrap();
    terminal.wait().unwrap();
    drop(typed);
    Some(String::from_utf8(shown).unwrap())
}

/// Returns `text` without escape sequences.
fn without_sequences(text: &str) -> String {
    let mut plain = String::new();
    let mut rest = text;
    while let Some((before, sequence)) = rest.split_once('\u{1b}') {
        plain.push_str(before);
        let end = sequence.find(|letter: char| letter.is_ascii_alphabetic()).unwrap();
        rest = &sequence[end + 1..];
    }
    plain + rest
}

/// Returns the drawings of the display with the columns of the longest line of each. Each of their characters takes one.
fn drawings(shown: &str) -> Vec<(String, usize)> {
    let parts: Vec<&str> = shown.split(DRAWN).collect();
    let drawn = &parts[..parts.len() - 1];
    let drawings = drawn.iter().map(|part| without_sequences(part.rsplit("\u{1b}[J").next().unwrap()));
    let width = |text: &str| text.lines().map(|line| line.trim_matches('\r').chars().count()).max();
    drawings.map(|text| (text.clone(), width(&text).unwrap_or(0))).collect()
}

#[test]
fn a_terminal_shows_a_bar_that_fits_after_the_terminal_is_resized() {
    let workspace = Workspace::new(SLOW);
    workspace.write_items(24);
    let resize = "(sleep 1.5; stty cols 50 < /dev/tty) &";
    let Some(shown) = run_in_terminal(&workspace, resize, RUN, &[]) else { return };
    let drawings = drawings(&shown);
    assert!(drawings.len() >= 10, "{shown:?}");
    let is_narrow: Vec<bool> = drawings.iter().map(|(_, width)| *width < 50).collect();
    let first_narrow = is_narrow.iter().position(|is_narrow| *is_narrow).unwrap();
    assert!(first_narrow > 2, "{shown:?}");
    assert!(is_narrow[first_narrow..].iter().all(|is_narrow| *is_narrow), "{shown:?}");
    assert!(drawings.iter().all(|(_, width)| *width < 80), "{shown:?}");
    for (drawing, _) in &drawings[1..] {
        assert!(
            drawing.contains("/24") && drawing.contains("items/s") && drawing.contains("simulated"),
            "{drawing}"
        );
    }
    assert!(drawings[2].0.contains('░'), "{shown:?}");
    assert!(drawings.iter().any(|(drawing, _)| drawing.contains('█')), "{shown:?}");
    // The display is removed, and the report remains.
    let (_, end) = shown.rsplit_once("\u{1b}[J").unwrap();
    assert!(
        end.contains("24 completed") && end.contains("results in o.jsonl") && !end.contains('░'),
        "{end}"
    );
}

#[test]
fn colors_and_the_bar_depend_on_the_terminal_and_the_environment() {
    let workspace = Workspace::new("[simulator]\nlatency = \"300ms\"");
    workspace.write_items(4);
    let run = format!("{RUN} --new --overwrite");
    let Some(colored) = run_in_terminal(&workspace, "", &run, &[]) else { return };
    assert!(colored.contains('░') && colored.contains("\u{1b}[2m"), "{colored:?}");
    for variables in [[("NO_COLOR", "1"), ("X", "")], [("NO_COLOR", "1"), ("CLICOLOR_FORCE", "1")]] {
        let plain = run_in_terminal(&workspace, "", &run, &variables).unwrap();
        assert!(plain.contains('░') && plain.contains(DRAWN), "{plain:?}");
        let has_color = plain.split('\u{1b}').skip(1).any(|sequence| {
            sequence
                .find(|letter: char| letter.is_ascii_alphabetic())
                .is_some_and(|end| &sequence[end..=end] == "m")
        });
        assert!(!has_color, "{plain:?}");
    }
    let dumb = run_in_terminal(&workspace, "", &run, &[("TERM", "dumb")]).unwrap();
    assert!(!dumb.contains('\u{1b}') && dumb.contains("items done"), "{dumb:?}");
}

#[test]
fn results_on_the_terminal_of_the_display_are_whole_lines() {
    let workspace = Workspace::new(SLOW);
    workspace.write_items(8);
    let run = "run pipeline.toml --items items.jsonl";
    let Some(shown) = run_in_terminal(&workspace, "", run, &[]) else { return };
    let starts = shown.match_indices("{\"key\":").map(|(at, _)| &shown[..at]);
    let starts: Vec<&str> = starts.collect();
    assert_eq!(starts.len(), 8, "{shown:?}");
    for start in starts {
        assert!(start.ends_with("\u{1b}[J") || start.ends_with('\n'), "{shown:?}");
    }
}

#[test]
fn lines_of_the_log_appear_above_the_display() {
    let workspace =
        Workspace::new(&format!("{SLOW}\n[[simulator.faults]]\nkind = \"server_error\"\nshare = 0.5"));
    workspace.write_items(6);
    let environment = [("NO_COLOR", "1")];
    let Some(shown) = run_in_terminal(&workspace, "", &format!("{RUN} -v"), &environment) else { return };
    assert!(shown.contains('░'), "{shown:?}");
    let starts: Vec<&str> =
        shown.match_indices("DEBUG").map(|(at, _)| shown[..at].trim_end_matches(' ')).collect();
    assert!(!starts.is_empty(), "{shown:?}");
    for start in starts {
        let is_at_start = start.is_empty() || start.ends_with("\u{1b}[J") || start.ends_with('\n');
        assert!(is_at_start, "{shown:?}");
    }
}

#[test]
fn an_option_decides_how_the_progress_is_shown() {
    let workspace = Workspace::new("[simulator]\nlatency = \"300ms\"");
    workspace.write_items(3);
    let run = |how: &str| {
        let output = workspace.run(&format!("{RUN} --new --overwrite {how}"));
        output.expect_code(0);
        output.stderr
    };
    let bar = run("--progress bar");
    assert!(bar.contains(DRAWN) && bar.contains("0/3") && bar.contains("3 completed"), "{bar:?}");
    let plain = run("--progress plain");
    assert!(plain.contains("0 items done, 3 in flight"), "{plain}");
    let json = run("--progress json");
    let (lines, text): (Vec<&str>, Vec<&str>) = json.lines().partition(|line| line.starts_with('{'));
    let progress = parse_lines(&lines.join("\n"));
    assert!(progress.iter().all(|line| line["progress"]["in_flight"] == 3), "{json}");
    assert!(!progress.is_empty() && text.iter().any(|line| line.contains("3 completed")), "{json}");
    let none = run("--progress none");
    assert!(!none.contains("in flight") && none.contains("3 completed"), "{none}");
    // Other messages stay as they are.
    let quiet = run("--progress plain --quiet");
    assert!(quiet.contains("0 items done") && !quiet.contains("3 completed"), "{quiet}");
    let only_report = run("--progress none --json");
    assert!(!only_report.contains("{\"progress\"") && only_report.contains("{\"report\""), "{only_report}");
    workspace
        .run(&format!("{RUN} --progress fancy"))
        .expect_stderr(2, &["fancy", "auto, bar, plain, json, none"]);
}

#[test]
fn the_items_of_each_format_are_counted_and_those_of_a_pipe_are_not() {
    // Long enough for a second line of progress, before which the items are counted.
    let workspace = Workspace::new("[simulator]\nlatency = \"1300ms\"");
    workspace.write_items(3);
    workspace.write("items.csv", "id,text\n1,\"a\nb\"\n2,c\n");
    workspace.write("items.json", "[{\"id\": 1, \"text\": \"a\"}]");
    let progress = |items: &str, stdin: &str| {
        let run =
            format!("run pipeline.toml --items {items} --out o.jsonl --new --overwrite --progress json");
        let output = run_program_with_stdin(workspace.command(&run), stdin.as_bytes());
        output.expect_code(0);
        let last = output.stderr.lines().rfind(|line| line.starts_with("{\"progress\"")).unwrap();
        parse_lines(last).remove(0)["progress"]["input_items"].clone()
    };
    assert_eq!(progress("items.jsonl", ""), 3);
    assert_eq!(progress("items.csv", ""), 2);
    assert_eq!(progress("items.json", ""), 1);
    assert!(progress("-", &workspace.read("items.jsonl")).is_null());
    // Of a limited run only the items that it processes.
    assert_eq!(progress("items.jsonl --limit 2", ""), 2);
}

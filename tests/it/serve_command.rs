//! `pointsman serve`: what it writes at its start and its stop.

use std::net::TcpListener;

use serde_json::Value;

use super::program::{RunningProgram, Workspace, parse_lines, start_program};

/// Returns a workspace whose daemon takes a free port.
fn workspace() -> Workspace {
    Workspace::new("[serve]\nlisten = \"127.0.0.1:0\"\n")
}

/// Stops a daemon, and returns what it has written in all.
fn stop(daemon: RunningProgram) -> String {
    daemon.signal("TERM");
    let output = daemon.wait();
    output.expect_code(0).to_owned()
}

#[test]
fn each_line_of_a_daemon_with_a_log_in_json_is_an_object() {
    let workspace = workspace();
    let mut daemon = start_program(workspace.command("serve --log json"));
    daemon.wait_for_line("pointsman serves at http://127.0.0.1:");
    workspace.write_config("[serve]\nlisten = \"127.0.0.1:0\"\n[budget]\nday = 5\n");
    daemon.signal("HUP");
    daemon.wait_for_line("the configuration was reloaded");
    let stderr = stop(daemon);
    let lines = parse_lines(&stderr);
    let own = |message: &str| {
        let is_meant = |line: &&Value| line["message"].as_str().unwrap_or_default().contains(message);
        let found: Vec<&Value> = lines.iter().filter(is_meant).collect();
        let [line] = found.as_slice() else { panic!("{message:?} is not there once:\n{stderr}") };
        assert_eq!((&line["module"], &line["level"]), (&"pointsman::serve".into(), &"INFO".into()), "{line}");
    };
    own("pointsman serves at ");
    own("stopping: work in flight has ");
    own("stopped after ");
    assert!(!stderr.contains("configuration reloaded"), "the daemon logs reloads itself:\n{stderr}");
}

#[test]
fn a_daemon_with_a_log_in_text_writes_plain_lines_once() {
    let workspace = workspace();
    let mut daemon = start_program(workspace.command("serve"));
    daemon.wait_for_line("pointsman serves at http://127.0.0.1:");
    let stderr = stop(daemon);
    for start in ["pointsman serves at ", "stopping: work in flight has ", "stopped after "] {
        let found = stderr.lines().filter(|line| line.contains(start)).collect::<Vec<_>>();
        assert!(found.len() == 1 && found[0].starts_with(start), "{stderr}");
    }
}

#[test]
fn the_errors_of_a_start_with_a_log_in_json_are_objects() {
    let workspace = workspace();
    workspace.write_config("[serve]\nmax_upload = 1000\n");
    let output = workspace.run("serve --log json");
    let lines = parse_lines(output.expect_code(3));
    let [line] = lines.as_slice() else { panic!("{lines:?}") };
    assert_eq!((&line["module"], &line["level"]), (&"pointsman::serve".into(), &"ERROR".into()), "{line}");
    assert!(line["location"].as_str().unwrap().contains("config.toml:2:"), "{line}");
    assert!(line["help"].as_str().unwrap().contains("write max_upload = \"1KiB\""), "{line}");
    let used = TcpListener::bind("127.0.0.1:0").unwrap();
    workspace.write_config("");
    let output = workspace.run(&format!("serve --log json --listen {}", used.local_addr().unwrap()));
    let lines = parse_lines(output.expect_code(4));
    let error = lines.last().unwrap();
    assert!(error["message"].as_str().unwrap().contains("another program listens there"), "{error}");
}

/// Asserts that nothing was logged, such as the stop of what had begun.
#[track_caller]
fn assert_has_no_log(stderr: &str) {
    for part in ["INFO", "WARN", "drained", "aborting"] {
        assert!(!stderr.contains(part), "{stderr}");
    }
}

#[test]
fn a_start_that_fails_says_only_why() {
    let workspace = workspace();
    let used = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = used.local_addr().unwrap();
    let output = workspace.run(&format!("serve --listen {address}"));
    output.expect_stderr(4, &[&format!("cannot listen at {address}: another program listens there")]);
    assert_has_no_log(&output.stderr);
    workspace.write_config(
        "[serve]\nlisten = \"127.0.0.1:0\"\n[serve.tls]\ncertificate = \"no.pem\"\nkey = \"no.key\"\n",
    );
    let output = workspace.run("serve");
    output.expect_stderr(4, &["[serve.tls]", "cannot read the certificate"]);
    assert_has_no_log(&output.stderr);
}

#[test]
fn a_second_start_names_the_first_process_and_not_the_address() {
    let workspace = workspace();
    let mut first = start_program(workspace.command("serve"));
    let line = first.wait_for_line("pointsman serves at ");
    let address = line.split("http://").nth(1).unwrap().split(' ').next().unwrap();
    for listen in [address, "127.0.0.1:0"] {
        let output = workspace.run(&format!("serve --listen {listen}"));
        output.expect_stderr(4, &[&format!("another daemon uses this store: process {}", first.child.id())]);
        assert_has_no_log(&output.stderr);
    }
    stop(first);
}

#[test]
fn an_address_without_a_port_or_with_a_name_is_refused_with_the_option_to_write() {
    let workspace = workspace();
    for (wrong, advice) in [
        ("localhost:7700", "has a name in place of an address"),
        ("127.0.0.1", "write --listen 127.0.0.1:7700"),
        ("7700", "--listen 0.0.0.0:7700 for all"),
    ] {
        workspace.run(&format!("serve --listen {wrong}")).expect_stderr(2, &["--listen", advice]);
    }
}

#[test]
fn a_health_check_takes_the_address_and_the_scheme_from_the_configuration() {
    use std::os::unix::fs::PermissionsExt;

    let workspace = workspace();
    let data = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/tls");
    for (from, to) in [("first.pem", "certificate.pem"), ("first.key.pem", "key.pem")] {
        std::fs::copy(data.join(from), workspace.path(to)).unwrap();
        std::fs::set_permissions(workspace.path(to), std::fs::Permissions::from_mode(0o600)).unwrap();
    }
    let free = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    workspace.write_config(format!(
        "[serve]\nlisten = \"0.0.0.0:{}\"\n[serve.tls]\ncertificate = \"certificate.pem\"\nkey = \"key.pem\"\n",
        free.port()
    ));
    let mut daemon = start_program(workspace.command("serve"));
    daemon.wait_for_line("pointsman serves at https://0.0.0.0:");
    workspace.run("status --health --config config.toml").expect_code(0);
    stop(daemon);
    workspace.run("status --health --config config.toml").expect_code(4);
}

#[test]
fn a_user_signal_does_not_end_a_daemon() {
    let workspace = workspace();
    let mut daemon = start_program(workspace.command("serve"));
    daemon.wait_for_line("pointsman serves at ");
    daemon.signal("USR1");
    daemon.signal("USR2");
    let stderr = stop(daemon);
    assert!(stderr.contains("stopped after "), "{stderr}");
}

#[test]
fn a_store_with_a_second_name_is_refused() {
    let workspace = workspace();
    let mut daemon = start_program(workspace.command("serve"));
    daemon.wait_for_line("pointsman serves at ");
    stop(daemon);
    std::fs::hard_link(workspace.path("pointsman.db"), workspace.path("other.db")).unwrap();
    workspace.write_config("[serve]\nlisten = \"127.0.0.1:0\"\n[store]\nurl = \"sqlite:other.db\"\n");
    workspace.run("serve").expect_stderr(3, &["other.db of the store has another name, a hard link"]);
}

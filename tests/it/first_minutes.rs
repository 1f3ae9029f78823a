//! What a newcomer types in the first minutes: twenty tasks, each with the command and what it shows.

use std::process::Command;

use serde_json::Value;

use pointsman::simulator::{Settings, Simulator, Vendor};

use super::program::*;
use super::support::start_simulator;

/// The shop whose feedback is classified.
const FEEDBACK: &str = "\
customer;E-Mail;text
Ada;ada@example.org;It crashes when I save
Bob;bob@example.org;How do I log in?
Cid;cid@example.org;\"Great work; thank you\"
";

/// A newcomer with a key of OpenAI in the environment, a file of feedback, and nothing else.
struct Newcomer {
    workspace: Workspace,
    simulator: Simulator,
}

impl Newcomer {
    fn new() -> Self {
        let workspace = Workspace::empty();
        workspace.write("feedback.csv", FEEDBACK);
        Self { workspace, simulator: start_simulator(Settings::default()) }
    }

    fn command(&self, line: &str) -> Command {
        let mut command = Command::new("sh");
        let program = env!("CARGO_BIN_EXE_pointsman");
        command.args(["-c", &line.replace("pointsman ", &format!("{program} "))]);
        command.current_dir(self.workspace.path("."));
        command.env_clear().env("PATH", std::env::var_os("PATH").unwrap_or_default());
        command.env("HOME", self.workspace.path("."));
        command.env("OPENAI_API_KEY", "sk-secret-4711");
        command.env("OPENAI_BASE_URL", self.simulator.base_url(Vendor::OpenAi));
        command
    }

    /// Types a line in a shell.
    fn types(&self, line: &str) -> Output {
        run_program(self.command(line))
    }

    fn csv(&self, name: &str) -> Vec<Vec<String>> {
        let text = self.workspace.read(name);
        let mut reader = csv::ReaderBuilder::new().has_headers(false).from_reader(text.as_bytes());
        let rows = reader.records().map(|row| row.unwrap().iter().map(str::to_owned).collect());
        rows.collect()
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn twenty_first_tasks() {
    let newcomer = Newcomer::new();

    // 1. Is it there?
    let version = newcomer.types("pointsman --version");
    version.expect_code(0);
    assert!(version.stdout.starts_with("pointsman 0."), "{}", version.stdout);

    // 2. What can it do?
    let help = newcomer.types("pointsman --help");
    help.expect_code(0);
    for command in ["run", "ask", "plan", "init", "models", "check", "resume", "serve"] {
        assert!(help.stdout.contains(&format!("\n  {command} ")), "{command}:\n{}", help.stdout);
    }

    // 3. One question.
    let asked = newcomer.types("pointsman ask 'Say hello.' --model gpt-6-luna");
    asked.expect_code(0);
    assert!(asked.stdout.contains("Say hello."), "{}", asked.stdout);

    // 4. A file through a pipe.
    let piped = newcomer.types("cat feedback.csv | pointsman ask 'Summarise this' --model gpt-6-luna");
    piped.expect_code(0);
    assert!(piped.stdout.contains("It crashes"), "{}", piped.stdout);

    // 5. A structured answer.
    let json = newcomer.types("pointsman ask 'Who?' --schema 'name, age int, tags list' --model gpt-6-luna");
    json.expect_code(0);
    let answer: Value = serde_json::from_str(&json.stdout).unwrap();
    assert!(answer["name"].is_string() && answer["age"].is_i64() && answer["tags"].is_array(), "{answer}");

    // 6. Each row of a CSV file, its columns in the result.
    let run = "pointsman run --prompt 'Classify: {{ item.text }}' --choice 'bug,question,praise' \
               --items feedback.csv --out labelled.csv --model openai/gpt-6-luna";
    newcomer.types(run).expect_stderr(0, &["3 completed"]);
    let rows = newcomer.csv("labelled.csv");
    assert_eq!(rows.len(), 4);
    assert_eq!(rows[0][..3], ["customer", "E-Mail", "text"]);
    assert!(rows[0].iter().any(|name| name == "answer") && rows[0].iter().any(|name| name == "status"));
    let answer = rows[0].iter().position(|name| name == "answer").unwrap();
    assert!(rows[1..].iter().all(|row| ["bug", "question", "praise"].contains(&&*row[answer])), "{rows:?}");

    // 7. The same again costs nothing.
    let before = newcomer.simulator.counts().requests;
    newcomer.types(run).expect_code(0);
    assert_eq!(newcomer.simulator.counts().requests, before);

    // 8. A column that is misspelled.
    let misspelled = run.replace("item.text", "item.txt").replace("labelled", "wrong");
    let check = misspelled.replace("pointsman run", "pointsman check").replace("--out wrong.csv ", "");
    newcomer.types(&check).expect_stderr(1, &["`item.txt` is undefined; did you mean `text`?"]);

    // 9. A header with a dash.
    let dashed = run.replace("item.text", "item[\"E-Mail\"]").replace("labelled", "dashed");
    newcomer.types(&dashed).expect_code(0);

    // 10. What will it cost?
    let plan =
        newcomer.types(&run.replace("pointsman run", "pointsman plan").replace("--out labelled.csv ", ""));
    plan.expect_code(0);
    assert!(plan.stdout.contains("3 items") && plan.stdout.contains("calls 3"), "{}", plan.stdout);

    // 11. Only the first rows.
    let limited = run.replace("labelled", "first") + " --limit 2 --temperature 0.5";
    newcomer.types(&limited).expect_code(0);
    assert_eq!(newcomer.csv("first.csv").len(), 3);

    // 12. And then the rest.
    newcomer.types(&limited.replace(" --limit 2", "")).expect_code(0);
    assert_eq!(newcomer.csv("first.csv").len(), 4);

    // 13. What runs are there?
    let runs = newcomer.types("pointsman runs");
    runs.expect_code(0);
    assert!(runs.stdout.contains("answer"), "{}", runs.stdout);

    // 14. A configuration and a pipeline to begin with.
    let init = newcomer.types("pointsman init --items feedback.csv");
    init.expect_stderr(0, &["pointsman run"]);
    let config = newcomer.workspace.read("pointsman.toml");
    assert!(config.contains("OPENAI_API_KEY") && !config.contains("sk-secret"), "{config}");

    // 15. Are they right?
    newcomer.types("pointsman check pipeline.toml --items feedback.csv").expect_code(0);

    // 16. They run.
    newcomer.types("pointsman run pipeline.toml --items feedback.csv --out results.csv").expect_code(0);
    assert_eq!(newcomer.csv("results.csv").len(), 4);

    // 17. Where does a setting come from?
    let config = newcomer.types("pointsman config");
    config.expect_code(0);
    assert!(
        config.stdout.contains("pointsman.toml") && !config.stdout.contains("sk-secret"),
        "{}",
        config.stdout
    );

    // 18. Which models are there?
    let models = newcomer.types("pointsman models --json");
    models.expect_code(0);

    // 19. How are templates written?
    let help = newcomer.types("pointsman help templates");
    help.expect_code(0);
    assert!(help.stdout.contains("{{ item."), "{}", help.stdout);

    // 20. Without a key, simulated.
    let mut simulated = newcomer.command("pointsman ask 'Say hello.' --simulate");
    simulated.env_remove("OPENAI_API_KEY").env_remove("OPENAI_BASE_URL");
    run_program(simulated).expect_code(0);
}

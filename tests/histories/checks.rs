//! Compares the result of a command with the reference: requests, lines and costs.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use super::actions::{Command, ConcurrentEvent};
use super::execution::Execution;
use super::outages::{OUTAGE_RESULT, OutageEnd};
use super::output::{read_json_lines, row_cells};
use super::provider::{LoggedRequest, token_counts};
use super::reference::{ExpectedRun, FinishedItem, is_unchanged, line_summary};
use super::runner::{CheckResult, HistoryRunner, broken_rule};
use super::setup::{Item, STEPS, TARGETS};

impl HistoryRunner {
    pub(super) fn check_execution(&mut self, execution: &Execution, force_new: bool) -> CheckResult {
        let (newest_run, row) = self.newest_run();
        let wants_new = force_new || self.run.is_none();
        if newest_run > self.latest_run {
            if !wants_new {
                return broken_rule("the same command resumes its run", format!("run {newest_run}"));
            }
            self.latest_run = newest_run;
            self.booked_nano_usd = 0;
            let shared = self.shared.clone();
            self.run = Some(ExpectedRun::new(newest_run, self.setup.clone(), force_new, shared));
        } else if wants_new && execution.has_completed() {
            return broken_rule("--new starts a new run", format!("run {newest_run} is the newest"));
        }
        let code = execution.output.code;
        match execution.event {
            _ if execution.has_completed() => {}
            _ if execution.is_paused() => {
                if !execution.may_pause(&self.setup) {
                    return broken_rule("a run pauses only for an outage", execution.output.stderr.clone());
                }
                let state =
                    if execution.event == Some(ConcurrentEvent::Cancel) { "cancelled" } else { "paused" };
                if row["state"] != state || !execution.output.stderr.contains("resume") {
                    return broken_rule(
                        "a paused run can be resumed, and its message mentions it",
                        row.to_string(),
                    );
                }
            }
            None if code.is_none() => {}
            Some(ConcurrentEvent::Kill | ConcurrentEvent::Outage(.., OutageEnd::Kill)) if code.is_none() => {}
            Some(
                ConcurrentEvent::Stop
                | ConcurrentEvent::StopTwice
                | ConcurrentEvent::Cancel
                | ConcurrentEvent::Outage(.., OutageEnd::Stop),
            ) if code == Some(130) => {}
            _ => return broken_rule("a command ends with the expected exit code", format!("with {code:?}")),
        }
        let Some(mut run) = self.run.take() else { return Ok(()) };
        let result =
            self.check_requests(execution, &run).and_then(|()| self.check_results(execution, &mut run, &row));
        let result = result.and_then(|()| self.check_costs(execution, &row));
        if execution.is_durable() && !execution.did_nothing() {
            run.accepted = vec![self.setup.clone()];
        } else {
            run.accepted.push(self.setup.clone());
        }
        if self.options.shares_answers {
            run.share_answers();
            self.shared.clone_from(&run.shared);
        }
        if row["state"] != "cancelled" {
            self.run = Some(run);
        }
        result
    }

    /// Checks that no request has a valid answer already, and that every request belongs to an item of the
    /// input.
    fn check_requests(&self, execution: &Execution, run: &ExpectedRun) -> CheckResult {
        let in_input: BTreeSet<_> = execution.items().map(Item::name).collect();
        let mut answered = BTreeSet::new();
        for request in &execution.requests {
            let key = self.keys[&request.item].clone();
            let step = STEPS.iter().position(|step| *step == request.step).unwrap();
            let step_request = (key.clone(), request.step.clone(), request.content.clone());
            if !in_input.contains(&request.item) {
                return broken_rule(
                    "requests are sent only for items of the input",
                    request_summary(request),
                );
            }
            if run.valid_answers(&self.setup, step, &step_request).iter().any(|(.., durable)| *durable) {
                return broken_rule(
                    "a request with a valid stored answer is not sent again",
                    request_summary(request),
                );
            }
            let shares = self.options.shares_answers && !run.is_fresh && execution.command != Command::Retry;
            let shared = run.valid_shared_answers(&self.setup, step, &step_request);
            if shares && shared.iter().any(|(.., durable)| *durable) {
                return broken_rule(
                    "a request whose answer any run has stored is not sent again",
                    request_summary(request),
                );
            }
            if answered.contains(&step_request) {
                return broken_rule(
                    "an answered request is not sent again in the same run",
                    request_summary(request),
                );
            }
            if matches!(request.result, Some(Ok(_))) {
                answered.insert(step_request);
            }
            let Some(finished) = run.finished_items.get(&key) else { continue };
            let is_same_item = execution.input.items.contains(&finished.item);
            if execution.command == Command::Retry && is_same_item && finished.line["status"] == "completed" {
                return broken_rule("retry sends requests only for failed items", request_summary(request));
            }
            let was_answered = finished.line["steps"][&request.step]["status"] == "completed";
            // A replaced picture is like an edited item: its requests are sent again without
            // `--accept-changes`.
            let needs_acceptance =
                !execution.changes_accepted && finished.setup.pictures == self.setup.pictures;
            let is_changed = run.accepted == [finished.setup.clone()] && finished.setup != self.setup;
            if needs_acceptance && is_changed && is_same_item && was_answered {
                return broken_rule(
                    "a change that discards answers requires --accept-changes",
                    request_summary(request),
                );
            }
        }
        self.check_validation_retries(execution)
    }

    /// Checks that an invalid answer is retried as often as configured, and that nothing else is retried.
    fn check_validation_retries(&self, execution: &Execution) -> CheckResult {
        let mut attempts: BTreeMap<(&str, &str), (usize, usize)> = BTreeMap::new();
        for request in &execution.requests {
            let (invalid, retries) = attempts.entry((&request.item, &request.content)).or_default();
            if request.result == Some(Err(OUTAGE_RESULT)) {
                continue;
            }
            if request.is_validation_retry {
                *retries += 1;
            } else if request.result == Some(Err("validation_error")) {
                *invalid += 1;
            }
        }
        let is_wrong = |(_, (invalid, retries)): &(_, (usize, usize))| match execution.has_completed() {
            true => invalid * self.options.max_validation_retries != *retries,
            false => invalid * self.options.max_validation_retries < *retries,
        };
        match attempts.into_iter().find(is_wrong) {
            Some(((_, content), counts)) => broken_rule(
                "an invalid answer is retried as often as configured",
                format!("{content}: {counts:?}"),
            ),
            None => Ok(()),
        }
    }

    fn check_results(&mut self, execution: &Execution, run: &mut ExpectedRun, row: &Value) -> CheckResult {
        let requests: Vec<_> =
            execution.requests.iter().map(|request| (self.keys[&request.item].clone(), request)).collect();
        let is_durable = |request: &LoggedRequest| {
            // The answers that a step depends on are durable before its request is sent.
            let is_dependency = !matches!(&*request.step, "last" | "facts");
            let is_dependent =
                |other: &LoggedRequest| is_dependency && other.item == request.item && other.step == "last";
            execution.is_durable() || execution.requests.iter().any(is_dependent)
        };
        run.record_requests(&requests, &self.setup, is_durable);
        let before = run.finished_items.clone();
        let results = self.run_to_end(&format!("results {}", run.number));
        if results.code != Some(0) {
            return broken_rule("results can be read", results.stderr);
        }
        let results: Vec<Value> =
            results.stdout.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        self.csv_rows.extend(results.iter().map(|line| (row_cells(line), line.clone())));
        self.check_lines("results", execution, run, &before, &results)?;
        self.check_failovers(execution, &results)?;
        let output = self.read_output();
        let is_complete_run = execution.has_completed() && execution.command != Command::Retry;
        if is_complete_run && !matches!(execution.event, Some(ConcurrentEvent::AppendItem(_))) {
            let wanted = execution.input.key_set();
            let got: Vec<_> = line_keys(&output);
            if self.options.ordered && got != execution.input.keys() {
                return broken_rule("the output has the order of the input", format!("{got:?}"));
            }
            if got.iter().cloned().collect::<BTreeSet<_>>() != wanted || got.len() != wanted.len() {
                return broken_rule(
                    "the output has one line for each item",
                    format!("{got:?}, not {wanted:?}"),
                );
            }
            for line in &output {
                let item = execution.input.items.iter().find(|item| line["key"] == item.key()).unwrap();
                if line["line"] != execution.input.line_numbers[&item.key()] {
                    return broken_rule("a line has its line number in the input", line.to_string());
                }
                let checked = run.check_line(&self.setup, item, line);
                checked
                    .or_else(|detail| broken_rule("a line has the answers of the current input", detail))?;
            }
            let failed =
                output.iter().any(|line| line["status"] == "failed") || !execution.input.rejects.is_empty();
            if execution.output.code != Some(i32::from(failed)) {
                return broken_rule(
                    "the exit code shows whether items failed",
                    format!("{:?}", execution.output.code),
                );
            }
        }
        self.check_lines("the output", execution, run, &before, &output)?;
        self.check_rejects(execution)?;
        if execution.is_durable() && !execution.did_nothing() {
            let input = execution.input.key_set();
            let missing = |lines: &[Value]| {
                let present = line_keys(lines);
                run.finished_items
                    .keys()
                    .filter(|key| input.contains(*key) && !present.contains(key))
                    .cloned()
                    .collect::<Vec<_>>()
            };
            let missing = missing(&output);
            if !missing.is_empty() {
                return broken_rule("a finished item keeps its line in the output", format!("{missing:?}"));
            }
        }
        if is_complete_run
            && !matches!(
                execution.event,
                Some(ConcurrentEvent::AppendItem(_) | ConcurrentEvent::ReplaceItem(..))
            )
        {
            self.check_counts(execution, &output, &results, row)?;
        }
        if execution.command == Command::Retry && execution.has_completed() {
            self.check_retried_items(execution, &before)?;
            let is_missing = output.iter().any(|line| line["status"] == "failed")
                || !execution.input.rejects.is_empty()
                || execution.input.key_set() != line_keys(&output).into_iter().collect();
            if is_missing && execution.output.code == Some(0) && !execution.did_nothing() {
                return broken_rule(
                    "a retry ends with 1 if items have failed or are missing",
                    execution.output.stderr.clone(),
                );
            }
        }
        Ok(())
    }

    /// Checks that the output, the results and the counts of a complete run cover the items of its input.
    fn check_counts(
        &self,
        execution: &Execution,
        output: &[Value],
        results: &[Value],
        row: &Value,
    ) -> CheckResult {
        let key_set = |lines: &[Value]| line_keys(lines).into_iter().collect::<BTreeSet<_>>();
        if key_set(output) != key_set(results) || results.len() != output.len() {
            return broken_rule(
                "the results have the same items as the output",
                format!("{:?}", key_set(results)),
            );
        }
        let report = self.run_to_end(&format!("report {} --json", row["run"]));
        let report: Value = serde_json::from_str(&report.stdout).unwrap_or_default();
        let count = |status: &str| output.iter().filter(|line| line["status"] == status).count();
        for counted in ["completed", "failed", "skipped"] {
            let expected = count(counted) as u64;
            if row[counted].as_u64() != Some(expected) || report["items"][counted].as_u64() != Some(expected)
            {
                let detail = format!("{expected} {counted}, listed {row}, reported {}", report["items"]);
                return broken_rule("the counts of a run are those of its input", detail);
            }
        }
        if row["unfinished"] != 0 {
            return broken_rule(
                "a complete run has no open item",
                format!("{row} after {}", execution.output.stderr),
            );
        }
        Ok(())
    }

    /// Checks that each line is right now, or is unchanged from before. Records the lines that are right.
    fn check_lines(
        &mut self,
        what: &str,
        execution: &Execution,
        run: &mut ExpectedRun,
        before: &BTreeMap<String, FinishedItem>,
        lines: &[Value],
    ) -> CheckResult {
        let mut seen = BTreeSet::new();
        let may_be_old = what == "the output" && (!execution.has_completed() || execution.did_nothing());
        for line in lines {
            let Some(key) = line["key"].as_str() else {
                return broken_rule("a line is complete", format!("{what}: {line}"));
            };
            if !seen.insert(key) {
                return broken_rule("no item has two lines", format!("{what}: {key}"));
            }
            let is_same = before.get(key).is_some_and(|finished| is_unchanged(&finished.line, line));
            if is_same {
                self.past_lines.insert(line_summary(line));
            }
            if is_same && !execution.is_durable() {
                // Another request may have the same answer, so an unchanged line does not prove a new answer.
                continue;
            }
            let versions = execution.items().filter(|item| item.key() == key);
            let checked: Vec<_> =
                versions.map(|item| (item, run.check_line(&self.setup, item, line))).collect();
            if let Some((item, _)) = checked.iter().find(|(_, checked)| checked.is_ok()) {
                let finished =
                    FinishedItem { item: (*item).clone(), setup: self.setup.clone(), line: line.clone() };
                run.record_finished(key, finished);
                self.past_lines.insert(line_summary(line));
                continue;
            }
            let was_right = may_be_old && self.past_lines.contains(&line_summary(line));
            if !is_same && !was_right {
                let reasons: Vec<_> = checked.into_iter().filter_map(|(_, checked)| checked.err()).collect();
                let rule = "a line is right, or unchanged from before";
                return broken_rule(rule, format!("{what}: {}\n{}", line_summary(line), reasons.join("\n")));
            }
        }
        if what == "results" {
            // An item that was removed from the input has no line. If it is added again, it has its old result.
            let in_input: BTreeSet<String> = execution.items().map(Item::key).collect();
            run.finished_items.retain(|key, _| seen.contains(key.as_str()) || !in_input.contains(key));
        }
        Ok(())
    }

    /// Checks that a prompt that is too long for one model fails only if every model of its route has refused
    /// it. The run waits for a model that is unavailable.
    fn check_failovers(&self, execution: &Execution, results: &[Value]) -> CheckResult {
        for request in execution.requests.iter().filter(|request| request.result == Some(Err("too_long"))) {
            let key = &self.keys[&request.item];
            let step = STEPS.iter().position(|step| *step == request.step).unwrap();
            let class = |line: &Value| line["steps"][&request.step]["error"]["class"].clone();
            let has_failed = results.iter().any(|line| line["key"] == **key && class(line) == "too_long");
            let refused_by = |model: &String| {
                let is_same =
                    |other: &&LoggedRequest| other.item == request.item && other.content == request.content;
                let of_model =
                    |other: &LoggedRequest| other.model == *model && other.result == request.result;
                execution.requests.iter().filter(is_same).any(of_model)
            };
            let models = self.setup.targets(step).iter().map(|target| self.setup.model(*target));
            if let Some(model) = models.filter(|_| has_failed).find(|model| !refused_by(model)) {
                let detail = format!("{model} received no request: {}", request_summary(request));
                return broken_rule(
                    "a prompt that is too long for one target waits for the other targets",
                    detail,
                );
            }
        }
        Ok(())
    }

    /// Checks that `retry` has sent a request for every selected failed item that is unchanged in the input.
    fn check_retried_items(
        &self,
        execution: &Execution,
        before: &BTreeMap<String, FinishedItem>,
    ) -> CheckResult {
        for (key, finished) in before {
            let class = finished.line["error"]["class"].as_str().unwrap_or_default();
            let is_selected = finished.line["status"] == "failed"
                && execution.class.is_none_or(|selected| selected == class);
            let is_in_input = execution.input.items.contains(&finished.item);
            let was_sent = execution.requests.iter().any(|request| self.keys[&request.item] == *key);
            // A changed setup may make a stored answer valid again; then no request is sent.
            if is_selected && is_in_input && !was_sent && finished.setup == self.setup {
                return broken_rule("retry sends a request for every failed item", key.clone());
            }
        }
        Ok(())
    }

    /// Checks that the file of rejects has every rejected record, with its line number and reason, and
    /// nothing else.
    fn check_rejects(&mut self, execution: &Execution) -> CheckResult {
        if !self.options.rejects {
            return Ok(());
        }
        let got = read_json_lines(&self.folder.path().join("r.jsonl"));
        let is_complete_run = execution.has_completed() && execution.command != Command::Retry;
        let mut wanted = execution.input.rejects.clone();
        for reject in &got {
            let right = reject["line"].as_u64().and_then(|line| wanted.remove(&line)).is_some_and(|right| {
                reject["key"].as_str() == right.0.as_deref()
                    && reject["reason"].as_str().is_some_and(|reason| reason.contains(right.1))
            });
            if right {
                self.past_rejects.insert(reject.to_string());
            } else if is_complete_run || !self.past_rejects.contains(&reject.to_string()) {
                return broken_rule(
                    "a reject has its line number, its key and its reason",
                    reject.to_string(),
                );
            }
        }
        if is_complete_run && !wanted.is_empty() {
            return broken_rule("every malformed or duplicate record is a reject", format!("{wanted:?}"));
        }
        Ok(())
    }

    /// Checks that exactly the charged costs are booked. If requests were cancelled, checks the bounds of the
    /// booked cost.
    fn check_costs(&mut self, execution: &Execution, row: &Value) -> CheckResult {
        let mut known_cost = 0;
        let mut max_cost = 0;
        for request in execution.requests.iter().filter(|request| request.result != Some(Err(OUTAGE_RESULT)))
        {
            let was_sent_to = |target: &usize| {
                TARGETS[*target].0 == request.provider && self.setup.model(*target) == request.model
            };
            let target = (0..TARGETS.len()).find(was_sent_to).unwrap();
            let (input, output) = token_counts(&request.model, &request.content);
            let cost = (input + output) * u64::from(self.setup.prices[target]) * 1_000;
            max_cost += cost;
            // A prompt that is too long costs nothing.
            if !matches!(request.result, None | Some(Err("too_long"))) {
                known_cost += cost;
            }
        }
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a few cents")]
        let booked_nano_usd = (row["cost_usd"].as_f64().unwrap_or_default() * 1e9).round() as u64;
        let expected = match execution.is_durable() {
            true => self.booked_nano_usd + known_cost..=self.booked_nano_usd + known_cost,
            false => self.booked_nano_usd..=self.booked_nano_usd + max_cost,
        };
        if !expected.contains(&booked_nano_usd) {
            return broken_rule(
                "every charged cost is booked once",
                format!("{booked_nano_usd}, not within {expected:?}"),
            );
        }
        self.booked_nano_usd = booked_nano_usd;
        Ok(())
    }
}

pub(super) fn request_summary(request: &LoggedRequest) -> String {
    let LoggedRequest { provider, model, content, result, .. } = request;
    format!("{model} at {provider}: {content} -> {result:?}")
}

fn line_keys(lines: &[Value]) -> Vec<String> {
    lines.iter().filter_map(|line| line["key"].as_str()).map(str::to_owned).collect()
}

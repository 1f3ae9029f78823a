//! Compares what a command has done with the reference: requests, lines and money.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use super::actions::{Command, Meanwhile};
use super::outages::{Ending, REFUSED};
use super::output::{cells, json_lines};
use super::player::{Checked, Player, violated};
use super::provider::{Call, tokens};
use super::reference::{Run, Settled, keeps, says};
use super::session::Session;
use super::world::{Item, STEPS, TARGETS};

impl Player {
    pub(super) fn judge(&mut self, session: &Session, new: bool) -> Checked {
        let (newest, row) = self.newest();
        let wants_new = new || self.run.is_none();
        if newest > self.latest {
            if !wants_new {
                return violated("the same command continues its run", format!("run {newest}"));
            }
            self.latest = newest;
            self.booked = 0;
            self.run = Some(Run::new(newest, self.setup.clone()));
        } else if wants_new && session.is_whole() {
            return violated("a new run begins when it is asked for", format!("run {newest} is the newest"));
        }
        let code = session.ended.code;
        match session.meanwhile {
            _ if session.is_whole() => {}
            _ if session.is_paused() => {
                if !session.may_pause(&self.setup) {
                    return violated("a run pauses for an outage alone", session.ended.err.clone());
                }
                let state = if session.meanwhile == Some(Meanwhile::Cancel) { "cancelled" } else { "paused" };
                if row["state"] != state || !session.ended.err.contains("resume") {
                    return violated("a run that pauses can be resumed, and says so", row.to_string());
                }
            }
            None if code.is_none() => {}
            Some(Meanwhile::Kill | Meanwhile::Outage(.., Ending::Kill)) if code.is_none() => {}
            Some(
                Meanwhile::Stop
                | Meanwhile::StopTwice
                | Meanwhile::Cancel
                | Meanwhile::Outage(.., Ending::Stop),
            ) if code == Some(130) => {}
            _ => return violated("a command ends as it should", format!("with {code:?}")),
        }
        let Some(mut run) = self.run.take() else { return Ok(()) };
        let judged = self.judge_calls(session, &run).and_then(|()| self.judge_lines(session, &mut run, &row));
        let judged = judged.and_then(|()| self.judge_money(session, &row));
        if session.is_certain() && !session.had_nothing_to_do() {
            run.accepted = vec![self.setup.clone()];
        } else {
            run.accepted.push(self.setup.clone());
        }
        if row["state"] != "cancelled" {
            self.run = Some(run);
        }
        judged
    }

    /// Nothing valid is asked again, and nothing is asked that is not in the input.
    fn judge_calls(&self, session: &Session, run: &Run) -> Checked {
        let in_input: BTreeSet<_> = session.items().map(Item::name).collect();
        let mut answered = BTreeSet::new();
        for call in &session.calls {
            let key = self.keys[&call.item].clone();
            let step = STEPS.iter().position(|step| *step == call.step).unwrap();
            let asked = (key.clone(), call.step.clone(), call.question.clone());
            if !in_input.contains(&call.item) {
                return violated("only items of the input are asked", call_in_short(call));
            }
            if run.valid(&self.setup, step, &asked).iter().any(|(.., durable)| *durable) {
                return violated("a valid answer is not asked for again", call_in_short(call));
            }
            if answered.contains(&asked) {
                return violated("an answer is asked for once in one execution", call_in_short(call));
            }
            if matches!(call.result, Some(Ok(_))) {
                answered.insert(asked);
            }
            let Some(settled) = run.settled.get(&key) else { continue };
            let is_same_item = session.input.items.contains(&settled.item);
            if session.command == Command::Retry && is_same_item && settled.line["status"] == "completed" {
                return violated("retry asks what has failed and nothing else", call_in_short(call));
            }
            let was_answered = settled.line["steps"][&call.step]["status"] == "completed";
            // A replaced picture is like an edited item: its questions are asked again without a word.
            let is_silent = !session.accepted && settled.setup.pictures == self.setup.pictures;
            let is_changed = run.accepted == [settled.setup.clone()] && settled.setup != self.setup;
            if is_silent && is_changed && is_same_item && was_answered {
                return violated(
                    "a change that discards answers wants --accept-changes",
                    call_in_short(call),
                );
            }
        }
        self.judge_reasks(session)
    }

    /// A wrong answer is asked for again as often as the pipeline says, and nothing else is.
    fn judge_reasks(&self, session: &Session) -> Checked {
        let mut wrong: BTreeMap<(&str, &str), (usize, usize)> = BTreeMap::new();
        for call in &session.calls {
            let (first, again) = wrong.entry((&call.item, &call.question)).or_default();
            if call.result == Some(Err(REFUSED)) {
                continue;
            }
            if call.is_reask {
                *again += 1;
            } else if call.result == Some(Err("validation_error")) {
                *first += 1;
            }
        }
        let due = |(_, (first, again)): &(_, (usize, usize))| match session.is_whole() {
            true => first * self.form.reasks != *again,
            false => first * self.form.reasks < *again,
        };
        match wrong.into_iter().find(due) {
            Some(((_, question), counts)) => {
                violated("a wrong answer is asked for again", format!("{question}: {counts:?}"))
            }
            None => Ok(()),
        }
    }

    fn judge_lines(&mut self, session: &Session, run: &mut Run, row: &Value) -> Checked {
        let calls: Vec<_> = session.calls.iter().map(|call| (self.keys[&call.item].clone(), call)).collect();
        let is_durable = |call: &Call| {
            // What others need is durable before they are asked.
            let feeds = !matches!(&*call.step, "last" | "facts");
            let fed = |other: &Call| feeds && other.item == call.item && other.step == "last";
            session.is_certain() || session.calls.iter().any(fed)
        };
        run.learn(&calls, &self.setup, is_durable);
        let before = run.settled.clone();
        let results = self.say(&format!("results {}", run.number));
        if results.code != Some(0) {
            return violated("results can be read", results.err);
        }
        let results: Vec<Value> =
            results.out.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        self.rows.extend(results.iter().map(|line| (cells(line), line.clone())));
        self.check_lines("results", session, run, &before, &results)?;
        self.judge_failovers(session, &results)?;
        let output = self.output();
        let is_whole_run = session.is_whole() && session.command != Command::Retry;
        if is_whole_run && !matches!(session.meanwhile, Some(Meanwhile::Append(_))) {
            let wanted = session.input.key_set();
            let got: Vec<_> = keys(&output);
            if self.form.ordered && got != session.input.keys() {
                return violated("the output has the order of the input", format!("{got:?}"));
            }
            if got.iter().cloned().collect::<BTreeSet<_>>() != wanted || got.len() != wanted.len() {
                return violated("the output has one line for each item", format!("{got:?}, not {wanted:?}"));
            }
            for line in &output {
                let item = session.input.items.iter().find(|item| line["key"] == item.key()).unwrap();
                if line["line"] != session.input.lines[&item.key()] {
                    return violated("a line names its place in the input", line.to_string());
                }
                let checked = run.check(&self.setup, item, line);
                checked.or_else(|why| violated("a line has the answers of the present input", why))?;
            }
            let failed =
                output.iter().any(|line| line["status"] == "failed") || !session.input.rejects.is_empty();
            if session.ended.code != Some(i32::from(failed)) {
                return violated(
                    "the exit code says whether items failed",
                    format!("{:?}", session.ended.code),
                );
            }
        }
        self.check_lines("the output", session, run, &before, &output)?;
        self.check_rejects(session)?;
        if session.is_certain() && !session.had_nothing_to_do() {
            let input = session.input.key_set();
            let missing = |lines: &[Value]| {
                let had = keys(lines);
                run.settled
                    .keys()
                    .filter(|key| input.contains(*key) && !had.contains(key))
                    .cloned()
                    .collect::<Vec<_>>()
            };
            let missing = missing(&output);
            if !missing.is_empty() {
                return violated("a settled item keeps its line in the output", format!("{missing:?}"));
            }
        }
        if is_whole_run && !matches!(session.meanwhile, Some(Meanwhile::Append(_) | Meanwhile::Replace(..))) {
            self.check_counts(session, &output, &results, row)?;
        }
        if session.command == Command::Retry && session.is_whole() {
            self.was_retried(session, &before)?;
            let is_missing = output.iter().any(|line| line["status"] == "failed")
                || !session.input.rejects.is_empty()
                || session.input.key_set() != keys(&output).into_iter().collect();
            if is_missing && session.ended.code == Some(0) && !session.had_nothing_to_do() {
                return violated("a retry ends with 1 where anything is missing", session.ended.err.clone());
            }
        }
        Ok(())
    }

    /// The output, the results, and what is counted of a complete run are of the same items: those of its input.
    fn check_counts(&self, session: &Session, output: &[Value], results: &[Value], row: &Value) -> Checked {
        let sorted = |lines: &[Value]| keys(lines).into_iter().collect::<BTreeSet<_>>();
        if sorted(output) != sorted(results) || results.len() != output.len() {
            return violated("the results are of the items of the output", format!("{:?}", sorted(results)));
        }
        let report = self.say(&format!("report {} --json", row["run"]));
        let report: Value = serde_json::from_str(&report.out).unwrap_or_default();
        let status = |status: &str| output.iter().filter(|line| line["status"] == status).count();
        for counted in ["completed", "failed", "skipped"] {
            let right = status(counted) as u64;
            if row[counted].as_u64() != Some(right) || report["items"][counted].as_u64() != Some(right) {
                let detail = format!("{right} {counted}, listed {row}, reported {}", report["items"]);
                return violated("what is counted of a run are the items of its input", detail);
            }
        }
        if row["open"] != 0 {
            return violated("a complete run has no open item", format!("{row} after {}", session.ended.err));
        }
        Ok(())
    }

    /// Each line is right now, or is the one that its item had before. What is right is taken down.
    fn check_lines(
        &mut self,
        what: &str,
        session: &Session,
        run: &mut Run,
        before: &BTreeMap<String, Settled>,
        lines: &[Value],
    ) -> Checked {
        let mut seen = BTreeSet::new();
        let stands = what == "the output" && (!session.is_whole() || session.had_nothing_to_do());
        for line in lines {
            let Some(key) = line["key"].as_str() else {
                return violated("a line is whole or not there", format!("{what}: {line}"));
            };
            if !seen.insert(key) {
                return violated("no item has two lines", format!("{what}: {key}"));
            }
            let had = before.get(key).is_some_and(|settled| keeps(&settled.line, line));
            if had {
                self.written.insert(says(line));
            }
            if had && !session.is_certain() {
                // Other questions may have the same answers: that nothing changed says nothing about new ones.
                continue;
            }
            let versions = session.items().filter(|item| item.key() == key);
            let checked: Vec<_> = versions.map(|item| (item, run.check(&self.setup, item, line))).collect();
            if let Some((item, _)) = checked.iter().find(|(_, checked)| checked.is_ok()) {
                let settled =
                    Settled { item: (*item).clone(), setup: self.setup.clone(), line: line.clone() };
                run.settle(key, settled);
                self.written.insert(says(line));
                continue;
            }
            let stood = stands && self.written.contains(&says(line));
            if !had && !stood {
                let why: Vec<_> = checked.into_iter().filter_map(|(_, checked)| checked.err()).collect();
                let rule = "a line is right, or is the one that its item had";
                return violated(rule, format!("{what}: {}\n{}", says(line), why.join("\n")));
            }
        }
        if what == "results" {
            // An item that has left the input has no line, and settles as what it was when it comes back.
            let in_input: BTreeSet<String> = session.items().map(Item::key).collect();
            run.settled.retain(|key, _| seen.contains(key.as_str()) || !in_input.contains(key));
        }
        Ok(())
    }

    /// What one model cannot take fails only where no other model of its route takes it, however long that one is out.
    fn judge_failovers(&self, session: &Session, results: &[Value]) -> Checked {
        for call in session.calls.iter().filter(|call| call.result == Some(Err("too_long"))) {
            let key = &self.keys[&call.item];
            let step = STEPS.iter().position(|step| *step == call.step).unwrap();
            let class = |line: &Value| line["steps"][&call.step]["error"]["class"].clone();
            let has_failed = results.iter().any(|line| line["key"] == **key && class(line) == "too_long");
            let refused_by = |model: &String| {
                let is_same = |other: &&Call| other.item == call.item && other.question == call.question;
                let of_model = |other: &Call| other.model == *model && other.result == call.result;
                session.calls.iter().filter(is_same).any(of_model)
            };
            let models = self.setup.targets(step).iter().map(|target| self.setup.model(*target));
            if let Some(model) = models.filter(|_| has_failed).find(|model| !refused_by(model)) {
                let detail = format!("{model} was not asked: {}", call_in_short(call));
                return violated("what is too long for one target waits for a larger one", detail);
            }
        }
        Ok(())
    }

    /// Every failed item that was meant and is in the input as it was has been asked.
    fn was_retried(&self, session: &Session, before: &BTreeMap<String, Settled>) -> Checked {
        for (key, settled) in before {
            let class = settled.line["error"]["class"].as_str().unwrap_or_default();
            let is_meant =
                settled.line["status"] == "failed" && session.class.is_none_or(|meant| meant == class);
            let is_there = session.input.items.contains(&settled.item);
            let was_asked = session.calls.iter().any(|call| self.keys[&call.item] == *key);
            // An answer that a changed setup makes valid again is not asked for.
            if is_meant && is_there && !was_asked && settled.setup == self.setup {
                return violated("retry asks every item that has failed", key.clone());
            }
        }
        Ok(())
    }

    /// Whatever is no item is in the file of rejects, with its line and why; and nothing else.
    fn check_rejects(&mut self, session: &Session) -> Checked {
        if !self.form.rejects {
            return Ok(());
        }
        let got = json_lines(&self.folder.path().join("r.jsonl"));
        let is_whole = session.is_whole() && session.command != Command::Retry;
        let mut wanted = session.input.rejects.clone();
        for reject in &got {
            let right = reject["line"].as_u64().and_then(|line| wanted.remove(&line)).is_some_and(|right| {
                reject["key"].as_str() == right.0.as_deref()
                    && reject["reason"].as_str().is_some_and(|reason| reason.contains(right.1))
            });
            if right {
                self.rejected.insert(reject.to_string());
            } else if is_whole || !self.rejected.contains(&reject.to_string()) {
                return violated("a reject has its line, its key and why", reject.to_string());
            }
        }
        if is_whole && !wanted.is_empty() {
            return violated("every record that is no item is a reject", format!("{wanted:?}"));
        }
        Ok(())
    }

    /// What was paid is booked, and nothing else; to the last digit where no call was broken off.
    fn judge_money(&mut self, session: &Session, row: &Value) -> Checked {
        let mut known = 0;
        let mut most = 0;
        for call in session.calls.iter().filter(|call| call.result != Some(Err(REFUSED))) {
            let of_call = |target: &usize| {
                TARGETS[*target].0 == call.provider && self.setup.model(*target) == call.model
            };
            let target = (0..TARGETS.len()).find(of_call).unwrap();
            let (input, output) = tokens(&call.model, &call.question);
            let cost = (input + output) * u64::from(self.setup.prices[target]) * 1_000;
            most += cost;
            // A prompt that is refused costs nothing.
            if !matches!(call.result, None | Some(Err("too_long"))) {
                known += cost;
            }
        }
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a few cents")]
        let booked = (row["cost_usd"].as_f64().unwrap_or_default() * 1e9).round() as u64;
        let right = match session.is_certain() {
            true => self.booked + known..=self.booked + known,
            false => self.booked..=self.booked + most,
        };
        if !right.contains(&booked) {
            return violated("what was paid is booked once", format!("{booked}, not within {right:?}"));
        }
        self.booked = booked;
        Ok(())
    }
}

pub(super) fn call_in_short(call: &Call) -> String {
    let Call { provider, model, question, result, .. } = call;
    format!("{model} at {provider}: {question} -> {result:?}")
}

fn keys(lines: &[Value]) -> Vec<String> {
    lines.iter().filter_map(|line| line["key"].as_str()).map(str::to_owned).collect()
}

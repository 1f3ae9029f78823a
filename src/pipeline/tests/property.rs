//! Property tests: any graph of steps, with responses in any order, and any steps skipped, invalid or failed.

use std::fmt::Write;

use proptest::prelude::*;
use serde_json::{Value, json};

use crate::types::{Class, Failure, ItemStatus};

use super::super::{AnswerCheck, ItemState, StepOutcome};
use super::{parse, pipeline};

/// What happens to a step.
#[derive(Debug, Clone)]
struct StepPlan {
    /// Steps before it, in the shuffled order, that it references.
    needs: Vec<prop::sample::Index>,
    is_due: bool,
    optional: bool,
    fails: bool,
    invalid_responses: u32,
}

fn step_plan() -> impl Strategy<Value = StepPlan> {
    let needs = prop::collection::vec(any::<prop::sample::Index>(), 0..4);
    let weighted = |weight| prop::bool::weighted(weight);
    (needs, weighted(0.8), weighted(0.3), weighted(0.15), 0_u32..4).prop_map(
        |(needs, is_due, optional, fails, invalid_responses)| StepPlan {
            needs,
            is_due,
            optional,
            fails,
            invalid_responses,
        },
    )
}

/// Returns the needs of each step: only steps before it in a shuffled order, so that there is no cycle.
fn needs(plans: &[StepPlan], order: &[usize]) -> Vec<Vec<usize>> {
    let mut needs = vec![Vec::new(); plans.len()];
    for (rank, step) in order.iter().enumerate().skip(1) {
        needs[*step] = plans[*step].needs.iter().map(|need| order[need.index(rank)]).collect();
    }
    needs
}

fn write(plans: &[StepPlan], needs: &[Vec<usize>]) -> String {
    let mut text = "name = 'any'\n".to_owned();
    for (step, plan) in plans.iter().enumerate() {
        let mentions: String = needs[step].iter().map(|need| format!("{{{{ s{need} }}}}")).collect();
        write!(
            text,
            "[[step]]\nname = 's{step}'\nwhen = 'item.due[{step}]'\nprompt = 'go {mentions}'\n\
            choice = ['yes', 'no']\nmax_validation_retries = 2\noptional = {}\n",
            plan.optional
        )
        .unwrap();
    }
    text
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, ..ProptestConfig::default() })]

    #[test]
    fn every_step_is_requested_at_most_once_after_its_needs_and_the_item_always_finishes(
        (plans, order) in prop::collection::vec(step_plan(), 1..10).prop_flat_map(|plans| {
            let order = Just((0..plans.len()).collect::<Vec<_>>()).prop_shuffle();
            (Just(plans), order)
        }),
        picks in prop::collection::vec(any::<prop::sample::Index>(), 60),
    ) {
        let needs = needs(&plans, &order);
        let due: Vec<bool> = plans.iter().map(|plan| plan.is_due).collect();
        let pipeline = pipeline(&write(&plans, &needs));
        let mut item = ItemState::new(pipeline, &json!({ "due": due }));
        let mut requested = vec![0; plans.len()];
        let mut ended = vec![false; plans.len()];
        let mut rejected = vec![0; plans.len()];
        let mut in_flight: Vec<usize> = Vec::new();
        let mut has_failed = false;
        let mut picks = picks.into_iter();
        loop {
            for request in item.ready_steps() {
                prop_assert!(!has_failed, "step {} was requested after the item had failed", request.step);
                for need in &needs[request.step] {
                    prop_assert!(ended[*need] || !plans[*need].is_due, "{} before {need}", request.step);
                }
                requested[request.step] += 1;
                in_flight.push(request.step);
            }
            if item.is_finished() {
                break;
            }
            prop_assert!(!in_flight.is_empty(), "no step is in flight and the item is not finished");
            let step = in_flight[picks.next().unwrap().index(in_flight.len())];
            let plan = &plans[step];
            let failed = if rejected[step] < plan.invalid_responses {
                rejected[step] += 1;
                match item.record_response(step, "maybe") {
                    AnswerCheck::Retry(_) => continue,
                    AnswerCheck::Failed(failure) => prop_assert_eq!(failure.class, Class::ValidationError),
                    AnswerCheck::Accepted => prop_assert!(false, "an invalid response was accepted"),
                }
                true
            } else if plan.fails {
                item.record_failure(step, Failure::new(Class::Timeout, "silent"));
                true
            } else {
                prop_assert_eq!(item.record_response(step, "yes"), AnswerCheck::Accepted);
                false
            };
            has_failed |= failed && !plan.optional;
            ended[step] = true;
            in_flight.retain(|other| *other != step);
        }
        prop_assert!(in_flight.is_empty());
        prop_assert!(requested.iter().all(|times| *times <= 1));
        let outcome = item.finish();
        let status = match () {
            () if has_failed => ItemStatus::Failed,
            () if due.iter().all(|due| !due) => ItemStatus::Skipped,
            () => ItemStatus::Completed,
        };
        prop_assert_eq!(outcome.status, status);
        prop_assert_eq!(outcome.error.is_some(), has_failed);
        for (step, end) in outcome.steps.iter().enumerate() {
            let answer = &end.answer;
            prop_assert_eq!(end.name.as_str(), format!("s{step}"));
            match &end.outcome {
                StepOutcome::Answered => prop_assert_eq!(answer, "yes"),
                StepOutcome::Skipped => prop_assert!(!due[step] && answer == &Value::Null),
                StepOutcome::Failed(_) => prop_assert!(requested[step] == 1 && answer == &Value::Null),
                StepOutcome::Unfinished => prop_assert!(has_failed && requested[step] == 0),
            }
        }
    }

    #[test]
    fn a_damaged_pipeline_is_loaded_or_refused_with_positions(
        cut in any::<prop::sample::Index>(), length in 0_usize..30, put in "[\\PC\n]{0,4}",
    ) {
        let original = "name = 'é'\n[defaults]\nsystem = \"{{ item.a }}\\n\"\n[[step]]\nname = 'a'\n\
            prompt = '''\n{% for x in item.l %}{{ x | upper }}{% endfor %}'''\nwhen = \"item.b == 'x'\"\n\
            [[step]]\nname = 'b'\nprompt = '{{ a }}'\nchoice = ['x', 'y']\nneeds = ['a']\n";
        let boundary = |mut at: usize| {
            while !original.is_char_boundary(at) {
                at += 1;
            }
            at
        };
        let start = boundary(cut.index(original.len()));
        let end = boundary((start + length).min(original.len()));
        let damaged = format!("{}{put}{}", &original[..start], &original[end..]);
        if let Err(diagnostics) = parse(&damaged) {
            prop_assert!(!diagnostics.0.is_empty());
            prop_assert!(diagnostics.0.iter().all(|diagnostic| diagnostic.span.is_some()), "{}", diagnostics);
            // Only a panic would fail this test.
            let _ = diagnostics.render(true);
        }
    }

    #[test]
    fn no_item_causes_a_panic(
        subject in "\\PC{0,20}", number in any::<f64>(), depth in 0_usize..100, kind in 0_u8..6,
    ) {
        let any = pipeline(
            "name='x'\n[[step]]\nname='a'\nprompt='{{ item.a | join(\",\") }} {{ item.b.c + 1 }}'\noptional=true\n\
            [[step]]\nname='b'\nprompt='{{ item | tojson }}{{ a }}'\n\
            [[step]]\nname='c'\nwhen='item.b > item.a or item.a[0]'\nprompt='{{ item.a[:5] | upper }}'\noptional=true\n",
        );
        let nested = (0..depth).fold(json!(number), |inner, _| json!([inner]));
        let input = match kind {
            0 => json!(subject),
            1 => json!({ "a": subject, "b": number }),
            2 => json!({ "a": nested, "b": { "c": number } }),
            3 => nested,
            4 => json!({ "b": { "c": subject }, "a": { "a": null } }),
            _ => json!(null),
        };
        let mut item = ItemState::new(any, &input);
        for _ in 0..4 {
            for request in item.ready_steps() {
                item.record_response(request.step, &subject);
            }
        }
        // Only a panic would fail this test.
        let _ = item.finish();
    }
}

//! Any graph of steps, walked in any order, with any of them skipped, refused or failed.

use std::fmt::Write;

use proptest::prelude::*;
use serde_json::{Value, json};

use crate::types::{Class, Failure, ItemStatus};

use super::super::{Next, StepEnd, Walk};
use super::{parse, pipeline};

/// What befalls a step.
#[derive(Debug, Clone)]
struct Fate {
    /// Earlier steps that it mentions, in the order of `rank`.
    needs: Vec<prop::sample::Index>,
    due: bool,
    optional: bool,
    fails: bool,
    refusals: u32,
}

fn fate() -> impl Strategy<Value = Fate> {
    let needs = prop::collection::vec(any::<prop::sample::Index>(), 0..4);
    let mostly = |weight| prop::bool::weighted(weight);
    (needs, mostly(0.8), mostly(0.3), mostly(0.15), 0_u32..4)
        .prop_map(|(needs, due, optional, fails, refusals)| Fate { needs, due, optional, fails, refusals })
}

/// Returns the needs of each step: only of steps before it in a shuffled order, so without a cycle.
fn needs(fates: &[Fate], order: &[usize]) -> Vec<Vec<usize>> {
    let mut needs = vec![Vec::new(); fates.len()];
    for (rank, step) in order.iter().enumerate().skip(1) {
        needs[*step] = fates[*step].needs.iter().map(|need| order[need.index(rank)]).collect();
    }
    needs
}

fn write(fates: &[Fate], needs: &[Vec<usize>]) -> String {
    let mut text = "name = 'any'\n".to_owned();
    for (step, fate) in fates.iter().enumerate() {
        let mentions: String = needs[step].iter().map(|need| format!("{{{{ s{need} }}}}")).collect();
        write!(
            text,
            "[[step]]\nname = 's{step}'\nwhen = 'item.due[{step}]'\nprompt = 'go {mentions}'\n\
            choice = ['yes', 'no']\nreasks = 2\noptional = {}\n",
            fate.optional
        )
        .unwrap();
    }
    text
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, ..ProptestConfig::default() })]

    #[test]
    fn every_step_is_asked_once_after_its_needs_and_the_item_always_settles(
        (fates, order) in prop::collection::vec(fate(), 1..10).prop_flat_map(|fates| {
            let order = Just((0..fates.len()).collect::<Vec<_>>()).prop_shuffle();
            (Just(fates), order)
        }),
        picks in prop::collection::vec(any::<prop::sample::Index>(), 60),
    ) {
        let needs = needs(&fates, &order);
        let due: Vec<bool> = fates.iter().map(|fate| fate.due).collect();
        let pipeline = pipeline(&write(&fates, &needs));
        let mut walk = Walk::new(pipeline, &json!({ "due": due }));
        let mut asked = vec![0; fates.len()];
        let mut ended = vec![false; fates.len()];
        let mut refused = vec![0; fates.len()];
        let mut running: Vec<usize> = Vec::new();
        let mut broken = false;
        let mut picks = picks.into_iter();
        loop {
            for ask in walk.due() {
                prop_assert!(!broken, "step {} was asked after the item had failed", ask.step);
                for need in &needs[ask.step] {
                    prop_assert!(ended[*need] || !fates[*need].due, "{} before {need}", ask.step);
                }
                asked[ask.step] += 1;
                running.push(ask.step);
            }
            if walk.is_settled() {
                break;
            }
            prop_assert!(!running.is_empty(), "nothing runs and nothing is settled");
            let step = running[picks.next().unwrap().index(running.len())];
            let fate = &fates[step];
            let failed = if refused[step] < fate.refusals {
                refused[step] += 1;
                match walk.answered(step, "maybe") {
                    Next::Reask(_) => continue,
                    Next::Failed(failure) => prop_assert_eq!(failure.class, Class::ValidationError),
                    Next::Accepted => prop_assert!(false, "a wrong answer was accepted"),
                }
                true
            } else if fate.fails {
                walk.failed(step, Failure::new(Class::Timeout, "silent"));
                true
            } else {
                prop_assert_eq!(walk.answered(step, "yes"), Next::Accepted);
                false
            };
            broken |= failed && !fate.optional;
            ended[step] = true;
            running.retain(|other| *other != step);
        }
        prop_assert!(running.is_empty());
        prop_assert!(asked.iter().all(|times| *times <= 1));
        let settled = walk.settle();
        let status = match () {
            () if broken => ItemStatus::Failed,
            () if due.iter().all(|due| !due) => ItemStatus::Skipped,
            () => ItemStatus::Completed,
        };
        prop_assert_eq!(settled.status, status);
        prop_assert_eq!(settled.error.is_some(), broken);
        for (step, end) in settled.steps.iter().enumerate() {
            let answer = &settled.answers[&format!("s{step}")];
            match end {
                StepEnd::Answered => prop_assert_eq!(answer, "yes"),
                StepEnd::Skipped => prop_assert!(!due[step] && answer == &Value::Null),
                StepEnd::Failed(_) => prop_assert!(asked[step] == 1 && answer == &Value::Null),
                StepEnd::Unfinished => prop_assert!(broken && asked[step] == 0),
            }
        }
    }

    #[test]
    fn a_damaged_pipeline_is_read_or_refused_with_places(
        cut in any::<prop::sample::Index>(), length in 0_usize..30, put in "[\\PC\n]{0,4}",
    ) {
        let whole = "name = 'é'\n[defaults]\nsystem = \"{{ item.a }}\\n\"\n[[step]]\nname = 'a'\n\
            prompt = '''\n{% for x in item.l %}{{ x | upper }}{% endfor %}'''\nwhen = \"item.b == 'x'\"\n\
            [[step]]\nname = 'b'\nprompt = '{{ a }}'\nchoice = ['x', 'y']\nneeds = ['a']\n";
        let boundary = |mut at: usize| {
            while !whole.is_char_boundary(at) {
                at += 1;
            }
            at
        };
        let start = boundary(cut.index(whole.len()));
        let end = boundary((start + length).min(whole.len()));
        let damaged = format!("{}{put}{}", &whole[..start], &whole[end..]);
        if let Err(faults) = parse(&damaged) {
            prop_assert!(!faults.0.is_empty());
            prop_assert!(faults.0.iter().all(|fault| fault.place.is_some()), "{}", faults);
            let _ = faults.render(true);
        }
    }

    #[test]
    fn no_item_makes_a_walk_panic(
        subject in "\\PC{0,20}", number in any::<f64>(), depth in 0_usize..100, kind in 0_u8..6,
    ) {
        let any = pipeline(
            "name='x'\n[[step]]\nname='a'\nprompt='{{ item.a | join(\",\") }} {{ item.b.c + 1 }}'\noptional=true\n\
            [[step]]\nname='b'\nprompt='{{ item | tojson }}{{ a }}'\n\
            [[step]]\nname='c'\nwhen='item.b > item.a or item.a[0]'\nprompt='{{ item.a[:5] | upper }}'\noptional=true\n",
        );
        let nested = (0..depth).fold(json!(number), |inner, _| json!([inner]));
        let item = match kind {
            0 => json!(subject),
            1 => json!({ "a": subject, "b": number }),
            2 => json!({ "a": nested, "b": { "c": number } }),
            3 => nested,
            4 => json!({ "b": { "c": subject }, "a": { "a": null } }),
            _ => json!(null),
        };
        let mut walk = Walk::new(any, &item);
        for _ in 0..4 {
            for ask in walk.due() {
                walk.answered(ask.step, &subject);
            }
        }
        let _ = walk.settle();
    }
}

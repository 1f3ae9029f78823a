//! Questions of a program that are lost with the router, or on their way.

use pointsman::chaos::{Plan, arm, passed};
use pointsman::simulator::Settings;
use pointsman::types::{Charged, Class};

use super::scene::*;
use super::stage::*;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_question_that_is_lost_once_is_answered_and_says_so() {
    quiet();
    // At the last its call was made before.
    for (point, calls) in [("router.ask", 1), ("router.begun", 1), ("flow.plan", 2)] {
        let simulator = play(Settings::default());
        let _armed = arm(Plan::new(1).at(point, 1));
        let pointsman = start(&format!("{UNDAUNTED}{}", provider("a", &simulator, PATIENT)));
        let answer = ask(&pointsman, "default", "Anybody?").await.unwrap();
        assert_eq!((answer.lost, passed()[point].panics), (1, 1), "{point}");
        let made = simulator.counts().requests;
        assert!((1..=calls).contains(&made), "{point}: {made} calls");
        assert_eq!(ask(&pointsman, "default", "And now?").await.unwrap().lost, 0, "{point}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_question_that_is_lost_each_time_fails_and_may_have_been_paid() {
    quiet();
    for point in ["router.ask", "router.begun", "flow.plan"] {
        let simulator = play(Settings::default());
        let _armed = arm(Plan::new(1).share(point, 1.0));
        let pointsman = start(&format!("{UNDAUNTED}{}", provider("a", &simulator, PATIENT)));
        let unanswered = ask(&pointsman, "default", "Anybody?").await.unwrap_err();
        let failure = &unanswered.failure;
        assert_eq!((failure.class, failure.charged), (Class::Internal, Charged::Maybe), "{point}");
        assert_eq!((unanswered.lost, passed()[point].panics), (2, 2), "{point}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_crowd_loses_one_call_at_most_to_a_panic_of_its_provider() {
    quiet();
    for (point, passage) in
        [("provider.told", 1), ("provider.call", 30), ("state.enqueue", 30), ("provider.pumped", 30)]
    {
        let simulator = play(Settings::default());
        let _armed = arm(Plan::new(1).at(point, passage));
        let more = format!("limits.concurrency = 8{PATIENT}");
        let pointsman = start(&format!("{UNDAUNTED}{AT_ONCE}{}", provider("a", &simulator, &more)));
        let answers = ask_many(&pointsman, "default", 300).await;
        assert!(answers.iter().all(Result::is_ok), "{point}");
        let lost: usize = answers.iter().map(|answer| trail(answer).lost()).sum();
        assert!(lost <= 1, "{point}: {lost} calls were lost");
        assert_eq!((passed()[point].panics, simulator.counts().requests), (1, 300), "{point}");
    }
}

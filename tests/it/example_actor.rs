//! The actor of `examples/actor.rs`, and the recipient that it sends requests to.

use std::time::Duration;

use actix::prelude::*;
use pointsman::{Class, Pointsman, Request};

use crate::support::start_pointsman;

#[path = "../../examples/actor.rs"]
mod example;

use example::{Classifier, Classify, ClassifyError, Fail};

const SIMULATED: &str = "[provider.simulated]\nbase_url = 'simulator'\n";

fn start_classifier(pointsman: &Pointsman) -> Addr<Classifier> {
    let router = pointsman.router();
    Supervisor::start(move |_| Classifier::new(&router))
}

async fn classify(classifier: &Addr<Classifier>, ticket: &str) -> Result<String, ClassifyError> {
    classifier.send(Classify(ticket.to_owned())).await.unwrap()
}

#[actix::test]
async fn an_actor_of_the_host_receives_answers_before_and_after_its_own_restart_and_that_of_the_router() {
    let pointsman = start_pointsman(SIMULATED);
    let classifier = start_classifier(&pointsman);
    assert!(classify(&classifier, "It crashes.").await.unwrap().contains("crashes"));
    assert_eq!(classifier.send(Fail).await.unwrap(), 0);
    assert!(classify(&classifier, "How do I print?").await.unwrap().contains("print"));
    pointsman.restart("router").await.unwrap();
    assert!(classify(&classifier, "Thank you!").await.unwrap().contains("Thank"));
    assert_eq!(classifier.send(Fail).await.unwrap(), 1);
}

#[actix::test]
async fn after_a_drain_a_recipient_answers_that_pointsman_has_stopped() {
    let pointsman = start_pointsman(SIMULATED);
    let classifier = start_classifier(&pointsman);
    pointsman.drain(Duration::from_secs(5)).await;
    let Err(ClassifyError::Request(error)) = classify(&classifier, "It crashes.").await else {
        panic!("a request was answered after the drain");
    };
    assert_eq!((error.class(), &*error.failure.message), (Class::Cancelled, "pointsman has stopped"));
}

#[actix::test]
async fn after_pointsman_is_dropped_its_recipient_is_closed_and_its_handle_answers_that_it_has_stopped() {
    let pointsman = start_pointsman(SIMULATED);
    let router = pointsman.router();
    let requests = router.recipient();
    drop(pointsman);
    let error = router.send(Request::new("default", "Hello?")).await.unwrap_err();
    assert_eq!(error.class(), Class::Cancelled);
    match requests.send(Request::new("default", "Hello?")).await {
        Ok(answer) => assert_eq!(answer.unwrap_err().class(), Class::Cancelled),
        Err(closed) => assert_eq!(closed.to_string(), "Mailbox has closed"),
    }
}

//! An actix actor of the host sends requests through the router. The host supervises the actor.
//!
//! ```sh
//! cargo run --example actor
//! ```
//!
//! The answers are simulated, so it needs no key. The actor stops after its first answer. Its supervisor starts it
//! again, and the actor answers the next ticket.

use actix::prelude::*;
use pointsman::{Config, Pointsman, Request, RequestError, RouterHandle};

/// Classifies tickets.
pub(crate) struct Classifier {
    requests: Recipient<Request>,
    /// How often the supervisor has started the actor again.
    restarts: u32,
}

impl Classifier {
    pub(crate) fn new(router: &RouterHandle) -> Self {
        Self { requests: router.recipient(), restarts: 0 }
    }
}

impl Actor for Classifier {
    type Context = Context<Self>;
}

impl Supervised for Classifier {
    fn restarting(&mut self, _: &mut Context<Self>) {
        self.restarts += 1;
    }
}

/// Asks for the kind of a ticket.
#[derive(Message)]
#[rtype(result = "Result<String, ClassifyError>")]
pub(crate) struct Classify(pub(crate) String);

/// Why a ticket has no kind.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ClassifyError {
    #[error(transparent)]
    Request(#[from] Box<RequestError>),
    #[error("pointsman has stopped")]
    Stopped(#[from] MailboxError),
}

impl Handler<Classify> for Classifier {
    type Result = ResponseFuture<Result<String, ClassifyError>>;

    fn handle(&mut self, Classify(ticket): Classify, _: &mut Context<Self>) -> Self::Result {
        let prompt = format!("Is this a bug, a question or a thank-you? {ticket}");
        let response = self.requests.send(Request::new("default", prompt));
        Box::pin(async move { Ok(response.await??.text().to_owned()) })
    }
}

/// Stops the actor, as a failure would. Returns how often it has been started again before.
#[derive(Message)]
#[rtype(result = "u32")]
pub(crate) struct Fail;

impl Handler<Fail> for Classifier {
    type Result = u32;

    fn handle(&mut self, _: Fail, ctx: &mut Context<Self>) -> u32 {
        ctx.stop();
        self.restarts
    }
}

#[expect(clippy::print_stdout, reason = "prints the answers")]
#[actix::main]
async fn main() -> anyhow::Result<()> {
    let pointsman = Pointsman::start(&Config::load()?.simulated()).await?;
    let router = pointsman.router();
    let classifier = Supervisor::start(move |_| Classifier::new(&router));
    for ticket in ["It crashes when I print.", "How do I print?"] {
        println!("{}", classifier.send(Classify(ticket.to_owned())).await??);
        println!("The classifier stops; it was started again {} times.", classifier.send(Fail).await?);
    }
    Ok(())
}

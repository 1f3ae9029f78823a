//! Deferred responses: answers a message after its handler has returned.
//!
//! The actor holds no future for a pending response, because an actor polls all of its futures at each wake: a
//! thousand pending ones cost 30 µs a message. A [`Responder`] that is dropped without a response makes the
//! request fail with `MailboxError::Closed`.

use std::fmt;
use std::future;

use actix::dev::{MessageResponse, OneshotSender};
use actix::{Actor, Message};
use tokio::sync::oneshot;

/// The result of a handler that responds deferred.
///
/// ```
/// use actix::prelude::*;
/// use pointsman::supervisor::{Deferred, Responder};
///
/// struct Query;
/// impl Message for Query {
///     type Result = u32;
/// }
///
/// #[derive(Default)]
/// struct Server {
///     responders: Vec<Responder<u32>>,
/// }
/// impl Actor for Server {
///     type Context = Context<Self>;
/// }
/// impl Handler<Query> for Server {
///     type Result = Deferred<u32>;
///     fn handle(&mut self, _: Query, _: &mut Context<Self>) -> Deferred<u32> {
///         let (responder, deferred) = Deferred::promise();
///         self.responders.push(responder);
///         if self.responders.len() == 2 {
///             self.responders.drain(..).for_each(|responder| responder.send(42));
///         }
///         deferred
///     }
/// }
///
/// # actix_rt::System::new().block_on(async {
/// let server = Server::default().start();
/// let first = server.send(Query);
/// let second = server.send(Query);
/// assert_eq!((first.await.unwrap(), second.await.unwrap()), (42, 42));
/// # });
/// ```
pub struct Deferred<T>(Box<dyn FnOnce(Responder<T>)>);

impl<T: 'static> Deferred<T> {
    /// Passes the responder to `take` as soon as the handler has returned; for state that is shared with the
    /// actor.
    pub fn new(take: impl FnOnce(Responder<T>) + 'static) -> Self {
        Self(Box::new(take))
    }

    /// Returns a response that is known already.
    pub fn ready(response: T) -> Self {
        Self::new(|responder| responder.send(response))
    }

    /// Returns the responder at once, for the actor's own state. It may be used before the handler returns. If
    /// the handler panics, the responder is closed.
    ///
    /// Each response takes a task that forwards it, so this is for rare messages.
    pub fn promise() -> (Responder<T>, Self) {
        let (responder, response) = Responder::channel();
        (responder, Self::new(move |requester| drop(actix_rt::spawn(forward(response, requester)))))
    }
}

/// Forwards a response. If one end goes away, the other is closed.
async fn forward<T>(response: oneshot::Receiver<T>, mut requester: Responder<T>) {
    tokio::select! {
        response = response => {
            if let Ok(response) = response {
                requester.send(response);
            }
        }
        () = requester.closed() => {}
    }
}

impl<T> fmt::Debug for Deferred<T> {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("Deferred")
    }
}

impl<A, M, T> MessageResponse<A, M> for Deferred<T>
where
    A: Actor,
    M: Message<Result = T>,
    T: 'static,
{
    fn handle(self, _: &mut A::Context, sender: Option<OneshotSender<T>>) {
        (self.0)(Responder(sender));
    }
}

/// Sends the response to a message, once.
///
/// The response to a message that was sent without waiting for one (`do_send`) is dropped.
pub struct Responder<T>(Option<OneshotSender<T>>);

impl<T> Responder<T> {
    /// Returns a responder without a message, and the receiver of its response. Dropping the receiver closes
    /// the responder.
    pub fn channel() -> (Self, oneshot::Receiver<T>) {
        let (sender, receiver) = oneshot::channel();
        (Self(Some(sender)), receiver)
    }

    /// Sends the response. If the requester has gone, the response is dropped.
    pub fn send(self, response: T) {
        if let Some(sender) = self.0 {
            // A requester that has gone needs no response.
            let _ = sender.send(response);
        }
    }

    /// Returns whether the requester has gone, so that the work is unnecessary; always false if there was
    /// none.
    pub fn is_closed(&self) -> bool {
        self.0.as_ref().is_some_and(OneshotSender::is_closed)
    }

    /// Waits until the requester has gone; for ever if there was none.
    pub async fn closed(&mut self) {
        match &mut self.0 {
            Some(sender) => sender.closed().await,
            None => future::pending().await,
        }
    }
}

impl<T> fmt::Debug for Responder<T> {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("Responder")
    }
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;
    use std::rc::Rc;

    use actix::prelude::*;

    use super::{Deferred, Responder};

    type Held = Rc<RefCell<Vec<Responder<u32>>>>;

    struct Hold;
    impl Message for Hold {
        type Result = u32;
    }

    struct Promised(Option<u32>);
    impl Message for Promised {
        type Result = u32;
    }

    struct PromiseAndPanic;
    impl Message for PromiseAndPanic {
        type Result = u32;
    }

    struct Server(Held);
    impl Actor for Server {
        type Context = Context<Self>;
    }
    impl Handler<Hold> for Server {
        type Result = Deferred<u32>;
        fn handle(&mut self, _: Hold, _: &mut Self::Context) -> Deferred<u32> {
            let held = Rc::clone(&self.0);
            Deferred::new(move |responder| held.borrow_mut().push(responder))
        }
    }
    impl Handler<Promised> for Server {
        type Result = Deferred<u32>;
        fn handle(&mut self, Promised(early): Promised, _: &mut Self::Context) -> Deferred<u32> {
            let (responder, deferred) = Deferred::promise();
            match early {
                Some(0) => drop(responder),
                Some(answer) => responder.send(answer),
                None => self.0.borrow_mut().push(responder),
            }
            deferred
        }
    }

    impl Handler<PromiseAndPanic> for Server {
        type Result = Deferred<u32>;
        fn handle(&mut self, _: PromiseAndPanic, _: &mut Self::Context) -> Deferred<u32> {
            let (responder, deferred) = Deferred::promise();
            self.0.borrow_mut().push(responder);
            // Dropped while the handler unwinds.
            let _deferred = deferred;
            panic!("planned in a handler");
        }
    }

    async fn held_responder(held: &Held) -> Responder<u32> {
        loop {
            if let Some(responder) = held.borrow_mut().pop() {
                return responder;
            }
            tokio::task::yield_now().await;
        }
    }

    #[actix_web::test]
    async fn a_response_sent_after_the_handler_returned_reaches_its_requester() {
        let held = Held::default();
        let addr = Server(Rc::clone(&held)).start();
        let answer = actix_rt::spawn(addr.send(Hold));
        held_responder(&held).await.send(7);
        assert_eq!(answer.await.unwrap().unwrap(), 7);
        let answer = actix_rt::spawn(addr.send(Promised(None)));
        held_responder(&held).await.send(8);
        assert_eq!(answer.await.unwrap().unwrap(), 8);
    }

    #[actix_web::test]
    async fn a_promise_may_be_answered_before_the_handler_returns() {
        let addr = Server(Held::default()).start();
        assert_eq!(addr.send(Promised(Some(9))).await.unwrap(), 9);
    }

    #[actix_web::test]
    async fn a_dropped_responder_closes_the_request() {
        let held = Held::default();
        let addr = Server(Rc::clone(&held)).start();
        assert_eq!(addr.send(Promised(Some(0))).await, Err(MailboxError::Closed));
        let request = actix_rt::spawn(addr.send(Hold));
        drop(held_responder(&held).await);
        assert_eq!(request.await.unwrap(), Err(MailboxError::Closed));
        let request = actix_rt::spawn(addr.send(Promised(None)));
        drop(held_responder(&held).await);
        assert_eq!(request.await.unwrap(), Err(MailboxError::Closed));
        assert_eq!(addr.send(Promised(Some(1))).await.unwrap(), 1, "the actor itself still runs");
    }

    #[actix_web::test]
    async fn a_response_without_a_requester_is_dropped() {
        let held = Held::default();
        let addr = Server(Rc::clone(&held)).start();
        addr.do_send(Hold);
        addr.do_send(Promised(None));
        for _ in 0..2 {
            let responder = held_responder(&held).await;
            assert!(!responder.is_closed());
            responder.send(1);
        }
    }

    #[actix_web::test]
    async fn a_promise_whose_handler_panicked_is_closed() {
        let held = Held::default();
        let addr = Server(Rc::clone(&held)).start();
        assert_eq!(addr.send(PromiseAndPanic).await, Err(MailboxError::Closed));
        let mut responder = held_responder(&held).await;
        assert!(responder.is_closed());
        responder.closed().await;
        responder.send(1);
    }

    #[actix_web::test]
    async fn a_wait_for_the_requester_to_go_ends_if_the_handler_never_returns() {
        let (mut responder, deferred) = Deferred::<u32>::promise();
        let mut closed = std::pin::pin!(responder.closed());
        assert!(futures_util::poll!(closed.as_mut()).is_pending());
        let both = futures_util::future::join(closed, async { drop(deferred) });
        both.await;
    }

    #[actix_web::test]
    async fn a_responder_without_a_message_sends_to_its_receiver() {
        let (responder, receiver) = Responder::channel();
        responder.send(5);
        assert_eq!(receiver.await, Ok(5));
        let (responder, receiver) = Responder::<u32>::channel();
        drop(responder);
        assert!(receiver.await.is_err());
        let (mut responder, receiver) = Responder::<u32>::channel();
        assert!(!responder.is_closed());
        drop(receiver);
        responder.closed().await;
        assert!(responder.is_closed());
    }

    #[actix_web::test]
    async fn a_responder_is_closed_when_its_requester_has_gone() {
        let held = Held::default();
        let addr = Server(Rc::clone(&held)).start();
        for promised in [false, true] {
            let request = match promised {
                false => actix_rt::spawn(addr.send(Hold)),
                true => actix_rt::spawn(addr.send(Promised(None))),
            };
            let mut responder = held_responder(&held).await;
            assert!(!responder.is_closed());
            request.abort();
            responder.closed().await;
            assert!(responder.is_closed());
            responder.send(1);
        }
    }
}

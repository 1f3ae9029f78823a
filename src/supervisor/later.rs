//! Answers a message after its handler has returned.
//!
//! The asker's sender is handed out, so the actor holds no future for an open answer and needs no task to
//! forward it: an actor polls all of its futures at each wake, and a thousand open ones cost 30 µs a message.
//! An answer is never invented: a [`Reply`] that is dropped tells its asker `MailboxError::Closed`.

use std::fmt;
use std::future::poll_fn;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

use actix::dev::{MessageResponse, OneshotSender};
use actix::{Actor, Message};
use tokio::sync::oneshot;

/// The result of a handler that answers later.
///
/// ```
/// use actix::prelude::*;
/// use pointsman::supervisor::{Later, Reply};
///
/// struct Ask;
/// impl Message for Ask {
///     type Result = u32;
/// }
///
/// #[derive(Default)]
/// struct Oracle {
///     waiting: Vec<Reply<u32>>,
/// }
/// impl Actor for Oracle {
///     type Context = Context<Self>;
/// }
/// impl Handler<Ask> for Oracle {
///     type Result = Later<u32>;
///     fn handle(&mut self, _: Ask, _: &mut Context<Self>) -> Later<u32> {
///         let (reply, later) = Later::promise();
///         self.waiting.push(reply);
///         if self.waiting.len() == 2 {
///             self.waiting.drain(..).for_each(|reply| reply.send(42));
///         }
///         later
///     }
/// }
///
/// # actix_rt::System::new().block_on(async {
/// let oracle = Oracle::default().start();
/// let (first, second) = (oracle.send(Ask), oracle.send(Ask));
/// assert_eq!((first.await.unwrap(), second.await.unwrap()), (42, 42));
/// # });
/// ```
pub struct Later<T>(Hand<T>);

enum Hand<T> {
    Over(Box<dyn FnOnce(Reply<T>)>),
    In(Asking<T>),
}

/// The asker's end of a promise. A handler that panics drops it: then nobody waits for the answer.
struct Asking<T>(Arc<Mutex<Promise<T>>>);

impl<T> Asking<T> {
    fn becomes(&self, next: Promise<T>) {
        // What was there, and who looks on, may run code of others: not under the lock.
        let before = std::mem::replace(&mut *lock(&self.0), next);
        if let Promise::Open(Some(onlooker)) = before {
            onlooker.wake();
        }
    }
}

impl<T> Drop for Asking<T> {
    fn drop(&mut self) {
        let is_open = matches!(&*lock(&self.0), Promise::Open(_));
        if is_open {
            self.becomes(Promise::Gone);
        }
    }
}

impl<T: 'static> Later<T> {
    /// Hands the reply to `take` as soon as the handler has returned; for state that is shared with the actor.
    pub fn new(take: impl FnOnce(Reply<T>) + 'static) -> Self {
        Self(Hand::Over(Box::new(take)))
    }

    /// Returns the reply at once, for the actor's own state. It may be used before the handler returns.
    pub fn promise() -> (Reply<T>, Self) {
        let promise = Arc::new(Mutex::new(Promise::Open(None)));
        (Reply(To::Promise(Arc::clone(&promise))), Self(Hand::In(Asking(promise))))
    }
}

impl<T> fmt::Debug for Later<T> {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("Later")
    }
}

impl<A, M, T> MessageResponse<A, M> for Later<T>
where
    A: Actor,
    M: Message<Result = T>,
    T: 'static,
{
    fn handle(self, _: &mut A::Context, sender: Option<OneshotSender<T>>) {
        match self.0 {
            Hand::Over(take) => take(Reply(To::Asker(sender))),
            Hand::In(asking) => {
                let answered = match &mut *lock(&asking.0) {
                    Promise::Answered(answer) => answer.take(),
                    Promise::Open(_) | Promise::Asked(_) | Promise::Gone => None,
                };
                match answered {
                    Some(answer) => deliver(sender, answer),
                    None => asking.becomes(Promise::Asked(sender)),
                }
            }
        }
    }
}

/// An answer that is still owed.
///
/// To a message that was sent without waiting for its answer (`do_send`) it goes nowhere.
pub struct Reply<T>(To<T>);

enum To<T> {
    Asker(Option<OneshotSender<T>>),
    Promise(Arc<Mutex<Promise<T>>>),
}

/// What the two ends of a promise know of each other.
enum Promise<T> {
    /// The handler has not returned yet, so its asker is not known. Whoever waits for it to go is woken when
    /// it is.
    Open(Option<Waker>),
    /// The answer came first; `None` once it is delivered.
    Answered(Option<T>),
    /// The asker came first.
    Asked(Option<OneshotSender<T>>),
    /// The handler never returned: its asker has been told that the mailbox is closed.
    Gone,
}

impl<T> Reply<T> {
    /// Returns a reply to whoever holds the other end, where no message asks. Who drops that end has gone.
    pub fn awaited() -> (Self, oneshot::Receiver<T>) {
        let (sender, awaited) = oneshot::channel();
        (Self(To::Asker(Some(sender))), awaited)
    }

    /// Sends the answer. If the asker has gone, the answer is dropped.
    pub fn send(self, answer: T) {
        match self.0 {
            To::Asker(sender) => deliver(sender, answer),
            To::Promise(promise) => {
                let mut promise = lock(&promise);
                match std::mem::replace(&mut *promise, Promise::Gone) {
                    Promise::Asked(sender) => deliver(sender, answer),
                    Promise::Open(_) | Promise::Answered(_) => *promise = Promise::Answered(Some(answer)),
                    Promise::Gone => {}
                }
            }
        }
    }

    /// Returns whether the asker has gone, so that the work may be saved. Never so if there was none.
    pub fn is_abandoned(&self) -> bool {
        let gone = |sender: &Option<OneshotSender<T>>| sender.as_ref().is_some_and(OneshotSender::is_closed);
        match &self.0 {
            To::Asker(sender) => gone(sender),
            To::Promise(promise) => match &*lock(promise) {
                Promise::Asked(sender) => gone(sender),
                Promise::Open(_) | Promise::Answered(_) => false,
                Promise::Gone => true,
            },
        }
    }

    /// Waits until the asker has gone; for ever if there was none.
    pub async fn abandoned(&mut self) {
        poll_fn(|cx| self.poll_abandoned(cx)).await;
    }

    fn poll_abandoned(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let mut gone = |sender: &mut Option<OneshotSender<T>>| match sender {
            Some(sender) => sender.poll_closed(cx),
            None => Poll::Pending,
        };
        match &mut self.0 {
            To::Asker(sender) => gone(sender),
            To::Promise(promise) => match &mut *lock(promise) {
                Promise::Asked(sender) => gone(sender),
                Promise::Open(onlooker) => {
                    *onlooker = Some(cx.waker().clone());
                    Poll::Pending
                }
                Promise::Answered(_) => Poll::Pending,
                Promise::Gone => Poll::Ready(()),
            },
        }
    }
}

impl<T> fmt::Debug for Reply<T> {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("Reply")
    }
}

fn deliver<T>(sender: Option<OneshotSender<T>>, answer: T) {
    if let Some(sender) = sender {
        // An asker that has gone away needs no answer.
        let _ = sender.send(answer);
    }
}

fn lock<T>(promise: &Mutex<Promise<T>>) -> MutexGuard<'_, Promise<T>> {
    // No code of others runs under the lock except the drop of an answer; a promise is whole at any time.
    promise.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;
    use std::rc::Rc;

    use actix::prelude::*;

    use super::{Later, Reply};

    type Parked = Rc<RefCell<Vec<Reply<u32>>>>;

    struct Park;
    impl Message for Park {
        type Result = u32;
    }

    struct Promised(Option<u32>);
    impl Message for Promised {
        type Result = u32;
    }

    struct PromisedAndPanicked;
    impl Message for PromisedAndPanicked {
        type Result = u32;
    }

    struct Lot(Parked);
    impl Actor for Lot {
        type Context = Context<Self>;
    }
    impl Handler<Park> for Lot {
        type Result = Later<u32>;
        fn handle(&mut self, _: Park, _: &mut Self::Context) -> Later<u32> {
            let parked = Rc::clone(&self.0);
            Later::new(move |reply| parked.borrow_mut().push(reply))
        }
    }
    impl Handler<Promised> for Lot {
        type Result = Later<u32>;
        fn handle(&mut self, Promised(early): Promised, _: &mut Self::Context) -> Later<u32> {
            let (reply, later) = Later::promise();
            match early {
                Some(0) => drop(reply),
                Some(answer) => reply.send(answer),
                None => self.0.borrow_mut().push(reply),
            }
            later
        }
    }

    impl Handler<PromisedAndPanicked> for Lot {
        type Result = Later<u32>;
        fn handle(&mut self, _: PromisedAndPanicked, _: &mut Self::Context) -> Later<u32> {
            let (reply, later) = Later::promise();
            self.0.borrow_mut().push(reply);
            let _later = later;
            panic!("planned in a handler");
        }
    }

    async fn parked(lot: &Parked) -> Reply<u32> {
        loop {
            if let Some(reply) = lot.borrow_mut().pop() {
                return reply;
            }
            tokio::task::yield_now().await;
        }
    }

    #[actix_web::test]
    async fn an_answer_given_after_the_handler_returned_reaches_its_asker() {
        let lot = Parked::default();
        let addr = Lot(Rc::clone(&lot)).start();
        let answer = actix_rt::spawn(addr.send(Park));
        parked(&lot).await.send(7);
        assert_eq!(answer.await.unwrap().unwrap(), 7);
        let answer = actix_rt::spawn(addr.send(Promised(None)));
        parked(&lot).await.send(8);
        assert_eq!(answer.await.unwrap().unwrap(), 8);
    }

    #[actix_web::test]
    async fn a_promise_may_be_answered_before_the_handler_returns() {
        let addr = Lot(Parked::default()).start();
        assert_eq!(addr.send(Promised(Some(9))).await.unwrap(), 9);
    }

    #[actix_web::test]
    async fn a_dropped_reply_closes_the_question() {
        let lot = Parked::default();
        let addr = Lot(Rc::clone(&lot)).start();
        assert_eq!(addr.send(Promised(Some(0))).await, Err(MailboxError::Closed));
        let question = actix_rt::spawn(addr.send(Park));
        drop(parked(&lot).await);
        assert_eq!(question.await.unwrap(), Err(MailboxError::Closed));
        let question = actix_rt::spawn(addr.send(Promised(None)));
        drop(parked(&lot).await);
        assert_eq!(question.await.unwrap(), Err(MailboxError::Closed));
        assert_eq!(addr.send(Promised(Some(1))).await.unwrap(), 1, "the actor itself lives");
    }

    #[actix_web::test]
    async fn a_reply_to_nobody_goes_nowhere() {
        let lot = Parked::default();
        let addr = Lot(Rc::clone(&lot)).start();
        addr.do_send(Park);
        addr.do_send(Promised(None));
        for _ in 0..2 {
            let reply = parked(&lot).await;
            assert!(!reply.is_abandoned());
            reply.send(1);
        }
    }

    #[actix_web::test]
    async fn a_promise_whose_handler_panicked_has_no_asker() {
        let lot = Parked::default();
        let addr = Lot(Rc::clone(&lot)).start();
        assert_eq!(addr.send(PromisedAndPanicked).await, Err(MailboxError::Closed));
        let mut reply = parked(&lot).await;
        assert!(reply.is_abandoned());
        reply.abandoned().await;
        reply.send(1);
    }

    #[actix_web::test]
    async fn who_waits_for_the_asker_to_go_before_the_handler_returned_is_told() {
        let (mut reply, later) = Later::<u32>::promise();
        let mut waiting = std::pin::pin!(reply.abandoned());
        assert!(futures_util::poll!(waiting.as_mut()).is_pending());
        let watched = futures_util::future::join(waiting, async { drop(later) });
        watched.await;
    }

    #[actix_web::test]
    async fn an_answer_that_no_message_asked_for_reaches_whoever_awaits_it() {
        let (reply, awaited) = Reply::awaited();
        reply.send(5);
        assert_eq!(awaited.await, Ok(5));
        let (reply, awaited) = Reply::<u32>::awaited();
        drop(reply);
        assert!(awaited.await.is_err());
        let (mut reply, awaited) = Reply::<u32>::awaited();
        assert!(!reply.is_abandoned());
        drop(awaited);
        reply.abandoned().await;
        assert!(reply.is_abandoned());
    }

    #[actix_web::test]
    async fn a_reply_knows_when_its_asker_has_gone() {
        let lot = Parked::default();
        let addr = Lot(Rc::clone(&lot)).start();
        for promised in [false, true] {
            let question = match promised {
                false => actix_rt::spawn(addr.send(Park)),
                true => actix_rt::spawn(addr.send(Promised(None))),
            };
            let mut reply = parked(&lot).await;
            assert!(!reply.is_abandoned());
            question.abort();
            reply.abandoned().await;
            assert!(reply.is_abandoned());
            reply.send(1);
        }
    }
}

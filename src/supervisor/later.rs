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
    In(Arc<Mutex<Promise<T>>>),
}

impl<T: 'static> Later<T> {
    /// Hands the reply to `take` as soon as the handler has returned; for state that is shared with the actor.
    pub fn new(take: impl FnOnce(Reply<T>) + 'static) -> Self {
        Self(Hand::Over(Box::new(take)))
    }

    /// Returns the reply at once, for the actor's own state. It may be used before the handler returns.
    pub fn promise() -> (Reply<T>, Self) {
        let promise = Arc::new(Mutex::new(Promise::Open(None)));
        (Reply(To::Promise(Arc::clone(&promise))), Self(Hand::In(promise)))
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
            Hand::In(promise) => {
                let mut promise = lock(&promise);
                match std::mem::replace(&mut *promise, Promise::Open(None)) {
                    Promise::Answered(answer) => deliver(sender, answer),
                    Promise::Open(watcher) => {
                        *promise = Promise::Asked(sender);
                        watcher.into_iter().for_each(Waker::wake);
                    }
                    Promise::Asked(_) => *promise = Promise::Asked(sender),
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
    /// The handler has not returned yet, so its asker is not known; with who already watches for its going.
    Open(Option<Waker>),
    /// The answer came first.
    Answered(T),
    /// The asker came first.
    Asked(Option<OneshotSender<T>>),
}

impl<T> Reply<T> {
    /// Sends the answer. If the asker has gone, the answer is dropped.
    pub fn send(self, answer: T) {
        match self.0 {
            To::Asker(sender) => deliver(sender, answer),
            To::Promise(promise) => {
                let mut promise = lock(&promise);
                match std::mem::replace(&mut *promise, Promise::Open(None)) {
                    Promise::Asked(sender) => deliver(sender, answer),
                    Promise::Open(_) | Promise::Answered(_) => *promise = Promise::Answered(answer),
                }
            }
        }
    }

    /// Returns whether the asker has gone, so that the work may be saved. Never so if there was none. An asker
    /// whose handler panicked after it had made the promise has gone, too.
    pub fn is_abandoned(&self) -> bool {
        let gone = |sender: &Option<OneshotSender<T>>| sender.as_ref().is_some_and(OneshotSender::is_closed);
        match &self.0 {
            To::Asker(sender) => gone(sender),
            To::Promise(promise) => match &*lock(promise) {
                Promise::Asked(sender) => gone(sender),
                Promise::Open(_) => is_broken(promise),
                Promise::Answered(_) => false,
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
                Promise::Open(_) if is_broken(promise) => Poll::Ready(()),
                // A task that the handler has started may come here before the handler has returned.
                Promise::Open(watcher) => {
                    *watcher = Some(cx.waker().clone());
                    Poll::Pending
                }
                Promise::Answered(_) => Poll::Pending,
            },
        }
    }
}

impl<T> fmt::Debug for Reply<T> {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("Reply")
    }
}

/// Whether the handler will never say who asks: its end of an open promise was dropped, by a panic.
fn is_broken<T>(promise: &Arc<Mutex<Promise<T>>>) -> bool {
    Arc::strong_count(promise) == 1
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
    use std::future::poll_fn;
    use std::rc::Rc;
    use std::sync::mpsc;

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

    /// Has its asker watched by another thread, from before the handler returns.
    struct Watched(mpsc::Sender<()>);
    impl Message for Watched {
        type Result = u32;
    }
    impl Handler<Watched> for Lot {
        type Result = Later<u32>;
        fn handle(&mut self, Watched(gone): Watched, _: &mut Self::Context) -> Later<u32> {
            let (mut reply, later) = Later::promise();
            let (looked, has_looked) = mpsc::channel();
            std::thread::spawn(move || {
                let watch = poll_fn(|cx| {
                    let poll = reply.poll_abandoned(cx);
                    let _ = looked.send(());
                    poll
                });
                tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(watch);
                gone.send(()).unwrap();
            });
            has_looked.recv().unwrap();
            self.0.borrow_mut().push(Later::promise().0);
            later
        }
    }

    #[actix_web::test]
    async fn who_watches_before_the_handler_has_returned_sees_the_asker_go_all_the_same() {
        let (lot, (gone, is_gone)) = (Parked::default(), mpsc::channel());
        let question = actix_rt::spawn(Lot(Rc::clone(&lot)).start().send(Watched(gone)));
        drop(parked(&lot).await);
        question.abort();
        assert!(question.await.unwrap_err().is_cancelled());
        is_gone.recv_timeout(std::time::Duration::from_secs(10)).unwrap();
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

    #[test]
    fn an_asker_whose_handler_was_lost_has_gone() {
        let (reply, later) = Later::<u32>::promise();
        assert!(!reply.is_abandoned());
        drop(later);
        assert!(reply.is_abandoned());
        reply.send(1);
    }
}

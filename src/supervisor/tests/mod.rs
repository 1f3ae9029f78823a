//! Plays actors that fail in every way and looks at what is left.

mod exits;
mod in_place;
mod restarts;
mod stops;

use std::panic;
use std::sync::{Arc, Mutex, Once};
use std::time::Duration;

use actix::prelude::*;
use tokio::sync::{mpsc, oneshot};
use tokio::time::Instant;

use super::{
    Backoff, ChildExited, ChildSpec, ChildStatus, Children, GaveUp, Intensity, Policy, Slot, Start, Stop,
    Supervisor,
};

/// Panics of plan are not shown.
fn quiet() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let loud = panic::take_hook();
        panic::set_hook(Box::new(move |info| {
            if !info.payload_as_str().is_some_and(|text| text.starts_with("planned")) {
                loud(info);
            }
        }));
    });
}

fn planned(place: &str) -> ! {
    panic!("planned in {place}")
}

/// What happened, in order.
#[derive(Clone, Default)]
struct Journal(Arc<Mutex<Vec<String>>>);

impl Journal {
    fn note(&self, event: impl Into<String>) {
        self.0.lock().unwrap().push(event.into());
    }

    fn read(&self) -> Vec<String> {
        self.0.lock().unwrap().clone()
    }
}

/// Where an actor is to panic or otherwise fail.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fault {
    None,
    Started,
    StopInStarted,
    Stopped,
    StoppedAndDropped,
    Factory,
    FirstRestart,
}

/// An actor that fails as told.
struct Probe {
    name: String,
    fault: Fault,
    journal: Journal,
    pings: u32,
}

impl Probe {
    fn new(name: &str, fault: Fault, journal: &Journal) -> Self {
        if fault == Fault::Factory {
            planned("its factory");
        }
        Self { name: name.to_owned(), fault, journal: journal.clone(), pings: 0 }
    }

    fn plain() -> Self {
        Self::new("probe", Fault::None, &Journal::default())
    }
}

impl Actor for Probe {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Context<Self>) {
        self.journal.note(format!("{} started", self.name));
        match self.fault {
            Fault::Started => planned("started"),
            Fault::StopInStarted => ctx.stop(),
            _ => {}
        }
    }

    fn stopped(&mut self, _: &mut Context<Self>) {
        self.journal.note(format!("{} stopped", self.name));
        if matches!(self.fault, Fault::Stopped | Fault::StoppedAndDropped) {
            planned("stopped");
        }
    }
}

impl Drop for Probe {
    fn drop(&mut self) {
        self.journal.note(format!("{} dropped", self.name));
        if self.fault == Fault::StoppedAndDropped {
            planned("drop");
        }
    }
}

impl Supervised for Probe {
    fn restarting(&mut self, _: &mut Context<Self>) {
        if self.fault == Fault::FirstRestart {
            self.fault = Fault::None;
            planned("restarting");
        }
        self.pings = 0;
        self.journal.note(format!("{} restarting", self.name));
    }
}

/// Counts the pings of this life.
struct Ping;
impl Message for Ping {
    type Result = u32;
}
impl Handler<Ping> for Probe {
    type Result = u32;
    fn handle(&mut self, _: Ping, _: &mut Context<Self>) -> u32 {
        self.pings += 1;
        self.pings
    }
}

impl Handler<Stop> for Probe {
    type Result = ();
    fn handle(&mut self, _: Stop, ctx: &mut Context<Self>) {
        self.journal.note(format!("{} asked to stop", self.name));
        ctx.stop();
    }
}

struct PanicInHandler;
impl Message for PanicInHandler {
    type Result = ();
}
impl Handler<PanicInHandler> for Probe {
    type Result = ();
    fn handle(&mut self, _: PanicInHandler, _: &mut Context<Self>) {
        planned("a handler")
    }
}

struct PanicInSpawned;
impl Message for PanicInSpawned {
    type Result = ();
}
impl Handler<PanicInSpawned> for Probe {
    type Result = ();
    fn handle(&mut self, _: PanicInSpawned, ctx: &mut Context<Self>) {
        ctx.spawn(
            async { tokio::task::yield_now().await }.into_actor(self).map(|(), _, _| planned("a future")),
        );
    }
}

struct PanicInActFuture;
impl Message for PanicInActFuture {
    type Result = ();
}
impl Handler<PanicInActFuture> for Probe {
    type Result = ResponseActFuture<Self, ()>;
    fn handle(&mut self, _: PanicInActFuture, _: &mut Context<Self>) -> Self::Result {
        let pause = async { tokio::task::yield_now().await };
        Box::pin(pause.into_actor(self).map(|(), _, _| planned("an actor future")))
    }
}

struct PanicInCall;
impl Message for PanicInCall {
    type Result = ();
}
impl Handler<PanicInCall> for Probe {
    type Result = ResponseFuture<()>;
    fn handle(&mut self, _: PanicInCall, _: &mut Context<Self>) -> Self::Result {
        Box::pin(async {
            tokio::task::yield_now().await;
            planned("a call")
        })
    }
}

/// Waits for ever and hears of nothing any more.
struct Hang;
impl Message for Hang {
    type Result = ();
}
impl Handler<Hang> for Probe {
    type Result = ();
    fn handle(&mut self, _: Hang, ctx: &mut Context<Self>) {
        ctx.wait(std::future::pending::<()>().into_actor(self));
    }
}

/// Blocks the thread, says so, and goes on when the other end is dropped.
struct Block(oneshot::Sender<()>, std::sync::mpsc::Receiver<()>);
impl Message for Block {
    type Result = ();
}
impl Handler<Block> for Probe {
    type Result = ();
    fn handle(&mut self, Block(began, until): Block, _: &mut Context<Self>) {
        let _ = began.send(());
        let _ = until.recv();
    }
}

/// Blocks a child's thread until what this returns is dropped.
async fn block(slot: &Slot<Probe>) -> std::sync::mpsc::Sender<()> {
    let (release, until) = std::sync::mpsc::channel();
    let (begins, began) = oneshot::channel();
    slot.get().unwrap().do_send(Block(begins, until));
    began.await.unwrap();
    release
}

/// Hears of exits and of children given up, and passes them on.
struct Listener<M>(mpsc::UnboundedSender<M>);

impl<M: Message<Result = ()> + Unpin + Send + 'static> Actor for Listener<M> {
    type Context = Context<Self>;
}
impl Handler<ChildExited> for Listener<ChildExited> {
    type Result = ();
    fn handle(&mut self, report: ChildExited, _: &mut Context<Self>) {
        let _ = self.0.send(report);
    }
}
impl Handler<GaveUp> for Listener<GaveUp> {
    type Result = ();
    fn handle(&mut self, report: GaveUp, _: &mut Context<Self>) {
        let _ = self.0.send(report);
    }
}

fn policy(max: u32) -> Policy {
    Policy {
        intensity: Intensity { max, period: Duration::from_secs(60) },
        backoff: Backoff {
            min: Duration::from_millis(100),
            max: Duration::from_secs(1),
            healthy_after: Duration::from_secs(10),
        },
    }
}

fn supervisor() -> (Addr<Supervisor>, mpsc::UnboundedReceiver<GaveUp>) {
    let (sender, given_up) = mpsc::unbounded_channel();
    (Supervisor::new(Listener(sender).start().recipient()).start(), given_up)
}

async fn start(supervisor: &Addr<Supervisor>, spec: ChildSpec) {
    supervisor.send(Start(spec)).await.unwrap().unwrap();
}

fn probe(name: &str, slot: &Slot<Probe>, journal: &Journal) -> ChildSpec {
    let (label, journal) = (name.to_owned(), journal.clone());
    ChildSpec::new(name, slot.clone(), move |_| Probe::new(&label, Fault::None, &journal)).policy(policy(5))
}

async fn children(supervisor: &Addr<Supervisor>) -> Vec<ChildStatus> {
    supervisor.send(Children).await.unwrap()
}

/// Waits for a child to be as wished.
async fn until(
    supervisor: &Addr<Supervisor>,
    name: &str,
    wish: impl Fn(&ChildStatus) -> bool,
) -> ChildStatus {
    let deadline = Instant::now() + Duration::from_secs(120);
    loop {
        let all = children(supervisor).await;
        if let Some(child) = all.iter().find(|child| &*child.name == name).filter(|child| wish(child)) {
            return child.clone();
        }
        assert!(Instant::now() < deadline, "never so: {all:?}");
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

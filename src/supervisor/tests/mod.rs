//! Actors that fail in every way, and what remains afterwards.

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
    ChildExited, ChildSpec, ChildStatus, Children, Intensity, RestartBackoff, RestartPolicy,
    RestartsExhausted, Slot, Start, Stop, Supervisor,
};

/// Hides the output of planned panics.
fn silence_planned_panics() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let default_hook = panic::take_hook();
        panic::set_hook(Box::new(move |info| {
            if !info.payload_as_str().is_some_and(|text| text.starts_with("planned")) {
                default_hook(info);
            }
        }));
    });
}

fn planned(place: &str) -> ! {
    panic!("planned in {place}")
}

/// Events in their order.
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

/// Where an actor panics or otherwise fails.
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

/// An actor that fails as configured.
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

/// Counts the pings of this incarnation.
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
        self.journal.note(format!("{} requested to stop", self.name));
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

/// Waits for ever and handles no further message.
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

/// Blocks the thread, reports that it does, and continues when the other end is dropped.
struct Block(oneshot::Sender<()>, std::sync::mpsc::Receiver<()>);
impl Message for Block {
    type Result = ();
}
impl Handler<Block> for Probe {
    type Result = ();
    fn handle(&mut self, Block(blocked, until): Block, _: &mut Context<Self>) {
        // The test may have stopped waiting.
        let _ = blocked.send(());
        // An error is the release: the sender is dropped.
        let _ = until.recv();
    }
}

/// Blocks a child's thread until the returned sender is dropped.
async fn block(slot: &Slot<Probe>) -> std::sync::mpsc::Sender<()> {
    let (release, until) = std::sync::mpsc::channel();
    let (blocked_tx, blocked_rx) = oneshot::channel();
    slot.get().unwrap().do_send(Block(blocked_tx, until));
    blocked_rx.await.unwrap();
    release
}

/// Forwards exits and exhausted restarts to a channel.
struct Forwarder<M>(mpsc::UnboundedSender<M>);

impl<M: Message<Result = ()> + Unpin + Send + 'static> Actor for Forwarder<M> {
    type Context = Context<Self>;
}
impl Handler<ChildExited> for Forwarder<ChildExited> {
    type Result = ();
    fn handle(&mut self, report: ChildExited, _: &mut Context<Self>) {
        // The test may have dropped the receiver.
        let _ = self.0.send(report);
    }
}
impl Handler<RestartsExhausted> for Forwarder<RestartsExhausted> {
    type Result = ();
    fn handle(&mut self, report: RestartsExhausted, _: &mut Context<Self>) {
        // The test may have dropped the receiver.
        let _ = self.0.send(report);
    }
}

fn policy(max: u32) -> RestartPolicy {
    RestartPolicy {
        intensity: Intensity { max, period: Duration::from_secs(60) },
        backoff: RestartBackoff {
            min: Duration::from_millis(100),
            max: Duration::from_secs(1),
            healthy_after: Duration::from_secs(10),
        },
    }
}

fn supervisor() -> (Addr<Supervisor>, mpsc::UnboundedReceiver<RestartsExhausted>) {
    let (sender, exhausted) = mpsc::unbounded_channel();
    (Supervisor::new(Forwarder(sender).start().recipient()).start(), exhausted)
}

async fn start(supervisor: &Addr<Supervisor>, spec: ChildSpec) {
    supervisor.send(Start(spec)).await.unwrap().unwrap();
}

fn probe(name: &str, slot: &Slot<Probe>, journal: &Journal) -> ChildSpec {
    let label = name.to_owned();
    let journal = journal.clone();
    ChildSpec::new(name, slot.clone(), move |_| Probe::new(&label, Fault::None, &journal)).policy(policy(5))
}

async fn children(supervisor: &Addr<Supervisor>) -> Vec<ChildStatus> {
    supervisor.send(Children).await.unwrap()
}

/// Waits until a child satisfies `condition`.
async fn until(
    supervisor: &Addr<Supervisor>,
    name: &str,
    condition: impl Fn(&ChildStatus) -> bool,
) -> ChildStatus {
    let deadline = Instant::now() + Duration::from_secs(120);
    loop {
        let all = children(supervisor).await;
        if let Some(child) = all.iter().find(|child| &*child.name == name).filter(|child| condition(child)) {
            return child.clone();
        }
        assert!(Instant::now() < deadline, "the condition was never met: {all:?}");
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

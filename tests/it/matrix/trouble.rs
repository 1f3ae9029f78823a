//! Plays what goes wrong, for all formats at once.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};

use pointsman::simulator::{Fault, Settings, Simulator, Vendor};
use tokio::net::{TcpListener, TcpSocket};

use crate::scripted::{ANSWER, Scripted, response};
use crate::stage::{play, spawn};

/// What goes wrong at lane one.
pub(super) enum Trouble {
    /// A fault that the simulator plays.
    Played(Box<Fault>),
    /// A limit that has no room for the first minute, and says so.
    OneRequestAMinute,
    /// The port refuses.
    NobodyListens,
    /// There is no such name.
    NoName,
    /// A server without TLS is called with it.
    NoTls,
    /// The connection stands and then nothing comes, where TLS should begin.
    MuteTls,
    /// The connection is closed as soon as it stands.
    HangsUp,
    /// This status, header and body, to every call.
    Says(&'static str, &'static str, &'static str),
    /// A stream under the content type of a whole answer.
    MislabelledStream,
    /// Pieces of an answer, one by one, for longer than a call may take.
    Trickles,
}

/// Whoever plays a trouble, for as long as it is kept.
pub(super) struct Stage {
    base_urls: [String; 3],
    player: Player,
}

enum Player {
    Simulator(Simulator),
    /// It is called in a way that it does not understand, so its counts say nothing.
    Misunderstood {
        _kept: Simulator,
    },
    Scripted(Scripted),
    Listener(Arc<AtomicUsize>),
    /// Holds a port and does not listen there.
    Port {
        _kept: TcpSocket,
    },
    Nobody,
}

impl Stage {
    /// Plays a trouble for good, or only for the first call of each question.
    pub(super) async fn open(trouble: &Trouble, once: bool) -> Self {
        match trouble {
            Trouble::Played(fault) => {
                let fault = Fault { times: once.then_some(1), ..Fault::clone(fault) };
                Self::simulated(Settings { faults: vec![fault], ..Settings::default() })
            }
            Trouble::OneRequestAMinute => Self::simulated(
                toml::from_str("limits = { requests_per_minute = 1, starts_full = false }").unwrap(),
            ),
            // 75 ms between two pieces.
            Trouble::Trickles => Self::simulated(
                toml::from_str(
                    "latency = \"30s\"\nfirst_token = \"50ms\"\nanswer_tokens = 400\nchunks = 400",
                )
                .unwrap(),
            ),
            Trouble::NoTls => {
                let stage = Self::simulated(Settings::default());
                let base_urls = stage.base_urls.map(|url| url.replace("http:", "https:"));
                let Player::Simulator(_kept) = stage.player else { unreachable!() };
                Self { base_urls, player: Player::Misunderstood { _kept } }
            }
            Trouble::NobodyListens => {
                // Kept, or another server of these tests might be given the same port.
                let port = TcpSocket::new_v4().unwrap();
                port.bind(SocketAddr::from((Ipv4Addr::LOCALHOST, 0))).unwrap();
                let url = format!("http://{}", port.local_addr().unwrap());
                Self::at(url, Player::Port { _kept: port })
            }
            // Longer than any label may be: nobody has to be asked to find that out.
            Trouble::NoName => Self::at(format!("http://{}.test", "n".repeat(64)), Player::Nobody),
            Trouble::MuteTls => Self::listening("https", true).await,
            Trouble::HangsUp => Self::listening("http", false).await,
            Trouble::Says(status, header, body) => Self::saying(status, header, body).await,
            Trouble::MislabelledStream => {
                Self::saying("200 OK", "content-type: application/json", ANSWER).await
            }
        }
    }

    /// Returns the address for the format of this number.
    pub(super) fn base_url(&self, format: usize) -> &str {
        &self.base_urls[format]
    }

    /// Returns how many calls were seen, where somebody was there to see them.
    pub(super) fn seen(&self) -> Option<usize> {
        match &self.player {
            Player::Simulator(simulator) => Some(simulator.counts().requests as usize),
            Player::Scripted(scripted) => Some(scripted.requests()),
            Player::Listener(connections) => Some(connections.load(SeqCst)),
            Player::Misunderstood { .. } | Player::Port { .. } | Player::Nobody => None,
        }
    }

    fn simulated(settings: Settings) -> Self {
        let simulator = play(settings);
        let base_urls =
            [Vendor::OpenAi, Vendor::Anthropic, Vendor::Gemini].map(|vendor| simulator.base_url(vendor));
        Self { base_urls, player: Player::Simulator(simulator) }
    }

    async fn saying(status: &'static str, header: &str, body: &'static str) -> Self {
        let header = format!("{header}\r\n");
        let scripted = Scripted::start(move |_| response(status, &header, body)).await;
        Self::at(scripted.url(), Player::Scripted(scripted))
    }

    async fn listening(scheme: &str, keep: bool) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("{scheme}://{}", listener.local_addr().unwrap());
        let connections = Arc::new(AtomicUsize::new(0));
        let counted = connections.clone();
        spawn(async move {
            let mut kept = Vec::new();
            while let Ok((connection, _)) = listener.accept().await {
                counted.fetch_add(1, SeqCst);
                kept.extend(keep.then_some(connection));
            }
        });
        Self::at(url, Player::Listener(connections))
    }

    fn at(url: String, player: Player) -> Self {
        Self { base_urls: [url.clone(), url.clone(), url], player }
    }
}

//! The dashboard in a real browser: headless Chromium, controlled through WebDriver, which is plain HTTP with JSON.
//!
//! It needs `chromium` and `chromedriver`, as the packages `chromium` and `chromium-driver` of Debian install them.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use pointsman::daemon::{NewToken, Permission};
use pointsman::server::{ServerOptions, serve};
use pointsman::simulator::Settings;
use reqwest::{Client, Method};
use serde_json::{Value, json};
use tokio::time::{Instant, sleep, timeout};

use super::daemon::*;
use super::support::*;

/// The keys of WebDriver.
const TAB: &str = "\u{e004}";
const ENTER: &str = "\u{e007}";

/// The size of the window on a phone, in CSS pixels.
const PHONE: (u32, u32) = (360, 740);

/// The size of the window on a desktop.
const DESKTOP: (u32, u32) = (1280, 900);

/// The most presses of a key until a page must have reached an element.
const MAX_PRESSES: usize = 40;

/// The longest time that the browser may take for a command. The first one starts it.
const MAX_COMMAND: Duration = Duration::from_secs(60);

/// Limits, so that the pages show them, and runs take some time.
const LIMITS: &str =
    "limits = { concurrency = 2, requests_per_minute = 6000, tokens_per_minute = 1000000 }\n";

/// A browser with one window. Dropping it closes it.
struct Browser {
    driver: Child,
    port: u16,
    session: String,
    client: Client,
}

impl Browser {
    async fn start() -> Self {
        let (Some(chromium), Some(chromedriver)) = (find_program("chromium"), find_program("chromedriver"))
        else {
            panic!("this test needs a browser: apt-get install chromium chromium-driver");
        };
        let mut driver = Command::new(chromedriver)
            .arg("--port=0")
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let port = driver_port(&mut driver);
        let mut browser = Self { driver, port, session: String::new(), client: client() };
        let options = json!({
            "binary": chromium,
            "args": [
                "--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-proxy-server",
                "--disable-background-networking", "--no-first-run", "--window-size=1280,900",
            ],
        });
        let capabilities = json!({ "alwaysMatch": {
            "browserName": "chrome",
            "goog:chromeOptions": options,
            "goog:loggingPrefs": { "browser": "ALL" },
        } });
        let session = browser.send(Method::POST, "/session", &json!({ "capabilities": capabilities })).await;
        browser.session = session["sessionId"].as_str().unwrap().to_owned();
        browser
    }

    /// Sends a command. Returns its value.
    async fn send(&self, method: Method, path: &str, body: &Value) -> Value {
        let url = format!("http://127.0.0.1:{}{path}", self.port);
        let mut request = self.client.request(method.clone(), url);
        if method == Method::POST {
            request = request.header("content-type", "application/json").body(body.to_string());
        }
        let response = timeout(MAX_COMMAND, request.send()).await.unwrap().unwrap();
        let status = response.status();
        let text = timeout(MAX_COMMAND, response.text()).await.unwrap().unwrap();
        let answer: Value = serde_json::from_str(&text).unwrap();
        assert!(status.is_success(), "{path}: {answer}");
        answer["value"].clone()
    }

    async fn command(&self, path: &str, body: &Value) -> Value {
        self.send(Method::POST, &format!("/session/{}{path}", self.session), body).await
    }

    async fn open(&self, url: &str) {
        self.command("/url", &json!({ "url": url })).await;
    }

    /// Runs a script in the page. Returns what it returns.
    async fn script(&self, script: &str) -> Value {
        self.command("/execute/sync", &json!({ "script": script, "args": [] })).await
    }

    /// Waits until an expression is true in the page.
    async fn wait_for(&self, expression: &str) {
        let end = Instant::now() + MAX_WAIT;
        while self.script(&format!("return Boolean({expression})")).await != true {
            assert!(Instant::now() < end, "{expression} in {}", self.text().await);
            sleep(Duration::from_millis(50)).await;
        }
    }

    async fn text(&self) -> Value {
        self.script("return document.body.innerText").await
    }

    async fn press(&self, key: &str) {
        let presses = json!([{ "type": "keyDown", "value": key }, { "type": "keyUp", "value": key }]);
        let keyboard = json!({ "type": "key", "id": "keyboard", "actions": presses });
        self.command("/actions", &json!({ "actions": [keyboard] })).await;
    }

    /// Writes into the focused element.
    async fn write(&self, text: &str) {
        let presses: Vec<Value> = text
            .chars()
            .flat_map(|key| {
                ["keyDown", "keyUp"].map(|kind| json!({ "type": kind, "value": key.to_string() }))
            })
            .collect();
        let keyboard = json!({ "type": "key", "id": "keyboard", "actions": presses });
        self.command("/actions", &json!({ "actions": [keyboard] })).await;
    }

    /// Presses Tab until an element has the focus, and fails if it cannot be seen then.
    async fn tab_to(&self, id: &str) {
        for _ in 0..MAX_PRESSES {
            self.press(TAB).await;
            if self.script("return document.activeElement.id").await == id {
                let outline =
                    self.script("return getComputedStyle(document.activeElement).outlineStyle").await;
                assert_eq!(outline, "solid", "the focus of {id} cannot be seen");
                return;
            }
        }
        panic!("the keyboard does not reach {id}");
    }

    /// Sends a command of Chrome's own protocol.
    async fn chrome(&self, command: &str, parameters: &Value) -> Value {
        self.command("/goog/cdp/execute", &json!({ "cmd": command, "params": parameters })).await
    }

    async fn resize(&self, (width, height): (u32, u32)) {
        let is_phone = (width, height) == PHONE;
        let metrics = json!({
            "width": width, "height": height, "deviceScaleFactor": if is_phone { 2 } else { 1 }, "mobile": is_phone,
        });
        self.chrome("Emulation.setDeviceMetricsOverride", &metrics).await;
    }

    async fn set_scheme(&self, scheme: &str) {
        let features = json!([{ "name": "prefers-color-scheme", "value": scheme }]);
        self.chrome("Emulation.setEmulatedMedia", &json!({ "features": features })).await;
    }

    /// Saves a picture of the whole page in `target/`.
    async fn screenshot(&self, name: &str) {
        let picture = self
            .chrome("Page.captureScreenshot", &json!({ "format": "png", "captureBeyondViewport": true }))
            .await;
        let bytes = STANDARD.decode(picture["data"].as_str().unwrap()).unwrap();
        let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("target/dashboard");
        std::fs::create_dir_all(&folder).unwrap();
        std::fs::write(folder.join(name), &bytes).unwrap();
        assert!(bytes.starts_with(b"\x89PNG"));
    }

    /// Fails if the page is wider than the window.
    async fn assert_fits(&self) {
        let script = "const page = document.documentElement;
            const wide = [...document.querySelectorAll('body *')].filter(one => !one.closest('.wide, pre, .hidden')
                && one.getBoundingClientRect().right > page.clientWidth + 1);
            return [page.scrollWidth - page.clientWidth, wide.map(one => one.outerHTML.slice(0, 200))]";
        let found = self.script(script).await;
        assert_eq!(found, json!([0, []]));
    }

    /// Fails if the console has an error or a warning, such as a violation of the security policy.
    async fn assert_quiet(&self) {
        let log = self.command("/se/log", &json!({ "type": "browser" })).await;
        let is_bad = |entry: &&Value| matches!(entry["level"].as_str(), Some("SEVERE" | "WARNING"));
        let bad: Vec<&Value> = log.as_array().unwrap().iter().filter(is_bad).collect();
        assert!(bad.is_empty(), "{bad:?}");
    }

    /// Fails if an element cannot be named by a screen reader, or a text has too little contrast.
    async fn assert_accessible(&self) {
        let script = "
            const unnamed = [...document.querySelectorAll('a, button, summary, input, meter, progress, svg[role], [role=region]')]
                .filter(one => !one.getAttribute('aria-label') && !(one.labels && one.labels.length) && !one.textContent.trim()
                    && one.getClientRects().length)
                .map(one => one.outerHTML.slice(0, 200));
            const channels = color => color.match(/[\\d.]+/g).map(Number);
            const light = color => {
                const [r, g, b] = channels(color).map(value => value / 255)
                    .map(value => value <= .03928 ? value / 12.92 : ((value + .055) / 1.055) ** 2.4);
                return .2126 * r + .7152 * g + .0722 * b;
            };
            const background = one => {
                for (; one; one = one.parentElement) {
                    const color = getComputedStyle(one).backgroundColor;
                    if (channels(color)[3] !== 0) { return color; }
                }
                return getComputedStyle(document.body).backgroundColor;
            };
            const faint = [...document.querySelectorAll('main *')]
                .filter(one => [...one.childNodes].some(node => node.nodeType === 3 && node.data.trim()))
                .filter(one => one.getClientRects().length && !one.closest('button:hover'))
                .filter(one => {
                    const [a, b] = [light(getComputedStyle(one).color), light(background(one))];
                    return (Math.max(a, b) + .05) / (Math.min(a, b) + .05) < 4.5;
                })
                .map(one => one.outerHTML.slice(0, 200));
            return [unnamed, faint]";
        assert_eq!(self.script(script).await, json!([[], []]));
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        // Not through the client, which needs the runtime. It also ends the browser if the test has failed.
        let close = || -> std::io::Result<()> {
            let mut connection = TcpStream::connect(("127.0.0.1", self.port))?;
            connection.set_read_timeout(Some(Duration::from_secs(10)))?;
            write!(
                connection,
                "DELETE /session/{} HTTP/1.1\r\nHost: 127.0.0.1:{}\r\nConnection: close\r\n\r\n",
                self.session, self.port
            )?;
            connection.read(&mut [0; 64]).map(drop)
        };
        // The process may be gone already.
        drop(close());
        drop(self.driver.kill());
        drop(self.driver.wait());
    }
}

fn find_program(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path).map(|folder| folder.join(name)).find(|file| file.is_file())
}

/// Returns the port that the driver has chosen.
fn driver_port(driver: &mut Child) -> u16 {
    let mut lines = BufReader::new(driver.stdout.take().unwrap()).lines();
    let port = lines.by_ref().map_while(Result::ok).find_map(|line| {
        let port = line.split("successfully on port ").nth(1)?;
        port.trim_end_matches('.').parse().ok()
    });
    // Its later lines are read, so that it never waits for a full pipe.
    std::thread::spawn(move || lines.map_while(Result::ok).for_each(drop));
    port.unwrap_or_else(|| panic!("chromedriver did not start"))
}

/// Returns the address of a page.
fn url(address: impl std::fmt::Display, path: &str) -> String {
    format!("http://{address}{path}")
}

#[tokio::test(flavor = "multi_thread")]
async fn the_dashboard_works_in_a_browser() {
    let settings = "latency = \"200ms\"\n[[faults]]\nkind = \"refusal\"\ncontains = \"broken\"\n";
    let settings: Settings = toml::from_str(settings).unwrap();
    let simulator = start_simulator(settings);
    let folder = DaemonFolder::with(&simulator, &Extra { provider: LIMITS, ..Extra::default() });
    let daemon = folder.start().await;
    let hostile = json!([
        { "id": "<img src=x onerror=alert(1)>", "text": "broken <script>document.title = 'changed'</script>" },
        { "id": "long", "text": "word ".repeat(2_000) + &"w".repeat(500) },
    ]);
    let created = daemon.post_json("/runs", &json!({ "pipeline": "one", "items": hostile })).await;
    let ended = created.json()["run"].as_i64().unwrap();
    daemon.wait_for_state(ended, "completed").await;
    let browser = Browser::start().await;
    let address = daemon.address();

    // The overview, and what changes on it by itself.
    browser.resize(DESKTOP).await;
    browser.set_scheme("light").await;
    browser.open(&url(&address, "/")).await;
    browser.wait_for("document.getElementById('connection').textContent === 'Live'").await;
    assert_eq!(browser.script("return document.title").await, "Overview - Pointsman");
    browser.script("window.isSame = true").await;
    let run = daemon.create_run(2_000).await;
    browser.wait_for(&format!("document.getElementById('run-{run}')")).await;
    browser.wait_for("document.querySelector('#runs progress')").await;
    browser.wait_for("document.querySelector('#load polyline')").await;
    assert_eq!(browser.script("return window.isSame").await, true, "the page was not loaded again");
    browser.assert_fits().await;
    browser.assert_accessible().await;
    browser.screenshot("overview-desktop.png").await;

    // Keyboard alone: the skip link, the run, and the button that holds it. The focus survives updates.
    browser.press(TAB).await;
    assert_eq!(browser.script("return document.activeElement.textContent").await, "Skip to content");
    browser.press(ENTER).await;
    browser.tab_to(&format!("run-{run}")).await;
    let before = browser.script("return document.getElementById('runs').innerText").await;
    browser.wait_for(&format!("document.getElementById('runs').innerText !== {before}")).await;
    assert_eq!(browser.script("return document.activeElement.id").await, format!("run-{run}"));
    browser.press(ENTER).await;
    browser.wait_for("document.getElementById('hold')").await;
    browser.assert_accessible().await;
    browser.screenshot("run-desktop.png").await;
    browser.tab_to("hold").await;
    browser.press(ENTER).await;
    daemon.wait_for_state(run, "paused").await;
    browser.wait_for("document.getElementById('resume')").await;
    browser.wait_for("document.getElementById('run-status').innerText.includes('paused')").await;
    browser.assert_quiet().await;

    // What happens elsewhere changes the page of the run, too.
    assert_eq!(daemon.post(&format!("/runs/{run}/resume")).await.status, 200);
    browser.wait_for("document.getElementById('hold')").await;

    // Dark, and on a phone.
    let light = browser.script("return getComputedStyle(document.body).backgroundColor").await;
    browser.set_scheme("dark").await;
    let dark = browser.script("return getComputedStyle(document.body).backgroundColor").await;
    assert_ne!(light, dark);
    let item = "/items/%3Cimg%20src%3Dx%20onerror%3Dalert%281%29%3E";
    let pages = [
        ("overview", "/".to_owned()),
        ("run", format!("/runs/{run}")),
        ("ended-run", format!("/runs/{ended}")),
        ("item", format!("/runs/{ended}{item}")),
        ("long-item", format!("/runs/{ended}/items/long")),
        ("login", "/login".to_owned()),
    ];
    for (name, path) in &pages {
        for (scheme, size, device) in
            [("dark", DESKTOP, "desktop"), ("light", PHONE, "phone"), ("dark", PHONE, "phone")]
        {
            browser.set_scheme(scheme).await;
            browser.resize(size).await;
            browser.open(&url(&address, path)).await;
            browser.wait_for("document.readyState === 'complete'").await;
            browser.assert_fits().await;
            browser.assert_accessible().await;
            browser.screenshot(&format!("{name}-{device}-{scheme}.png")).await;
        }
    }
    assert!(browser.script("return document.title").await.as_str().unwrap().starts_with("Log in"));
    browser.assert_quiet().await;

    // With tokens: log in by the keyboard, and out.
    let server = serve(&daemon.daemon, ServerOptions::new().with_tokens(true)).unwrap();
    let (_, token) =
        daemon.daemon.create_token(&NewToken::new("ops", [Permission::Admin]), "").await.unwrap();
    browser.resize(DESKTOP).await;
    browser.open(&url(server.address(), &format!("/runs/{run}"))).await;
    browser.tab_to("token").await;
    browser.write(token.expose()).await;
    browser.press(ENTER).await;
    browser.wait_for("document.getElementById('providers')").await;
    assert_eq!(browser.script("return document.cookie").await, "", "no script sees the session");
    browser.wait_for("document.getElementById('connection').textContent === 'Live'").await;
    browser.open(&url(server.address(), &format!("/runs/{run}"))).await;
    browser.tab_to("hold").await;
    browser.press(ENTER).await;
    daemon.wait_for_state(run, "paused").await;
    browser.wait_for("document.getElementById('resume')").await;
    browser.script("document.querySelector('form[action=\"/logout\"] button').click()").await;
    browser.wait_for("document.getElementById('token')").await;
    browser.assert_quiet().await;
    drop(browser);
    drop(server);
    daemon.stop(Duration::ZERO).await;
}

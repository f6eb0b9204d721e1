//! A headless Chromium, driven over `WebDriver` by Debian's chromedriver.

use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use serde_json::{Value, json};

/// How long anything on a page may take.
pub const PATIENCE: Duration = Duration::from_secs(30);
const ELEMENT: &str = "element-6066-11e4-a52e-4f735466cecf";
pub const TAB: &str = "\u{e004}";
pub const ENTER: &str = "\u{e007}";

pub struct Browser {
    driver: Child,
    agent: ureq::Agent,
    session: String,
    _profile: tempfile::TempDir,
}

/// How a page is looked at.
#[derive(Debug, Clone, Copy)]
pub struct Look {
    pub name: &'static str,
    pub width: u32,
    pub height: u32,
    pub scheme: &'static str,
}

pub const LOOKS: [Look; 4] = [
    Look { name: "desktop-light", width: 1280, height: 900, scheme: "light" },
    Look { name: "desktop-dark", width: 1280, height: 900, scheme: "dark" },
    Look { name: "phone-light", width: 360, height: 740, scheme: "light" },
    Look { name: "phone-dark", width: 360, height: 740, scheme: "dark" },
];

fn installed(names: [&str; 2]) -> PathBuf {
    let found = names.map(PathBuf::from).into_iter().find(|file| file.exists());
    found.unwrap_or_else(|| panic!("{} is not here: run ./dev setup", names[0]))
}

impl Browser {
    pub fn start() -> Self {
        let (port, profile) = (super::free_port(), tempfile::tempdir().unwrap());
        let driver = Command::new(installed(["/usr/bin/chromedriver", "/usr/lib/chromium/chromedriver"]))
            .arg(format!("--port={port}"))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let config = ureq::Agent::config_builder().http_status_as_error(false).timeout_global(Some(2 * PATIENCE));
        let session = format!("http://127.0.0.1:{port}/session");
        let mut browser = Self { driver, agent: config.build().into(), session, _profile: profile };
        let data = format!("--user-data-dir={}", browser._profile.path().display());
        let options = json!({
            "binary": installed(["/usr/bin/chromium", "/usr/bin/chromium-browser"]),
            "args": [
                "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
                "--disable-background-networking", "--disable-component-update", "--disable-sync", "--hide-scrollbars", data,
            ],
        });
        let wanted = json!({"capabilities": {"alwaysMatch": {
            "browserName": "chrome", "acceptInsecureCerts": true, "goog:chromeOptions": options,
            "goog:loggingPrefs": {"browser": "ALL"},
        }}});
        let made = super::wait_for("chromedriver", || browser.try_ask("POST", "", &wanted));
        browser.session = format!("{}/{}", browser.session, made["sessionId"].as_str().expect("a session"));
        browser
    }

    fn try_ask(&self, method: &str, path: &str, body: &Value) -> Option<Value> {
        let at = format!("{}{path}", self.session);
        let answer = match method {
            "GET" => self.agent.get(&at).call(),
            "DELETE" => self.agent.delete(&at).call(),
            _ => self.agent.post(&at).content_type("application/json").send(body.to_string()),
        };
        let text = answer.ok()?.body_mut().read_to_string().ok()?;
        Some(serde_json::from_str::<Value>(&text).ok()?["value"].clone())
    }

    fn ask(&self, method: &str, path: &str, body: &Value) -> Value {
        let value = self.try_ask(method, path, body).unwrap_or_else(|| panic!("no answer to {path}"));
        assert!(value.get("error").is_none(), "{path}: {} {}", value["error"], value["message"]);
        value
    }

    pub fn go(&self, url: &str) {
        self.ask("POST", "/url", &json!({"url": url}));
    }

    pub fn url(&self) -> String {
        self.ask("GET", "/url", &Value::Null).as_str().unwrap_or_default().to_owned()
    }

    /// Runs a script's body in the page.
    pub fn run(&self, script: &str) -> Value {
        self.ask("POST", "/execute/sync", &json!({"script": script, "args": []}))
    }

    pub fn text(&self) -> String {
        self.run("return document.body.innerText").as_str().unwrap_or_default().to_owned()
    }

    pub fn shows(&self, text: &str) {
        super::wait_for(text, || self.text().contains(text).then_some(()));
    }

    fn find(&self, css: &str) -> String {
        let found = self.ask("POST", "/element", &json!({"using": "css selector", "value": css}));
        found[ELEMENT].as_str().expect("an element").to_owned()
    }

    pub fn click(&self, css: &str) {
        self.ask("POST", &format!("/element/{}/click", self.find(css)), &json!({}));
    }

    pub fn type_into(&self, css: &str, text: &str) {
        self.ask("POST", &format!("/element/{}/value", self.find(css)), &json!({"text": text}));
    }

    /// Presses a key, wherever the focus is.
    pub fn press(&self, key: &str) {
        let keys = json!([{"type": "keyDown", "value": key}, {"type": "keyUp", "value": key}]);
        let actions = json!({"actions": [{"type": "key", "id": "keyboard", "actions": keys}]});
        self.ask("POST", "/actions", &actions);
    }

    /// Every cookie of this page's host.
    pub fn cookies(&self) -> Vec<Value> {
        self.ask("GET", "/cookie", &Value::Null).as_array().cloned().unwrap_or_default()
    }

    fn cdp(&self, cmd: &str, params: &Value) -> Value {
        self.ask("POST", "/goog/cdp/execute", &json!({"cmd": cmd, "params": params}))
    }

    pub fn look(&self, look: Look) {
        let Look { width, height, scheme, .. } = look;
        let size = json!({"width": width, "height": height, "deviceScaleFactor": 1, "mobile": false});
        self.cdp("Emulation.setDeviceMetricsOverride", &size);
        let media = json!({"features": [{"name": "prefers-color-scheme", "value": scheme}]});
        self.cdp("Emulation.setEmulatedMedia", &media);
    }

    /// What axe-core finds that is serious or critical: the rule, and where.
    pub fn serious_findings(&self, axe: &str) -> Vec<String> {
        self.run(axe);
        let script = "const done = arguments[arguments.length - 1];
            axe.run().then((found) => done(found.violations
              .filter((v) => ['serious', 'critical'].includes(v.impact))
              .map((v) => `${v.id}: ${v.nodes.map((n) => n.target.join(' ')).join(', ')}`)));";
        let found = self.ask("POST", "/execute/async", &json!({"script": script, "args": []}));
        found.as_array().into_iter().flatten().map(|v| v.as_str().unwrap_or_default().to_owned()).collect()
    }

    /// What the browser complained of, such as content from elsewhere.
    pub fn complaints(&self) -> Vec<String> {
        let entries = self.ask("POST", "/se/log", &json!({"type": "browser"}));
        let severe = entries.as_array().into_iter().flatten().filter(|entry| entry["level"] == "SEVERE");
        severe.map(|entry| entry["message"].as_str().unwrap_or_default().to_owned()).collect()
    }

    /// A picture of the whole page, where somebody wants to look at it: `ROOMSCRIBE_TEST_PICTURES` is a folder.
    pub fn picture(&self, name: &str) {
        let Some(folder) = std::env::var_os("ROOMSCRIBE_TEST_PICTURES") else { return };
        let taken = self.cdp("Page.captureScreenshot", &json!({"format": "png", "captureBeyondViewport": true}));
        let png = data_encoding::BASE64.decode(taken["data"].as_str().unwrap_or_default().as_bytes()).unwrap();
        std::fs::write(PathBuf::from(folder).join(format!("{name}.png")), png).unwrap();
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        let _ = self.try_ask("DELETE", "", &Value::Null);
        let _ = self.driver.kill();
        let _ = self.driver.wait();
    }
}

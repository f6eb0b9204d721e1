//! TLS, certificates and the broker's rules as they are shipped, against a real Mosquitto, by Mosquitto's own clients.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "helpers of a test may fail it")]

mod kit;

use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::Arc;
use std::time::Duration;

use kit::{Process, free_port, mosquitto};
use rustls::ClientConfig;
use shared::clock::{Clock as _, SystemClock, WallTime};
use shared::paths::Root;
use sync::clinic::settings::ClinicSettings;
use sync::clinic::setup;
use sync::mqtt::MqttBroker;
use sync::pki::{Authority, Holder, Pair, expires, request_for};
use sync::tls::{Credentials, TlsError, client};
use sync::uplink::{Broker as _, Identity, LinkError, Publication};

const PATIENCE: Duration = Duration::from_secs(30);
const PASSWORD: &str = "correct horse";

fn wait_for<T>(what: &str, mut ready: impl FnMut() -> Option<T>) -> T {
    const STEP: Duration = Duration::from_millis(50);
    for _ in 0..PATIENCE.as_millis() / STEP.as_millis() {
        if let Some(found) = ready() {
            return found;
        }
        std::thread::sleep(STEP);
    }
    panic!("waited too long for {what}");
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr)
}

/// A clinic, and a broker that runs with the files that the clinic wrote for it.
struct World {
    folder: tempfile::TempDir,
    broker: Process,
    port: u16,
    dashboards: u16,
    https: u16,
}

impl World {
    fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let (port, dashboards, https) = (free_port(), free_port(), free_port());
        let (broker, at, listen) =
            (format!("localhost:{port}"), format!("127.0.0.1:{https}"), format!("127.0.0.1:{}", free_port()));
        let files = folder.path().join("mosquitto");
        let init = [
            "init", "--clinic", "north", "--server", "server-1", "--broker", &broker, "--listen", &listen, "--https",
            &at, "--name",
        ];
        let clinic = |arguments: &[&str]| {
            let done = Self::command_in(folder.path(), "clinic").args(arguments).output().unwrap();
            assert!(done.status.success(), "{}", said(&done));
        };
        clinic(&[&init[..], &["localhost"]].concat());
        let to = files.display().to_string();
        clinic(&["broker-files", "--to", &to, "--installed", &to]);
        let broker = Self::launch(&files, dashboards);
        let world = Self { folder, broker, port, dashboards, https };
        let is_up = wait_for("the broker", || {
            let log = std::fs::read_to_string(files.join("log")).unwrap();
            let is_open = std::net::TcpStream::connect(("127.0.0.1", port)).is_ok();
            (is_open || log.contains("Error")).then_some(if is_open { Ok(()) } else { Err(log) })
        });
        assert_eq!(is_up, Ok(()));
        world
    }

    /// The shipped configuration, with its dashboards switched on as it says.
    fn launch(files: &Path, dashboards: u16) -> Process {
        for (options, user) in [(&["-b", "-c"][..], "dashboard"), (&["-b"], "homeassistant")] {
            let mut command = Command::new("mosquitto_passwd");
            let made = command.args(options).arg(files.join("dashboard.passwd")).args([user, PASSWORD]).output();
            assert!(made.as_ref().is_ok_and(|made| made.status.success()), "{made:?}");
        }
        let config = files.join("roomscribe.conf");
        let text = std::fs::read_to_string(&config).unwrap();
        let on = |line: &str| line.strip_prefix('#').filter(|rest| !rest.starts_with(' ')).unwrap_or(line).to_owned();
        let switched = text.lines().map(on).collect::<Vec<_>>().join("\n") + "\n";
        let switched = switched.replace("listener 8884", &format!("listener {dashboards}"));
        assert_ne!(text, switched);
        std::fs::write(&config, switched).unwrap();
        // As Debian's mosquitto.conf has it, and as broker-files says: by a link in conf.d.
        let (main, conf_d) = (files.join("main"), files.join("conf.d"));
        std::fs::create_dir(&conf_d).unwrap();
        std::os::unix::fs::symlink(&config, conf_d.join("roomscribe.conf")).unwrap();
        std::fs::write(&main, format!("user root\ninclude_dir {}\n", conf_d.display())).unwrap();
        let log = std::fs::File::create(files.join("log")).unwrap();
        Process::start(mosquitto().arg("-c").arg(main).stdout(log.try_clone().unwrap()).stderr(log))
    }

    fn command_in(folder: &Path, whose: &str) -> Command {
        let program = match whose {
            "clinic" => env!("CARGO_BIN_EXE_roomscribe-clinic"),
            _ => env!("CARGO_BIN_EXE_roomscribe-sync"),
        };
        let mut command = Command::new(program);
        command.arg("--root").arg(folder.join(whose)).stdin(Stdio::null()).env_remove("ROOMSCRIBE_ROOT");
        command
    }

    fn run(&self, whose: &str, arguments: &[&str]) -> Output {
        Self::command_in(self.folder.path(), whose).args(arguments).output().unwrap()
    }

    fn start_daemon(&self, whose: &str) -> Process {
        let log = std::fs::File::create(self.folder.path().join(format!("{whose}.log"))).unwrap();
        let mut command = Self::command_in(self.folder.path(), whose);
        Process::start(command.arg("run").stdout(Stdio::null()).stderr(log))
    }

    fn authority(&self) -> Authority {
        let root = Root::new(self.folder.path().join("clinic"));
        setup::authority(&root, &ClinicSettings::load(&root).unwrap()).unwrap()
    }

    /// One of Mosquitto's clients, with a certificate.
    fn client(&self, program: &str, pair: &Pair) -> Command {
        let own = tempfile::tempdir_in(self.folder.path()).unwrap().keep();
        std::fs::write(own.join("certificate"), &pair.certificate).unwrap();
        std::fs::write(own.join("key"), &pair.key).unwrap();
        let mut command = Command::new(program);
        command.args(["-V", "5", "-h", "localhost", "-p", &self.port.to_string(), "--cafile"]);
        command.arg(self.folder.path().join("mosquitto/authority.pem"));
        command.arg("--cert").arg(own.join("certificate")).arg("--key").arg(own.join("key")).stdin(Stdio::null());
        command
    }

    fn publish(&self, pair: &Pair, topic: &str) -> Output {
        let mut command = self.client("mosquitto_pub", pair);
        command.args(["-q", "1", "-t", topic, "-m", "{}"]).output().expect("mosquitto-clients are installed")
    }

    fn dashboard(&self, password: &str) -> Command {
        self.reader("dashboard", password)
    }

    fn reader(&self, user: &str, password: &str) -> Command {
        let mut command = Command::new("mosquitto_sub");
        command.args(["-V", "5", "-h", "localhost", "-p", &self.dashboards.to_string(), "--cafile"]);
        command.arg(self.folder.path().join("mosquitto/authority.pem")).args(["-u", user, "-P", password]);
        command
    }
}

/// Listens until it is dropped or asked: the topics of what came.
struct Listener {
    _running: Process,
    file: PathBuf,
}

impl Listener {
    /// Everything that `command` may read.
    fn start(world: &World, command: Command, filter: &str) -> Self {
        // Line by line, or nothing is seen of a subscription to which nothing comes.
        let mut unbuffered = Command::new("stdbuf");
        unbuffered.arg("-oL").arg(command.get_program()).args(command.get_args());
        let file = tempfile::NamedTempFile::new_in(world.folder.path()).unwrap().into_temp_path().keep().unwrap();
        let out = std::fs::File::create(&file).unwrap();
        unbuffered.args(["-q", "1", "-t", filter, "-F", "%t", "-d"]).stdout(out).stderr(Stdio::null());
        let running = Process::start(&mut unbuffered);
        let listener = Self { _running: running, file };
        wait_for("a subscription", || listener.text().contains("SUBACK").then_some(()));
        listener
    }

    fn text(&self) -> String {
        std::fs::read_to_string(&self.file).unwrap()
    }

    fn has(&self, topic: &str) -> bool {
        self.text().lines().any(|line| line == topic)
    }

    fn topics(&self) -> Vec<String> {
        self.text()
            .lines()
            .filter(|line| line.starts_with("roomscribe/") || line.starts_with("homeassistant/"))
            .map(str::to_owned)
            .collect()
    }
}

fn now() -> WallTime {
    SystemClock::new().now().wall
}

fn topic(rest: &str) -> String {
    format!("roomscribe/v1/north/{rest}")
}

#[test]
fn a_box_that_was_enrolled_by_a_code_is_online_over_tls_and_the_code_is_good_for_no_other() {
    let world = World::start();
    let _clinic = world.start_daemon("clinic");
    wait_for("HTTPS", || std::net::TcpStream::connect(("127.0.0.1", world.https)).ok());
    let invited = world.run("clinic", &["invite", "room-1"]);
    let text = said(&invited);
    let code = text.lines().next().unwrap().to_owned();
    let at = format!("localhost:{}", world.https);
    assert!(text.contains(&format!("roomscribe-sync enrol --code {code} --clinic {at}")), "{text}");

    // The second half names the authority: mistyped, nothing is told to anybody.
    let swapped: String = code.chars().rev().collect();
    let stranger = world.run("box", &["enrol", "--code", &swapped, "--clinic", &at]);
    assert!(!stranger.status.success() && said(&stranger).contains("is not the server that this code is for"));
    // The server's certificate bears the name that it is reached by.
    let address = format!("127.0.0.1:{}", world.https);
    let misnamed = world.run("box", &["enrol", "--code", &code, "--clinic", &address]);
    assert_eq!(misnamed.status.code(), Some(69), "{}", said(&misnamed));

    let enrolled = world.run("box", &["enrol", "--code", &code, "--clinic", &at]);
    assert!(enrolled.status.success(), "{}", said(&enrolled));
    assert!(said(&world.run("box", &["certificate"])).contains("days"));
    let other = world.run("other", &["enrol", "--code", &code, "--clinic", &at]);
    assert!(!other.status.success() && said(&other).contains("not valid"), "{}", said(&other));
    assert!(!world.folder.path().join("other/var/lib/roomscribe/site/link.toml").exists());

    // Half of its time is over: it is renewed as soon as there is a line.
    let root = Root::new(world.folder.path().join("box"));
    let own = request_for(&std::fs::read_to_string(root.link_key()).unwrap()).unwrap().certificate;
    let old = world.authority().sign(&own, Holder::Room("room-1"), WallTime(now().0 - 400 * 86_400_000)).unwrap();
    std::fs::write(root.link_certificate(), &old).unwrap();

    let board = Listener::start(&world, world.dashboard(PASSWORD), "#");
    wait_for("the clinic on its board", || board.has(&topic("board/status/server-1")).then_some(()));
    let _sync = world.start_daemon("box");
    wait_for("the box at the clinic", || {
        let log = std::fs::read_to_string(world.folder.path().join("box.log")).unwrap();
        assert!(!log.contains("panicked"), "{log}");
        let listed = std::fs::read_to_string(world.folder.path().join("mosquitto/log")).unwrap();
        listed.contains("as room-1").then_some(())
    });
    wait_for("a new certificate", || {
        let ends = expires(&std::fs::read_to_string(root.link_certificate()).unwrap()).unwrap();
        (ends.since(now()) > Duration::from_secs(700 * 86_400)).then_some(())
    });
}

#[test]
fn a_certificate_reaches_its_own_topics_and_a_dashboard_the_board_alone() {
    let world = World::start();
    let authority = world.authority();
    let [one, two] = ["room-1", "room-2"].map(|id| authority.issue(Holder::Room(id), now()).unwrap());
    let server = authority.issue(Holder::Server("server-1"), now()).unwrap();
    let all = Listener::start(&world, world.client("mosquitto_sub", &server), "roomscribe/#");
    let mut theirs = world.client("mosquitto_sub", &two);
    theirs.args(["-i", "room-2"]);
    let theirs = Listener::start(&world, theirs, "#");

    let own = ["status", "health", "event", "parcel/a/1", "withdrawal/a", "answer/a", "certificate/request"]
        .map(|rest| topic(&format!("room-1/{rest}")));
    let forbidden = ["room-2/health", "room-2/parcel/a/1", "room-1/ack", "room-1/cmd/start", "board/breakers", "x"];
    for rest in forbidden {
        drop(world.publish(&one, &topic(rest)));
    }
    drop(world.publish(&one, "roomscribe/v1/south/room-1/health"));
    for topic in &own {
        assert!(world.publish(&one, topic).status.success());
    }
    wait_for("what a box may say", || own.iter().all(|topic| all.has(topic)).then_some(()));
    assert_eq!(all.topics(), own, "and nothing else came");
    assert!(theirs.topics().is_empty(), "another box hears none of it");
    drop(all);

    // By another's client id nobody is put out of the line, and nothing of theirs is heard.
    let mut taking = world.client("mosquitto_sub", &one);
    taking.args(["-i", "room-2"]);
    let taking = Listener::start(&world, taking, "#");
    let board = Listener::start(&world, world.dashboard(PASSWORD), "#");
    let home = Listener::start(&world, world.reader("homeassistant", PASSWORD), "#");
    for rest in ["room-1/ack", "room-2/ack", "room-2/cmd/start", "room-2/health", "board/breakers"] {
        assert!(world.publish(&server, &topic(rest)).status.success());
    }
    let discovery = "homeassistant/device/roomscribe-north/room-2/config";
    assert!(world.publish(&server, discovery).status.success());
    drop(world.publish(&one, "homeassistant/device/roomscribe-north/room-1/config"));
    wait_for("what Home Assistant may read", || home.has(discovery).then_some(()));
    assert_eq!(home.topics(), [topic("room-2/health"), topic("board/breakers"), discovery.to_owned()]);
    wait_for("their own", || (theirs.topics().len() == 2 && !board.topics().is_empty()).then_some(()));
    wait_for("its own", || (!taking.topics().is_empty()).then_some(()));
    assert_eq!(theirs.topics(), [topic("room-2/ack"), topic("room-2/cmd/start")]);
    assert_eq!(taking.topics(), [topic("room-1/ack")]);
    assert_eq!(board.topics(), [topic("board/breakers")]);

    let wrong = world.dashboard("wrong").args(["-t", "#", "-W", "5", "-C", "1"]).output().unwrap();
    assert!(!wrong.status.success() && said(&wrong).to_lowercase().contains("not authori"), "{}", said(&wrong));
    let mut writing = world.dashboard(PASSWORD);
    let arguments: Vec<_> = writing.get_args().map(ToOwned::to_owned).collect();
    writing = Command::new("mosquitto_pub");
    writing.args(arguments).args(["-q", "1", "-t", &topic("board/breakers"), "-m", "{}"]);
    drop(writing.output().unwrap());
    std::thread::sleep(Duration::from_millis(500));
    assert_eq!(board.topics().len(), 1, "a dashboard writes nothing");
}

#[derive(Debug)]
struct Given {
    authority: String,
    pair: Pair,
}

impl Credentials for Given {
    fn client(&self) -> Result<Arc<ClientConfig>, TlsError> {
        client(&self.authority, &self.pair)
    }
}

async fn connect(world: &World, authority: &Authority, pair: Pair) -> Result<(), LinkError> {
    let credentials = Given { authority: authority.certificate().into(), pair };
    let identity = Identity {
        client_id: "room-1".into(),
        host: "localhost".into(),
        port: world.port,
        will: Publication::retained(topic("room-1/status"), "offline"),
        session_expiry_s: 0,
        credentials: Some(Arc::new(credentials)),
    };
    MqttBroker::new(identity).connect().await.map(drop)
}

#[tokio::test]
async fn a_foreign_or_expired_certificate_is_refused_on_either_side_and_so_is_none() {
    let world = World::start();
    let ours = world.authority();
    let foreign = Authority::open(&Authority::generate("north", now()).unwrap()).unwrap();
    let years_ago = WallTime(now().0 - 3 * 365 * 86_400_000);
    let room = |authority: &Authority, at| authority.issue(Holder::Room("room-1"), at).unwrap();
    connect(&world, &ours, room(&ours, now())).await.unwrap();
    let distrusted = |result: Result<(), LinkError>| match result {
        Err(LinkError::Distrusted { reason }) => reason,
        other => panic!("it is not refused for its certificate: {other:?}"),
    };
    distrusted(connect(&world, &ours, room(&foreign, now())).await);
    let reason = distrusted(connect(&world, &ours, room(&ours, years_ago)).await);
    assert!(reason.to_lowercase().contains("expired"), "{reason}");
    let reason = distrusted(connect(&world, &foreign, room(&ours, now())).await);
    assert!(reason.contains("invalid peer certificate"), "a box does not believe another clinic's broker: {reason}");
    // A box's certificate does not make a broker.
    let site = ours.issue(Holder::Site(&["localhost".into()]), now()).unwrap();
    distrusted(connect(&world, &ours, site).await);
    let mut bare = Command::new("mosquitto_sub");
    bare.args(["-V", "5", "-h", "localhost", "-p", &world.port.to_string(), "-t", "#", "-W", "5", "--cafile"]);
    let bare = bare.arg(world.folder.path().join("mosquitto/authority.pem")).output().unwrap();
    assert!(!bare.status.success(), "{}", said(&bare));
    drop(world.broker);
}

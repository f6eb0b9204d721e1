//! Two clinic servers on one PostgreSQL and one broker: they share the parcels, one of them publishes the board, and
//! whatever is killed, every session arrives once.

use std::net::TcpStream;
use std::time::Duration;

use shared::clock::{Clock as _, SystemClock};
use shared::paths::Root;
use shared::record::{Consent, DiarizationStatus, Status, TimeQuality};
use shared::seal::{ClinicPublic, sha256};
use shared::store::{Finish, NewSession, OutboxState, SpeakerHint, Store};
use tests::broker::{Broker, free_port};
use tests::clinic::{record, seal, session};
use tests::postgres::Postgres;
use tests::stack::{CLINIC, ROOM};
use tests::{Running, TestBox, get, get_text, now, wait_for};

/// One of the clinic's servers.
struct Server {
    at: TestBox,
    id: &'static str,
    http: u16,
    running: Running,
}

fn command(at: &TestBox, arguments: &[&str]) -> String {
    let done = at.command("roomscribe-clinic").args(arguments).output().unwrap();
    assert!(done.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&done.stderr));
    String::from_utf8(done.stdout).unwrap()
}

impl Server {
    /// Made as the README says: `init` on each, and the keys of the first copied to the others.
    fn start(id: &'static str, broker: &Broker, postgres: &Postgres, first: Option<&Self>) -> Self {
        let (at, http) = (TestBox::bare(), free_port());
        let (listen, reached) = (format!("127.0.0.1:{http}"), format!("127.0.0.1:{}", broker.port));
        let (url, server) = (postgres.url(), ["--server", id]);
        let rest = ["--broker", &reached, "--listen", &listen, "--database", &url];
        command(&at, &[&["init", "--plain", "--clinic", CLINIC], &server[..], &rest[..]].concat());
        if let Some(first) = first {
            let keys = |of: &TestBox| Root::new(of.root()).clinic().join("keys/clinic.json");
            std::fs::copy(keys(&first.at), keys(&at)).unwrap();
        }
        let running = at.start("roomscribe-clinic", &["run"]);
        let server = Self { at, id, http, running };
        server.is_well();
        server
    }

    fn is_well(&self) {
        wait_for("the server to be well", || {
            let health = get(TcpStream::connect(("127.0.0.1", self.http)).ok()?, "/health")?;
            (health["status"] == "ok").then_some(())
        });
    }

    fn restart(&mut self) {
        self.running = self.at.start("roomscribe-clinic", &["run"]);
        self.is_well();
    }

    fn stored(&self) -> u64 {
        let page = get_text(TcpStream::connect(("127.0.0.1", self.http)).unwrap(), "/metrics").unwrap();
        let line = page.lines().find_map(|line| line.strip_prefix("roomscribe_parcels_total{result=\"stored\"} "));
        line.unwrap().parse().unwrap()
    }

    /// How often it became the one that publishes the board.
    fn terms(&self) -> usize {
        let log = std::fs::read_to_string(self.at.folder().join("roomscribe-clinic.log")).unwrap();
        log.matches("This server publishes the board.").count()
    }
}

/// A box whose recorder is this test.
struct Room {
    room: TestBox,
    store: Store,
    clinic: ClinicPublic,
    owed: u32,
}

impl Room {
    fn enrolled(at: &Server) -> Self {
        let room = TestBox::bare();
        let link = room.folder().join("link.toml");
        std::fs::write(&link, command(&at.at, &["invite", ROOM]) + "ack_timeout = 3.0\n").unwrap();
        let enrolled = room.command("roomscribe-sync").args(["enrol", "--from"]).arg(&link).output().unwrap();
        assert!(enrolled.status.success());
        let root = Root::new(room.root());
        let link = shared::settings::Settings::load(&root, |_| None).unwrap().link.unwrap();
        let clinic = ClinicPublic::from_hex(&link.sealing_key, &link.signing_key).unwrap();
        let store = Store::open(&root.database()).unwrap().sealing_with(std::sync::Arc::new(room.keys()));
        Self { room, store, clinic, owed: 0 }
    }

    fn owe(&mut self, sessions: u32) {
        for _ in 0..sessions {
            self.owed += 1;
            let (id, now) = (session(self.owed), SystemClock::new().now().wall);
            let consent = Consent { basis: "verbal".into(), by: None, at: now.to_string() };
            let (time_quality, status, speakers) =
                (TimeQuality::Synchronized, Status::Recording, SpeakerHint::default());
            let new = NewSession { id: id.clone(), started_at: now, time_quality, consent, status, speakers };
            self.store.begin_session(&new, now).unwrap();
            let parcel = seal(&self.clinic, CLINIC, &record(&id, 1, None));
            let finish = Finish {
                session: &id,
                status: Status::Done,
                diarization_status: DiarizationStatus::Ok,
                error: None,
                record: b"{}",
                revision: 1,
                parcel: Some((&parcel, &sha256(&parcel))),
            };
            self.store.finish(&finish, now).unwrap();
        }
    }

    fn count(&self, state: OutboxState) -> u32 {
        let is_so = |number: &u32| self.store.outbox_state(&session(*number), 1).unwrap() == Some(state);
        (1..=self.owed).filter(is_so).count().try_into().unwrap()
    }

    fn delivered(&self) {
        wait_for("every parcel to be acknowledged", || {
            assert_eq!(self.count(OutboxState::Refused), 0, "nothing is refused");
            (self.count(OutboxState::Acknowledged) == self.owed).then_some(())
        });
    }
}

#[test]
fn two_servers_share_the_parcels_and_one_publishes_the_board_whatever_is_killed() {
    let (folder, postgres) = (tempfile::tempdir().unwrap(), Postgres::start());
    let broker = Broker::start(folder.path());
    let a = Server::start("a", &broker, &postgres, None);
    let b = Server::start("b", &broker, &postgres, Some(&a));
    let mut room = Room::enrolled(&a);
    let mut servers = [a, b];
    let status = |id: &str| broker.retained_text(&format!("roomscribe/v1/{CLINIC}/board/status/{id}"));
    assert_eq!([status("a"), status("b")], ["online", "online"]);
    room.owe(60);
    let _sync = room.room.start("roomscribe-sync", &["run"]);
    room.delivered();
    let stored = servers.each_ref().map(Server::stored);
    assert!(stored[0] > 0 && stored[1] > 0 && stored[0] + stored[1] == 60, "{stored:?}");
    assert_eq!(servers.each_ref().map(Server::terms), [1, 0], "one publishes the board");

    // The holder is killed while parcels come.
    room.owe(60);
    let killed = now();
    servers[0].running.kill();
    wait_for("the other to take over", || (servers[1].terms() == 1).then_some(()));
    let took_over = now().saturating_sub(killed);
    room.delivered();
    eprintln!("stored {stored:?}; the board taken over after {took_over:?}, all delivered after {:?}", now() - killed);
    assert!(took_over < Duration::from_secs(40));
    assert_eq!([status("a"), status("b")], ["offline", "online"]);
    let board = broker.retained(&format!("roomscribe/v1/{CLINIC}/board/breakers")).unwrap();
    assert_eq!(board["clinic"], CLINIC);
    servers[0].restart();
    assert_eq!(servers[0].terms(), 1, "who comes back waits for its turn");

    // The database is killed while parcels come, and no server is restarted for that.
    room.owe(60);
    wait_for("parcels to flow", || (room.count(OutboxState::Acknowledged) > 125).then_some(()));
    postgres.kill();
    room.owe(20);
    std::thread::sleep(Duration::from_secs(3));
    postgres.restart();
    let back = now();
    room.delivered();
    eprintln!("all delivered {:?} after the database was back", now() - back);
    servers.iter().for_each(Server::is_well);
    let counted = "select count(*), count(distinct session_id) from parcels";
    assert_eq!(postgres.ask(counted), [["200", "200"]], "each once");

    // Told to stop, the holder gives the lease back: the other need not wait until it ends.
    let holder = wait_for("somebody to publish", || servers.iter().position(|server| is_holder(&postgres, server.id)));
    let before = servers[1 - holder].terms();
    servers[holder].running.stop();
    let stopped = now();
    wait_for("the other to take over", || (servers[1 - holder].terms() > before).then_some(()));
    eprintln!("the board taken over {:?} after its holder was told to stop", now() - stopped);
    assert_eq!(status(servers[holder].id), "offline");
}

fn is_holder(postgres: &Postgres, id: &str) -> bool {
    postgres.ask("select holder from leases") == [[id]]
}

//! The pages for Prometheus, of clinic and box, as its own tool reads them; and that they have what rules and dashboard name.

use std::net::TcpStream;
use std::os::unix::net::UnixStream;

use serde_json::{Value, json};
use tests::broker::Broker;
use tests::monitoring::assert_measured;
use tests::stack::{CLINIC, ROOM, enrol};
use tests::{TestBox, get_text, promtool_accepts, wait_for};

#[test]
fn promtool_has_nothing_to_say_about_the_pages_of_a_clinic_with_none_one_and_two_boxes_and_of_a_box() {
    let room = TestBox::bare();
    let sensor = |file: &str, value: &str| {
        let file = room.root().join("sys/class").join(file);
        std::fs::create_dir_all(file.parent().unwrap()).unwrap();
        std::fs::write(file, value).unwrap();
    };
    sensor("thermal/thermal_zone0/temp", "41500\n");
    sensor("hwmon/hwmon1/name", "rpi_volt\n");
    sensor("hwmon/hwmon1/in0_lcrit_alarm", "0\n");
    let broker = Broker::start(room.root());
    let http = enrol(&room, &broker);
    let _clinic = room.start("roomscribe-clinic", &["run"]);
    let page = || get_text(TcpStream::connect(("127.0.0.1", http)).ok()?, "/metrics");
    let clinic = |holds: &str| wait_for(holds, || page().filter(|page| page.contains(holds)));
    let none = clinic("roomscribe_broker_connected 1");
    assert!(!none.contains(ROOM));
    promtool_accepts(&none);

    let bad = room.root().join("bad.wav");
    std::fs::write(&bad, b"not sound").unwrap();
    assert_eq!(room.process(&bad).code, Some(3));
    let _daemon = room.start_daemon();
    let _sync = room.start("roomscribe-sync", &["run"]);
    room.ask("roomscribe", &["breaker", "force-open", "diarization"]);
    let fires = |whose: &str| format!(r#"roomscribe_alert_firing{{alert="breaker_open",box="{whose}"}} 1"#);
    promtool_accepts(&clinic(&fires(ROOM)));

    let mut health: Value = wait_for("health", || broker.retained(&format!("roomscribe/v1/{CLINIC}/{ROOM}/health")));
    health["box"] = json!("room-2");
    broker.publish(&format!("roomscribe/v1/{CLINIC}/room-2/health"), &health.to_string());
    let two = clinic(&fires("room-2"));
    assert!(two.contains(&fires(ROOM)) && two.contains(r#"roomscribe_box_online{box="room-2"}"#));
    assert!(two.contains(r#"resilience4j_circuitbreaker_state{name="sync",state="closed",box="room-2"} 1"#));
    promtool_accepts(&two);

    let socket = shared::paths::Root::new(room.root()).find_control_socket();
    let own = get_text(UnixStream::connect(socket).unwrap(), "/metrics").unwrap();
    promtool_accepts(&own);
    assert_measured(&[two, own]);
}

use super::*;
use crate::clinic::fixture::World;
use crate::clinic::invitation::{LIFETIME, invite};
use crate::code::Code;
use crate::pki::Pair;
use shared::clock::Clock as _;

fn desk(world: &World) -> Desk {
    let made = Authority::generate("north", world.clock.now().wall).unwrap();
    let authority = Arc::new(Authority::open(&made).unwrap());
    Desk { clinic: world.clinic.clone(), authority, wrong: Mutex::default() }
}

fn invited(desk: &Desk, box_id: &str) -> Code {
    invite(&desk.clinic.store, &desk.authority, box_id, desk.clinic.clock.now().wall).unwrap()
}

fn asking(code: &Code, request: &Pair) -> EnrolRequest {
    EnrolRequest { version: 1, secret: code.secret(), request: request.certificate.clone() }
}

#[test]
fn a_code_enrols_one_box_and_its_answer_may_be_lost() {
    let world = World::new();
    let desk = desk(&world);
    let (code, request) = (invited(&desk, "room-1"), pki::request().unwrap());
    for _ in 0..2 {
        let Enrolment { link, tls } = desk.enrol(&asking(&code, &request)).ok().unwrap();
        let EnrolledTls { authority, certificate, key } = tls.unwrap();
        assert_eq!((link.box_id.as_str(), key), ("room-1", None));
        tls::client(&authority, &Pair { certificate, key: request.key.clone() }).unwrap();
    }
    assert!(matches!(desk.enrol(&asking(&code, &pki::request().unwrap())), Err(Refusal::Code)), "another box's key");
}

/// As the document says: status, content type and schema of each answer, and of what is asked.
#[tokio::test]
async fn answers_are_as_documented() {
    use axum::body::{Body, to_bytes};
    use axum::http::Request;
    use shared::contract::{misfits, schema_at};
    use tower::ServiceExt as _;

    let document: serde_json::Value = serde_json::from_str(crate::clinic::http::OPENAPI).unwrap();
    let fits = |pointer: &str, value: &serde_json::Value| {
        assert_eq!(misfits(&schema_at(&document, pointer).unwrap(), value), Vec::<String>::new(), "{pointer}");
    };
    let world = World::new();
    let desk = desk(&world);
    let app = router(desk.clinic.clone(), desk.authority.clone());
    let asked = serde_json::to_value(asking(&invited(&desk, "room-1"), &pki::request().unwrap())).unwrap();
    fits("/components/schemas/EnrolRequest", &asked);
    let mut wrong = asked.clone();
    wrong["secret"] = "A".repeat(16).into();
    let mut garbage = asked.clone();
    garbage["request"] = "garbage".into();
    for (body, status) in [(wrong, "403"), (garbage, "400"), (asked, "200")] {
        let request = Request::post("/api/v1/enrol").header("content-type", "application/json");
        let answer = app.clone().oneshot(request.body(Body::from(body.to_string())).unwrap()).await.unwrap();
        assert_eq!(answer.status().as_str(), status);
        let body = to_bytes(answer.into_body(), BODY_BYTES).await.unwrap();
        let place = format!("/paths/~1api~1v1~1enrol/post/responses/{status}/content/application~1json/schema");
        fits(&place, &serde_json::from_slice(&body).unwrap());
    }
    let answer = app.oneshot(Request::get("/authority.pem").body(Body::empty()).unwrap()).await.unwrap();
    assert_eq!(
        (answer.status().as_str(), answer.headers()["content-type"].as_bytes()),
        ("200", b"application/x-pem-file".as_slice())
    );
}

#[test]
fn a_code_that_was_replaced_or_has_ended_is_not_valid() {
    let world = World::new();
    let desk = desk(&world);
    let request = pki::request().unwrap();
    let (first, second) = (invited(&desk, "room-1"), invited(&desk, "room-1"));
    assert!(matches!(desk.enrol(&asking(&first, &request)), Err(Refusal::Code)));
    world.clock.pass(LIFETIME);
    assert!(matches!(desk.enrol(&asking(&second, &request)), Err(Refusal::Code)));
}

#[test]
fn wrong_codes_are_refused_for_a_minute_once_there_are_too_many_and_then_right_ones_count_again() {
    let world = World::new();
    let desk = desk(&world);
    let (code, request) = (invited(&desk, "room-1"), pki::request().unwrap());
    let strange = Code::generate(&[0; 32]).unwrap();
    for _ in 0..WRONG_A_MINUTE {
        assert!(matches!(desk.enrol(&asking(&strange, &request)), Err(Refusal::Code)));
    }
    assert!(matches!(desk.enrol(&asking(&code, &request)), Err(Refusal::Busy)));
    world.clock.pass(Duration::from_secs(60));
    assert!(desk.enrol(&asking(&code, &request)).is_ok());
}

#[test]
fn what_is_no_request_costs_no_code() {
    let world = World::new();
    let desk = desk(&world);
    let code = invited(&desk, "room-1");
    let garbage = Pair { certificate: "garbage".into(), key: String::new() };
    assert!(matches!(desk.enrol(&asking(&code, &garbage)), Err(Refusal::Request)));
    assert!(desk.enrol(&asking(&code, &pki::request().unwrap())).is_ok());
}

/// Somebody who only connects used to be able to take every file that the process may open.
#[tokio::test]
async fn who_finds_no_place_is_turned_away_and_one_that_is_given_up_is_free_again() {
    use tokio::io::AsyncReadExt as _;
    use tokio::net::TcpStream;
    use tokio::time::timeout;

    let world = World::new();
    let desk = desk(&world);
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    listener.set_nonblocking(true).unwrap();
    let at = listener.local_addr().unwrap();
    let (stopper, stop) = Stop::new();
    let served = tokio::spawn(serve(desk.clinic.clone(), desk.authority.clone(), listener, stop));
    let mut held = Vec::new();
    for _ in 0..CONNECTIONS {
        held.push(TcpStream::connect(at).await.unwrap());
    }
    let is_turned_away = async || {
        let mut stream = TcpStream::connect(at).await.unwrap();
        timeout(Duration::from_millis(500), stream.read(&mut [0])).await.is_ok()
    };
    assert!(is_turned_away().await);
    drop(held.pop());
    let mut tries = 0..20;
    while is_turned_away().await {
        assert!(tries.next().is_some(), "its place is not free");
    }
    drop(held);
    stopper.stop();
    served.await.unwrap().unwrap();
}

use super::*;
use crate::clinic::fixture::World;
use crate::clinic::invitation::{LIFETIME, invite};
use crate::code::Code;
use crate::pki::Pair;
use crate::tls;
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

//! The clinic's page in a real browser: over HTTPS, against the program as it is and a real Mosquitto.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "helpers of a test may fail it")]

mod browser;
mod world;

use std::net::TcpListener;
use std::time::Duration;

use shared::breaker::StateName;
use tokio::time::sleep;

use browser::{Browser, ENTER, LOOKS, TAB};
use world::{PASSWORD, SAID, World};

fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

/// Asks again until there is an answer.
fn wait_for<T>(what: &str, ask: impl Fn() -> Option<T>) -> T {
    for _ in 0..browser::PATIENCE.as_millis() / 100 {
        if let Some(answer) = ask() {
            return answer;
        }
        std::thread::sleep(Duration::from_millis(100));
    }
    panic!("waited in vain for {what}");
}

/// A page must be fit to be read by everybody, on every screen, and hold nothing that the browser refused.
fn examine(browser: &Browser, axe: &str, page: &str) {
    for look in LOOKS {
        browser.look(look);
        let found = browser.serious_findings(axe);
        assert!(found.is_empty(), "{page}, {}: {found:?}", look.name);
        let too_wide = browser.run("return document.documentElement.scrollWidth > window.innerWidth");
        assert_eq!(too_wide, false, "{page}, {} is wider than the screen", look.name);
        browser.picture(&format!("{page}-{}", look.name));
    }
    browser.look(LOOKS[0]);
    let elsewhere = browser.run(
        "return performance.getEntriesByType('resource').map((r) => r.name).filter((n) => !n.startsWith(location.origin))",
    );
    assert_eq!(elsewhere, serde_json::json!([]), "{page} has content from elsewhere");
    let complaints = browser.complaints();
    assert!(
        complaints.iter().all(|c| c.contains("401 (Unauthorized)") || c.contains("403 (Forbidden)")),
        "{complaints:?}"
    );
}

fn log_in(browser: &Browser, world: &World, name: &str, password: &str) {
    browser.go(&world.at("/login"));
    browser.type_into("#name", name);
    browser.type_into("#password", password);
    browser.press(ENTER);
}

#[tokio::test(flavor = "multi_thread")]
async fn people_log_in_see_a_breaker_open_live_and_only_clinicians_read_what_was_said() {
    let (world, browser, axe) = (World::new(), Browser::start(), world::axe());
    let mut room = world.room("room-1").await;
    world.says(&mut room, StateName::Closed, 0).await;

    browser.go(&world.at("/"));
    assert_eq!(browser.url(), world.at("/login"));
    examine(&browser, &axe, "login");
    log_in(&browser, &world, "anna", "wrong password");
    browser.shows("Name or password is wrong.");
    log_in(&browser, &world, "anna", PASSWORD);
    browser.shows("Rooms of north");
    assert_eq!(browser.run("return document.cookie"), "", "no script sees the log-in");
    let cookies = browser.cookies();
    let login = cookies.iter().find(|cookie| cookie["name"] == "__Host-roomscribe").expect("a cookie of HTTPS");
    assert_eq!(
        (&login["secure"], &login["httpOnly"], &login["sameSite"]),
        (&true.into(), &true.into(), &"Strict".into())
    );

    // Live: the same page, not loaded again.
    browser.run("window.stays = true");
    world.says(&mut room, StateName::Open, 5).await;
    browser.shows("OPEN, 5 failed, tries again in");
    browser.shows("Circuit breaker open: Transcription");
    let wait = || browser.run("return document.querySelector('[data-wait]').textContent");
    let first = wait();
    sleep(Duration::from_millis(2500)).await;
    assert_ne!(wait(), first, "the wait counts down");
    assert_eq!(browser.run("return window.stays"), true);
    assert!(!browser.text().contains(SAID));
    browser.run("window.scrollTo(0, 0)");
    examine(&browser, &axe, "rooms");

    // By keyboard alone: over what is skipped, to the first session.
    browser.go(&world.at("/"));
    browser.press(TAB);
    assert_eq!(browser.run("return document.activeElement.textContent"), "Skip to content");
    for _ in 0..40 {
        browser.press(TAB);
        if browser.run("return document.activeElement.id.startsWith('s-')") == true {
            break;
        }
    }
    browser.press(ENTER);
    browser.shows(SAID);
    browser.shows("Nothing was recorded for 95.0 s: off the record.");
    assert_eq!(browser.url(), world.at(&format!("/sessions/{}", world::SESSION)));
    assert_eq!(world.read_by(), ["anna"]);
    examine(&browser, &axe, "transcript");

    browser.click("button");
    browser.shows("Password");
    browser.go(&world.at(&format!("/sessions/{}", world::SESSION)));
    assert_eq!(browser.url(), world.at("/login"));
    log_in(&browser, &world, "otto", PASSWORD);
    browser.shows("otto · admin");
    browser.go(&world.at(&format!("/sessions/{}", world::SESSION)));
    browser.shows("Only clinicians may read what was said.");
    assert_eq!(world.read_by(), ["anna"]);
    examine(&browser, &axe, "refused");
}

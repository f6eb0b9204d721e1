//! Who is let in, and what they may see.

use super::*;
use crate::clinic::access::password;

const PASSWORD: &str = "correct horse battery";

fn with_accounts() -> World {
    let (world, hash) = (world(), password::hash("anna", PASSWORD).unwrap());
    for (name, role) in [("anna", Role::Clinician), ("otto", Role::Admin)] {
        world.clinic.store.add_account(name, role, &hash, world.clock.now().wall).unwrap();
    }
    world
}

fn set_cookie(head: &str, name: &str) -> Option<String> {
    let lines = head.lines().filter_map(|line| line.strip_prefix("set-cookie: "));
    let found = lines.filter_map(|line| line.strip_prefix(&format!("{name}="))).next()?;
    found.split(';').next().map(str::to_owned)
}

/// Head and body after sending a name and a password with the form's own token.
async fn try_in(server: &Server, name: &str, password: &str) -> (String, String) {
    let (head, page) = server.ask("GET", "/login", "", "").await;
    let token = set_cookie(&head, "roomscribe-form").unwrap();
    assert!(page.contains(&token));
    let (cookie, password) = (format!("Cookie: roomscribe-form={token}\r\n"), password.replace(' ', "+"));
    server.ask("POST", "/login", &cookie, &format!("name={name}&password={password}&form={token}")).await
}

/// The header of a log-in.
async fn log_in(server: &Server, name: &str) -> String {
    let (head, _) = try_in(server, name, PASSWORD).await;
    assert!(head.starts_with("HTTP/1.1 303") && head.contains("location: /\r\n"), "{head}");
    assert!(head.contains("; HttpOnly; SameSite=Strict"), "{head}");
    format!("Cookie: roomscribe={}\r\n", set_cookie(&head, "roomscribe").unwrap())
}

fn status(head: &str) -> &str {
    head.split(' ').nth(1).unwrap()
}

#[tokio::test]
async fn without_a_log_in_or_a_token_nothing_but_monitoring_is_answered() {
    let world = with_accounts();
    let server = Server::start(&world).await;
    let open = ["/health", "/health/audio-processing", "/metrics", "/login", "/dashboard.css", "/dashboard.js"];
    for path in open {
        assert_eq!(status(&server.ask("GET", path, "", "").await.0), "200", "{path}");
    }
    let strange = "Cookie: roomscribe=AAAA\r\nAuthorization: Bearer AAAA\r\n";
    for path in ["/api/v1/sessions", "/api/v1/boxes", "/api/v1/events", "/api/v1/alerts", "/events"] {
        for headers in ["", strange] {
            let (head, body) = server.ask("GET", path, headers, "").await;
            assert_eq!(status(&head), "401", "{path}");
            assert!(!body.contains("room-1"), "{path}");
        }
    }
    for path in ["/", &format!("/sessions/{SESSION}")] {
        let (head, body) = server.ask("GET", path, strange, "").await;
        assert!(head.starts_with("HTTP/1.1 303") && head.contains("location: /login"), "{path}: {head}");
        assert_eq!(body, "");
    }
    server.stop().await;
}

#[tokio::test]
async fn whoever_listens_on_a_network_without_tls_gets_health_and_metrics_alone() {
    let world = with_accounts();
    let all = router(world.clinic.clone(), Door::Open).into_make_service_with_connect_info::<SocketAddr>();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let task = tokio::spawn(async move { axum::serve(listener, all).await });
    let (stopper, _) = Stop::new();
    let server = Server { address, stopper, task };
    for (path, expected) in
        [("/health", "200"), ("/metrics", "200"), ("/login", "403"), ("/", "403"), ("/api/v1/boxes", "403")]
    {
        assert_eq!(status(&server.ask("GET", path, &bearer(&world), "").await.0), expected, "{path}");
    }
    server.task.abort();
}

#[tokio::test]
async fn who_logs_in_sees_the_rooms_until_they_log_out() {
    let world = with_accounts();
    let server = Server::start(&world).await;
    let cookie = log_in(&server, "anna").await;
    let (head, page) = server.ask("GET", "/", &cookie, "").await;
    assert_eq!(status(&head), "200");
    assert!(page.contains("room-1") && page.contains("anna · clinician") && !page.contains("xylophone"));
    assert_eq!(status(&server.ask("GET", "/api/v1/boxes", &cookie, "").await.0), "200");

    let token = page.split("name=\"form\" value=\"").nth(1).unwrap().split('"').next().unwrap();
    let wrong = "A".repeat(43);
    for body in ["", "form=", &format!("form={wrong}")] {
        assert_eq!(status(&server.ask("POST", "/logout", &cookie, body).await.0), "403", "{body}");
    }
    let elsewhere = format!("{cookie}Sec-Fetch-Site: cross-site\r\n");
    let form = format!("form={token}");
    assert_eq!(status(&server.ask("POST", "/logout", &elsewhere, &form).await.0), "403");
    assert_eq!(status(&server.ask("GET", "/", &cookie, "").await.0), "200", "still logged in");
    assert_eq!(status(&server.ask("POST", "/logout", &cookie, &form).await.0), "303");
    assert_eq!(status(&server.ask("GET", "/", &cookie, "").await.0), "303");
    let what: Vec<String> = world.clinic.store.access_log(9).unwrap().into_iter().map(|row| row.what).collect();
    assert_eq!(what, ["logged_out", "logged_in"]);
    server.stop().await;
}

#[tokio::test]
async fn an_unknown_name_and_a_wrong_password_are_answered_alike() {
    let world = with_accounts();
    let server = Server::start(&world).await;
    let plain = |(head, body): (String, String)| {
        let token = set_cookie(&head, "roomscribe-form").unwrap();
        let head: Vec<&str> = head.lines().filter(|line| !line.starts_with("date:")).collect();
        (head.join("\n").replace(&token, "-"), body.replace(&token, "-"))
    };
    let (unknown, wrong) = (try_in(&server, "nobody", PASSWORD).await, try_in(&server, "anna", "wrong").await);
    assert_eq!(status(&wrong.0), "401");
    assert_eq!(plain(unknown), plain(wrong));
    // A form whose token is not the cookie's is not looked at.
    let (head, _) = server.ask("POST", "/login", "", &format!("name=anna&password={PASSWORD}&form=")).await;
    assert_eq!(status(&head), "403");
    for _ in 0..9 {
        try_in(&server, "anna", "wrong").await;
    }
    let (head, page) = try_in(&server, "anna", PASSWORD).await;
    assert!(head.starts_with("HTTP/1.1 429") && head.contains("retry-after: 900"), "{head}");
    assert!(page.contains("Try again in 15 minutes"));
    server.stop().await;
}

#[tokio::test]
async fn a_clinician_reads_what_was_said_and_an_administrator_does_not_and_both_is_written_down() {
    let world = with_accounts();
    let server = Server::start(&world).await;
    let path = format!("/sessions/{SESSION}");
    let (anna, otto) = (log_in(&server, "anna").await, log_in(&server, "otto").await);
    let (head, page) = server.ask("GET", &path, &anna, "").await;
    assert_eq!(status(&head), "200");
    assert!(page.contains("xylophone") && head.contains("cache-control: no-store"));
    let (head, page) = server.ask("GET", &path, &otto, "").await;
    assert_eq!(status(&head), "403");
    assert!(!page.contains("xylophone"));
    assert_eq!(status(&server.ask("GET", &path, &bearer(&world), "").await.0), "303", "no program reads it");
    for (path, expected) in [("/sessions/none", "404"), ("/sessions/7f1f6a0e-9a60-4b0e-8f3c-1d7a2f1f0a99", "404")] {
        assert_eq!(status(&server.ask("GET", path, &anna, "").await.0), expected);
    }
    let rows = world.clinic.store.access_log(2).unwrap();
    let rows: Vec<_> =
        rows.iter().map(|row| (row.who.as_str(), row.what.as_str(), row.session_id.as_deref())).collect();
    assert_eq!(rows, [("otto", "read_refused", Some(SESSION)), ("anna", "read", Some(SESSION))]);
    assert_eq!(world.clinic.store.access_log(9).unwrap()[0].address.as_deref(), Some("127.0.0.1"));

    let other = rusqlite::Connection::open(world.folder().join("clinic.db")).unwrap();
    other.execute("alter table access_log rename to gone", []).unwrap();
    let (head, page) = server.ask("GET", &path, &anna, "").await;
    assert_eq!(status(&head), "503", "what cannot be written down is not shown");
    assert!(!page.contains("xylophone"));
    server.stop().await;
}

#[tokio::test]
async fn who_looks_on_is_told_what_is_new_until_they_are_logged_in_no_more() {
    let world = with_accounts();
    let server = Server::start(&world).await;
    let cookie = log_in(&server, "otto").await;
    let mut stream = TcpStream::connect(server.address).await.unwrap();
    stream.write_all(format!("GET /events HTTP/1.1\r\nHost: localhost\r\n{cookie}\r\n").as_bytes()).await.unwrap();
    let mut heard = String::new();
    let mut hear_until = async |text: &str| {
        let all = async {
            while !heard.contains(text) {
                let mut bytes = [0; 4096];
                let n = stream.read(&mut bytes).await.unwrap();
                assert_ne!(n, 0, "the stream ended");
                heard.push_str(&String::from_utf8_lossy(&bytes[..n]));
            }
        };
        tokio::time::timeout(Duration::from_secs(10), all).await.expect(text);
    };
    hear_until("event: page").await;
    hear_until("room-2").await;
    world.clock.pass(Duration::from_secs(2));
    let now = world.clock.now().wall;
    let health = fixture::health("room-3\r\nevent: x", (Open, 7), (Closed, 0));
    world.clinic.store.keep_box_health(&health, Some(now)).unwrap();
    hear_until("room-3").await;
    hear_until("OPEN, 7 failed").await;
    world.clinic.store.remove_account("otto").unwrap();
    hear_until("event: ended").await;
    server.stop().await;
}

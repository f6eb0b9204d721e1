use std::path::Path;

use shared::ailment::Ailment;
use shared::alert::{Alert, AlertName, AlertState};
use shared::breaker::StateName;
use shared::error::EngineFault;
use shared::paths::Root;
use shared::settings::{Capture, Link};
use shared::store::Place;
use shared::task::Task;

use super::cause::{Cause, OwnCause, Shell};
use super::finding::{OpenBreaker, Owed, Waiting};
use super::*;
use crate::capture::level::Flaw;

/// A box on which nothing is wrong, enrolled, with a daemon that is not recording.
fn sound() -> Evidence {
    let closed = View {
        state: StateName::Closed,
        failure_count: 0,
        retry_after: Some(Duration::ZERO),
        open_for: None,
        ailment: None,
    };
    Evidence {
        at: WallTime(1_800_000_000_000),
        daemon: Daemon::Answers { session: None, is_failing: false },
        settings: Settings { link: Some(link()), capture: card(), ..Settings::default() },
        settings_problem: None,
        unusable_models: Vec::new(),
        has_onnx_runtime: true,
        board: BoardHealth {
            celsius: Some(50.0),
            under_voltage: Some(false),
            free_memory_mib: Some(2000),
            free_disk_mib: Some(9000),
        },
        microphone: Microphone::Heard(Meter::of(&heard(0.1))),
        panel_problem: None,
        cards: vec!["Table".into()],
        stored: Stored {
            breakers: Service::ALL.into_iter().map(|service| (service, closed.clone())).collect(),
            ..Stored::default()
        },
        database_problem: None,
    }
}

fn card() -> Capture {
    Capture { device: "plughw:CARD=Table".into(), ..Capture::default() }
}

/// Two seconds of a tone.
fn heard(amplitude: f64) -> Vec<i16> {
    (0..32_000).map(|n| (amplitude * 32_767.0 * f64::from(n).sin()) as i16).collect()
}

fn link() -> Link {
    Link {
        clinic: "north".into(),
        box_id: "room-1".into(),
        broker_host: "broker.example".into(),
        broker_port: 1883,
        sealing_key: String::new(),
        signing_key: String::new(),
        ack_timeout: 30.0,
    }
}

#[test]
fn what_is_left_of_a_withdrawn_session_here_or_at_the_clinic_is_told_once_it_should_be_gone() {
    let withdrawn =
        |hours: u64, is_refused| Withdrawal { session: "s".into(), is_refused, age: Duration::from_secs(hours * 3600) };
    let mut evidence = sound();
    evidence.stored.withdrawals = vec![withdrawn(23, false)];
    assert_eq!(ids(&evidence), [""; 0], "a server may be down for a day");
    evidence.stored.withdrawals.insert(0, withdrawn(24, false));
    assert_eq!(ids(&evidence), ["withdrawal_not_confirmed"]);
    assert_eq!(diagnose(&evidence)[0].severity(), Severity::Warning);
    evidence.stored.withdrawals.push(withdrawn(0, true));
    assert_eq!(diagnose(&evidence)[0].severity(), Severity::Error);
    evidence.stored.not_erased = 2;
    assert_eq!(ids(&evidence), ["withdrawn_and_not_destroyed", "withdrawal_not_confirmed"]);
}

#[test]
fn that_another_session_would_be_refused_is_told_where_no_sensor_says_it() {
    let mut evidence = sound();
    evidence.stored.no_room = Some(NoRoom::Disk { free_mib: 300, limit_mib: 512 });
    evidence.panel_problem = Some("/dev/gpiochip9: No such file or directory".into());
    assert_eq!(ids(&evidence), ["no_room_for_a_session", "panel_unusable"]);
    evidence.board.free_disk_mib = Some(100);
    assert_eq!(ids(&evidence), ["low_disk", "panel_unusable"]);
}

fn ids(evidence: &Evidence) -> Vec<&'static str> {
    diagnose(evidence).iter().map(Finding::id).collect()
}

fn with_breaker(service: Service, state: StateName, open_s: u64) -> Evidence {
    let mut evidence = sound();
    let view =
        View { state, failure_count: 5, retry_after: None, open_for: Some(Duration::from_secs(open_s)), ailment: None };
    evidence.stored.breakers.insert(service, view);
    evidence
}

fn crash() -> Fall {
    Fall { cause: Cause::Engine(EngineFault::ChildCrashed { signal: 9 }), is_retryable: true }
}

fn no_voice_model() -> Fall {
    let (model, problem, remedy) = ("demo-voice.onnx".into(), "is missing".into(), "fetch".into());
    Fall { cause: Cause::Engine(EngineFault::ModelUnusable { model, problem, remedy }), is_retryable: false }
}

fn undiarized(no_speakers: Fall) -> Concluded {
    Concluded {
        session: "s".into(),
        is_done: true,
        diarization: Some(DiarizationStatus::Failed),
        samples: 480_000,
        audio_kept: true,
        is_exhausted: false,
        no_words: None,
        no_speakers: Some(no_speakers),
    }
}

fn diarized() -> Concluded {
    Concluded { diarization: Some(DiarizationStatus::Ok), no_speakers: None, ..undiarized(crash()) }
}

fn short() -> Concluded {
    Concluded {
        diarization: Some(DiarizationStatus::Skipped),
        samples: 15_000,
        no_speakers: None,
        ..undiarized(crash())
    }
}

fn with_sessions(concluded: Vec<Concluded>) -> Evidence {
    let mut evidence = sound();
    evidence.stored.concluded = concluded;
    evidence
}

fn queued(place: Place, delivery: Option<&str>, age_s: u64) -> Queued {
    let item = QueueItem {
        session_id: "s".into(),
        place,
        status: "done".into(),
        revision: 1,
        started_at: String::new(),
        since: String::new(),
        error_message: Some("Transcription failed: The disk is full".into()),
        replays: 0,
        audio_kept: true,
        delivery: delivery.map(str::to_owned),
        reason: None,
    };
    Queued { item, age: Duration::from_secs(age_s) }
}

#[test]
fn on_a_sound_box_nothing_is_wrong() {
    assert_eq!(diagnose(&sound()), []);
}

#[test]
fn a_breaker_is_stuck_after_five_minutes_or_at_once_if_a_person_holds_it() {
    let found = |state, open_s| ids(&with_breaker(Service::Transcription, state, open_s));
    assert_eq!(found(StateName::Open, 300), ["circuit_breaker_open"]);
    assert_eq!(found(StateName::Open, 301), ["circuit_breaker_stuck_open"]);
    assert_eq!(found(StateName::HalfOpen, 301), ["circuit_breaker_stuck_open"]);
    let mut cooled = with_breaker(Service::Transcription, StateName::HalfOpen, 301);
    cooled.stored.breakers.entry(Service::Transcription).and_modify(|view| view.failure_count = 0);
    assert_eq!(ids(&cooled), ["circuit_breaker_recovering"], "nothing has failed");
    assert_eq!(found(StateName::ForcedOpen, 1), ["circuit_breaker_stuck_open"]);
    assert_eq!(found(StateName::Disabled, 1), ["circuit_breaker_disabled"]);
    let since = diagnose(&with_breaker(Service::Transcription, StateName::Open, 600));
    assert!(
        matches!(&since[0], Finding::BreakerStuckOpen(open) if open.since == Some(WallTime(1_799_999_400_000).to_string()))
    );
}

#[test]
fn an_open_breaker_tells_what_its_last_calls_died_of_and_not_that_it_refused() {
    let mut evidence = with_breaker(Service::Diarization, StateName::Open, 400);
    let refused = Fall { cause: Cause::Refused, is_retryable: false };
    evidence.stored.concluded = vec![undiarized(refused), undiarized(no_voice_model()), diarized()];
    let found = diagnose(&evidence);
    assert!(matches!(&found[0], Finding::BreakerStuckOpen(open) if open.causes == [(no_voice_model().cause, 1)]));
}

#[test]
fn retries_run_out_too_often_above_two_percent_of_an_hour_or_of_a_days_ten_sessions() {
    let found = |hour: (u64, u64), day: (u64, u64), messages: usize| {
        let mut evidence = sound();
        let message = FailureCount { failed_count: 1, error_message: Some("Retry exhausted: x".into()) };
        evidence.stored.exhausted = vec![message; messages];
        evidence.stored.exhausted_in_hour = Rate { failed: hour.0, total: hour.1 };
        evidence.stored.exhausted_in_day = Rate { failed: day.0, total: day.1 };
        !diagnose(&evidence).is_empty()
    };
    assert!(found((1, 1), (1, 1), 1));
    assert!(!found((2, 100), (2, 100), 2), "two in a hundred are not more than 2 %");
    assert!(found((3, 100), (3, 100), 3));
    assert!(!found((0, 0), (9, 9), 0), "nine sessions of a day are too few to tell");
    assert!(found((0, 0), (1, 10), 0));
}

#[test]
fn the_cause_that_used_up_most_retries_comes_first_and_makes_the_severity() {
    let exhausted = |no_words, no_speakers| Concluded { is_exhausted: true, no_words, no_speakers, ..diarized() };
    let late = Fall { cause: Cause::Engine(EngineFault::DeadlineExceeded { limit_ms: 1 }), is_retryable: true };
    let mut evidence = with_sessions(vec![
        exhausted(None, Some(late.clone())),
        exhausted(None, Some(crash())),
        exhausted(Some(no_voice_model()), Some(crash())),
    ]);
    evidence.stored.exhausted_in_day = Rate { failed: 3, total: 10 };
    let found = diagnose(&evidence);
    let Finding::RetryExhaustion { causes, .. } = &found[0] else { panic!("{found:?}") };
    assert_eq!(causes[..], [(Task::Diarization, (crash().cause, 2)), (Task::Diarization, (late.cause, 1))]);
    assert_eq!(found[0].severity(), Severity::Warning);
    evidence.stored.concluded.push(exhausted(Some(crash()), None));
    assert_eq!(diagnose(&evidence)[0].severity(), Severity::Error);
}

#[test]
fn three_sessions_in_a_row_without_speakers_are_always_and_a_short_one_between_says_nothing() {
    let found = |sessions: &[Concluded]| ids(&with_sessions(sessions.to_vec()));
    let bad = || undiarized(no_voice_model());
    assert!(found(&[bad(), bad()]).is_empty());
    assert!(found(&[diarized(), bad(), bad(), bad()]).is_empty(), "the newest has speakers");
    assert_eq!(found(&[bad(), short(), bad(), bad(), diarized()]), ["diarization_always_failing"]);
    let mut switched_off = with_sessions(vec![bad(), bad(), bad()]);
    switched_off.settings.session.diarization = false;
    assert!(ids(&switched_off).is_empty());
}

#[test]
fn if_every_recording_is_too_short_that_is_the_cause() {
    let found = diagnose(&with_sessions(vec![short(), short(), short(), undiarized(crash())]));
    let Finding::DiarizationAlwaysFailing { causes, retry, .. } = &found[0] else { panic!("{found:?}") };
    assert_eq!((causes[..].to_vec(), retry), (vec![(Cause::Own(OwnCause::AudioTooShort), 3)], &None));
}

#[test]
fn what_opened_the_breaker_tells_more_than_that_it_refused() {
    let refused = || undiarized(Fall { cause: Cause::Refused, is_retryable: false });
    let found = diagnose(&with_sessions(vec![refused(), refused(), undiarized(no_voice_model())]));
    let Finding::DiarizationAlwaysFailing { causes, .. } = &found[0] else { panic!("{found:?}") };
    assert_eq!(causes[..], [(no_voice_model().cause, 1), (Cause::Refused, 2)]);
}

#[test]
fn a_cause_that_is_there_no_more_is_told_as_mended() {
    let is_mended = |fall: Fall, change: fn(&mut Evidence)| {
        let mut evidence = with_sessions(vec![undiarized(fall); 3]);
        change(&mut evidence);
        diagnose(&evidence).iter().any(|f| matches!(f, Finding::DiarizationAlwaysFailing { is_mended: true, .. }))
    };
    let hungry =
        || Fall { cause: Cause::Engine(EngineFault::OutOfMemory { limit_bytes: 768 << 20 }), is_retryable: true };
    assert!(is_mended(no_voice_model(), |_| ()));
    assert!(!is_mended(no_voice_model(), |evidence| evidence.unusable_models = vec![model(Role::Voice)]));
    assert!(!is_mended(hungry(), |_| ()));
    assert!(is_mended(hungry(), |evidence| evidence.settings.engine.voice_memory_mib = 1024));
    assert!(!is_mended(crash(), |_| ()), "who knows");
}

fn model(role: Role) -> UnusableModel {
    UnusableModel { role, model: "m".into(), problem: "is missing".into(), remedy: "fetch it".into() }
}

#[test]
fn without_words_is_worse_than_without_speakers_and_the_worst_comes_first() {
    let mut evidence = sound();
    evidence.settings.link = None;
    evidence.unusable_models = vec![model(Role::Vad), model(Role::Voice), model(Role::Transcriber)];
    let severities: Vec<_> = diagnose(&evidence).iter().map(Finding::severity).collect();
    assert_eq!(severities, [Severity::Error, Severity::Warning, Severity::Warning, Severity::Info]);
}

#[test]
fn each_sensor_has_its_own_finding() {
    let mut evidence = sound();
    evidence.board = BoardHealth {
        celsius: Some(80.0),
        under_voltage: Some(true),
        free_memory_mib: Some(10),
        free_disk_mib: Some(10),
    };
    assert_eq!(ids(&evidence), ["low_disk", "low_memory", "board_too_hot", "power_supply_too_weak"]);
}

#[test]
fn what_waits_for_the_clinic_is_the_brokers_fault_if_it_is_away_and_after_five_minutes_somebodys() {
    let found = |state, age_s| {
        let mut evidence = with_breaker(Service::Sync, state, 10);
        evidence.stored.queue = vec![queued(Place::Undelivered, Some("pending"), age_s)];
        ids(&evidence)
    };
    assert_eq!(found(StateName::Open, 1), ["clinic_unreachable"]);
    assert!(found(StateName::Closed, 300).is_empty());
    assert_eq!(found(StateName::Closed, 301), ["clinic_silent"]);
    let mut alone = sound();
    alone.settings.link = None;
    assert_eq!(ids(&alone), ["not_enrolled"]);
    alone.settings_problem = Some(SettingsProblem { file: None, problem: String::new() });
    assert_eq!(ids(&alone), ["settings_invalid"], "whether it is enrolled is not known");
}

#[test]
fn the_queue_the_database_and_the_microphone_each_have_their_findings() {
    let mut evidence = sound();
    evidence.stored.queue = vec![
        queued(Place::DeadLetter, None, 1),
        queued(Place::Refused, None, 1),
        queued(Place::Undiarized, None, 1),
        queued(Place::Recording, None, 1),
    ];
    let damage = |source| Damage { source, key: "s".into(), field: "f", why: "w", remedy: "r" };
    evidence.stored.damage = vec![damage("sessions"), damage("database")];
    evidence.daemon = Daemon::Answers { session: Some("s".into()), is_failing: true };
    assert_eq!(
        ids(&evidence),
        [
            "database_damaged",
            "damaged_rows",
            "microphone_failing",
            "refused_by_clinic",
            "dead_letters",
            "undiarized_sessions"
        ]
    );
    evidence = sound();
    evidence.microphone = Microphone::Unusable { problem: "p".into() };
    evidence.database_problem = Some("locked".into());
    assert_eq!(ids(&evidence), ["database_unusable", "microphone_unusable"]);
}

#[test]
fn each_flaw_of_the_microphone_has_its_finding_and_only_silence_may_be_the_rooms() {
    let found = |microphone: Microphone| {
        let found = diagnose(&Evidence { microphone, ..sound() });
        found.iter().map(|f| (f.id(), f.severity())).collect::<Vec<_>>()
    };
    let heard_of = |pcm: &[i16]| found(Microphone::Heard(Meter::of(pcm)));
    assert_eq!(heard_of(&[0; 32_000]), [("microphone_flat_line", Severity::Error)]);
    assert_eq!(heard_of(&heard(0.0005)), [("microphone_too_quiet", Severity::Info)]);
    let square: Vec<i16> = (0..32_000).map(|n| if n % 200 < 100 { 32_767 } else { -32_768 }).collect();
    assert_eq!(heard_of(&square), [("microphone_clipping", Severity::Warning)]);
    let offset: Vec<i16> = heard(0.1).iter().map(|s| s + 3_000).collect();
    assert_eq!(heard_of(&offset), [("microphone_offset", Severity::Warning)]);
    assert_eq!(found(Microphone::Busy), [("microphone_busy", Severity::Error)]);
    let no_card = Microphone::NoCard { card: "Wall".into(), present: vec!["Table".into()] };
    assert_eq!(found(no_card), [("microphone_card_missing", Severity::Error)]);
    let mut unnamed = sound();
    unnamed.settings.capture = Capture::default();
    assert_eq!(ids(&unnamed), ["microphone_unnamed"]);
}

#[test]
fn another_card_is_chosen_by_what_is_typed() {
    let finding = Finding::NoCard { device: "d".into(), card: "Wall".into(), present: vec!["Table".into()] };
    let said = finding.advice(Shell(&Root::new("/")));
    assert!(said.symptom.contains("Wall") && said.evidence[1].1 == serde_json::json!(["Table"]));
    assert!(said.next_steps[2].contains("[capture]\\ndevice = \"plughw:CARD=Table\""), "{:?}", said.next_steps);
}

#[test]
fn no_daemon_is_worth_knowing_and_one_that_does_not_answer_is_wrong() {
    let found = |daemon| ids(&Evidence { daemon, ..sound() });
    assert_eq!(found(Daemon::Absent), ["no_daemon"]);
    assert_eq!(found(Daemon::Busy), ["no_daemon"]);
    assert_eq!(found(Daemon::Deaf), ["daemon_not_answering"]);
    let mut silent = sound();
    silent.stored.health_age = Some(Duration::from_secs(31));
    assert_eq!(ids(&silent), ["recorder_silent"]);
}

fn alert(alert: AlertName) -> Alert {
    Alert { alert, state: AlertState::Firing, value: Some(1.0), threshold: 0.1, samples: 20, services: Vec::new() }
}

#[test]
fn an_alert_is_told_only_where_no_other_finding_is_about_it() {
    let mut evidence = sound();
    evidence.stored.alerts = AlertName::ALL.map(alert).to_vec();
    assert_eq!(ids(&evidence), ["alert_firing"; 3]);
}

/// One of each, of those with several wordings all.
fn every_finding() -> Vec<Finding> {
    let broken = |service, state, ailment, causes| {
        let view =
            View { state, failure_count: 5, retry_after: None, open_for: Some(Duration::from_secs(600)), ailment };
        let broker = Some("broker.example:1883".into());
        OpenBreaker { service, view, since: None, causes, broker, needs_daemon: true }
    };
    let open = |service| broken(service, StateName::Open, None, vec![(crash().cause, 2)]);
    let waiting = |audio_kept| Waiting { sessions: 2, oldest: "s".into(), reasons: vec![("x".into(), 2)], audio_kept };
    let owed = || Owed { broker: "broker.example:1883".into(), parcels: 1, oldest_s: 4000 };
    let damage =
        Damage { source: "work", key: "s".into(), field: "result", why: "is no JSON", remedy: "it is done again" };
    let ailments = [
        Ailment::TooHot { milli_celsius: 85_000, limit_milli_celsius: 80_000 },
        Ailment::UnderVoltage,
        Ailment::LowMemory { free_mib: 1, limit_mib: 2 },
        Ailment::LowDisk { free_mib: 1, limit_mib: 2 },
    ];
    let mut all = vec![
        Finding::SettingsInvalid(SettingsProblem { file: Some("/x.toml".into()), problem: "p".into() }),
        Finding::SettingsInvalid(SettingsProblem { file: None, problem: "p".into() }),
        Finding::DatabaseUnusable { problem: "p".into() },
        Finding::DatabaseDamaged(damage.clone()),
        Finding::DamagedRows(vec![damage]),
        Finding::OnnxRuntimeMissing,
        Finding::MicrophoneUnusable { device: "d".into(), problem: "p".into() },
        Finding::MicrophoneFailing { session: "s".into(), device: "d".into() },
        Finding::MicrophoneBusy { device: "d".into() },
        Finding::NoCard { device: "d".into(), card: "c".into(), present: Vec::new() },
        Finding::MicrophoneUnnamed { present: Vec::new() },
        Finding::BreakerOpen(open(Service::Transcription)),
        Finding::BreakerOpen(broken(Service::Diarization, StateName::HalfOpen, None, Vec::new())),
        Finding::BreakerStuckOpen(broken(Service::Transcription, StateName::ForcedOpen, None, Vec::new())),
        Finding::BreakerStuckOpen(open(Service::Sync)),
        Finding::BreakerRecovering(broken(Service::Transcription, StateName::HalfOpen, None, Vec::new())),
        Finding::BreakerDisabled(Service::Sync),
        Finding::RetryExhaustion {
            messages: vec![FailureCount { failed_count: 1, error_message: Some("Retry exhausted: x".into()) }],
            in_hour: Rate { failed: 1, total: 1 },
            in_day: Rate { failed: 1, total: 1 },
            causes: vec![(Task::Transcription, (crash().cause, 1))],
        },
        Finding::DeadLetters(waiting(true)),
        Finding::DeadLetters(waiting(false)),
        Finding::Refused(waiting(true)),
        Finding::Undiarized(waiting(true)),
        Finding::ClinicUnreachable(owed(), open(Service::Sync)),
        Finding::ClinicSilent(owed()),
        Finding::RecorderSilent { silent_s: 40 },
        Finding::DaemonDeaf,
        Finding::NoDaemon { is_busy: true, waiting: 1 },
        Finding::NoDaemon { is_busy: false, waiting: 1 },
        Finding::NotEnrolled,
    ];
    let flaws = [Flaw::FlatLine, Flaw::Offset, Flaw::Clipping, Flaw::TooQuiet];
    all.extend(flaws.map(|flaw| Finding::MicrophoneFlawed { flaw, device: "d".into(), meter: Meter::default() }));
    all.extend(Role::ALL.map(|role| Finding::ModelUnusable(model(role))));
    all.extend(AlertName::ALL.map(|name| Finding::AlertFiring(alert(name))));
    all.extend(ailments.clone().map(Finding::Board));
    all.extend(ailments.map(|ailment| {
        Finding::BreakerStuckOpen(broken(Service::Transcription, StateName::Open, Some(ailment), Vec::new()))
    }));
    all.extend(causes().into_iter().map(|cause| Finding::DiarizationAlwaysFailing {
        sessions: 3,
        retry: Some("s".into()),
        causes: vec![(cause, 3)],
        is_mended: false,
    }));
    all
}

fn causes() -> Vec<Cause> {
    use EngineFault::*;
    let own = [
        OwnCause::AudioInvalid,
        OwnCause::AudioTooShort,
        OwnCause::ClaimsExhausted,
        OwnCause::Dropped,
        OwnCause::Damaged,
    ];
    let engine = [
        OutOfMemory { limit_bytes: 1 << 20 },
        DeadlineExceeded { limit_ms: 2000 },
        ChildCrashed { signal: 11 },
        ChildExited { code: 3 },
        Reported { code: "x".into() },
        Unavailable { problem: "x".into() },
        ThermalStop { milli_celsius: 90_000, limit_milli_celsius: 80_000 },
        DiskFull { limit_mib: 128 },
    ];
    let mut all = vec![no_voice_model().cause, Cause::Refused, Cause::Unknown];
    all.extend(own.map(Cause::Own));
    all.extend(engine.map(Cause::Engine));
    all
}

#[test]
fn every_finding_says_what_is_wrong_and_what_to_type_on_any_root() {
    for root in [Root::new("/"), Root::new(Path::new("/tmp/box"))] {
        for finding in every_finding() {
            let said = finding.advice(Shell(&root));
            let id = finding.id();
            assert!(id.bytes().all(|b| b.is_ascii_lowercase() || b == b'_'), "{id}");
            assert!(said.symptom.ends_with('.') && !said.symptom.contains('\n'), "{id}: {}", said.symptom);
            assert!(!said.next_steps.is_empty() && !said.causes.is_empty(), "{id}");
            assert!(said.causes.iter().all(|cause| cause.ends_with('.') && !cause.ends_with("..")), "{id}: {said:?}");
            let own = said.next_steps.iter().filter(|step| step.starts_with("roomscribe "));
            assert!(own.clone().all(|step| step.contains("--root /tmp/box") != root.is_system()), "{id}");
        }
    }
}

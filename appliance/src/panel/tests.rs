use super::*;
use crate::capture::{Microphone, MicrophoneDoor, MicrophoneError};
use shared::clock::SystemClock;
use shared::paths::Root;
use shared::record::Status;
use shared::settings::Settings;
use std::collections::VecDeque;
use std::sync::Mutex;

fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

#[test]
fn a_short_press_counts_when_it_is_released_and_a_hold_while_it_is_held() {
    let mut button = Button::default();
    assert_eq!(button.gesture(Some(true), ms(1_000)), None);
    assert_eq!(button.gesture(None, ms(1_100)), None);
    assert_eq!(button.gesture(Some(false), ms(1_200)), Some(Gesture::Press));
    assert_eq!(button.gesture(None, ms(9_000)), None);
    assert_eq!(button.gesture(Some(true), ms(10_000)), None);
    assert_eq!(button.gesture(None, ms(11_999)), None);
    assert_eq!(button.gesture(None, ms(12_000)), Some(Gesture::Hold));
    assert_eq!(button.gesture(None, ms(15_000)), None, "it is one hold, however long");
    assert_eq!(button.gesture(Some(false), ms(15_100)), None, "and its end is no press");
    assert_eq!(button.gesture(Some(false), ms(15_200)), None);
}

/// A panel without a board: what the button does is scripted, what is lit can be read.
#[derive(Clone, Default)]
struct Scripted(Arc<Mutex<Script>>);

#[derive(Default)]
struct Script {
    moves: VecDeque<bool>,
    lit: Vec<Lights>,
    opened: usize,
    is_lost: bool,
}

impl PanelDoor for Scripted {
    fn open(&self) -> Result<Box<dyn Panel>, PanelError> {
        let mut script = self.0.lock().unwrap();
        script.opened += 1;
        match script.is_lost {
            true => Err(PanelError { chip: "x".into(), problem: "gone".into() }),
            false => Ok(Box::new(self.clone())),
        }
    }
}

impl Panel for Scripted {
    fn wait(&mut self, patience: Duration) -> Result<Option<Move>, PanelError> {
        thread::sleep(patience / 10);
        let mut script = self.0.lock().unwrap();
        match script.is_lost {
            true => Err(PanelError { chip: "x".into(), problem: "gone".into() }),
            false => Ok(script.moves.pop_front().map(|is_down| Move { is_down, ago: Duration::ZERO })),
        }
    }

    fn show(&mut self, lights: Lights) -> Result<(), PanelError> {
        self.0.lock().unwrap().lit.push(lights);
        Ok(())
    }
}

struct Quiet;

impl MicrophoneDoor for Quiet {
    fn open(&self) -> Result<Box<dyn Microphone>, MicrophoneError> {
        Ok(Box::new(Quiet))
    }
}

impl Microphone for Quiet {
    fn read(&mut self, into: &mut [i16]) -> Result<usize, MicrophoneError> {
        thread::sleep(ms(10));
        into.fill(0);
        Ok(into.len())
    }
}

struct Room {
    _folder: tempfile::TempDir,
    context: Arc<Context>,
    sessions: Arc<Sessions>,
    panel: Scripted,
    running: Option<Running>,
}

impl Room {
    fn new(consent: Option<&str>) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let mut settings = Settings::default();
        settings.panel.consent = consent.map(str::to_owned);
        settings.admission.min_disk_mib = 0;
        let opened = Context::open(Root::new(folder.path()), settings, Arc::new(SystemClock::new()), None);
        let context = Arc::new(opened.unwrap());
        let sessions = Arc::new(Sessions::new(context.clone(), Arc::new(Quiet)));
        let panel = Scripted::default();
        let running = Some(start_on(panel.clone(), context.clone(), sessions.clone()));
        Self { _folder: folder, context, sessions, panel, running }
    }

    fn press(&self) {
        self.panel.0.lock().unwrap().moves.extend([true, false]);
    }

    fn lit(&self) -> Lights {
        self.panel.0.lock().unwrap().lit.last().copied().unwrap_or_default()
    }

    fn wait_for_light(&self, what: &str, lights: impl Fn(Lights) -> bool) {
        let is_lit = (0..4_000).any(|_| {
            thread::sleep(ms(5));
            lights(self.lit())
        });
        assert!(is_lit, "{what}: {:?}", self.lit());
    }
}

#[test]
fn the_button_starts_pauses_resumes_and_ends_a_session_and_the_lights_say_which() {
    let mut room = Room::new(Some("verbal"));
    room.wait_for_light("nothing is lit", |lights| lights == Lights::default());
    room.press();
    room.wait_for_light("recording", |lights| lights.recording && !lights.paused);
    let id = room.sessions.recording().unwrap().0;
    assert_eq!(room.context.store.session(&id).unwrap().consent.basis, "verbal");
    room.press();
    room.wait_for_light("paused", |lights| lights.paused && !lights.recording);
    room.press();
    room.wait_for_light("recording again", |lights| lights.recording);
    room.panel.0.lock().unwrap().moves.push_back(true);
    room.wait_for_light("ended", |lights| !lights.recording && !lights.paused);
    assert_eq!(room.context.store.session(&id).unwrap().status, Status::Queued);
    room.panel.0.lock().unwrap().moves.push_back(false);
    drop(room.running.take());
    assert_eq!(room.lit(), Lights::default(), "it goes dark with the daemon");
}

#[test]
fn a_press_that_cannot_be_obeyed_makes_the_trouble_light_blink() {
    let room = Room::new(None);
    room.press();
    room.wait_for_light("trouble", |lights| lights.trouble);
    room.wait_for_light("it blinks", |lights| !lights.trouble);
    assert!(room.sessions.recording().is_none(), "nobody is recorded without consent");
}

#[test]
fn a_chip_that_goes_away_is_opened_again() {
    let room = Room::new(Some("verbal"));
    room.wait_for_light("it is open", |_| room.panel.0.lock().unwrap().opened == 1);
    room.panel.0.lock().unwrap().is_lost = true;
    thread::sleep(ms(300));
    room.panel.0.lock().unwrap().is_lost = false;
    room.press();
    room.wait_for_light("recording", |lights| lights.recording);
    assert!(room.panel.0.lock().unwrap().opened >= 2);
}

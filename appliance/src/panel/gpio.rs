//! The panel on a GPIO character device. The only file that names the crate `gpiocdev`.

use std::path::PathBuf;
use std::time::Duration;

use gpiocdev::Request;
use gpiocdev::line::{Bias, EdgeDetection, EdgeKind, EventClock, Offset, Value};
use shared::settings::{self, Pressed};

use super::{Lights, Move, Panel, PanelDoor, PanelError};

/// A switch chatters for some milliseconds; a person holds it for a hundred at least.
const DEBOUNCE: Duration = Duration::from_millis(20);
/// What others see who ask whose lines these are.
const CONSUMER: &str = "roomscribe";

/// The board's own panel.
pub struct Board {
    /// The chip's file.
    pub chip: PathBuf,
    /// Which lines.
    pub lines: settings::Panel,
}

struct Gpio {
    button: Option<Request>,
    lights: Option<Request>,
    lines: settings::Panel,
}

impl Board {
    fn failed(&self, why: gpiocdev::Error) -> PanelError {
        PanelError { chip: self.chip.display().to_string(), problem: why.to_string() }
    }
}

impl PanelDoor for Board {
    fn open(&self) -> Result<Box<dyn Panel>, PanelError> {
        let button = |line: Offset| {
            let mut request = Request::builder();
            request.on_chip(&self.chip).with_consumer(CONSUMER).with_line(line).as_input();
            match self.lines.button_pressed {
                Pressed::Low => request.as_active_low().with_bias(Bias::PullUp),
                Pressed::High => request.as_active_high().with_bias(Bias::PullDown),
            };
            request.with_debounce_period(DEBOUNCE).with_edge_detection(EdgeDetection::BothEdges);
            request.with_event_clock(EventClock::Monotonic);
            request.request()
        };
        let button = self.lines.button.map(button).transpose().map_err(|why| self.failed(why))?;
        let lit = [self.lines.recording_light, self.lines.paused_light, self.lines.trouble_light];
        let lit: Vec<Offset> = lit.into_iter().flatten().collect();
        let lights = if lit.is_empty() {
            None
        } else {
            let mut request = Request::builder();
            request.on_chip(&self.chip).with_consumer(CONSUMER).with_lines(&lit).as_output(Value::Inactive);
            Some(request.request().map_err(|why| self.failed(why))?)
        };
        Ok(Box::new(Gpio { button, lights, lines: self.lines.clone() }))
    }
}

impl Gpio {
    fn lost(&self, why: gpiocdev::Error) -> PanelError {
        PanelError { chip: self.lines.chip.clone(), problem: why.to_string() }
    }
}

impl Panel for Gpio {
    fn wait(&mut self, patience: Duration) -> Result<Option<Move>, PanelError> {
        let Some(button) = &self.button else {
            std::thread::sleep(patience);
            return Ok(None);
        };
        if !button.wait_edge_event(patience).map_err(|why| self.lost(why))? {
            return Ok(None);
        }
        let event = button.read_edge_event().map_err(|why| self.lost(why))?;
        let now = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
        let now = Duration::new(now.tv_sec.unsigned_abs(), u32::try_from(now.tv_nsec).unwrap_or(0));
        // Edges are of the logical level, which is active while it is pressed.
        let is_down = event.kind == EdgeKind::Rising;
        Ok(Some(Move { is_down, ago: now.saturating_sub(Duration::from_nanos(event.timestamp_ns)) }))
    }

    fn show(&mut self, lights: Lights) -> Result<(), PanelError> {
        let Some(request) = &self.lights else { return Ok(()) };
        let shown = [
            (self.lines.recording_light, lights.recording),
            (self.lines.paused_light, lights.paused),
            (self.lines.trouble_light, lights.trouble),
        ];
        for (line, is_lit) in shown {
            if let Some(line) = line {
                request.set_value(line, Value::from(is_lit)).map_err(|why| self.lost(why))?;
            }
        }
        Ok(())
    }
}

//! The line that moves while something is awaited, and the lines that are printed meanwhile.

use std::fmt;
use std::io::Write;
use std::sync::mpsc::{self, RecvTimeoutError};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use indicatif::HumanDuration;

const TICK: Duration = Duration::from_millis(120);
const FRAMES: [char; 8] = ['⠁', '⠉', '⠙', '⠸', '⠴', '⠤', '⠦', '⠇'];
/// The terminal echoes Ctrl-C as `^C` behind the row. A row that filled the line would push the echo to the next one,
/// where erasing the line no longer erases the row; indicatif's own bars do that.
const ROOM_FOR_ECHO: usize = 5;
/// Moves to the first column. What is written there next replaces the row.
const HOME: &str = "\r";
/// Erases from the cursor to the end of the line.
const ERASE: &str = "\u{1b}[K";

/// A terminal with at most one spinner row, always its last one.
pub struct Screen {
    width: fn() -> usize,
    state: Mutex<State>,
}

struct State {
    out: Box<dyn Write + Send>,
    waits: Vec<Wait>,
    next: u64,
    shown: bool,
}

struct Wait {
    id: u64,
    message: String,
    since: Instant,
}

impl fmt::Debug for Screen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Screen")
    }
}

impl Screen {
    /// The terminal that stderr is.
    pub fn stderr() -> Self {
        Self::new(Box::new(std::io::stderr()), || usize::from(console::Term::stderr().size().1))
    }

    fn new(out: Box<dyn Write + Send>, width: fn() -> usize) -> Self {
        Self { width, state: Mutex::new(State { out, waits: Vec::new(), next: 0, shown: false }) }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Prints a line above the spinner.
    pub fn line(&self, text: &str) {
        let mut state = self.lock();
        state.erase();
        state.write(&format!("{text}\n"));
        state.draw((self.width)());
    }

    /// Shows a spinner until the value is dropped. The newest is shown where there are several.
    pub fn wait(&'static self, message: String) -> Waiting {
        let mut state = self.lock();
        let id = state.next;
        state.next += 1;
        state.waits.push(Wait { id, message, since: Instant::now() });
        state.draw((self.width)());
        drop(state);
        let (stop, stopped) = mpsc::channel::<()>();
        let tick = move || {
            while stopped.recv_timeout(TICK) == Err(RecvTimeoutError::Timeout) {
                self.lock().draw((self.width)());
            }
        };
        Waiting(Some(Shown { screen: self, id, stop: Some(stop), ticker: Some(std::thread::spawn(tick)) }))
    }
}

impl State {
    fn write(&mut self, text: &str) {
        // Nobody is left to read it when the terminal is gone; the work goes on.
        let _ = self.out.write_all(text.as_bytes()).and_then(|()| self.out.flush());
    }

    fn erase(&mut self) {
        if self.shown {
            self.write(&format!("{HOME}{ERASE}"));
            self.shown = false;
        }
    }

    fn draw(&mut self, width: usize) {
        let Some(wait) = self.waits.last() else { return };
        let row = row(&wait.message, wait.since.elapsed(), width);
        self.write(&format!("{HOME}{row}{ERASE}"));
        self.shown = true;
    }
}

/// One row of a terminal, cut where the message is longer.
fn row(message: &str, elapsed: Duration, width: usize) -> String {
    let frames = elapsed.as_millis() / TICK.as_millis();
    let frame = FRAMES[usize::try_from(frames).unwrap_or_default() % FRAMES.len()];
    let since = format!("({:#})", HumanDuration(Duration::from_secs(elapsed.as_secs())));
    let room = width.saturating_sub(ROOM_FOR_ECHO + since.chars().count() + 3);
    let message = if message.chars().count() <= room {
        message.to_owned()
    } else {
        message.chars().take(room.saturating_sub(1)).chain(['…']).collect()
    };
    format!("{frame} {message} {since}")
}

/// A spinner that is shown until this is dropped.
pub struct Waiting(Option<Shown>);

struct Shown {
    screen: &'static Screen,
    id: u64,
    stop: Option<mpsc::Sender<()>>,
    ticker: Option<JoinHandle<()>>,
}

impl Waiting {
    /// A spinner that is not shown, since stderr is no terminal or nothing is to be said.
    pub fn hidden() -> Self {
        Self(None)
    }

    /// Whether nobody sees it.
    pub fn is_hidden(&self) -> bool {
        self.0.is_none()
    }

    /// What it says from its next movement on.
    pub fn set_message(&self, message: impl Into<String>) {
        let Some(shown) = &self.0 else { return };
        let mut state = shown.screen.lock();
        if let Some(wait) = state.waits.iter_mut().find(|wait| wait.id == shown.id) {
            wait.message = message.into();
        }
    }
}

impl Drop for Shown {
    fn drop(&mut self) {
        drop(self.stop.take());
        let _ = self.ticker.take().map(JoinHandle::join);
        let mut state = self.screen.lock();
        state.waits.retain(|wait| wait.id != self.id);
        state.erase();
        state.draw((self.screen.width)());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;

    #[derive(Clone, Default)]
    struct Written(Arc<Mutex<Vec<u8>>>);

    impl Write for Written {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0.lock().unwrap().write(bytes)
        }

        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    impl Written {
        fn take(&self) -> String {
            String::from_utf8(std::mem::take(&mut *self.0.lock().unwrap())).unwrap()
        }
    }

    #[test]
    fn a_row_leaves_room_for_the_echo_of_ctrl_c() {
        assert!(row("pulling registry:2", Duration::from_secs(5), 80).ends_with(" pulling registry:2 (5s)"));
        for width in [20, 40, 80] {
            let row = row(&"a".repeat(100), Duration::from_secs(61), width);
            assert_eq!(row.chars().count(), width - ROOM_FOR_ECHO, "{row}");
            assert!(row.ends_with("… (61s)"), "{row}");
        }
        // A terminal that does not know its width.
        assert!(row("message", Duration::ZERO, 0).ends_with("(0s)"));
    }

    #[test]
    fn a_line_takes_the_place_of_the_row_and_the_row_follows_it() {
        let written = Written::default();
        let screen: &'static Screen = Box::leak(Box::new(Screen::new(Box::new(written.clone()), || 80)));
        screen.line("before");
        assert_eq!(written.take(), "before\n");
        let waiting = screen.wait("one".to_owned());
        written.take();
        screen.line("during");
        let during = written.take();
        // The spinner may have moved in between.
        assert!(during.contains(&format!("{HOME}{ERASE}during\n{HOME}")), "{during:?}");
        assert!(during.ends_with(&format!(" one (0s){ERASE}")), "{during:?}");
        let other = screen.wait("two".to_owned());
        drop(waiting);
        assert!(written.take().ends_with(&format!(" two (0s){ERASE}")));
        drop(other);
        assert!(written.take().ends_with(&format!("{HOME}{ERASE}")));
        screen.line("after");
        assert_eq!(written.take(), "after\n");
    }
}

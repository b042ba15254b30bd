//! A real pseudo-terminal (`script` of util-linux makes it), and what a person sees on it.
#![allow(dead_code, missing_docs, clippy::unwrap_used)]

use std::io::{Read, Write};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

/// How wide it is.
const COLUMNS: usize = 80;

/// A command on a terminal of its own.
pub struct Terminal {
    child: Child,
    written: Arc<Mutex<Vec<u8>>>,
    reader: Option<std::thread::JoinHandle<()>>,
}

impl Terminal {
    /// Starts a shell command on a terminal of 80 columns.
    #[allow(clippy::disallowed_methods)]
    pub fn start(command: &str, env: &[(&str, &str)]) -> Self {
        let command = format!("stty cols {COLUMNS} rows 24; {command}");
        let mut child = Command::new("script")
            .args(["--quiet", "--return", "--flush", "--command", &command, "/dev/null"])
            .env("TERM", "xterm")
            .env("SHELL", "/bin/sh")
            .envs(env.iter().copied())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let written = Arc::new(Mutex::new(Vec::new()));
        let (mut output, all) = (child.stdout.take().unwrap(), Arc::clone(&written));
        let reader = std::thread::spawn(move || {
            let mut buffer = [0; 4096];
            while let Some(count) = output.read(&mut buffer).ok().filter(|count| *count > 0) {
                all.lock().unwrap().extend(&buffer[..count]);
            }
        });
        Self { child, written, reader: Some(reader) }
    }

    /// Types something.
    pub fn types(&mut self, text: &str) {
        self.child.stdin.as_mut().unwrap().write_all(text.as_bytes()).unwrap();
    }

    /// Waits until what was written to it is so.
    pub fn until_written(&self, so: impl Fn(&str) -> bool) {
        let until = Instant::now() + Duration::from_secs(30);
        let text = || String::from_utf8_lossy(&self.written.lock().unwrap()).into_owned();
        while !so(&text()) {
            assert!(Instant::now() < until, "{}", text());
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// What is on it now, a line a row.
    pub fn rows(&self) -> Vec<String> {
        shown(&String::from_utf8_lossy(&self.written.lock().unwrap()))
    }

    /// Waits until something is so.
    pub fn until(&self, so: impl Fn(&[String]) -> bool) {
        let until = Instant::now() + Duration::from_secs(30);
        while !so(&self.rows()) {
            assert!(Instant::now() < until, "{:#?}", self.rows());
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// Its exit code, and what is left on the terminal.
    pub fn end(mut self) -> (Option<i32>, Vec<String>) {
        // An end of its input would reach the command as Ctrl-D.
        let stdin = self.child.stdin.take();
        let code = self.child.wait().unwrap().code();
        drop(stdin);
        self.reader.take().unwrap().join().unwrap();
        (code, self.rows())
    }
}

impl Drop for Terminal {
    /// Ends what a test that failed has left.
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// What a terminal shows of what was written to it. It knows what the program uses, and fails at anything else.
fn shown(written: &str) -> Vec<String> {
    let mut rows: Vec<Vec<char>> = vec![Vec::new()];
    let (mut row, mut column) = (0_usize, 0_usize);
    let mut chars = written.chars();
    while let Some(char) = chars.next() {
        match char {
            '\r' => column = 0,
            '\n' => row += 1,
            '\u{8}' => column = column.saturating_sub(1),
            '\u{7}' => {}
            '\u{1b}' => {
                assert_eq!(chars.next().unwrap_or('['), '[', "{written:?}");
                let mut parameter = String::new();
                // A sequence that is not complete yet ends what is shown.
                let end = chars.find(|char| {
                    parameter.push(*char);
                    char.is_ascii_alphabetic()
                });
                match (end, parameter.as_str()) {
                    (Some('K'), "K") => rows[row].truncate(column),
                    (Some('K'), "2K") => rows[row].clear(),
                    (Some('m'), _) | (None, _) => {}
                    _ => panic!("the terminal does not know {parameter:?}"),
                }
            }
            char => {
                // The cursor stays behind the last column until something else is written.
                if column == COLUMNS {
                    (row, column) = (row + 1, 0);
                }
                rows.resize(rows.len().max(row + 1), Vec::new());
                let length = rows[row].len().max(column + 1);
                rows[row].resize(length, ' ');
                rows[row][column] = char;
                column += 1;
            }
        }
        rows.resize(rows.len().max(row + 1), Vec::new());
    }
    rows.into_iter().map(|row| row.into_iter().collect::<String>().trim_end().to_owned()).collect()
}

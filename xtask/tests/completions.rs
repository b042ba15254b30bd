//! The completion scripts in the shells that they are for: lines are typed on a terminal, with TAB, and a stand-in for
//! cargo writes down what it is given.
#![allow(missing_docs, clippy::unwrap_used)]

mod support;
#[path = "support/terminal.rs"]
mod terminal;

use std::path::Path;
use std::time::{Duration, Instant};

use support::{XTASK, write_program};
use terminal::Terminal;
use xshell::{Shell, TempDir, cmd};

const READY: &str = "READY>";

/// A shell whose start-up file a test writes.
struct Kind {
    name: &'static str,
    /// The command that starts it, and the name of the start-up file; `FOLDER` is the test's folder.
    start: &'static str,
    file: &'static str,
    /// Lines of the start-up file that set the prompt.
    prompt: &'static str,
    source: &'static str,
}

const BASH: Kind = Kind {
    name: "bash",
    start: "bash --noprofile --rcfile FOLDER/rc -i",
    file: "rc",
    prompt: "PS1='READY>'\nbind 'set enable-bracketed-paste off'\n",
    source: "source FOLDER/script\n",
};

const ZSH: Kind = Kind {
    name: "zsh",
    start: "ZDOTDIR=FOLDER zsh -d -i",
    file: ".zshrc",
    prompt: "PS1='READY>'\nautoload -Uz compinit\ncompinit -D\n",
    source: "source FOLDER/script\n",
};

const FISH: Kind = Kind {
    name: "fish",
    start: "HOME=FOLDER XDG_CONFIG_HOME=FOLDER fish --no-config --init-command 'source FOLDER/rc'",
    file: "rc",
    prompt: "function fish_prompt\n  echo -n READY\\>\nend\nset -g fish_autosuggestion_enabled 0\n",
    source: "source FOLDER/script\n",
};

const ELVISH: Kind = Kind {
    name: "elvish",
    start: "HOME=FOLDER XDG_STATE_HOME=FOLDER elvish -rc FOLDER/rc",
    file: "rc",
    prompt: "set edit:prompt = { print 'READY>' }\nset edit:rprompt = { }\n",
    source: "eval (slurp < FOLDER/script)\n",
};

impl Kind {
    /// Starts the shell, types each line, and gives back what cargo was given by them.
    fn given(&self, before: &str, sourced: usize, lines: &[&str]) -> Vec<String> {
        let sh = Shell::new().unwrap();
        let name = self.name;
        assert!(cmd!(sh, "which {name}").quiet().ignore_stdout().run().is_ok(), "cargo xtask ci installs {name}");
        let dir: TempDir = sh.create_temp_dir().unwrap();
        let folder = dir.path().to_str().unwrap();
        let here = |text: &str| text.replace("FOLDER", folder);
        let record = dir.path().join("record");
        write_program(dir.path(), "cargo", &format!("#!/bin/sh\necho \"$*\" >>{}\n", record.display()));
        let script = cmd!(sh, "{XTASK} completions {name}").quiet().read().unwrap();
        std::fs::write(dir.path().join("script"), script).unwrap();
        let rc = [self.prompt, before, &self.source.repeat(sourced)].concat();
        std::fs::write(dir.path().join(self.file), here(&rc)).unwrap();
        let path = format!("{folder}:/usr/bin:/bin");
        let mut terminal = Terminal::start(&here(self.start), &[("PATH", &path)]);
        for (index, line) in lines.iter().enumerate() {
            let prompts = move |text: &str| text.matches(READY).count() > index;
            until(&terminal, || prompts(&terminal.text()));
            terminal.types(&format!("{line}\r"));
            until(&terminal, || recorded(&record).len() > index);
        }
        terminal.types("exit\r");
        terminal.quit();
        recorded(&record)
    }
}

fn recorded(file: &Path) -> Vec<String> {
    let text = std::fs::read_to_string(file).unwrap_or_default();
    text.lines().map(|line| line.trim_end().to_owned()).collect()
}

fn until(terminal: &Terminal, so: impl Fn() -> bool) {
    let until = Instant::now() + Duration::from_secs(20);
    while !so() {
        assert!(Instant::now() < until, "{}", terminal.text());
        std::thread::sleep(Duration::from_millis(20));
    }
}

const LINES: [&str; 4] =
    ["cargo xtask cache-s\t", "cargo xtask cache-logs --fol\t", "cargo xtask --dry-r\t", "cargo buil\t"];
const COMPLETED: [&str; 4] = ["xtask cache-status", "xtask cache-logs --follow", "xtask --dry-run", "build-as-before"];

/// Each completion that cargo may have had before, and the same after the script was sourced once, twice and thrice.
fn completes(kind: &Kind, before: &[&str]) {
    for before in before {
        for sourced in [1, 2, 3] {
            assert_eq!(kind.given(before, sourced, &LINES), COMPLETED, "{before}, sourced {sourced} times");
        }
    }
    // Where cargo had none, a file is completed.
    let dir = Shell::new().unwrap().create_temp_dir().unwrap();
    let file = dir.path().join("read-me-now").into_os_string().into_string().unwrap();
    std::fs::write(&file, "").unwrap();
    let line = format!("cargo {}\t", file.trim_end_matches("now"));
    for sourced in [1, 2] {
        assert_eq!(kind.given("", sourced, &[&line, LINES[0]]), [&file, COMPLETED[0]], "sourced {sourced} times");
    }
}

#[test]
fn bash_completes_the_tasks_and_what_it_completed_before() {
    let function = "_before() { COMPREPLY=($(compgen -W build-as-before -- \"$2\")); }\ncomplete -F _before cargo\n";
    let words = "complete -o nosort -W 'build-as-before other' cargo\n";
    let command = "complete -C 'echo build-as-before; true' cargo\n";
    // As bash-completion does it: when it is first asked for.
    let lazily = "_completion_loader() { complete -W build-as-before \"$1\"; return 124; }\n\
                  complete -D -F _completion_loader\n";
    completes(&BASH, &[function, words, command, lazily]);
}

#[test]
fn zsh_completes_the_tasks_and_what_it_completed_before() {
    completes(&ZSH, &["_before() { compadd build-as-before }\ncompdef _before cargo\n"]);
}

#[test]
fn fish_completes_the_tasks_and_what_it_completed_before() {
    completes(&FISH, &["complete -c cargo -n __fish_use_subcommand -f -a build-as-before\n"]);
}

#[test]
fn elvish_completes_the_tasks_and_what_it_completed_before() {
    completes(&ELVISH, &["set edit:completion:arg-completer[cargo] = {|@words| put build-as-before }\n"]);
}

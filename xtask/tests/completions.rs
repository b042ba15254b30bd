//! The completion scripts in their own shells, at a terminal: what is typed, a TAB, and what the shell then runs.
#![allow(missing_docs, clippy::unwrap_used)]

#[path = "support/terminal.rs"]
mod terminal;

use std::path::{Path, PathBuf};
use std::time::Duration;

use terminal::Terminal;
use xshell::{Shell, TempDir, cmd};

const XTASK: &str = env!("CARGO_BIN_EXE_xtask");
/// What is typed ahead of a TAB, and the arguments that cargo is to be called with then.
const LINES: [(&str, &str); 5] = [
    ("cargo xtask cache-s", "xtask cache-status"),
    ("cargo xtask cache-clean --keep", "xtask cache-clean --keep-cache"),
    ("cargo +nightly xtask cache-s", "+nightly xtask cache-status"),
    // Everything else is for the completion that was there before, which knows one word.
    ("cargo buil", "build"),
    ("cargo run xtask cache-s", "run xtask cache-s"),
];

/// A home in which `cargo` writes down what it is called with.
struct Home {
    dir: TempDir,
    script: PathBuf,
}

impl Home {
    fn new(shell: &str) -> Self {
        let sh = Shell::new().unwrap();
        let dir = sh.create_temp_dir().unwrap();
        let script = dir.path().join("script");
        std::fs::write(&script, cmd!(sh, "{XTASK} completions {shell}").quiet().read().unwrap()).unwrap();
        Self { dir, script }
    }

    /// A path in it.
    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// Writes a file that the shell reads when it starts: `SCRIPT` and `OUT` stand for the two paths.
    fn rc(&self, name: &str, text: &str) -> PathBuf {
        let path = self.path(name);
        let text = text.replace("SCRIPT", self.script.to_str().unwrap());
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, text.replace("OUT", self.path("out").to_str().unwrap())).unwrap();
        path
    }

    fn ran(&self) -> Vec<String> {
        let text = std::fs::read_to_string(self.path("out")).unwrap_or_default();
        text.lines().map(|line| line.trim_end().to_owned()).collect()
    }

    /// Types lines into a shell, each with a TAB, and compares what cargo was called with.
    fn types(&self, when: &str, shell: &str, lines: &[(&str, &str)]) {
        let _ = std::fs::remove_file(self.path("out"));
        let home = |name: &str| self.path(name).to_str().unwrap().to_owned();
        let (root, config, data) = (self.dir.path().to_str().unwrap().to_owned(), home(".config"), home(".local"));
        let env = [("HOME", &*root), ("ZDOTDIR", &root), ("XDG_CONFIG_HOME", &config), ("XDG_DATA_HOME", &data)];
        let mut terminal = Terminal::start(shell, &env);
        terminal.until_written(|text| text.contains("ready>"));
        for (index, (typed, _)) in lines.iter().enumerate() {
            std::thread::sleep(Duration::from_millis(200));
            terminal.types(&format!("{typed}\t"));
            std::thread::sleep(Duration::from_millis(400));
            terminal.types("\r");
            terminal.until_written(|_| self.ran().len() > index);
        }
        let wanted: Vec<&str> = lines.iter().map(|(_, wanted)| *wanted).collect();
        assert_eq!(self.ran(), wanted, "{shell}, {when}");
    }
}

/// The script is sourced once, and three times.
fn once_and_more(line: &str) -> [(String, String); 2] {
    [1, 3].map(|times| (format!("sourced {times} times"), format!("{line}\n").repeat(times)))
}

fn bash(home: &Home, when: &str, setup: &str, lines: &[(&str, &str)]) {
    let rc = home.rc("bashrc", &format!("{setup}\ncargo() {{ echo \"$*\" >>OUT; }}\nPS1='ready> '\n"));
    home.types(when, &format!("bash --noprofile --rcfile {} -i", display(&rc)), lines);
}

fn display(path: &Path) -> &str {
    path.to_str().unwrap()
}

/// What completes cargo before: it knows one word.
const BASH_STANDIN: &str = "_standin() { COMPREPLY=(); [[ build != \"$2\"* ]] || COMPREPLY=(build); }";

#[test]
fn bash_completes_tasks_and_their_flags_and_all_else_as_before() {
    let home = Home::new("bash");
    for (when, source) in once_and_more("source SCRIPT") {
        bash(&home, &when, &format!("{BASH_STANDIN}\ncomplete -F _standin cargo\n{source}"), &LINES);
    }
}

#[test]
fn bash_knows_what_completed_cargo_before_and_afterwards_however_it_is_registered() {
    let home = Home::new("bash");
    let wrapper = "_wrapper() { _wrapped \"$@\"; }";
    let wrap =
        "_wrapped=$(complete -p cargo | sed 's/.*-F //; s/ .*//'); eval \"_wrapped() { $_wrapped \\\"\\$@\\\"; }\"";
    let loader = "_loader() { complete -F _standin \"$1\"; return 124; }; complete -D -F _loader";
    for (when, setup) in [
        ("a list of words", "complete -W 'build bench' cargo; source SCRIPT; source SCRIPT".to_owned()),
        ("registered afterwards", "source SCRIPT; complete -F _standin cargo; source SCRIPT; source SCRIPT".to_owned()),
        ("loaded when it is needed", format!("{loader}; source SCRIPT; source SCRIPT")),
        (
            "wrapped by another script",
            format!(
                "complete -F _standin cargo; source SCRIPT; {wrap}; {wrapper}; complete -F _wrapper cargo; source SCRIPT; source SCRIPT"
            ),
        ),
    ] {
        bash(&home, when, &format!("{BASH_STANDIN}\n{setup}"), &LINES);
    }
    // Without any, files are completed, as bash does.
    std::fs::write(home.path("some-file"), "").unwrap();
    let there = format!("{}/some-file", home.dir.path().display());
    bash(&home, "nothing", "source SCRIPT; source SCRIPT", &[LINES[0], ("cargo ~/some-f", &there)]);
}

#[test]
fn zsh_completes_tasks_and_their_flags_and_all_else_as_before() {
    let home = Home::new("zsh");
    let standin = "autoload -Uz compinit; compinit -u -D; _standin() { compadd build }";
    let cargo = "cargo() { echo \"$*\" >>OUT }\nPS1='ready> '\n";
    let before = |source: &str| format!("{standin}\ncompdef _standin cargo\n{source}\n{cargo}");
    for (when, source) in once_and_more("source SCRIPT") {
        home.rc(".zshrc", &before(&source));
        home.types(&when, "zsh -i", &LINES);
    }
    let wrapper = "_before=$_comps[cargo]; _wrapper() { $_before }; compdef _wrapper cargo";
    for (when, source) in [
        ("registered afterwards", "source SCRIPT; compdef _standin cargo; source SCRIPT; source SCRIPT".to_owned()),
        ("wrapped by another script", format!("source SCRIPT; {wrapper}; source SCRIPT; source SCRIPT")),
    ] {
        home.rc(".zshrc", &before(&source));
        home.types(when, "zsh -i", &LINES);
    }
}

#[test]
fn fish_completes_tasks_and_their_flags_and_all_else_as_before() {
    let home = Home::new("fish");
    for (when, source) in once_and_more("source SCRIPT") {
        let standin = "complete -c cargo -n __fish_use_subcommand -f -a build";
        let prompt = "function fish_prompt; echo 'ready> '; end; function fish_greeting; end";
        // The completion for cargo that comes with fish asks cargo itself.
        let cargo = "function cargo; contains -- --list $argv; or echo $argv >>OUT; end";
        home.rc(".config/fish/completions/cargo.fish", standin);
        home.rc(".config/fish/config.fish", &format!("{source}\n{prompt}\n{cargo}\n"));
        home.types(&when, "fish -i", &LINES);
    }
}

#[test]
fn elvish_completes_tasks_and_their_flags_and_all_else_as_before() {
    let home = Home::new("elvish");
    let standin = "set edit:completion:arg-completer[cargo] = {|@words| if (== (count $words) 2) { put build } }";
    let cargo = "fn cargo {|@words| echo $@words >>OUT }\nset edit:prompt = { put 'ready> ' }\n";
    for (when, source) in once_and_more("eval (slurp <SCRIPT)") {
        let rc = home.rc("rc.elv", &format!("{standin}\n{source}\n{cargo}"));
        home.types(&when, &format!("elvish -rc {}", display(&rc)), &LINES);
    }
    // With nothing before, files are completed, as elvish does.
    std::fs::write(home.path("some-file"), "").unwrap();
    let rc = home.rc("rc.elv", &format!("eval (slurp <SCRIPT)\neval (slurp <SCRIPT)\n{cargo}"));
    let there = format!("{}/some-file", home.dir.path().display());
    let typed = format!("cargo {}/some-f", home.dir.path().display());
    home.types("nothing", &format!("elvish -rc {}", display(&rc)), &[LINES[0], (&typed, &there)]);
}

#[test]
fn the_text_for_powershell_registers_a_completer_for_cargo() {
    let text = std::fs::read_to_string(Home::new("powershell").script).unwrap();
    for line in [
        "Register-ArgumentCompleter -Native -CommandName 'cargo-xtask' -ScriptBlock {",
        "Register-ArgumentCompleter -Native -CommandName 'cargo' -ScriptBlock $global:CargoOrXtask",
        // Run again, it does not take itself for what was there before.
        "if (-not [object]::ReferenceEquals($cargoCompleter, $global:CargoOrXtask)) {",
        "        & $global:CargoBeforeXtask $wordToComplete $commandAst $cursorPosition",
    ] {
        assert!(text.lines().any(|found| found == line), "{line}");
    }
    assert!(text.contains("\"$($elements[$at])\" -eq 'xtask'"));
    for (open, close) in [('{', '}'), ('(', ')')] {
        // Help texts have both kinds, in pairs.
        assert_eq!(text.matches(open).count(), text.matches(close).count(), "{open}{close}");
    }
}

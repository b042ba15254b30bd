//! Completion scripts: for `cargo xtask`, which is two words and no program of its own.

use clap_complete::Shell;

/// The name that the generated script is for; the lines behind it lead `cargo xtask` there.
const NAME: &str = "cargo-xtask";

const BASH: &str = include_str!("completions/cargo.bash");

/// The script for a shell.
pub fn script(shell: Shell, command: &mut clap::Command) -> String {
    let mut script = Vec::new();
    clap_complete::generate(shell, command, NAME, &mut script);
    let script = String::from_utf8_lossy(&script).into_owned();
    let more = match shell {
        // clap_complete writes a name with a hyphen in two ways, so that no flag of a task would be completed.
        Shell::Bash => return script.replace("cargo__subcmd__xtask", "cargo__xtask") + BASH,
        Shell::Zsh => include_str!("completions/cargo.zsh"),
        Shell::Fish => include_str!("completions/cargo.fish"),
        Shell::Elvish => include_str!("completions/cargo.elv"),
        Shell::PowerShell => include_str!("completions/cargo.ps1"),
        // A shell that clap_complete learns later is completed under the one name.
        _ => "",
    };
    script + more
}

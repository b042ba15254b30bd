//! Completion scripts: for `cargo xtask`, which is two words and no program of its own.

use clap_complete::Shell;

/// The name that the generated script is for; the lines behind it lead `cargo xtask` there.
const NAME: &str = "cargo-xtask";

const BASH: &str = r#"
# `cargo xtask` is completed as above, everything else of cargo as before.
_cargo_before_xtask=$(complete -p cargo 2>/dev/null | sed -n 's/.*-F \([^ ]*\).*/\1/p')
_cargo_or_xtask() {
    if [[ ${COMP_WORDS[1]} == xtask && $COMP_CWORD -gt 1 ]]; then
        COMP_WORDS=(cargo-xtask "${COMP_WORDS[@]:2}")
        COMP_CWORD=$((COMP_CWORD - 1))
        _cargo__xtask cargo-xtask "${COMP_WORDS[COMP_CWORD]}" "${COMP_WORDS[COMP_CWORD - 1]}"
    elif [[ -n $_cargo_before_xtask ]]; then
        "$_cargo_before_xtask" "$@"
    fi
}
complete -F _cargo_or_xtask -o bashdefault -o default cargo
"#;

const ZSH: &str = r#"
# `cargo xtask` is completed as above, everything else of cargo as before.
_cargo_or_xtask() {
    if [[ ${words[2]} == xtask && $CURRENT -gt 2 ]]; then
        words=(cargo-xtask "${(@)words[3,-1]}")
        (( CURRENT -= 1 ))
        _cargo-xtask
    else
        (( $+functions[_cargo] )) || autoload -Uz _cargo
        _cargo "$@"
    fi
}
compdef _cargo_or_xtask cargo
"#;

const FISH: &str = r#"
complete -c cargo -n '__fish_seen_subcommand_from xtask' -f \
    -a '(complete -C (string replace -r "^cargo +xtask" cargo-xtask -- (commandline -cp)))'
"#;

/// The script for a shell.
pub fn script(shell: Shell, command: &mut clap::Command) -> String {
    let mut script = Vec::new();
    clap_complete::generate(shell, command, NAME, &mut script);
    let script = String::from_utf8_lossy(&script).into_owned();
    let more = match shell {
        Shell::Bash => BASH,
        Shell::Zsh => ZSH,
        Shell::Fish => FISH,
        _ => "",
    };
    script + more
}

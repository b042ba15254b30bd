//! Completion scripts: for `cargo xtask`, which is two words and no program of its own.

use clap_complete::Shell;

/// The name that the generated script is for; the lines behind it lead `cargo xtask` there.
const NAME: &str = "cargo-xtask";
/// The same for bash, where the generated script loses the tasks' flags when there is a hyphen in the name: it compares
/// `cargo__xtask`, which it made of it, with `cargo__subcmd__xtask`.
const BASH_NAME: &str = "cargo_xtask";

// Each addition keeps the completion that cargo had before for the other words of cargo, and may be sourced again: it
// never takes itself for that completion.

const BASH: &str = r#"
# `cargo xtask` is completed as above, everything else of cargo as before.
_cargo_xtask_spec=$(complete -p cargo 2>/dev/null)
[[ $_cargo_xtask_spec == *_cargo_or_xtask* ]] || _cargo_xtask_before=$_cargo_xtask_spec
unset _cargo_xtask_spec

_cargo_or_xtask() {
    if [[ ${COMP_WORDS[1]} == xtask && $COMP_CWORD -gt 1 ]]; then
        COMP_WORDS=(cargo-xtask "${COMP_WORDS[@]:2}")
        COMP_CWORD=$((COMP_CWORD - 1))
        compopt -o bashdefault -o default 2>/dev/null
        _cargo_xtask cargo-xtask "${COMP_WORDS[COMP_CWORD]}" "${COMP_WORDS[COMP_CWORD - 1]}"
    else
        _cargo_as_before_xtask "$@"
    fi
}

_cargo_as_before_xtask() {
    local -a words others=()
    local index function='' command='' line
    COMPREPLY=()
    if [[ -z ${_cargo_xtask_before-} ]]; then
        # A default completion (bash-completion has one) loads that of a command when it is first asked for.
        eval "words=($(complete -p -D 2>/dev/null))"
        for ((index = 1; index < ${#words[@]}; index++)); do
            [[ ${words[index]} != -F ]] || function=${words[++index]}
        done
        if [[ -z $function ]]; then
            compopt -o bashdefault -o default 2>/dev/null
            return
        fi
        "$function" "$@"
        [[ $? -eq 124 ]] || return
        _cargo_xtask_before=$(complete -p cargo 2>/dev/null)
        complete -F _cargo_or_xtask cargo
        if [[ $_cargo_xtask_before == *_cargo_or_xtask* ]]; then
            _cargo_xtask_before=''
            return
        fi
        function=''
    fi
    eval "words=(${_cargo_xtask_before% cargo})"
    for ((index = 1; index < ${#words[@]}; index++)); do
        case ${words[index]} in
            -F) function=${words[++index]} ;;
            -C) command=${words[++index]} ;;
            -o) compopt -o "${words[++index]}" 2>/dev/null ;;
            *) others+=("${words[index]}") ;;
        esac
    done
    if [[ -n $function ]]; then
        "$function" "$@"
        return
    fi
    while IFS= read -r line; do
        COMPREPLY+=("$line")
    done < <(
        export COMP_LINE COMP_POINT COMP_KEY COMP_TYPE
        [[ ${#others[@]} -eq 0 ]] || compgen "${others[@]}" -- "$2"
        [[ -z $command ]] || eval "$command \"\$@\""
    )
}
complete -F _cargo_or_xtask cargo
complete -F _cargo_xtask -o bashdefault -o default cargo-xtask
"#;

const ZSH: &str = r#"
# `cargo xtask` is completed as above, everything else of cargo as before.
[[ ${_comps[cargo]} == _cargo_or_xtask ]] || typeset -g _cargo_xtask_before=${_comps[cargo]}
_cargo_or_xtask() {
    local found=(${^fpath}/_cargo(N))
    if [[ ${words[2]} == xtask && $CURRENT -gt 2 ]]; then
        words=(cargo-xtask "${(@)words[3,-1]}")
        (( CURRENT -= 1 ))
        _cargo-xtask
    elif [[ -n $_cargo_xtask_before ]]; then
        eval "$_cargo_xtask_before"
    elif (( $+functions[_cargo] || $#found )); then
        (( $+functions[_cargo] )) || autoload -Uz _cargo
        _cargo "$@"
    else
        _default
    fi
}
compdef _cargo_or_xtask cargo
"#;

const FISH: &str = r#"
# `cargo xtask` is completed as above, everything else of cargo as before.
function __cargo_xtask_complete
    complete -C (string replace -r '^cargo +xtask' cargo-xtask -- (commandline -cp))
end
function __cargo_xtask_is_completed
    string match -qr '^cargo +xtask ' -- (commandline -cp)
end
complete -c cargo | string match -q '*__cargo_xtask_complete*'
or complete -c cargo -n __cargo_xtask_is_completed -f -a '(__cargo_xtask_complete)'
"#;

/// What has to come before the generated script: fish appends to what a command has.
const BEFORE_FISH: &str = "complete -e -c cargo-xtask\n";

// The variables of a script that is evaluated are gone afterwards; the table of completers stays.
const ELVISH: &str = r#"
# `cargo xtask` is completed as above, everything else of cargo as before.
if (has-key $edit:completion:arg-completer cargo) {
    var now = $edit:completion:arg-completer[cargo]
    if (not (and (has-key $edit:completion:arg-completer cargo-or-xtask) ^
            (eq $now $edit:completion:arg-completer[cargo-or-xtask]))) {
        set edit:completion:arg-completer[cargo-before-xtask] = $now
    }
}
set edit:completion:arg-completer[cargo-or-xtask] = {|@words|
    if (and (> (count $words) 2) (eq $words[1] xtask)) {
        $edit:completion:arg-completer[cargo-xtask] cargo-xtask (all $words[2..])
    } elif (has-key $edit:completion:arg-completer cargo-before-xtask) {
        $edit:completion:arg-completer[cargo-before-xtask] $@words
    } else {
        edit:complete-filename $@words
    }
}
set edit:completion:arg-completer[cargo] = $edit:completion:arg-completer[cargo-or-xtask]
"#;

// PowerShell does not say which completer a command had before.
const POWERSHELL: &str = r#"
# `cargo xtask` is completed as above. A completer that cargo had before is replaced.
Register-ArgumentCompleter -Native -CommandName 'cargo' -ScriptBlock {
    param($wordToComplete, $commandAst, $cursorPosition)

    $elements = $commandAst.CommandElements
    if ($elements.Count -lt 2 -or $elements[1].Extent.Text -ne 'xtask') {
        return
    }
    $start = $commandAst.Extent.StartOffset
    $words = $elements[1].Extent.EndOffset - $start
    $length = $cursorPosition - $start
    if ($length -le $words) {
        return
    }
    # The text of a command ends with its last word; a space behind it begins a new one.
    $typed = $commandAst.Extent.Text.PadRight($length).Substring($words, $length - $words)
    $line = 'cargo-xtask' + $typed
    (TabExpansion2 -inputScript $line -cursorColumn $line.Length).CompletionMatches
}
"#;

/// The script for a shell.
pub fn script(shell: Shell, command: &mut clap::Command) -> String {
    let mut script = Vec::new();
    let name = if shell == Shell::Bash { BASH_NAME } else { NAME };
    clap_complete::generate(shell, command, name, &mut script);
    let script = String::from_utf8_lossy(&script).into_owned();
    let (before, after) = match shell {
        Shell::Bash => ("", BASH),
        Shell::Zsh => ("", ZSH),
        Shell::Fish => (BEFORE_FISH, FISH),
        Shell::Elvish => ("", ELVISH),
        Shell::PowerShell => ("", POWERSHELL),
        _ => ("", ""),
    };
    [before, &script, after].concat()
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    /// No PowerShell is at hand for the tests, so what it is told is compared as a text.
    #[test]
    fn powershell_is_told_of_cargo_and_of_the_program() {
        let script = script(Shell::PowerShell, &mut crate::cli::Cli::command());
        let registered = |name: &str| {
            script.matches(&format!("Register-ArgumentCompleter -Native -CommandName '{name}' -ScriptBlock {{")).count()
        };
        assert_eq!((registered("cargo"), registered("cargo-xtask")), (1, 1));
        assert_eq!(script.matches("Register-ArgumentCompleter").count(), 2);
        // `using` has to come before anything else.
        assert!(script.trim_start().starts_with("using namespace"), "{}", &script[..100]);
        for (open, close) in [('{', '}'), ('(', ')')] {
            let count = |char| POWERSHELL.chars().filter(|one| *one == char).count();
            assert_eq!(count(open), count(close), "{open}");
        }
    }
}


# `cargo xtask` is completed as above, everything else of cargo as before. This can be sourced any number of times.
_cargo_or_xtask() {
    local _cargo_xtask_depth=$((${_cargo_xtask_depth:-0} + 1)) at=1
    [[ ${COMP_WORDS[1]} == +* ]] && at=2
    if [[ ${COMP_WORDS[at]} == xtask && $COMP_CWORD -gt $at ]]; then
        COMP_WORDS=(cargo-xtask "${COMP_WORDS[@]:at + 1}")
        COMP_CWORD=$((COMP_CWORD - at))
        # Options of what completed cargo before do not apply; bash before 4 has no compopt.
        compopt -o bashdefault -o default +o nospace 2>/dev/null
        _cargo__xtask cargo-xtask "${COMP_WORDS[COMP_CWORD]}" "${COMP_WORDS[COMP_CWORD - 1]}"
        return
    fi
    # What completed cargo before may itself call this function, if it was installed on top of it: then the one before
    # that is asked.
    local index=$((${#_cargo_before_xtask[@]} - _cargo_xtask_depth)) spec= status
    if ((index >= 0)); then
        spec=${_cargo_before_xtask[index]}
    elif ((_cargo_xtask_depth == 1)); then
        # The loader of the package bash-completion, for commands that have no completion yet.
        spec=$(complete -p -D 2>/dev/null)
    fi
    _cargo_complete_by "$spec" "$@"
    status=$?
    # A loader has put another completion in place and asks for another try.
    ((status != 124)) || _cargo_or_xtask_register
    return $status
}

# Completes as a line of `complete -p` says.
_cargo_complete_by() {
    local spec=$1 function= word IFS=$' \t\n'
    shift
    local -a words generators arguments=("$@")
    COMPREPLY=()
    [[ -n $spec ]] || return 0
    eval "words=($spec)"
    # The first word is `complete`, the last one the command.
    set -- "${words[@]:1:${#words[@]} - 2}"
    while (($#)); do
        case $1 in
            -F) function=$2 && shift ;;
            -o) shift ;;
            -D | -E | -I) ;;
            *) generators+=("$1") ;;
        esac
        shift
    done
    if [[ -n $function ]]; then
        "$function" "${arguments[@]}"
        return
    fi
    ((${#generators[@]})) || return 0
    while IFS= read -r word; do
        COMPREPLY+=("$word")
    done < <(compgen "${generators[@]}" -- "${arguments[1]}" 2>/dev/null)
}

_cargo_or_xtask_register() {
    local spec last= options= rest count=${#_cargo_before_xtask[@]}
    spec=$(complete -p cargo 2>/dev/null)
    ((count == 0)) || last=${_cargo_before_xtask[count - 1]}
    case $spec in
        *' -F _cargo_or_xtask '*) return ;;
        # As bash does where nothing is registered.
        '') _cargo_before_xtask=() options=' -o bashdefault -o default' ;;
        "$last") ;;
        *) _cargo_before_xtask+=("$spec") ;;
    esac
    # Its options stay in force.
    rest=$spec
    while [[ $rest =~ \ -o\ ([a-z]+)(.*) ]]; do
        options+=" -o ${BASH_REMATCH[1]}"
        rest=${BASH_REMATCH[2]}
    done
    complete $options -F _cargo_or_xtask cargo
}

[[ -n ${_cargo_before_xtask+is set} ]] || _cargo_before_xtask=()
_cargo_or_xtask_register

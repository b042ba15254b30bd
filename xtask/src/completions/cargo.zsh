
# `cargo xtask` is completed as above, everything else of cargo as before. This can be sourced any number of times.
_cargo_or_xtask() {
    local -i _cargo_xtask_depth=$(( ${_cargo_xtask_depth:-0} + 1 )) at=2
    [[ ${words[2]} == +* ]] && at=3
    if [[ ${words[at]} == xtask && $CURRENT -gt $at ]]; then
        words=(cargo-xtask "${(@)words[at + 1,-1]}")
        (( CURRENT -= at - 1 ))
        _cargo-xtask
        return
    fi
    # What completed cargo before may itself call this function, if it was installed on top of it: then the one before
    # that is asked.
    local -i index=$(( ${#_cargo_before_xtask} - _cargo_xtask_depth + 1 ))
    if (( index > 0 )); then
        eval "${_cargo_before_xtask[index]}"
    elif (( $+functions[_cargo] )) || autoload +X -Uz _cargo 2>/dev/null; then
        _cargo
    else
        unfunction _cargo 2>/dev/null
        _default
    fi
}

typeset -ga _cargo_before_xtask
case ${_comps[cargo]-} in
    (_cargo_or_xtask) ;;
    ('') _cargo_before_xtask=() ;;
    ("${_cargo_before_xtask[-1]-}") ;;
    (*) _cargo_before_xtask+=("${_comps[cargo]}") ;;
esac
compdef _cargo_or_xtask cargo


# `cargo xtask` is completed as above, everything else of cargo as before. This can be evaluated any number of times.
# The two keys that are no commands tell this completer from the one before it.
var cargo-before-xtask = $nil
if (has-key $edit:completion:arg-completer cargo) {
    set cargo-before-xtask = $edit:completion:arg-completer[cargo]
    if (and (has-key $edit:completion:arg-completer 'cargo or xtask') (eq $cargo-before-xtask $edit:completion:arg-completer['cargo or xtask'])) {
        set cargo-before-xtask = $edit:completion:arg-completer['cargo before xtask']
    }
}
set edit:completion:arg-completer['cargo before xtask'] = $cargo-before-xtask
set edit:completion:arg-completer['cargo or xtask'] = {|@words|
    var at = 1
    if (and (> (count $words) 2) (str:has-prefix $words[1] '+')) {
        set at = 2
    }
    if (and (> (count $words) (+ $at 1)) (eq $words[$at] xtask)) {
        $edit:completion:arg-completer[cargo-xtask] cargo-xtask (all $words[(+ $at 1)..])
    } elif (not-eq $cargo-before-xtask $nil) {
        $cargo-before-xtask $@words
    } else {
        edit:complete-filename $words[-1]
    }
}
set edit:completion:arg-completer[cargo] = $edit:completion:arg-completer['cargo or xtask']

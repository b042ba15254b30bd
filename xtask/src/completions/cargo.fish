
# `cargo xtask` is completed as above, beside what else completes cargo. This can be sourced any number of times.
function __cargo_xtask_line --description 'The command line of cargo xtask, as one of cargo-xtask'
    set -l words (commandline -opc)
    set -l at 2
    string match -q -- '+*' "$words[2]"; and set at 3
    test (count $words) -ge $at; and test "$words[$at]" = xtask; or return 1
    set -l rest $words[(math $at + 1)..-1]
    test (count $words) -gt $at; or set rest
    string join ' ' -- cargo-xtask (string escape -- $rest) (commandline -ct)
end
complete -c cargo -n '__cargo_xtask_line >/dev/null' -f -a '(complete -C (__cargo_xtask_line | string collect))'

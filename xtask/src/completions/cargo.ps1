
# `cargo xtask` is completed as above, everything else of cargo as before. This can be run any number of times.
# PowerShell has no public way to ask for the completer that is registered; without it, files are completed.
$cargoCompleter = try {
    $context = $ExecutionContext.GetType().GetField('_context', 'NonPublic,Instance').GetValue($ExecutionContext)
    $context.GetType().GetProperty('NativeArgumentCompleters', 'NonPublic,Instance').GetValue($context)['cargo']
} catch { $null }
if (-not [object]::ReferenceEquals($cargoCompleter, $global:CargoOrXtask)) {
    $global:CargoBeforeXtask = $cargoCompleter
}
$global:CargoOrXtask = {
    param($wordToComplete, $commandAst, $cursorPosition)

    $elements = $commandAst.CommandElements
    $at = if ($elements.Count -gt 1 -and "$($elements[1])".StartsWith('+')) { 2 } else { 1 }
    if ($elements.Count -gt $at -and "$($elements[$at])" -eq 'xtask' -and $cursorPosition -gt $elements[$at].Extent.EndOffset) {
        # The same line without `cargo`, up to the cursor; an extent has no blanks at its end.
        $begin = $elements[$at].Extent.EndOffset
        $rest = $commandAst.Extent.Text.Substring($begin - $commandAst.Extent.StartOffset)
        $length = $cursorPosition - $begin
        $line = 'cargo-xtask' + $rest.PadRight($length).Substring(0, $length)
        (TabExpansion2 -inputScript $line -cursorColumn $line.Length).CompletionMatches
    } elseif ($global:CargoBeforeXtask) {
        & $global:CargoBeforeXtask $wordToComplete $commandAst $cursorPosition
    }
}
Register-ArgumentCompleter -Native -CommandName 'cargo' -ScriptBlock $global:CargoOrXtask

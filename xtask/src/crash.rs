//! Why a registry ends as soon as it starts, from its own last words; pure.

/// Why a registry ends as soon as it starts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Crash {
    /// Its upstream did not answer: every registry from 2.6 on panics then.
    Upstream,
    /// Its record of expiry dates, `scheduler-state.json`, is damaged.
    State,
    /// Its configuration makes no sense to it.
    Configuration,
    /// Anything else.
    Other,
}

/// How a registry begins to say that its file or its environment makes no sense (`registry/root.go` and
/// `configuration/parser.go`: 2.5 to 3.1).
const BAD_CONFIGURATION: [&str; 4] =
    ["configuration error: ", "panic: multiple ", "panic: invalid type for environment", "panic: no storage "];

/// Tells the causes apart by the registry's own last words (`panic: Get "https://host/v2/": ...` from 2.6 on).
pub fn crash(lines: &[String], upstream: &str) -> Crash {
    // Go before 1.14, of which 2.6 and 2.7 were built, writes the address without quotes.
    let asked = [format!("panic: Get \"{upstream}/v2/\": "), format!("panic: Get {upstream}/v2/: ")];
    // The only JSON that a registry reads when it starts is that record (2.8.2 and 3.1.1, an empty and a cut file).
    let json = ["unexpected end of JSON input", "invalid character ", "json: "].map(|word| format!("panic: {word}"));
    if lines.iter().any(|line| asked.iter().any(|asked| line.contains(asked))) {
        Crash::Upstream
    } else if lines.iter().any(|line| json.iter().any(|word| line.starts_with(word))) {
        Crash::State
    } else if lines.iter().any(|line| BAD_CONFIGURATION.iter().any(|word| line.contains(word))) {
        Crash::Configuration
    } else {
        Crash::Other
    }
}

//! A command that has not been started: its words, what it is given, and its text as it can be pasted.
#![allow(clippy::disallowed_methods)]

use std::time::Duration;

use camino::Utf8PathBuf;

/// Whether a command changes anything; a dry run refuses those that do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Effect {
    /// It looks.
    Read,
    /// It changes something.
    Write,
}

/// A command that has not been started.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cmd {
    pub(crate) program: String,
    args: Vec<String>,
    env: Vec<(String, String)>,
    unset: Vec<String>,
    dir: Option<Utf8PathBuf>,
    pub(crate) stdin: Option<Vec<u8>>,
    no_input: bool,
    umask: Option<&'static str>,
    secrets: Vec<String>,
    effect: Effect,
    limit: Option<Duration>,
    prompt: bool,
    inherits_secrets: bool,
}

/// How long a command that only looks may take: an engine that takes the connection and says nothing would be awaited
/// for ever.
const ANSWER: Duration = Duration::from_secs(30);

impl Cmd {
    /// A command that only looks.
    pub fn read(program: impl Into<String>) -> Self {
        Self {
            program: program.into(),
            args: Vec::new(),
            env: Vec::new(),
            unset: Vec::new(),
            dir: None,
            stdin: None,
            no_input: false,
            umask: None,
            secrets: Vec::new(),
            effect: Effect::Read,
            limit: Some(ANSWER),
            prompt: true,
            inherits_secrets: false,
        }
    }

    /// A command that changes something.
    pub fn write(program: impl Into<String>) -> Self {
        Self { effect: Effect::Write, limit: None, prompt: false, ..Self::read(program) }
    }

    /// One more argument.
    pub fn arg(mut self, arg: impl Into<String>) -> Self {
        self.args.push(arg.into());
        self
    }

    /// More arguments, in their order.
    pub fn args<S: Into<String>>(mut self, args: impl IntoIterator<Item = S>) -> Self {
        self.args.extend(args.into_iter().map(Into::into));
        self
    }

    /// A variable of its environment; shown in front of the command when it is echoed, so never a secret.
    pub fn env(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.env.push((name.into(), value.into()));
        self
    }

    /// A variable of this process's environment that it must not inherit.
    pub fn env_remove(mut self, name: impl Into<String>) -> Self {
        self.unset.push(name.into());
        self
    }

    /// The directory that it is started in, instead of this process's own.
    pub fn dir(mut self, dir: impl Into<Utf8PathBuf>) -> Self {
        self.dir = Some(dir.into());
        self
    }

    /// The same command with its program found elsewhere.
    pub fn program(self, program: impl Into<String>) -> Self {
        Self { program: program.into(), ..self }
    }

    /// The same command started by another program (`sudo`), its own words behind that program's.
    pub fn under<S: Into<String>>(self, program: impl Into<String>, args: impl IntoIterator<Item = S>) -> Self {
        let words = args.into_iter().map(Into::into).chain([self.program]).chain(self.args).collect();
        Self { program: program.into(), args: words, ..self }
    }

    /// The names of the variables that it is given.
    pub fn env_names(&self) -> impl Iterator<Item = &str> {
        self.env.iter().map(|(name, _)| name.as_str())
    }

    /// What it reads on its standard input; never echoed, so this is the way for a secret.
    pub fn stdin(mut self, bytes: impl Into<Vec<u8>>) -> Self {
        self.stdin = Some(bytes.into());
        self
    }

    /// One with words that nobody is to read: they are not shown where it is.
    pub fn hiding(self, secrets: Vec<String>) -> Self {
        Self { secrets, ..self }
    }

    /// One that reads nothing, although it is on a terminal.
    pub fn no_input(self) -> Self {
        Self { no_input: true, ..self }
    }

    /// The umask that it is started with, instead of this process's own.
    pub fn umask(self, umask: &'static str) -> Self {
        Self { umask: Some(umask), ..self }
    }

    /// What it was given to read on its standard input.
    pub fn input(&self) -> Option<&[u8]> {
        self.stdin.as_deref()
    }

    /// One that looks at much, and may take as long as that takes.
    pub fn patient(self) -> Self {
        Self { limit: None, prompt: false, ..self }
    }

    /// One that takes seconds by design although the engine is well: it waits for something else than the engine.
    pub fn unhurried(self) -> Self {
        Self { prompt: false, ..self }
    }

    /// Whether an engine that is well answers it at once.
    pub fn is_prompt(&self) -> bool {
        self.prompt
    }

    /// One that runs this program again, and so needs the variables that hold passwords.
    pub fn inheriting_secrets(self) -> Self {
        Self { inherits_secrets: true, ..self }
    }

    /// One that is given up after a time.
    pub fn within(self, limit: Duration) -> Self {
        Self { limit: Some(limit), ..self }
    }

    /// How long it may take, where there is an end to that: what does not answer by then waits for somebody who will not
    /// answer either.
    pub fn limit(&self) -> Option<Duration> {
        self.limit
    }

    /// Whether it reads or writes.
    pub fn effect(&self) -> Effect {
        self.effect
    }

    /// The program followed by its arguments.
    pub fn argv(&self) -> impl Iterator<Item = &str> {
        std::iter::once(self.program.as_str()).chain(self.args.iter().map(String::as_str))
    }

    /// The command as it can be pasted into a shell: in a shell of its own where it changes the directory or the umask,
    /// and with `env -u` for what it must not inherit, since the shell that it is pasted into may have that.
    pub fn shell(&self) -> String {
        let unset = if self.unset.is_empty() { None } else { Some("env".to_owned()) };
        let unset = unset.into_iter().chain(self.unset.iter().map(|name| format!("-u {}", quote(name))));
        let env = self.env.iter().map(|(name, value)| format!("{name}={}", quote(&without_userinfo(value))));
        let input = self.no_input.then(|| "</dev/null".to_owned());
        let line = unset
            .chain(env)
            .chain(self.argv().map(|word| quote(&hidden(word, &self.secrets))))
            .chain(input)
            .collect::<Vec<_>>()
            .join(" ");
        let umask = self.umask.map(|umask| format!("umask {umask}"));
        let before = umask.into_iter().chain(self.dir.as_ref().map(|dir| format!("cd {}", quote(dir.as_str()))));
        let steps: Vec<String> = before.chain([line]).collect();
        if let [line] = &steps[..] { line.clone() } else { format!("({})", steps.join(" && ")) }
    }

    /// It, ready to be started, without the variables of this process's environment that hold passwords.
    pub(crate) fn expression(&self, secrets: &[String]) -> duct::Expression {
        let mut expression = match self.umask {
            // A process can only be given one by a process that has it.
            Some(umask) => duct::cmd(
                "sh",
                ["-c", &format!("umask {umask} && exec \"$0\" \"$@\""), &self.program]
                    .into_iter()
                    .chain(self.args.iter().map(String::as_str)),
            ),
            None => duct::cmd(&self.program, &self.args),
        }
        .unchecked();
        if self.no_input {
            expression = expression.stdin_null();
        }
        for (name, value) in &self.env {
            expression = expression.env(name, value);
        }
        // Of two words on one variable the first counts: what this command is given by intention stays.
        for name in self.unset.iter().chain(secrets.iter().filter(|_| !self.inherits_secrets)) {
            expression = expression.env_remove(name);
        }
        match &self.dir {
            Some(dir) => expression.dir(dir),
            None => expression,
        }
    }
}

/// A word of a command line without what is secret in it.
pub fn hidden(word: &str, secrets: &[String]) -> String {
    secrets.iter().fold(word.to_owned(), |word, secret| {
        if word == *secret {
            return "***".to_owned();
        }
        if secret.ends_with('@') {
            return word.replace(secret, "***@");
        }
        match word.strip_suffix(secret.as_str()).filter(|head| head.ends_with('=')) {
            Some(head) => format!("{head}***"),
            None => word,
        }
    })
}

/// A text without what stands before the host in the addresses that it has: a password may be in it. Docker's client,
/// for one, repeats the whole of `DOCKER_HOST` when it cannot use it.
pub fn without_userinfo(text: &str) -> String {
    let mut parts = text.split("://");
    let mut told = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        // A slash does not end it: a password that nobody escaped may have one.
        let address = part.split(|c: char| c.is_whitespace() || "\"'`<>".contains(c)).next().unwrap_or_default();
        let host = address.rfind('@').filter(|at| !address[*at..].starts_with("@sha256:"));
        told += "://";
        told += &host.map_or_else(|| part.to_owned(), |at| format!("***{}", &part[at..]));
    }
    told
}

/// Quotes one word for a POSIX shell, leaving it bare where that is safe.
fn quote(word: &str) -> String {
    let safe = |c: char| c.is_ascii_alphanumeric() || "-_./:=@,+%".contains(c);
    if !word.is_empty() && word.chars().all(safe) {
        return word.to_owned();
    }
    format!("'{}'", word.replace('\'', r"'\''"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_echo_can_be_pasted() {
        let cmd = Cmd::read("docker").args(["run", "-e", "A=it's", "", "{{json .}}"]).env("X", "a b");
        assert_eq!(cmd.shell(), r"X='a b' docker run -e 'A=it'\''s' '' '{{json .}}'");
    }

    #[test]
    fn what_is_hidden_is_nowhere_in_the_echo() {
        let cmd = Cmd::write("talosctl").args(["--auth", "a:b", "--auth=a:b", "--url", "https://a:b@host", "a:bc"]);
        let shown = cmd.hiding(vec!["a:b".to_owned(), "a:b@".to_owned()]).shell();
        assert_eq!(shown, "talosctl --auth '***' '--auth=***' --url 'https://***@host' a:bc");
    }

    #[test]
    fn a_command_under_another_keeps_the_rest() {
        let cmd = Cmd::write("talosctl").arg("x").env("A", "1").env_remove("TAG").dir("/d").under("sudo", ["-E"]);
        assert_eq!(cmd.shell(), "(cd /d && env -u TAG A=1 sudo -E talosctl x)");
        assert_eq!((cmd.effect(), cmd.env_names().collect::<Vec<_>>()), (Effect::Write, vec!["A"]));
    }

    #[test]
    fn an_address_is_shown_without_what_stands_before_its_host() {
        for (text, shown) in [
            ("tcp://me:hunter2@h:1. Is it up?", "tcp://***@h:1. Is it up?"),
            ("parse \"tcp://me:hun/ter2@h\": x://me:hunter2@y", "parse \"tcp://***@h\": x://***@y"),
            ("tcp://a@hunter2@h", "tcp://***@h"),
            ("me@h https://h/v2/ or https://h/i@sha256:12", "me@h https://h/v2/ or https://h/i@sha256:12"),
        ] {
            assert_eq!(without_userinfo(text), shown);
        }
        let cmd = Cmd::read("x").env("DOCKER_HOST", "tcp://me:hunter2@h:1");
        assert_eq!(cmd.shell(), "DOCKER_HOST='tcp://***@h:1' x");
    }
}

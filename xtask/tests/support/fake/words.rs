//! What the engine and its client say when something is wrong, in the words of Docker 20.10.24 with client 28.2.2.

use xtask::exec::{Cmd, Output};

pub fn said(stdout: impl Into<Vec<u8>>) -> Output {
    Output { code: Some(0), stdout: stdout.into(), stderr: Vec::new() }
}

pub fn failed(stderr: &str) -> Output {
    Output { code: Some(1), stdout: Vec::new(), stderr: format!("{stderr}\n").into_bytes() }
}

/// The daemon's own word, passed on.
pub fn daemon(word: &str) -> Output {
    failed(&format!("Error response from daemon: {word}"))
}

/// The same as `docker run` passes it on.
pub fn run(stdout: &str, word: &str) -> Output {
    let stderr =
        format!("docker: Error response from daemon: {word}\n\nRun 'docker run --help' for more information\n");
    Output { code: Some(125), stdout: stdout.as_bytes().to_vec(), stderr: stderr.into_bytes() }
}

pub fn no_container(name: &str) -> String {
    format!("No such container: {name}")
}

/// The answer to a command that the engine was made to refuse.
pub fn refused() -> Output {
    daemon("context deadline exceeded")
}

/// The client's answer where there is no engine: an inspect prints an empty list then as well.
pub fn down(cmd: &Cmd) -> Output {
    let words: Vec<&str> = cmd.argv().collect();
    let word = "Cannot connect to the Docker daemon at unix:///var/run/docker.sock. Is the docker daemon running?";
    match words[1..] {
        ["container", "inspect", ..] => Output { stdout: b"[]\n".to_vec(), ..failed(word) },
        ["container", "start", name] => failed(&format!("{word}\nError: failed to start containers: {name}")),
        ["run", ..] => Output {
            code: Some(125),
            ..failed(&format!("docker: {word}\n\nRun 'docker run --help' for more information"))
        },
        _ => failed(word),
    }
}

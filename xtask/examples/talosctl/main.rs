//! A stand-in for talosctl: it takes and refuses what the release in `STANDIN_TALOSCTL_VERSION` takes and refuses,
//! keeps clusters the way that release does, and notes each call. `standin.rs` says which variables it reads.
#![allow(clippy::print_stdout, clippy::print_stderr)]

mod cluster;
mod context;
mod create;
mod engine;
mod flags;
mod pflag;
mod standin;
mod state;

use std::process::ExitCode;

use flags::Release;
use pflag::Parsed;
use standin::StandIn;

/// How a command ends: with what goes to stderr where it fails.
type Outcome = Result<(), String>;

fn main() -> ExitCode {
    let argv: Vec<String> = std::env::args().skip(1).collect();
    let outcome = StandIn::from_env().and_then(|standin| {
        standin.record(&argv)?;
        run(&standin, &argv)
    });
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(problem) => {
            eprintln!("{problem}");
            // The real one prints the usage with whatever sounds like a mistake in the command line.
            if ["arg(s)", "flag", "command"].iter().any(|word| problem.contains(word)) {
                eprintln!("\nUsage:\n  talosctl [command] [flags]\n");
            }
            ExitCode::FAILURE
        }
    }
}

fn run(standin: &StandIn, argv: &[String]) -> Outcome {
    let release = Release::of(&standin.version)?;
    let (path, rest) = release.command(argv);
    let parsed = pflag::parse(&release, &path, rest)?;
    if parsed.bool("help") {
        println!("Usage:\n  talosctl {path} [flags]");
        return Ok(());
    }
    match path.as_str() {
        "version" => version(standin, &no_words(&path, parsed)?),
        // A group of commands prints its help, whatever word it does not know comes with it.
        "cluster" | "config" | "image" => {
            println!("Usage:\n  talosctl {path} [command]");
            Ok(())
        }
        "images" if standin.version.at_least((1, 6)) => {
            println!("Usage:\n  talosctl image [command]");
            Ok(())
        }
        "images" | "image default" | "image k8s-bundle" => {
            no_words(&path, parsed)?;
            release.images().map(|images| images.iter().for_each(|image| println!("{image}")))
        }
        "cluster create" | "cluster create docker" | "cluster create qemu" | "cluster create dev" => {
            create::create(standin, &release, &path, &no_words(&path, parsed)?)
        }
        "cluster show" => cluster::show(standin, &no_words(&path, parsed)?),
        "cluster destroy" => cluster::destroy(standin, &no_words(&path, parsed)?),
        "config contexts" => context::list(&context::path(standin, &parsed)?),
        "config context" => context::switch(&context::path(standin, &parsed)?, &one_word(&parsed)?),
        "config merge" => context::merge(&context::path(standin, &parsed)?, &one_word(&parsed)?),
        "config remove" => context::remove(&context::path(standin, &parsed)?, &one_word(&parsed)?, &parsed),
        "" => Err(match argv.first() {
            Some(word) => format!("unknown command \"{word}\" for \"talosctl\""),
            None => "a command is needed".to_owned(),
        }),
        other => Err(format!("this stand-in does not play `talosctl {other}`")),
    }
}

/// Takes no words but flags, as most commands do.
fn no_words(path: &str, parsed: Parsed) -> Result<Parsed, String> {
    match parsed.words.first() {
        Some(word) => Err(format!("unknown command \"{word}\" for \"talosctl {path}\"")),
        None => Ok(parsed),
    }
}

fn one_word(parsed: &Parsed) -> Result<String, String> {
    match parsed.words.as_slice() {
        [word] => Ok(word.clone()),
        words => Err(format!("accepts 1 arg(s), received {}", words.len())),
    }
}

/// Up to 0.14 the short form carries a commit that looks like a pre-release.
fn version(standin: &StandIn, parsed: &Parsed) -> Outcome {
    if !parsed.bool("client") {
        return Err("error constructing client: failed to determine endpoints".to_owned());
    }
    let version = &standin.version;
    println!("Client:");
    if !parsed.bool("short") {
        println!("\tTag:         {version}\n\tSHA:         0123abcd\n\tBuilt:       ");
        println!("\tGo version:  go1.20\n\tOS/Arch:     linux/amd64");
    } else if version.at_least((1, 0)) {
        println!("Talos {version}");
    } else if version.at_least((0, 10)) {
        println!("Talos {version}-0123abcd");
    } else {
        println!("Client {version}-0123abcd");
    }
    Ok(())
}

//! `mirror-config`: the same mirrors for machines that this tool does not create.

use std::fs::File;
use std::io::{ErrorKind, Write};

use camino::{Utf8Path, Utf8PathBuf};
use serde_json::json;

use crate::app::App;
use crate::error::{Error, Finding, Result};
use crate::host::{Host, Refusal};
use crate::mirror_format::{Document, Format, endpoints, render};
use crate::small_file;

/// What is asked of `mirror-config`.
#[derive(Debug, clap::Args)]
pub struct MirrorConfigArgs {
    /// Whose configuration to write
    #[arg(long, value_enum, default_value_t)]
    pub format: Format,
    /// Name or IP address by which those machines reach this host
    #[arg(long, value_name = "HOST")]
    pub address: Option<String>,
    /// Never ask the registries themselves when a mirror fails, for air-gapped sites
    #[arg(long)]
    pub skip_fallback: bool,
    /// Write the files into a folder instead of printing them; files that are there and differ stay
    #[arg(long, value_name = "DIR")]
    pub output: Option<Utf8PathBuf>,
}

/// Prints the mirrors as another machine's configuration, or writes it into a folder.
///
/// `default` is the address of this host where the command line names none.
///
/// # Errors
/// There is no address or it makes no sense, the format cannot say what is asked of it, or the folder holds other files
/// of those names or cannot be written to.
pub fn mirror_config(app: &App, args: &MirrorConfigArgs, default: Option<&str>) -> Result<()> {
    let address = args.address.as_deref().or(default).ok_or_else(|| Error::Usage {
        problem: "there is no telling by which address other machines reach this host".to_owned(),
        fix: "say it: --address HOST".to_owned(),
    })?;
    let host = Host::parse(address)
        .map_err(|Refusal { problem, fix }| Error::Usage { problem: format!("--address: {problem}"), fix })?;
    let endpoints = endpoints(&app.config.mirrors, &host);
    let rendered = render(args.format, &endpoints, args.skip_fallback)?;
    match &args.output {
        Some(folder) => {
            let files = store(folder, &rendered.documents, app.dry_run)?;
            let line = |file: &Stored| format!("{} {}\n", file.outcome, file.path);
            let text = || files.iter().map(line).collect();
            app.print(text, || json!({ "files": files, "notes": rendered.notes }))?;
        }
        None => {
            let value = || json!({ "documents": rendered.documents, "notes": rendered.notes });
            app.print(|| printed(&rendered.documents), value)?;
        }
    }
    for note in &rendered.notes {
        app.term.warn(note);
    }
    if !app.dry_run {
        app.term.step(&format!("next: {}", args.format.place()));
    }
    Ok(())
}

/// One document as it is, so that it can be piped; several under the path of each.
fn printed(documents: &[Document]) -> String {
    if let [only] = documents {
        return only.text.clone();
    }
    documents.iter().map(|d| format!("# {}\n{}", d.path, d.text)).collect::<Vec<_>>().join("\n")
}

/// What became of a file.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
struct Stored {
    path: Utf8PathBuf,
    outcome: &'static str,
}

/// Writes what is not there yet. Nothing is written while a file of another content is in the way.
fn store(folder: &Utf8Path, documents: &[Document], dry_run: bool) -> Result<Vec<Stored>> {
    let mut files = Vec::new();
    let mut blockers = Vec::new();
    for document in documents {
        let path = folder.join(&document.path);
        match small_file::read(&path) {
            Ok(bytes) if bytes == document.text.as_bytes() => files.push((path, document, false)),
            Ok(_) => blockers.push(Finding::new(
                path.as_str(),
                "the file is there and differs",
                "remove it, or name another folder with --output",
            )),
            Err(error) if error.kind() == ErrorKind::NotFound => files.push((path, document, true)),
            Err(error) => return Err(Error::io(format!("read {path}"))(error)),
        }
    }
    if !blockers.is_empty() {
        return Err(Error::Blocked(blockers));
    }
    let mut stored = Vec::new();
    for (path, document, new) in files {
        if new && !dry_run {
            write(&path, &document.text)?;
        }
        let outcome = match (new, dry_run) {
            (false, _) => "left",
            (true, true) => "would write",
            (true, false) => "wrote",
        };
        stored.push(Stored { path, outcome });
    }
    Ok(stored)
}

fn write(path: &Utf8Path, text: &str) -> Result<()> {
    if let Some(parent) = path.parent() {
        std::fs::create_dir_all(parent).map_err(Error::io(format!("create the folder {parent}")))?;
    }
    let failed = || format!("write {path}");
    let mut file = File::create_new(path).map_err(Error::io(failed()))?;
    file.write_all(text.as_bytes()).map_err(|error| {
        // Half a file would be in the way of the next run.
        let _ = std::fs::remove_file(path);
        Error::io(failed())(error)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Mirror;

    /// A folder of one test's own, removed whatever becomes of the test.
    struct Folder(Utf8PathBuf);

    impl Folder {
        fn new(name: &str) -> Self {
            let name = format!("mirror-config-{name}-{}", std::process::id());
            Self(Utf8PathBuf::from_path_buf(std::env::temp_dir().join(name)).unwrap())
        }

        fn outcomes(&self, documents: &[Document], dry_run: bool) -> Vec<&'static str> {
            store(&self.0, documents, dry_run).unwrap().iter().map(|file| file.outcome).collect()
        }

        fn read(&self, path: &str) -> String {
            std::fs::read_to_string(self.0.join(path)).unwrap()
        }
    }

    impl Drop for Folder {
        fn drop(&mut self) {
            let _ = std::fs::remove_dir_all(&self.0);
        }
    }

    fn documents() -> [Document; 2] {
        ["a", "b"].map(|name| Document { path: format!("certs.d/{name}/hosts.toml"), text: format!("{name} = 1\n") })
    }

    #[test]
    fn every_mirror_has_its_own_port() {
        let mirror = |host: &str, port| Mirror {
            host: host.to_owned(),
            name: String::new(),
            image: String::new(),
            upstream: String::new(),
            port,
            credentials: None,
        };
        let endpoints =
            endpoints(&[mirror("docker.io", 5000), mirror("quay.io", 5002)], &Host::parse("fd00::1").unwrap());
        let urls: Vec<&str> = endpoints.iter().map(|endpoint| endpoint.url.as_str()).collect();
        assert_eq!(urls, ["http://[fd00::1]:5000", "http://[fd00::1]:5002"]);
        assert_eq!(endpoints[1].host, "quay.io");
    }

    #[test]
    fn one_document_is_printed_as_it_is_and_several_under_their_paths() {
        let documents = documents();
        assert_eq!(printed(&documents[..1]), "a = 1\n");
        assert_eq!(printed(&documents), "# certs.d/a/hosts.toml\na = 1\n\n# certs.d/b/hosts.toml\nb = 1\n");
    }

    #[test]
    fn files_are_written_once() {
        let (folder, documents) = (Folder::new("once"), documents());
        assert_eq!(folder.outcomes(&documents, true), ["would write", "would write"]);
        assert!(!folder.0.exists());
        assert_eq!(folder.outcomes(&documents, false), ["wrote", "wrote"]);
        assert_eq!(folder.read("certs.d/b/hosts.toml"), "b = 1\n");
        assert_eq!(folder.outcomes(&documents, false), ["left", "left"]);
        std::fs::remove_file(folder.0.join("certs.d/a/hosts.toml")).unwrap();
        assert_eq!(folder.outcomes(&documents, false), ["wrote", "left"]);
    }

    #[test]
    fn a_file_that_differs_stays_and_nothing_is_written() {
        let (folder, documents) = (Folder::new("differs"), documents());
        write(&folder.0.join("certs.d/b/hosts.toml"), "mine\n").unwrap();
        let error = store(&folder.0, &documents, false).unwrap_err().to_string();
        assert!(error.contains("certs.d/b/hosts.toml: the file is there and differs\n  fix: remove it"), "{error}");
        assert_eq!(folder.read("certs.d/b/hosts.toml"), "mine\n");
        assert!(!folder.0.join("certs.d/a").exists());
    }

    #[test]
    fn a_folder_that_cannot_be_made_is_named() {
        let folder = Folder::new("file");
        write(&folder.0.join("taken"), "").unwrap();
        let error = store(&folder.0.join("taken"), &documents(), false).unwrap_err();
        assert_eq!(error.code(), 1);
        assert!(error.to_string().contains("/taken/certs.d/a"), "{error}");
    }
}

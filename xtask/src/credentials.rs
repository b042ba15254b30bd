//! An account's name and password on their way into a registry: as a file in the container, and nowhere else; pure.
//!
//! A file, because the registry's environment shows in `docker inspect`, and is parsed as YAML besides: a password that
//! begins with `#` would be dropped in silence.

use std::io::Read;

use crate::config::{Credentials, Mirror};

/// Where the file is put; its folder is made along with it.
pub const FOLDER: &str = "/etc";
/// The file, as the registry is told of it.
pub const PATH: &str = "/etc/talos-cache/config.yml";
const MEMBER: &str = "talos-cache/config.yml";

/// The configuration of a proxy with an account: that of an image of registry 2, and the account.
fn settings(mirror: &Mirror, credentials: &Credentials, password: &str) -> String {
    format!(
        "version: 0.1\nlog: {{fields: {{service: registry}}}}\nstorage: {{filesystem: {{rootdirectory: /var/lib/registry}}}}\n\
         http: {{addr: \":5000\", headers: {{X-Content-Type-Options: [nosniff]}}}}\n\
         proxy:\n  remoteurl: {}\n  username: {}\n  password: {}\n",
        quote(&mirror.upstream),
        quote(&credentials.username),
        quote(password)
    )
}

/// A YAML string that every parser reads back to the last character: all that is not plain ASCII is escaped.
fn quote(text: &str) -> String {
    let escaped = |c: char| match c {
        '"' | '\\' => format!("\\{c}"),
        ' '..='~' => c.to_string(),
        // A string of eight digits holds every character, without the surrogates that YAML does not know.
        _ => format!("\\U{:08x}", u32::from(c)),
    };
    format!("\"{}\"", text.chars().map(escaped).collect::<String>())
}

/// The file as a tar stream for `docker cp - CONTAINER:/etc`, readable by root alone.
///
/// # Errors
/// The password cannot be read.
pub fn archive(mirror: &Mirror, credentials: &Credentials) -> Result<Vec<u8>, String> {
    let text = settings(mirror, credentials, &credentials.password.read()?);
    let mut builder = tar::Builder::new(Vec::new());
    let mut add = |name: &str, kind: tar::EntryType, mode: u32, bytes: &[u8]| {
        let mut header = tar::Header::new_ustar();
        header.set_entry_type(kind);
        header.set_mode(mode);
        header.set_size(bytes.len() as u64);
        builder.append_data(&mut header, name, bytes)
    };
    add("talos-cache/", tar::EntryType::Directory, 0o700, &[])
        .and_then(|()| add(MEMBER, tar::EntryType::Regular, 0o600, text.as_bytes()))
        .and_then(|()| builder.into_inner())
        .map_err(|error| error.to_string())
}

/// Whether a container has the account that is configured.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Found {
    /// It has.
    Same,
    /// It has another, or none.
    Differs,
    /// The password cannot be read now, for this reason, so there is nothing to compare with.
    Unknown(String),
}

/// Compares the account with the file that `docker cp CONTAINER:PATH -` gave back as a tar stream.
///
/// The text itself is compared: a digest of it that somebody could read would let a short password be guessed.
///
/// # Errors
/// That is no tar stream with a file in it.
pub fn compare(mirror: &Mirror, credentials: &Credentials, archive: &[u8]) -> Result<Found, String> {
    let mut there = Vec::new();
    let mut archive = tar::Archive::new(archive);
    let file = archive.entries().and_then(|mut entries| entries.next().transpose());
    let mut file = file.map_err(|error| error.to_string())?.ok_or("there is no file in it")?;
    file.read_to_end(&mut there).map_err(|error| error.to_string())?;
    Ok(match credentials.password.read() {
        Err(problem) => Found::Unknown(problem),
        Ok(password) if there == settings(mirror, credentials, &password).as_bytes() => Found::Same,
        Ok(_) => Found::Differs,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Password;

    fn account(password: &str) -> (Credentials, std::path::PathBuf) {
        static COUNT: std::sync::atomic::AtomicUsize = std::sync::atomic::AtomicUsize::new(0);
        let count = COUNT.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        let file = std::env::temp_dir().join(format!("account-{}-{count}", std::process::id()));
        std::fs::write(&file, password).unwrap();
        let path = camino::Utf8PathBuf::from_path_buf(file.clone()).unwrap();
        (Credentials { username: "me".into(), password: Password::File(path) }, file)
    }

    #[test]
    fn every_character_is_quoted_so_that_yaml_gives_it_back() {
        assert_eq!(quote(r#"a"b\c #:"#), r#""a\"b\\c #:""#);
        assert_eq!(quote("é\u{85}\u{7f}😀"), "\"\\U000000e9\\U00000085\\U0000007f\\U0001f600\"");
    }

    #[test]
    fn what_was_put_in_is_recognised_and_another_password_is_not() {
        let (credentials, file) = account("s3cret");
        let put = archive(&Mirror::docker_io(), &credentials).unwrap();
        // The engine gives the file back alone, without its folder.
        let mut back = tar::Builder::new(Vec::new());
        let text = settings(&Mirror::docker_io(), &credentials, "s3cret");
        let mut header = tar::Header::new_ustar();
        header.set_size(text.len() as u64);
        back.append_data(&mut header, "config.yml", text.as_bytes()).unwrap();
        let back = back.into_inner().unwrap();
        let of = |archive: &[u8]| compare(&Mirror::docker_io(), &credentials, archive);
        assert_eq!(of(&back), Ok(Found::Same));
        assert!(of(b"").is_err() && of(b"garbage").is_err());
        std::fs::write(&file, "other").unwrap();
        assert_eq!(of(&back), Ok(Found::Differs));
        std::fs::remove_file(&file).unwrap();
        assert!(matches!(of(&back), Ok(Found::Unknown(problem)) if problem.contains("account-")));
        assert!(archive(&Mirror::docker_io(), &credentials).is_err());
        let mut members = tar::Archive::new(&put[..]);
        let modes: Vec<u32> = members.entries().unwrap().map(|entry| entry.unwrap().header().mode().unwrap()).collect();
        assert_eq!(modes, [0o700, 0o600]);
    }
}

//! Reads a file that the user names: it may be a device that never ends, or a pipe that nobody writes to.

use std::fs::{File, FileType};
use std::io::{Error, ErrorKind, Read, Result};
use std::os::unix::fs::FileTypeExt;

use camino::Utf8Path;

/// More than any settings, password or mirror configuration takes.
const LIMIT: u64 = 1024 * 1024;

/// The content of a small regular file.
///
/// # Errors
/// It cannot be read, is not a regular file, or is larger than 1 MiB. The error holds nothing of its content.
pub fn read(path: &Utf8Path) -> Result<Vec<u8>> {
    // Asked before it is opened, since opening a pipe waits for its other end.
    let kind = std::fs::metadata(path)?.file_type();
    if !kind.is_file() {
        return Err(Error::new(ErrorKind::InvalidInput, format!("it is {}, not a regular file", name(kind))));
    }
    let mut bytes = Vec::new();
    File::open(path)?.take(LIMIT + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > LIMIT {
        return Err(Error::new(ErrorKind::FileTooLarge, "it is larger than 1 MiB"));
    }
    Ok(bytes)
}

/// The text of a small regular file, without a byte order mark: an editor writes that, and it is no part of the text.
///
/// # Errors
/// As [`read`] has them, or it is not UTF-8 text.
pub fn text(path: &Utf8Path) -> Result<String> {
    // The error of the conversion would hold the bytes.
    let text =
        String::from_utf8(read(path)?).map_err(|_| Error::new(ErrorKind::InvalidData, "it is not UTF-8 text"))?;
    Ok(text.strip_prefix('\u{feff}').map(str::to_owned).unwrap_or(text))
}

/// What a file that is not regular is.
fn name(kind: FileType) -> &'static str {
    match kind {
        kind if kind.is_dir() => "a folder",
        kind if kind.is_fifo() => "a pipe",
        kind if kind.is_socket() => "a socket",
        kind if kind.is_char_device() || kind.is_block_device() => "a device",
        _ => "something else",
    }
}

/// Why a path is not a regular file, where it is not one.
pub fn not_regular(path: &Utf8Path) -> Option<String> {
    match std::fs::metadata(path) {
        Err(error) if error.kind() == ErrorKind::NotFound => Some("it does not exist".to_owned()),
        Err(error) => Some(error.to_string()),
        Ok(found) if found.is_file() => None,
        Ok(found) => Some(format!("it is {}, not a regular file", name(found.file_type()))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn word(path: &str) -> String {
        text(Utf8Path::new(path)).unwrap_err().to_string()
    }

    #[test]
    fn what_is_no_regular_file_is_not_opened() {
        assert_eq!(word("/dev/zero"), "it is a device, not a regular file");
        assert_eq!(word("/"), "it is a folder, not a regular file");
        assert_eq!(not_regular(Utf8Path::new("/dev/zero")).unwrap(), word("/dev/zero"));
    }

    #[test]
    fn a_file_is_read_up_to_a_limit_without_its_byte_order_mark_and_never_shown() {
        let path = std::env::temp_dir().join(format!("small-file-{}", std::process::id()));
        let path = camino::Utf8PathBuf::from_path_buf(path).unwrap();
        let of = |bytes: &[u8]| {
            std::fs::write(&path, bytes).unwrap();
            text(&path).map_err(|error| format!("{error} {error:?}"))
        };
        assert_eq!(of(b"\xef\xbb\xbfa\xef\xbb\xbf").unwrap(), "a\u{feff}");
        let secret = of(b"hunter2\xff").unwrap_err();
        assert!(secret.starts_with("it is not UTF-8 text") && !secret.contains("hunter2"), "{secret}");
        let whole = vec![b'a'; 1024 * 1024];
        assert_eq!(of(&whole).unwrap().len(), whole.len());
        assert!(of(&[whole, vec![b'a']].concat()).unwrap_err().starts_with("it is larger than 1 MiB"));
        std::fs::remove_file(&path).unwrap();
        assert_eq!(not_regular(&path).unwrap(), "it does not exist");
    }
}

//! Reads files that hold one secret key, and refuses those that others could have read (as ssh does).
//!
//! Never prints or logs what a file holds; the text is wiped when it is dropped.

use std::fs::{File, Metadata};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::io::{ErrorKind, Read};
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use zeroize::Zeroizing;

/// Where key files come from: the disk, or a table in tests.
pub trait KeyFiles {
    /// The one line of the file, without its line end.
    ///
    /// # Errors
    /// What is wrong with the file.
    fn read(&self, path: &Path) -> Result<Zeroizing<String>, KeyFileError>;
}

/// Key files on the disk.
#[derive(Clone, Copy, Debug)]
pub struct Disk;

/// A base64 key of 32 bytes has 44 characters.
const KEY_CHARS: usize = 44;
/// Permission bits that let group or others at a file.
const OTHERS: u32 = 0o077;

impl KeyFiles for Disk {
    fn read(&self, path: &Path) -> Result<Zeroizing<String>, KeyFileError> {
        // Opening a FIFO for reading would wait for a writer, so the kind is looked at before; it is
        // looked at again on the open file, which nobody can exchange any more.
        check_kind(&std::fs::metadata(path).map_err(|error| of_io(&error))?)?;
        let file = File::open(path).map_err(|error| of_io(&error))?;
        let metadata = file.metadata().map_err(|error| of_io(&error))?;
        check_kind(&metadata)?;
        if metadata.mode() & OTHERS != 0 {
            return Err(KeyFileError::Exposed {
                mode: metadata.mode() & 0o777,
            });
        }
        // Room for the key, a line end and one character that must not be there.
        let mut bytes = Zeroizing::new(Vec::with_capacity(KEY_CHARS + 3));
        let limit = u64::try_from(KEY_CHARS + 3).unwrap_or(u64::MAX);
        file.take(limit)
            .read_to_end(&mut bytes)
            .map_err(|error| of_io(&error))?;
        one_line(&bytes)
    }
}

fn check_kind(metadata: &Metadata) -> Result<(), KeyFileError> {
    if metadata.is_file() {
        Ok(())
    } else {
        Err(KeyFileError::NotAFile)
    }
}

/// The key's line; the key itself is checked by its own type.
fn one_line(bytes: &[u8]) -> Result<Zeroizing<String>, KeyFileError> {
    let text = std::str::from_utf8(bytes).map_err(|_| KeyFileError::NotAKey)?;
    let line = text.strip_suffix('\n').unwrap_or(text);
    let line = line.strip_suffix('\r').unwrap_or(line);
    if line.len() != KEY_CHARS || line.contains(char::is_whitespace) {
        return Err(KeyFileError::NotAKey);
    }
    Ok(Zeroizing::new(line.to_owned()))
}

fn of_io(error: &std::io::Error) -> KeyFileError {
    match error.kind() {
        ErrorKind::NotFound => KeyFileError::Absent,
        ErrorKind::PermissionDenied => KeyFileError::Refused,
        kind => KeyFileError::Io(kind),
    }
}

/// A number that changes when the key does, so that a reload notices. It does not leave the process.
pub(super) fn digest(text: &str) -> u64 {
    let mut hasher = DefaultHasher::new();
    text.hash(&mut hasher);
    hasher.finish()
}

/// Why a key file cannot be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum KeyFileError {
    /// There is no such file.
    #[error("does not exist")]
    Absent,
    /// We may not read it.
    #[error("may not be read by this user")]
    Refused,
    /// Not a regular file.
    #[error("is not a regular file")]
    NotAFile,
    /// Group or others can read or write it.
    #[error("can be read or changed by others (mode {mode:04o})")]
    Exposed {
        /// Its permission bits.
        mode: u32,
    },
    /// It holds something else than one key.
    #[error("does not hold exactly one line with a base64 key of 44 characters")]
    NotAKey,
    /// Reading failed.
    #[error("cannot be read: {0}")]
    Io(ErrorKind),
}

impl KeyFileError {
    /// What is wrong, with the command that puts it right where there is one.
    pub fn advice(&self, path: &Path) -> String {
        match self {
            Self::Exposed { .. } => format!("{self}; run: chmod 600 {}", path.display()),
            Self::Refused => format!(
                "{self}; run as its owner, or: chown $USER {}",
                path.display()
            ),
            _ => self.to_string(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    const KEY: &str = "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=";

    #[test]
    fn exactly_one_line_of_a_keys_length_is_a_key() {
        assert_eq!(*one_line(KEY.as_bytes()).unwrap(), KEY);
        assert_eq!(*one_line(format!("{KEY}\n").as_bytes()).unwrap(), KEY);
        assert_eq!(*one_line(format!("{KEY}\r\n").as_bytes()).unwrap(), KEY);
        for bad in [
            String::new(),
            format!("{KEY}\n\n"),
            format!(" {KEY}"),
            KEY[1..].into(),
            format!("{KEY}x"),
        ] {
            assert_eq!(
                one_line(bad.as_bytes()),
                Err(KeyFileError::NotAKey),
                "{bad:?}"
            );
        }
        assert_eq!(one_line(&[0xff; 44]), Err(KeyFileError::NotAKey));
    }

    #[test]
    fn files_that_others_can_read_are_refused_with_the_chmod_line() {
        let folder =
            std::env::temp_dir().join(format!("chainlightning-keyfile-{}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        let path = folder.join("private.key");
        std::fs::write(&path, format!("{KEY}\n")).unwrap();
        for (mode, good) in [
            (0o600, true),
            (0o400, true),
            (0o640, false),
            (0o604, false),
            (0o620, false),
        ] {
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
            let read = Disk.read(&path);
            assert_eq!(read.is_ok(), good, "mode {mode:o}");
            if let Err(error) = read {
                assert_eq!(error, KeyFileError::Exposed { mode });
                assert!(error.advice(&path).contains("chmod 600 /"));
            }
        }
        assert_eq!(Disk.read(&folder), Err(KeyFileError::NotAFile));
        assert_eq!(Disk.read(&folder.join("none")), Err(KeyFileError::Absent));
        std::fs::remove_dir_all(&folder).unwrap();
    }
}

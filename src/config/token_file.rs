//! A token that stands in a file of its own.

use std::fs::{File, OpenOptions};
use std::io::{self, Read};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::Path;

use super::api::check_token;
use crate::error::{Error, Result};
use crate::journal;

/// Longer than any token: a header could not carry more.
const LONGEST: usize = 4096;

/// The token in this file, without the newline at its end.
pub(super) fn read(path: &Path) -> Result<String> {
    let failed = |error| Error::start(format_args!("token file {}", path.display()), error);
    let file = open(path).map_err(failed)?;
    let mut text = String::new();
    let length = file.take(LONGEST as u64 + 1).read_to_string(&mut text).map_err(failed)?;
    let token = text.trim_end_matches(['\r', '\n']);
    let checked = if length > LONGEST { Err("is too long".into()) } else { check_token(token) };
    checked.map_err(|refusal| {
        Error::setting(format!("token file {}: the token {}", path.display(), refusal.reason()))
    })?;
    Ok(token.to_owned())
}

/// Nothing but a file: to open a pipe would be to wait for whoever writes to it.
fn open(path: &Path) -> io::Result<File> {
    let file = OpenOptions::new().read(true).custom_flags(libc::O_NONBLOCK | libc::O_NOCTTY).open(path)?;
    let metadata = file.metadata()?;
    if !metadata.is_file() {
        return Err(io::Error::other("not a regular file"));
    }
    let mode = metadata.permissions().mode() & 0o777;
    if mode & 0o004 != 0 {
        journal::warn!(
            "the token file {} can be read by every user of this machine (mode {mode:04o}), who can then give orders",
            path.display()
        );
    }
    Ok(file)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    #[test]
    fn a_token_is_a_line_of_a_file() {
        let file = std::env::temp_dir().join(format!("proteus-token-{}", std::process::id()));
        let refused = |reason: &str| Err(format!("token file {}: {reason}", file.display()));
        let table = [
            ("s3cret", Ok("s3cret".to_owned())),
            ("s3cret\n", Ok("s3cret".to_owned())),
            ("s3cret\r\n\n", Ok("s3cret".to_owned())),
            ("", refused("the token must not be empty")),
            ("\n", refused("the token must not be empty")),
            ("two words\n", refused("the token must be visible ASCII without spaces")),
            (&"x".repeat(5000), refused("the token is too long")),
        ];
        for (text, expected) in table {
            fs::write(&file, text).unwrap();
            assert_eq!(read(&file).map_err(|error| error.to_string()), expected, "{text:?}");
        }
        fs::remove_file(&file).unwrap();
        let error = |file: &Path| Err(read(file).unwrap_err().to_string());
        assert_eq!(error(&file), refused("no such file or directory"));
        fs::create_dir(&file).unwrap();
        assert_eq!(error(&file), refused("not a regular file"));
        fs::remove_dir(&file).unwrap();
    }
}

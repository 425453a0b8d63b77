//! The secrets, keys and passwords in files that settings name.
//!
//! **Invariant**: a secret that every user of the machine could read, or replace, is refused; no error says what is in one.

use std::fs::{self, File};
use std::io::Read as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use super::file::{Doing as _, FileError};
use crate::broker::{KeyFile, VerifyingKey};

/// Bytes of a secret at least: HS256 wants a key no shorter than its hash (RFC 7518, 3.2).
const MIN_SECRET_BYTES: usize = 32;
/// Bytes of a secret's file at most; what is longer is some other file, named by mistake.
const MAX_SECRET_BYTES: u64 = 64 * 1024;
/// Bytes of a password at most.
const MAX_PASSWORD_BYTES: usize = 1024;
/// How keys in PEM begin (RFC 7468).
const PEM: &[u8] = b"-----BEGIN ";
/// How settings name a file that systemd hands over (systemd.exec(5), `LoadCredential=`).
const CREDENTIAL: &str = "credential:";

/// Why a file is not taken for what settings say it is.
#[derive(Debug, thiserror::Error)]
pub enum SecretError {
    #[error(
        "{} can be read by every user of this machine, and whoever reads it can sign in as anybody: chmod 0600 {}",
        .0.display(),
        .0.display()
    )]
    Exposed(PathBuf),
    #[error(
        "no credential `{0}` was handed over: put LoadCredential={0}:/path/of/the/file into the unit \
         (systemctl edit tidings), or name the file itself"
    )]
    NoCredential(String),
    #[error("{} is no file", .0.display())]
    NotAFile(PathBuf),
    #[error(
        "{} can be written by every user of this machine, who could put in a key of their own: chmod o-w {}",
        .0.display(),
        .0.display()
    )]
    Writable(PathBuf),
    #[error(
        "{} is a key in PEM, not a secret: whoever knows its public half could sign in as anybody; name it in \
         [auth] jwt_keys as ES256, RS256 or EdDSA",
        .0.display()
    )]
    NotASecret(PathBuf),
    #[error(
        "{} can be read by every user of this machine, and holds a password: chmod 0600 {}",
        .0.display(),
        .0.display()
    )]
    Disclosed(PathBuf),
    #[error("{} holds no password: one line of 1 to {MAX_PASSWORD_BYTES} bytes in UTF-8", .0.display())]
    NotAPassword(PathBuf),
    #[error("{}, named in [auth] jwt_keys, {why}", path.display())]
    NotAKey { path: PathBuf, why: &'static str },
    #[error("{} has {length} bytes; a secret for HS256 has {MIN_SECRET_BYTES} to {MAX_SECRET_BYTES}", path.display())]
    SecretLength { path: PathBuf, length: u64 },
    #[error(transparent)]
    File(#[from] FileError),
}

/// Reads the secret that signs users' tokens.
///
/// # Errors
/// [`SecretError`], where it can't be read, others can read it, or it is too short or a key in PEM.
pub(super) fn signing(named: &Path) -> Result<Vec<u8>, SecretError> {
    read_private(&handed_over(named)?)
}

/// Reads a password that somebody else gave us, such as a relay's: the file's text without the line break at its end.
///
/// # Errors
/// [`SecretError`], where it can't be read, others can read it, or it is no password.
pub fn password(named: &Path) -> Result<String, SecretError> {
    let path = handed_over(named)?;
    if look(&path)?.mode() & 0o004 != 0 {
        return Err(SecretError::Disclosed(path));
    }
    let text = String::from_utf8(read_bounded(&path)?).map_err(|_| SecretError::NotAPassword(path.clone()))?;
    let password = text.trim_end_matches(['\n', '\r']);
    let is_one = (1..=MAX_PASSWORD_BYTES).contains(&password.len()) && !password.chars().any(char::is_control);
    if is_one { Ok(password.to_owned()) } else { Err(SecretError::NotAPassword(path)) }
}

/// Reads the keys of users' tokens that settings name.
///
/// # Errors
/// [`SecretError`], where one can't be read, is no such key, or is a secret that others can read.
pub fn verifying_keys(files: &[KeyFile]) -> Result<Vec<VerifyingKey>, SecretError> {
    files.iter().map(verifying_key).collect()
}

fn verifying_key(file: &KeyFile) -> Result<VerifyingKey, SecretError> {
    let path = handed_over(&file.path)?;
    let bytes = if VerifyingKey::is_secret(&file.algorithm) {
        read_private(&path)?
    } else {
        look(&path)?;
        read_bounded(&path)?
    };
    VerifyingKey::new(&file.algorithm, file.name.clone(), &bytes).map_err(|why| SecretError::NotAKey { path, why })
}

/// The file that settings name: itself, or what systemd has handed over by the name.
fn handed_over(path: &Path) -> Result<PathBuf, SecretError> {
    let Some(name) = path.to_str().and_then(|text| text.strip_prefix(CREDENTIAL)) else { return Ok(path.to_owned()) };
    let missing = || SecretError::NoCredential(name.to_owned());
    let handed = Path::new(&std::env::var_os("CREDENTIALS_DIRECTORY").ok_or_else(missing)?).join(name);
    if handed.is_file() { Ok(handed) } else { Err(missing()) }
}

/// A secret that was not made here: its owner may have left it open.
fn read_private(path: &Path) -> Result<Vec<u8>, SecretError> {
    if look(path)?.mode() & 0o004 != 0 {
        return Err(SecretError::Exposed(path.to_owned()));
    }
    let secret = read(path)?;
    if secret.windows(PEM.len()).any(|window| window == PEM) {
        return Err(SecretError::NotASecret(path.to_owned()));
    }
    Ok(secret)
}

/// Reads a file that settings name and that is not ours to judge but for who may read it: any bytes, up to a limit.
///
/// # Errors
/// [`SecretError`], [`SecretError::Exposed`] where everybody can read it.
pub(super) fn private_file(named: &Path) -> Result<Vec<u8>, SecretError> {
    let path = handed_over(named)?;
    if look(&path)?.mode() & 0o004 != 0 {
        return Err(SecretError::Exposed(path));
    }
    read_bounded(&path)
}

/// Looks at a file that settings name. What everybody may write says nothing, and what is no file may never end.
fn look(path: &Path) -> Result<fs::Metadata, SecretError> {
    let file = fs::metadata(path).doing("look at", path)?;
    if !file.is_file() {
        return Err(SecretError::NotAFile(path.to_owned()));
    }
    if file.mode() & 0o002 != 0 {
        return Err(SecretError::Writable(path.to_owned()));
    }
    Ok(file)
}

fn read_bounded(path: &Path) -> Result<Vec<u8>, SecretError> {
    let file = File::open(path).doing("read", path)?;
    let mut bytes = Vec::new();
    file.take(MAX_SECRET_BYTES + 1).read_to_end(&mut bytes).doing("read", path)?;
    Ok(bytes)
}

/// A secret in a file: its text without the line break at its end.
///
/// # Errors
/// [`SecretError::SecretLength`], or where it can't be read.
pub(super) fn read(path: &Path) -> Result<Vec<u8>, SecretError> {
    let mut secret = read_bounded(path)?;
    while secret.last().is_some_and(|last| matches!(last, b'\n' | b'\r')) {
        secret.pop();
    }
    let length = secret.len() as u64;
    if secret.len() < MIN_SECRET_BYTES || length > MAX_SECRET_BYTES {
        return Err(SecretError::SecretLength { path: path.to_owned(), length });
    }
    Ok(secret)
}

#[cfg(test)]
mod tests {
    use std::fs::Permissions;
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn a_short_secret_is_refused() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("jwt");
        fs::write(&path, "short\n").expect("a file");
        fs::set_permissions(&path, Permissions::from_mode(0o604)).expect("ours to change");
        let exposed = signing(&path).expect_err("anybody can read it").to_string();
        assert!(exposed.contains("chmod 0600"), "{exposed}");
        fs::set_permissions(&path, Permissions::from_mode(0o640)).expect("ours to change");
        assert!(matches!(signing(&path), Err(SecretError::SecretLength { length: 5, .. })));
        fs::write(&path, format!("{}\r\n", "x".repeat(32))).expect("a file");
        assert_eq!(signing(&path).expect("long enough"), vec![b'x'; 32]);
    }
}

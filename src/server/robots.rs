//! The robots of DingTalk, made from settings: their addresses and secrets are read here, from the files that settings name.
//!
//! **Invariant**: a file that everybody can read or write is refused, and nothing of what stands in one is ever told.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::secrets::{self, SecretError};
use crate::clock::Clock;
use crate::deliver::dingtalk::{Address, AddressFault, DingTalk, Robot, RobotFiles, Secret, Settings};
use crate::tls::{self, TrustError};

/// Why a robot can't speak.
#[derive(Debug, thiserror::Error)]
pub enum RobotError {
    #[error("[dingtalk.robots.{robot}] {source}")]
    File { robot: String, source: SecretError },
    #[error(
        "[dingtalk.robots.{robot}] {} can be read by every user of this machine, and whoever reads it can write into the group: \
         chmod 0600 {}",
        path.display(),
        path.display()
    )]
    Exposed { robot: String, path: PathBuf },
    #[error("[dingtalk.robots.{robot}] {}, named as url_file: what stands there {why}", path.display())]
    Address { robot: String, path: PathBuf, why: AddressFault },
    #[error(
        "[dingtalk.robots.{robot}] {}, named as url_file: the address has no access_token; copy the whole of it from the robot's \
         page in DingTalk",
        path.display()
    )]
    NoToken { robot: String, path: PathBuf },
    #[error("[dingtalk.robots.{robot}] {}, named as {setting}, must be one line of text", path.display())]
    NoLine { robot: String, path: PathBuf, setting: &'static str },
    #[error("[dingtalk] ca_file: {0}")]
    Trust(#[from] TrustError),
}

/// Makes what carries parcels to DingTalk.
///
/// # Errors
/// [`RobotError`], for the first that is wrong.
pub fn dingtalk(settings: &Settings, clock: &Clock) -> Result<DingTalk, RobotError> {
    let robots = settings.robots.iter().map(robot).collect::<Result<_, _>>()?;
    let trusted = Arc::new(tls::client(settings.ca_file.as_deref())?);
    Ok(DingTalk::new(robots, settings.too_fast_rest, trusted, clock.clone()))
}

/// Reads one robot's files.
///
/// # Errors
/// [`RobotError`].
pub fn robot(files: &RobotFiles) -> Result<Robot, RobotError> {
    let name = || files.name.to_string();
    let path = &files.url_file;
    let address = line(files, path, "url_file")?;
    let fault = |why| RobotError::Address { robot: name(), path: path.clone(), why };
    let address = Address::parse(&address).map_err(fault)?;
    if address.parameter("access_token").is_none() {
        return Err(RobotError::NoToken { robot: name(), path: path.clone() });
    }
    let secret = match &files.secret_file {
        Some(path) => Secret::new(&line(files, path, "secret_file")?),
        None => None,
    };
    Ok(Robot { name: files.name.clone(), address, secret, per_minute: files.per_minute })
}

/// The one line of a file that nobody else can read.
fn line(files: &RobotFiles, named: &Path, setting: &'static str) -> Result<String, RobotError> {
    let robot = || files.name.to_string();
    let bytes = match secrets::private_file(named) {
        Ok(bytes) => bytes,
        Err(SecretError::Exposed(path)) => return Err(RobotError::Exposed { robot: robot(), path }),
        Err(source) => return Err(RobotError::File { robot: robot(), source }),
    };
    let text = String::from_utf8(bytes).unwrap_or_default();
    let line = text.trim();
    if line.is_empty() || line.contains(char::is_control) {
        return Err(RobotError::NoLine { robot: robot(), path: named.to_owned(), setting });
    }
    Ok(line.to_owned())
}

#[cfg(test)]
mod tests {
    use std::fs::{self, Permissions};
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;
    use crate::model::RobotName;

    const URL: &str = "https://oapi.dingtalk.com/robot/send?access_token=s3cret\n";

    fn read(url: &str, secret: Option<&str>, mode: u32) -> Result<Robot, String> {
        let folder = tempfile::tempdir().expect("a folder");
        let file = |name: &str, text: &str| {
            let path = folder.path().join(name);
            fs::write(&path, text).expect("ours to write");
            fs::set_permissions(&path, Permissions::from_mode(mode)).expect("ours to change");
            path
        };
        let files = RobotFiles {
            name: RobotName::new("oncall").expect("a name"),
            url_file: file("url", url),
            secret_file: secret.map(|text| file("secret", text)),
            per_minute: 20,
        };
        robot(&files).map_err(|e| e.to_string())
    }

    #[test]
    fn a_robot_is_read_from_its_files() {
        let robot = read(URL, Some("SECabc\n"), 0o600).expect("it is well");
        assert_eq!(robot.secret, Secret::new("SECabc"));
        assert_eq!(robot.address.parameter("access_token"), Some("s3cret"));
        assert!(!format!("{robot:?}").contains("s3cret") && !format!("{robot:?}").contains("SECabc"));
        assert_eq!(read(URL, None, 0o600).expect("it is well").secret, None);
    }

    #[test]
    fn what_is_wrong_with_a_file_is_told_and_what_stands_in_it_is_not() {
        for (url, secret, mode, told) in [
            (URL, None, 0o644, "can be read by every user"),
            ("", None, 0o600, "must be one line of text"),
            ("https://a.example/\nx", None, 0o600, "must be one line of text"),
            ("s3cret", None, 0o600, "is no address such as https://oapi.dingtalk.com/"),
            ("http://oapi.dingtalk.com/robot/send?access_token=s3cret", None, 0o600, "must begin with https://"),
            ("https://oapi.dingtalk.com/robot/send", None, 0o600, "the address has no access_token"),
            (URL, Some(""), 0o600, "named as secret_file, must be one line of text"),
        ] {
            let refused = read(url, secret, mode).expect_err(told);
            assert!(refused.starts_with("[dingtalk.robots.oncall] ") && refused.contains(told), "{refused}");
            assert!(!refused.contains("s3cret"), "{refused}");
        }
    }
}

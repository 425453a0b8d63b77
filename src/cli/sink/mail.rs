//! A mail server that takes everything: as much SMTP as a client needs to hand a mail over, without TLS, on this machine.
//!
//! **Invariant**: every line and every mail is read up to a named limit.
//!
//! It deliberately refuses nobody: what a mail server may refuse is tried against real ones.

use std::rc::Rc;

use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::TcpStream;

use super::reception::Reception;

/// Bytes of a line at most (RFC 5321, 4.5.3.1.6 has 1,000 with its end).
const MAX_LINE_BYTES: u64 = 1_000;
/// Bytes of a mail at most.
const MAX_MAIL_BYTES: usize = 25 * 1024 * 1024;
/// People of one mail at most.
const MAX_PEOPLE: usize = 100;
/// Header fields that every mail of Tidings has.
const HEADERS: [&str; 4] = ["from", "to", "date", "message-id"];

/// A mail as it came.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Mail {
    /// The envelope's.
    pub(super) from: String,
    pub(super) to: Vec<String>,
    pub(super) bytes: Vec<u8>,
}

impl Mail {
    /// The subject as it is written in the header.
    pub(super) fn subject(&self) -> String {
        self.header("subject").unwrap_or_default()
    }

    /// What stands below the header, as it came.
    pub(super) fn text(&self) -> String {
        let text = String::from_utf8_lossy(&self.bytes);
        text.split_once("\r\n\r\n").map(|(_, body)| body.to_owned()).unwrap_or_default()
    }

    /// What is wrong with it.
    pub(super) fn faults(&self) -> Vec<String> {
        let missing = HEADERS.iter().filter(|name| self.header(name).is_none());
        let mut faults: Vec<String> = missing.map(|name| format!("there is no header {name}")).collect();
        if self.bytes.split(|b| *b == b'\n').any(|line| line.len() as u64 > MAX_LINE_BYTES) {
            faults.push("a line is longer than 998 bytes".to_owned());
        }
        faults
    }

    /// A header's value; lines that go on are joined.
    fn header(&self, name: &str) -> Option<String> {
        let text = String::from_utf8_lossy(&self.bytes);
        let (head, _) = text.split_once("\r\n\r\n").unwrap_or((&text, ""));
        let unfolded = head.replace("\r\n ", " ").replace("\r\n\t", " ");
        let value = unfolded.lines().find_map(|line| {
            let (field, value) = line.split_once(':')?;
            field.eq_ignore_ascii_case(name).then(|| value.trim().to_owned())
        });
        value.filter(|value| !value.is_empty())
    }
}

/// Serves one connection of a mail client. How it ends is its client's to notice.
pub(super) async fn serve(socket: TcpStream, reception: Rc<Reception>) {
    let mut session = Session { socket: BufReader::new(socket), mail: Mail::default() };
    drop(session.run(&reception).await);
}

struct Session {
    socket: BufReader<TcpStream>,
    mail: Mail,
}

impl Session {
    async fn run(&mut self, reception: &Reception) -> std::io::Result<()> {
        self.answer("220 sink.localhost ESMTP").await?;
        while let Some(line) = self.line().await? {
            let upper = line.to_ascii_uppercase();
            let verb = upper.split([' ', ':']).next().unwrap_or_default();
            let told = match verb {
                "EHLO" => "250-sink.localhost\r\n250-8BITMIME\r\n250 SIZE 26214400",
                "HELO" | "NOOP" => "250 OK",
                "RSET" => {
                    self.mail = Mail::default();
                    "250 OK"
                }
                "MAIL" => {
                    self.mail = Mail { from: between_brackets(&line), ..Mail::default() };
                    "250 OK"
                }
                "RCPT" if self.mail.to.len() == MAX_PEOPLE => "452 too many people for one mail",
                "RCPT" => {
                    self.mail.to.push(between_brackets(&line));
                    "250 OK"
                }
                "DATA" if self.mail.to.is_empty() => "503 whom is it for?",
                "DATA" => {
                    self.answer("354 end with a line that has a dot alone").await?;
                    if self.read_mail().await? {
                        reception.mail(&std::mem::take(&mut self.mail));
                        "250 taken"
                    } else {
                        "552 it is too long"
                    }
                }
                "QUIT" => return self.answer("221 bye").await,
                _ => "502 not here",
            };
            self.answer(told).await?;
        }
        Ok(())
    }

    async fn answer(&mut self, told: &str) -> std::io::Result<()> {
        self.socket.write_all(format!("{told}\r\n").as_bytes()).await?;
        self.socket.flush().await
    }

    /// A command without its end; `None` where the client is gone, or its line has no end.
    async fn line(&mut self) -> std::io::Result<Option<String>> {
        let mut line = Vec::new();
        (&mut self.socket).take(MAX_LINE_BYTES).read_until(b'\n', &mut line).await?;
        Ok(line.ends_with(b"\n").then(|| String::from_utf8_lossy(&line).trim_end().to_owned()))
    }

    /// Reads a mail to its dot. Whether it was short enough; what is longer is read and dropped.
    async fn read_mail(&mut self) -> std::io::Result<bool> {
        let mut fits = true;
        let mut begins_line = true;
        loop {
            let mut part = Vec::new();
            (&mut self.socket).take(MAX_LINE_BYTES).read_until(b'\n', &mut part).await?;
            if part.is_empty() {
                return Err(std::io::ErrorKind::UnexpectedEof.into());
            }
            if begins_line && part == b".\r\n" {
                return Ok(fits);
            }
            let stuffed = usize::from(begins_line && part.starts_with(b"."));
            begins_line = part.ends_with(b"\n");
            fits &= self.mail.bytes.len() + part.len() <= MAX_MAIL_BYTES;
            if fits {
                self.mail.bytes.extend_from_slice(&part[stuffed..]);
            }
        }
    }
}

/// `MAIL FROM:<a@b.example> SIZE=3` is `a@b.example`.
fn between_brackets(line: &str) -> String {
    line.split_once('<')
        .and_then(|(_, rest)| rest.split_once('>'))
        .map(|(inside, _)| inside.to_owned())
        .unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mail_is_shown_by_its_header() {
        let bytes =
            b"From: a@b.example\r\nTO: c@d.example\r\nSubject: due\r\n soon\r\nDate: x\r\n\r\nhello\r\n".to_vec();
        let mail = Mail { bytes, ..Mail::default() };
        assert_eq!((mail.subject(), mail.text()), ("due soon".to_owned(), "hello\r\n".to_owned()));
        assert_eq!(mail.faults(), ["there is no header message-id"]);
        assert_eq!(between_brackets("RCPT TO:<c@d.example> NOTIFY=NEVER"), "c@d.example");
    }
}

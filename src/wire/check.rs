//! What a check of the log found, as a value and as a body: both sides of the command line read and write it.

use serde::{Deserialize, Serialize};

/// What a check found, and how the file is.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Report {
    /// The log's newest position; `None` where it can't be told.
    pub cursor: Option<String>,
    /// Of the tables; and the newest that this program knows.
    pub schema: u64,
    pub known_schema: u64,
    /// Of the database file, free ones included.
    pub pages: u64,
    pub free_pages: u64,
    pub page_bytes: u64,
    /// Bytes of the write-ahead log beside it.
    pub wal_bytes: u64,
    /// Bytes of the ballast file beside it; `None` where there is none.
    pub ballast_bytes: Option<u64>,
    /// Users whose entries were counted one by one.
    pub users: u64,
    /// What is wrong; empty where all is well.
    pub findings: Vec<Finding>,
    /// What was wrong and has been mended.
    pub mended: Vec<Finding>,
}

/// One thing that is wrong.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Finding {
    pub fault: Fault,
    /// For people: what, where and how many.
    pub detail: String,
}

/// Kinds of what may be wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Fault {
    /// It is no log of Tidings, or none that this program can read.
    NotALog,
    /// SQLite finds pages, rows or indexes damaged.
    Integrity,
    /// Rows name others that are not there.
    ForeignKeys,
    /// Rows hang on nothing.
    Orphans,
    /// The log's own row lies behind what is stored.
    Head,
    /// Stored counts are not what a recount gives.
    Counts,
}

/// What mends a fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Remedy {
    /// `tidings check --repair`: it can be computed anew.
    Repair,
    /// A backup: what is lost can't be computed.
    Restore,
}

impl Fault {
    /// What is to be tried first.
    pub const fn remedy(self) -> Remedy {
        match self {
            // Damaged indexes are made anew; damaged tables are not, which is told then.
            Self::Integrity | Self::ForeignKeys | Self::Orphans | Self::Head | Self::Counts => Remedy::Repair,
            Self::NotALog => Remedy::Restore,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_report_survives_the_way_to_the_command_line() {
        let finding = Finding { fault: Fault::ForeignKeys, detail: "1 row of entries".to_owned() };
        let report = Report { cursor: Some("k7.5".into()), findings: vec![finding], ..Report::default() };
        let text = serde_json::to_string(&report).expect("JSON");
        assert!(text.contains(r#""fault":"foreign-keys""#), "{text}");
        assert_eq!(serde_json::from_str::<Report>(&text).expect("a report"), report);
    }
}

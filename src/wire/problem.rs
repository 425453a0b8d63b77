//! Problem details (RFC 9457): what a refused request is told.

use serde::ser::SerializeMap;
use serde::{Serialize, Serializer};

use crate::model::ContentError;

/// One refusal. `code` is stable; `detail` is for a person and may change.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// HTTP status.
    pub status: u16,
    pub code: &'static str,
    pub title: &'static str,
    pub detail: String,
    pub errors: Vec<ContentError>,
    /// Seconds after which trying again makes sense.
    pub retry_after: Option<u32>,
}

/// A problem as a body, with the address of its explanation.
pub struct ProblemBody<'a> {
    pub problem: &'a Problem,
    /// What stands before `/problems/<code>`.
    pub base_path: &'a str,
}

impl Serialize for ProblemBody<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        #[derive(Serialize)]
        struct FieldBody<'a> {
            pointer: &'a str,
            detail: &'a str,
        }
        let Problem { status, code, title, detail, errors, retry_after: _ } = self.problem;
        let mut map = serializer.serialize_map(None)?;
        map.serialize_entry("type", &format!("{}/problems/{code}", self.base_path))?;
        map.serialize_entry("title", title)?;
        map.serialize_entry("status", status)?;
        map.serialize_entry("code", code)?;
        map.serialize_entry("detail", detail)?;
        if !errors.is_empty() {
            let errors: Vec<_> = errors.iter().map(|e| FieldBody { pointer: &e.pointer, detail: &e.detail }).collect();
            map.serialize_entry("errors", &errors)?;
        }
        map.end()
    }
}

//! `tidings check`: whether the log is whole and agrees with itself, and mending what can be computed anew.
//!
//! Where no server runs on the directory the log is looked at here, however broken it is; else the server looks at a copy.

use std::time::Duration;

use anyhow::bail;
use clap::Args;
use http::Method;
use indicatif::BinaryBytes;

use super::client::{Ask, Client};
use super::reach::ServerArgs;
use super::show::{fields, number};
use super::{Output, progress, say, upkeep};
use crate::server::stopped::{self, Check};
use crate::wire::check::{Fault, Finding, Remedy, Report};
use crate::wire::upkeep::Repair;

/// How long a server may take: it copies the log and reads all of the copy.
const PATIENCE: Duration = Duration::from_hours(4);

const EXAMPLES: &str = "\
Examples:
  tidings check --data ./state
  tidings check --repair --data ./state
  tidings check --json --data ./state | jq -r '.findings[].detail'

Looks at every page, row and index, at rows that hang on nothing, at the log's own numbers,
and recounts every inbox. A stopped server's log is looked at as it is, and not changed; a
running server looks at a copy, for which it needs twice the log's size. Ends with 0 where
all is well or was mended, else with 1.

--repair: makes indexes anew, deletes rows that hang on nothing, and computes numbers and
counts again. What is lost in a damaged table comes back from a backup alone. The server
must be stopped, unless only counts are wrong.";

#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct CheckArgs {
    /// Mend what can be computed anew
    #[arg(long)]
    repair: bool,
    #[command(flatten)]
    server: ServerArgs,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// Checks the log.
///
/// # Errors
/// Where something is wrong and stays so, or the log can't be looked at.
pub(super) async fn run(args: CheckArgs) -> anyhow::Result<()> {
    let repair = if args.repair { Repair::Repair } else { Repair::Report };
    let report = match args.server.stopped()? {
        Some(state) => {
            let spinner = progress::spinner("Checking");
            let report = stopped::check(&state, repair, &mut |step| spinner.set_message(told(step)));
            spinner.finish_and_clear();
            report?
        }
        None => args.server.ask(async |client: &Client| ask(client, repair).await).await?,
    };
    match Output::of(args.json) {
        Output::Json => say(serde_json::to_string(&report)?)?,
        Output::People => say(shown(&report))?,
    }
    verdict(&report)
}

async fn ask(client: &Client, repair: Repair) -> anyhow::Result<Report> {
    let report = look(client).await?;
    let counts = |finding: &Finding| finding.fault == Fault::Counts;
    if repair == Repair::Report || !report.findings.iter().any(counts) {
        return Ok(report);
    }
    upkeep::repair_counts(client).await?;
    let mut after = look(client).await?;
    if !after.findings.iter().any(counts) {
        after.mended = report.findings.into_iter().filter(counts).collect();
    }
    Ok(after)
}

async fn look(client: &Client) -> anyhow::Result<Report> {
    let spinner = progress::spinner("The server copies its log and checks the copy");
    let report = client.read(&Ask::new(Method::POST, "/v1/upkeep/check").patient(PATIENCE)).await;
    spinner.finish_and_clear();
    report
}

fn told(step: Check) -> String {
    match step {
        Check::Integrity => "Every page, row and index".to_owned(),
        Check::ForeignKeys => "Rows that name others".to_owned(),
        Check::Orphans(table) => format!("Rows that hang on nothing: {table}"),
        Check::Counts(done, of) => format!("Counts: {done} of {}", number(of, "user", "users")),
        Check::Mending => "Mending".to_owned(),
    }
}

fn shown(report: &Report) -> String {
    let Report { pages, free_pages, page_bytes, .. } = report;
    let table = fields(&[
        ("log", Some(report.cursor.clone().unwrap_or_else(|| "can't be told".to_owned()))),
        ("schema", Some(format!("{} (this program reads {})", report.schema, report.known_schema))),
        (
            "file",
            Some(format!("{}, of it {} free", BinaryBytes(pages * page_bytes), BinaryBytes(free_pages * page_bytes))),
        ),
        ("write-ahead log", Some(BinaryBytes(report.wal_bytes).to_string())),
        ("ballast", report.ballast_bytes.map(|bytes| BinaryBytes(bytes).to_string())),
        ("recounted", Some(number(report.users, "user", "users"))),
    ]);
    let line = |what: &'static str| move |finding: &Finding| format!("\n{what}: {}", finding.detail);
    let mended: String = report.mended.iter().map(line("mended")).collect();
    let wrong: String = report.findings.iter().map(line("wrong")).collect();
    let well = if report.findings.is_empty() { "\nAll is well" } else { "" };
    format!("{table}{mended}{wrong}{well}")
}

/// What to do next, where something is wrong.
fn verdict(report: &Report) -> anyhow::Result<()> {
    let Some(first) = report.findings.first() else { return Ok(()) };
    let wrong = number(report.findings.len() as u64, "thing is wrong", "things are wrong");
    let was_mended = !report.mended.is_empty();
    match first.fault.remedy() {
        Remedy::Repair if !was_mended => bail!(
            "{wrong}: stop the server, copy its directory, and run `tidings check --repair`; what that can't mend \
             comes back from a backup (`tidings restore`)"
        ),
        Remedy::Repair | Remedy::Restore => {
            bail!("{wrong} that can't be mended here: restore the newest backup (`tidings restore FILE`)")
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_wrong_is_told_with_what_to_do() {
        let finding = |fault| Finding { fault, detail: "here".to_owned() };
        let report = |fault| Report { findings: vec![finding(fault)], ..Report::default() };
        let told = |fault| verdict(&report(fault)).expect_err("something is wrong").to_string();
        assert!(told(Fault::Counts).contains("tidings check --repair"));
        assert!(told(Fault::NotALog).contains("tidings restore FILE"));
        verdict(&Report::default()).expect("all is well");
        assert!(shown(&report(Fault::Orphans)).ends_with("\nwrong: here"));
    }
}

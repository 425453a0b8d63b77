//! `tidings doctor --via URL`: goes to the server the way browsers do, through whatever stands in front, measures what
//! proxies break, and says what to change there.
//!
//! `measure` asks and fills `figures`; `judge` says what they mean, and `advice` what to change. `line`, `events`,
//! `answer` and `silence` are what measuring is made of. **Invariant**: nothing is kept that was not there before: what
//! is published is taken back, and the user it was for is erased where the credential may do that.
//!
//! It deliberately does not read a proxy's configuration, which may be another machine's: it judges what comes.

mod advice;
mod answer;
mod events;
mod figures;
mod judge;
mod line;
mod measure;
mod silence;

use std::path::PathBuf;

use anyhow::bail;
use clap::Args;
use serde::Serialize;

use self::advice::Change;
use self::figures::Figures;
use self::judge::{Case, Finding, Level};
use self::line::{Address, Way};
use self::measure::Measuring;
use super::client::Client;
use super::show::number;
use super::{Output, Usage, say};
use crate::config::duration;

/// The flags of the way through a proxy.
#[derive(Debug, Args)]
pub(super) struct ViaArgs {
    /// Go to the server by the address that browsers use, and measure what stands between
    #[arg(long, value_name = "URL", conflicts_with = "counts")]
    via: Option<String>,
    /// How long silence is watched; 0 leaves it out, 75s shows every timeout that harms
    #[arg(long, value_name = "DURATION", default_value = "75s", requires = "via")]
    idle: String,
    /// A file with the certificate authority of the address, where this machine does not know it
    #[arg(long, value_name = "FILE", requires = "via")]
    ca: Option<PathBuf>,
}

/// What scripts get.
#[derive(Serialize)]
struct Report<'a> {
    via: String,
    faults: usize,
    warnings: usize,
    findings: &'a [Finding],
    figures: &'a Figures,
}

impl ViaArgs {
    pub(super) const fn is_given(&self) -> bool {
        self.via.is_some()
    }

    /// Measures and tells.
    ///
    /// # Errors
    /// Where there is a fault, or the server itself can't be asked.
    pub(super) async fn run(&self, client: &Client, output: Output) -> anyhow::Result<()> {
        let address = Address::parse(self.via.as_deref().unwrap_or_default())?;
        let idle = duration(&self.idle)
            .ok_or_else(|| Usage(format!("--idle {} is not a duration, such as 75s, 2m or 0", self.idle)))?;
        let way = Way::new(address, self.ca.as_deref())?;
        let mut measuring = Measuring::new(client, &way);
        let outcome = measuring.run(idle).await;
        measuring.clean_up().await;
        outcome?;
        tell(&way.address, &measuring.figures, output)
    }
}

fn tell(address: &Address, figures: &Figures, output: Output) -> anyhow::Result<()> {
    let case =
        Case { figures, is_tls: address.is_tls(), is_loopback: address.is_loopback(), base_path: &address.base_path };
    let findings = case.findings();
    let count = |level| findings.iter().filter(|finding| finding.level == level).count();
    let (faults, warnings) = (count(Level::Fault), count(Level::Warning));
    match output {
        Output::Json => {
            let report = Report { via: address.to_string(), faults, warnings, findings: &findings, figures };
            say(serde_json::to_string(&report)?)?;
        }
        Output::People => {
            let through = figures.proxy.as_ref().map(|name| format!(", through {name}")).unwrap_or_default();
            say(format_args!("{address}{through}"))?;
            for finding in &findings {
                say(lines(finding, figures.proxy.as_deref()))?;
            }
        }
    }
    if faults > 0 {
        bail!("{} between browsers and Tidings", number(faults as u64, "fault", "faults"));
    }
    Ok(())
}

/// A finding, and what to change: for the proxy that gave its name, or for each.
fn lines(finding: &Finding, proxy: Option<&str>) -> String {
    let head = format!("{:8} {}: {}", finding.level.as_str(), finding.about, finding.what);
    let Some(Change { nginx, haproxy, caddy }) = &finding.change else { return head };
    let each = [("nginx", nginx), ("HAProxy", haproxy), ("Caddy", caddy)];
    let named = |name: &str| proxy.is_some_and(|proxy| proxy.to_lowercase().contains(&name.to_lowercase()));
    let anyone_named = each.iter().any(|(name, _)| named(name));
    let told = each.iter().filter(|(name, _)| !anyone_named || named(name));
    told.fold(head, |text, (name, change)| format!("{text}\n{:8}   {name}: {change}", ""))
}

//! Medians over rounds, as a table for people and for `docs/performance.md`.

/// One row's figures, a sample a round.
#[derive(Clone, Debug, Default)]
pub struct Row {
    pub name: String,
    pub samples: Vec<Vec<f64>>,
}

/// A table: a column a figure, a row a subject.
#[derive(Debug)]
pub struct Table {
    title: String,
    columns: Vec<&'static str>,
    rows: Vec<Row>,
}

impl Table {
    pub fn new(title: impl Into<String>, columns: &[&'static str]) -> Self {
        Self { title: title.into(), columns: columns.to_vec(), rows: Vec::new() }
    }

    /// Adds one round's figures to a row, which is made at its first.
    pub fn add(&mut self, name: &str, figures: &[f64]) {
        let index = self.rows.iter().position(|row| row.name == name).unwrap_or_else(|| {
            self.rows.push(Row { name: name.to_owned(), samples: vec![Vec::new(); self.columns.len()] });
            self.rows.len() - 1
        });
        for (samples, figure) in self.rows[index].samples.iter_mut().zip(figures) {
            samples.push(*figure);
        }
    }

    /// Prints the medians, and below them each row's ratios to the rows named in `against`.
    pub fn print(&self, against: &[&str]) {
        println!("\n### {}\n\n| | {} |", self.title, self.columns.join(" | "));
        println!("|---|{}", "---|".repeat(self.columns.len()));
        for row in &self.rows {
            let cells: Vec<_> = row.samples.iter().map(|samples| figure(median(samples))).collect();
            println!("| {} | {} |", row.name, cells.join(" | "));
        }
        for other in against.iter().filter_map(|name| self.rows.iter().find(|row| row.name == **name)) {
            for row in self.rows.iter().filter(|row| !against.contains(&row.name.as_str())) {
                let cells: Vec<_> =
                    row.samples.iter().zip(&other.samples).map(|(own, other)| ratio(own, other)).collect();
                println!("| *{} / {}* | {} |", row.name, other.name, cells.join(" | "));
            }
        }
    }
}

/// The median of the rounds' ratios: a noisy minute falls on both sides of one round.
fn ratio(own: &[f64], other: &[f64]) -> String {
    let ratios: Vec<f64> = own.iter().zip(other).map(|(own, other)| own / other).filter(|r| r.is_finite()).collect();
    if ratios.is_empty() { "–".to_owned() } else { format!("*{:.2}*", median(&ratios)) }
}

pub fn median(samples: &[f64]) -> f64 {
    let mut sorted: Vec<f64> = samples.iter().copied().filter(|sample| sample.is_finite()).collect();
    sorted.sort_unstable_by(f64::total_cmp);
    let middle = sorted.len() / 2;
    match sorted.len() {
        0 => f64::NAN,
        length if length % 2 == 1 => sorted[middle],
        _ => f64::midpoint(sorted[middle - 1], sorted[middle]),
    }
}

/// The value below which a share of the samples lies.
pub fn quantile(samples: &mut [f64], share: f64) -> f64 {
    samples.sort_unstable_by(f64::total_cmp);
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, clippy::cast_precision_loss)]
    let index = (samples.len() as f64 * share) as usize;
    samples.get(index.min(samples.len().saturating_sub(1))).copied().unwrap_or(f64::NAN)
}

fn figure(value: f64) -> String {
    if value.is_nan() {
        "–".to_owned()
    } else if value.abs() >= 1_000.0 {
        format!("{value:.0}")
    } else if value.abs() >= 10.0 {
        format!("{value:.1}")
    } else {
        format!("{value:.2}")
    }
}

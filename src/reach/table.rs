//! A [`Report`] as text for a terminal: a matrix where it fits, what differs, and a summary. Pure.

use std::collections::{BTreeMap, BTreeSet};

use comfy_table::{CellAlignment, Table};

use super::{Endpoint, Expect, Report, Row, Seen, Verdict};

/// More columns than this nobody reads, however wide the terminal.
const MATRIX_MAX: usize = 40;

impl Report {
    /// The report for a terminal of `width` columns.
    pub fn text(&self, width: usize) -> String {
        let mut text = String::new();
        if let Some(matrix) = self.matrix().filter(|matrix| matrix.lines().all(|line| line.chars().count() <= width)) {
            text += &matrix;
            text += "\n✓ reached as expected   · denied as expected   ✗ not as expected   ? not known or not tried\n\n";
        }
        if !self.passed() {
            text += "Not as expected:\n";
            for row in self.differences() {
                text += &format!("  {row}\n");
            }
            text.push('\n');
        }
        for (reason, count) in self.untested() {
            text += &format!("not tried: {count} ({reason})\n");
        }
        let totals = &self.totals;
        text += &format!(
            "{}: {} as expected, {} not as expected, {} unknown, {} not tried\n",
            self.lab, totals.met, totals.differs, totals.open, totals.untested
        );
        text
    }

    fn untested(&self) -> BTreeMap<&str, usize> {
        let mut reasons = BTreeMap::new();
        for row in &self.rows {
            if let Seen::Untested { reason } = &row.seen {
                *reasons.entry(reason.as_str()).or_default() += 1;
            }
        }
        reasons
    }

    /// Who tries down, whom across; `None` when there is nothing to show or far too much.
    fn matrix(&self) -> Option<String> {
        let from: BTreeSet<&Endpoint> = self.rows.iter().map(|row| &row.expectation.from).collect();
        let to: BTreeSet<&Endpoint> = self.rows.iter().map(|row| &row.expectation.to).collect();
        if from.is_empty() || to.len() > MATRIX_MAX || from.len() > 4 * MATRIX_MAX {
            return None;
        }
        let mut table = Table::new();
        table.set_header(std::iter::once("from \\ to".to_owned()).chain(to.iter().map(ToString::to_string)));
        for from in from {
            let cells = to.iter().map(|to| sign(self.between(from, to)).to_owned());
            table.add_row(std::iter::once(from.to_string()).chain(cells));
        }
        for column in table.column_iter_mut().skip(1) {
            column.set_cell_alignment(CellAlignment::Center);
        }
        Some(table.trim_fmt())
    }
}

/// One sign for all that was tried between two: a difference shows before everything else, then what was reached.
fn sign<'a>(rows: impl Iterator<Item = &'a Row>) -> &'static str {
    let (mut sign, mut rank) = (" ", 0);
    for row in rows {
        let (candidate, its_rank) = match (row.verdict, row.expectation.expect) {
            (Verdict::Differs, _) => ("✗", 4),
            (Verdict::Met, Expect::Reach) => ("✓", 3),
            (Verdict::Open | Verdict::Untested, _) => ("?", 2),
            (Verdict::Met, Expect::Deny | Expect::Unknown) => ("·", 1),
        };
        if its_rank > rank {
            (sign, rank) = (candidate, its_rank);
        }
    }
    sign
}

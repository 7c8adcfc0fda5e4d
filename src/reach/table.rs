//! A [`Report`] as text for a terminal: a matrix where it fits, what differs, and a summary. Pure.

use std::collections::{BTreeMap, BTreeSet};

use comfy_table::{CellAlignment, Table, presets};

use super::trace::TRACES_MAX;
use super::{Endpoint, Expect, Expectation, Report, Row, Seen, Traces, Verdict};

/// So many tries are named for each reason to expect nothing.
const OPEN_MAX: usize = 4;

/// More columns than this nobody reads, however wide the terminal.
const MATRIX_MAX: usize = 40;

impl Report {
    /// The report for a terminal of `width` columns.
    pub fn text(&self, width: usize) -> String {
        let mut text = String::new();
        if let Some(matrix) = self.matrix().filter(|matrix| matrix.lines().all(|line| line.chars().count() <= width)) {
            text += &matrix;
            text += "\n✓ reached, · denied, both as expected   ✗ not as expected   ? unknown or not tried";
            text += if matrix.contains(Sign::PARTLY) { "   ✓? some of both\n\n" } else { "\n\n" };
        }
        if self.totals.differs > 0 {
            text += "Not as expected:\n";
            for row in self.differences() {
                text += &format!("  {row}\n");
                if let Some(stopped) = &row.stopped {
                    text += &format!("    {}\n", stopped.text);
                }
            }
            if let Some(Traces { left_out, problem }) = &self.traces {
                if let Some(problem) = problem {
                    text += &format!("  where they stopped is not known: {problem}\n");
                } else if *left_out > 0 {
                    text += &format!(
                        "  {left_out} of them not traced: only echo requests and questions for addresses are, {TRACES_MAX} \
                         at most\n"
                    );
                }
            }
            text.push('\n');
        }
        if self.rows.is_empty() {
            text += "There is nothing to try: no address of a guest or a gateway is known\n";
        } else if self.totals.met == 0 && self.totals.untested > 0 {
            text += "Nothing was tried, so nothing is proven; guests are started by vmnet boot\n";
        }
        for (host, why) in &self.lost {
            text += &format!("{host} could not be asked: {why}\n");
        }
        for (why, rows) in self.open() {
            let shown = rows.iter().take(OPEN_MAX).map(|row| {
                let Expectation { from, to, address, .. } = &row.expectation;
                format!("{from} -> {to} {address}")
            });
            let more = match rows.len().saturating_sub(OPEN_MAX) {
                0 => String::new(),
                more => format!(" and {more} more"),
            };
            text += &format!("unknown: {} ({why}): {}{more}\n", rows.len(), shown.collect::<Vec<_>>().join(", "));
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

    /// What the definition leaves open, by the reason.
    fn open(&self) -> BTreeMap<&str, Vec<&Row>> {
        let mut reasons = BTreeMap::<&str, Vec<&Row>>::new();
        for row in self.rows.iter().filter(|row| row.verdict == Verdict::Open) {
            reasons.entry(row.open()).or_default().push(row);
        }
        reasons
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
        let mut cells = BTreeMap::<(&Endpoint, &Endpoint), Sign>::new();
        for row in &self.rows {
            let cell = cells.entry((&row.expectation.from, &row.expectation.to)).or_default();
            *cell = cell.and(Sign::of(row));
        }
        let from: BTreeSet<&Endpoint> = cells.keys().map(|(from, _)| *from).collect();
        let to: BTreeSet<&Endpoint> = cells.keys().map(|(_, to)| *to).collect();
        if cells.is_empty() || to.len() > MATRIX_MAX {
            return None;
        }
        let mut table = Table::new();
        table.load_style(presets::UTF8_FULL_CONDENSED);
        // The long names break after the colon.
        let names = to.iter().map(|to| to.to_string().replace(':', ":\n"));
        table.set_header(std::iter::once("from \\ to".to_owned()).chain(names));
        for from in from {
            let signs = to.iter().map(|to| cells.get(&(from, *to)).copied().unwrap_or_default().text().to_owned());
            table.add_row(std::iter::once(from.to_string()).chain(signs));
        }
        for column in table.column_iter_mut().skip(1) {
            column.set_cell_alignment(CellAlignment::Center);
        }
        Some(table.trim_fmt())
    }
}

/// One sign for all that was tried between two. The greatest shows: a difference before everything else. What is open
/// beside what was reached shows, too.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
enum Sign {
    #[default]
    Nothing,
    Denied,
    Reached,
    Unknown,
    Partly,
    Differs,
}

impl Sign {
    const PARTLY: &str = "✓?";

    fn of(row: &Row) -> Self {
        match (row.verdict, row.expectation.expect) {
            (Verdict::Differs, _) => Self::Differs,
            (Verdict::Met, Expect::Reach) => Self::Reached,
            (Verdict::Open | Verdict::Untested, _) => Self::Unknown,
            (Verdict::Met, Expect::Deny | Expect::Unknown) => Self::Denied,
        }
    }

    fn and(self, other: Self) -> Self {
        match (self, other) {
            (Self::Reached, Self::Unknown) | (Self::Unknown, Self::Reached) => Self::Partly,
            (one, other) => one.max(other),
        }
    }

    fn text(self) -> &'static str {
        match self {
            Self::Nothing => "",
            Self::Denied => "·",
            Self::Unknown => "?",
            Self::Reached => "✓",
            Self::Partly => Self::PARTLY,
            Self::Differs => "✗",
        }
    }
}

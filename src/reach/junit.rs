//! A [`Report`] as JUnit XML, which every CI server reads. Pure.

use quick_xml::se::SeError;
use serde::Serialize;

use super::{Report, Row, Seen, Verdict};

#[derive(Serialize)]
#[serde(rename = "testsuite")]
struct Suite {
    #[serde(rename = "@name")]
    name: String,
    #[serde(rename = "@tests")]
    tests: usize,
    #[serde(rename = "@failures")]
    failures: usize,
    #[serde(rename = "@errors", skip_serializing_if = "Option::is_none")]
    errors: Option<usize>,
    #[serde(rename = "@skipped")]
    skipped: usize,
    #[serde(rename = "testcase")]
    cases: Vec<Case>,
}

#[derive(Serialize)]
struct Case {
    #[serde(rename = "@classname")]
    class: String,
    #[serde(rename = "@name")]
    name: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    failure: Option<Message>,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<Message>,
    #[serde(skip_serializing_if = "Option::is_none")]
    skipped: Option<Message>,
}

#[derive(Serialize)]
struct Message {
    #[serde(rename = "@message")]
    message: String,
}

impl Report {
    /// The report as one test suite, a case for each try; what is unknown or was not tried counts as skipped, and a host
    /// that could not be asked as an error.
    ///
    /// # Errors
    /// When serialization fails, which no report that this room makes brings about.
    pub fn junit(&self) -> Result<String, SeError> {
        let lost = self.lost.iter().map(|(host, why)| Case {
            class: format!("vmnet.{}.hosts", self.lab),
            name: host.to_string(),
            failure: None,
            error: Some(Message { message: format!("could not be asked: {why}") }),
            skipped: None,
        });
        let suite = Suite {
            name: format!("vmnet.{}", self.lab),
            tests: self.rows.len() + self.lost.len(),
            failures: self.totals.differs,
            errors: (!self.lost.is_empty()).then_some(self.lost.len()),
            skipped: self.totals.open + self.totals.untested,
            cases: self.rows.iter().map(|row| case(self, row)).chain(lost).collect(),
        };
        Ok(format!("<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n{}\n", quick_xml::se::to_string(&suite)?))
    }
}

fn case(report: &Report, row: &Row) -> Case {
    let expectation = &row.expectation;
    let skipped = match (&row.seen, row.verdict) {
        (Seen::Untested { reason }, _) => Some(reason.clone()),
        (_, Verdict::Open) => Some(row.open().to_owned()),
        _ => None,
    };
    let network = expectation.network.as_ref().map(|network| format!(" on {network}")).unwrap_or_default();
    let how = expectation.how;
    Case {
        class: format!("vmnet.{}.{}", report.lab, expectation.from),
        name: format!("{} at {} by {how}{network}", expectation.to, expectation.address),
        error: None,
        failure: (row.verdict == Verdict::Differs).then(|| Message { message: failure(row) }),
        skipped: skipped.map(|message| Message { message }),
    }
}

/// What differs, and where it stopped.
fn failure(row: &Row) -> String {
    match &row.stopped {
        Some(stopped) => format!("{row}; {}", stopped.text),
        None => row.to_string(),
    }
}

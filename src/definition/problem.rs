//! [`Problem`]: what is wrong with a definition, at its place, with what would be right. Pure.

use std::ops::Range;

use annotate_snippets::{AnnotationKind, Group, Level, Renderer, Snippet};
use serde::Serialize;

/// One thing that is wrong.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    title: String,
    span: Range<usize>,
    label: Option<String>,
    related: Vec<(Range<usize>, String)>,
    help: Option<String>,
}

impl Problem {
    /// A problem at a place, in bytes of the text; `title` says what is wrong, without a full stop.
    pub fn new(span: Range<usize>, title: impl Into<String>) -> Self {
        Self { title: title.into(), span, label: None, related: Vec::new(), help: None }
    }

    /// A word right under the place.
    #[must_use]
    pub fn label(mut self, label: impl Into<String>) -> Self {
        self.label = Some(label.into());
        self
    }

    /// What would be right.
    #[must_use]
    pub fn help(mut self, help: impl Into<String>) -> Self {
        self.help = Some(help.into());
        self
    }

    /// Another place that has to do with it.
    #[must_use]
    pub fn related(mut self, span: Range<usize>, label: impl Into<String>) -> Self {
        self.related.push((span, label.into()));
        self
    }

    /// What is wrong.
    pub fn title(&self) -> &str {
        &self.title
    }
}

/// All problems of a text, in the order of their places when shown.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Problems(Vec<Problem>);

/// A problem for programs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ProblemReport {
    /// The file.
    pub file: String,
    /// Line, from 1.
    pub line: usize,
    /// Column in characters, from 1.
    pub column: usize,
    /// What is wrong.
    pub problem: String,
    /// More about it, or what would be right.
    pub help: Option<String>,
}

impl Problems {
    /// Adds one.
    pub fn push(&mut self, problem: Problem) {
        self.0.push(problem);
    }

    /// No problem so far.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The problems.
    pub fn iter(&self) -> impl Iterator<Item = &Problem> {
        self.0.iter()
    }

    /// `value` if there is no problem.
    ///
    /// # Errors
    /// The problems, sorted by place.
    pub fn into_result<T>(mut self, value: T) -> Result<T, Self> {
        if self.is_empty() {
            return Ok(value);
        }
        self.0.sort_by_key(|problem| problem.span.start);
        Err(self)
    }

    /// The problems for people: each with its line, the place underlined, and what would be right.
    pub fn render(&self, path: &str, text: &str, color: bool) -> String {
        let renderer = if color { Renderer::styled() } else { Renderer::plain() };
        let mut out = String::new();
        for problem in &self.0 {
            let Problem { title, span, label, related, help } = problem;
            let mut main = AnnotationKind::Primary.span(clamp(span, text));
            if let Some(label) = label {
                main = main.label(label.as_str());
            }
            let mut snippet = Snippet::source(text).path(path).annotation(main);
            for (span, label) in related {
                snippet = snippet.annotation(AnnotationKind::Context.span(clamp(span, text)).label(label.as_str()));
            }
            let mut group: Group<'_> = Level::ERROR.primary_title(title.as_str()).element(snippet);
            if let Some(help) = help {
                group = group.element(Level::HELP.message(help.as_str()));
            }
            out.push_str(&renderer.render(&[group]));
            out.push_str("\n\n");
        }
        let count = self.0.len();
        out.push_str(&format!("{path}: {count} {}\n", if count == 1 { "problem" } else { "problems" }));
        out
    }

    /// The problems for programs.
    pub fn reports(&self, path: &str, text: &str) -> Vec<ProblemReport> {
        let report = |problem: &Problem| {
            let before = &text[..clamp(&problem.span, text).start];
            ProblemReport {
                file: path.to_owned(),
                line: before.matches('\n').count() + 1,
                column: before.rsplit('\n').next().map_or(0, |line| line.chars().count()) + 1,
                problem: match &problem.label {
                    Some(label) => format!("{}: {label}", problem.title),
                    None => problem.title.clone(),
                },
                help: problem.help.clone(),
            }
        };
        self.0.iter().map(report).collect()
    }
}

/// A span within the text and on character boundaries, whatever a parser reported.
fn clamp(span: &Range<usize>, text: &str) -> Range<usize> {
    let boundary = |mut at: usize| {
        at = at.min(text.len());
        while !text.is_char_boundary(at) {
            at -= 1;
        }
        at
    };
    let start = boundary(span.start);
    start..boundary(span.end).max(start)
}

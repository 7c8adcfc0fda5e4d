//! [`Problem`]: what is wrong with a definition, at its place, with what would be right. Pure.

use std::borrow::Cow;
use std::ops::Range;

use annotate_snippets::{AnnotationKind, Group, Level, Origin, Renderer, Snippet};
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
pub struct Problems {
    list: Vec<Problem>,
    more: usize,
}

/// How many problems are kept; further ones are counted. A hostile file can have one in every few bytes.
const KEPT: usize = 10_000;

/// How many problems people are shown.
const SHOWN: usize = 100;

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
        if self.list.len() < KEPT {
            self.list.push(problem);
        } else {
            self.more += 1;
        }
    }

    /// Adds some.
    pub fn extend(&mut self, problems: impl IntoIterator<Item = Problem>) {
        problems.into_iter().for_each(|problem| self.push(problem));
    }

    /// No problem so far.
    pub fn is_empty(&self) -> bool {
        self.list.is_empty()
    }

    /// The problems.
    pub fn iter(&self) -> impl Iterator<Item = &Problem> {
        self.list.iter()
    }

    /// `value` if there is no problem.
    ///
    /// # Errors
    /// The problems, sorted by place, each once: what defaults say wrongly is wrong for every guest.
    pub fn into_result<T>(mut self, value: T) -> Result<T, Self> {
        if self.is_empty() {
            return Ok(value);
        }
        self.list.sort_by(|a, b| (a.span.start, &a.title).cmp(&(b.span.start, &b.title)));
        self.list.dedup_by(|a, b| a.span == b.span && a.title == b.title);
        Err(self)
    }

    /// The problems for people: each with its line, the place underlined, and what would be right.
    pub fn render(&self, path: &str, text: &str, color: bool) -> String {
        let renderer = if color { Renderer::styled() } else { Renderer::plain() };
        let text = without_secrets(&without_c1(text));
        let lines = Lines::of(&text);
        let mut out = String::new();
        for problem in self.list.iter().take(SHOWN) {
            out.push_str(&renderer.render(&[group(problem, path, &lines)]));
            out.push_str("\n\n");
        }
        let count = self.list.len() + self.more;
        out.push_str(&format!("{path}: {count} {}", if count == 1 { "problem" } else { "problems" }));
        if count > SHOWN {
            out.push_str(&format!(", the first {SHOWN} of them above"));
        }
        out.push('\n');
        out
    }

    /// The problems for programs.
    pub fn reports(&self, path: &str, text: &str) -> Vec<ProblemReport> {
        let lines = Lines::of(text);
        let report = |problem: &Problem| {
            let (line, column) = lines.place(clamp(&problem.span, text).start);
            ProblemReport {
                file: path.to_owned(),
                line,
                column,
                problem: match &problem.label {
                    Some(label) => format!("{}: {label}", problem.title),
                    None => problem.title.clone(),
                },
                help: problem.help.clone(),
            }
        };
        self.list.iter().map(report).collect()
    }
}

/// The text without C1 controls (U+0080 to U+009F), which some terminals obey and the renderer, unlike the others, lets
/// through. What stands for them has as many bytes, so that every place stays where it is.
fn without_c1(text: &str) -> Cow<'_, str> {
    let c1 = '\u{80}'..='\u{9f}';
    if !text.contains(|c| c1.contains(&c)) {
        return Cow::Borrowed(text);
    }
    Cow::Owned(text.chars().map(|c| if c1.contains(&c) { '¿' } else { c }).collect())
}

/// The text with stars in the place of everything that may be a password: what follows `password_hash` in quotes, and
/// whatever looks like a hash, should the key be misspelt. Every place stays where it is.
fn without_secrets(text: &str) -> String {
    const KEY: &str = "password_hash";
    let mut bytes = text.as_bytes().to_vec();
    let mut hide = |range: Range<usize>| {
        for byte in bytes[range].iter_mut().filter(|byte| **byte != b'\n') {
            *byte = b'*';
        }
    };
    for (at, _) in text.match_indices(KEY) {
        let rest = &text[at + KEY.len()..];
        let value = rest.find(['"', '\'']).filter(|quote| rest[..*quote].trim().trim_matches(['=', ' ']).is_empty());
        let Some(quote) = value else { continue };
        let mark = if rest[quote..].starts_with('"') { '"' } else { '\'' };
        let begin = quote + rest[quote..].len() - rest[quote..].trim_start_matches(mark).len();
        let length = rest[begin..].find([mark, '\n']).unwrap_or(rest.len() - begin);
        hide(at + KEY.len() + begin..at + KEY.len() + begin + length);
    }
    for (at, _) in text.match_indices('$') {
        let is_part = |c: char| c.is_ascii_alphanumeric() || matches!(c, '$' | '.' | '/' | '=' | ',');
        let rest = &text[at..];
        let length = rest.find(|c| !is_part(c)).unwrap_or(rest.len());
        if length > 40 && rest[1..length].contains('$') {
            hide(at..at + length);
        }
    }
    // Stars for bytes of whole characters leave whole characters.
    String::from_utf8(bytes).unwrap_or_default()
}

/// A problem as the renderer wants it. The renderer goes through every line that it gets, again for each problem, and a
/// file may be large: it gets no line without a place, and no line longer than anybody reads.
fn group<'a>(problem: &'a Problem, path: &'a str, lines: &Lines<'a>) -> Group<'a> {
    const NEAR: usize = 1 << 14;
    let Problem { title, span, label, related, help } = problem;
    let mark =
        |kind: AnnotationKind, span: &Range<usize>, label: Option<&'a str>| (kind, clamp(span, lines.text), label);
    let mut marks = vec![mark(AnnotationKind::Primary, span, label.as_deref())];
    marks.extend(related.iter().map(|(span, label)| mark(AnnotationKind::Context, span, Some(label))));
    let from = marks.iter().map(|(_, span, _)| span.start).min().unwrap_or(0);
    let to = marks.iter().map(|(_, span, _)| span.end).max().unwrap_or(0);
    let mut group: Group<'a> = Group::with_title(Level::ERROR.primary_title(title.as_str()));
    let whole = lines.around(from..to);
    if whole.len() <= NEAR {
        group = group.element(snippet(path, lines, whole, &marks));
    } else {
        for mark in &marks {
            let around = lines.around(mark.1.clone());
            let (line, column) = lines.place(mark.1.start);
            group = if around.len() <= NEAR {
                group.element(snippet(path, lines, around, std::slice::from_ref(mark)))
            } else {
                group.element(Origin::path(path).line(line).char_column(column))
            };
        }
    }
    match help {
        Some(help) => group.element(Level::HELP.message(help.as_str())),
        None => group,
    }
}

type Mark<'a> = (AnnotationKind, Range<usize>, Option<&'a str>);

/// Some lines with what is to be said about them.
fn snippet<'a>(
    path: &'a str,
    lines: &Lines<'a>,
    part: Range<usize>,
    marks: &[Mark<'a>],
) -> Snippet<'a, annotate_snippets::Annotation<'a>> {
    let (first_line, _) = lines.place(part.start);
    let snippet = Snippet::source(&lines.text[part.clone()]).line_start(first_line).path(path);
    marks.iter().fold(snippet, |snippet, (kind, span, label)| {
        let annotation = kind.span(span.start - part.start..span.end - part.start);
        snippet.annotation(match label {
            Some(label) => annotation.label(*label),
            None => annotation,
        })
    })
}

/// A text with the place where each of its lines begins.
struct Lines<'a> {
    text: &'a str,
    starts: Vec<usize>,
}

impl<'a> Lines<'a> {
    fn of(text: &'a str) -> Self {
        let breaks = text.bytes().enumerate().filter(|(_, byte)| *byte == b'\n').map(|(at, _)| at + 1);
        Self { text, starts: std::iter::once(0).chain(breaks).collect() }
    }

    /// The whole lines that a part of the text touches, without the last one's end.
    fn around(&self, part: Range<usize>) -> Range<usize> {
        let (first, _) = self.place(part.start);
        let end = self.text[part.end..].find('\n').map_or(self.text.len(), |end| part.end + end);
        self.starts[first - 1]..end
    }

    /// Line and column, from 1, of a byte on a character boundary.
    fn place(&self, at: usize) -> (usize, usize) {
        let line = self.starts.partition_point(|start| *start <= at);
        (line, self.text[self.starts[line - 1]..at].chars().count() + 1)
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

//! A file of user-data as people write it for cloud-init: of what kind it is, and whether cloud-init would take it.
//! Pure.

use saphyr_parser::{Event, Parser, ScanError};

use crate::names::quoted;

/// The longest file, in bytes.
pub const LARGEST: u64 = 256 << 10;

/// A file of user-data that cloud-init takes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RawUserData {
    /// What it is.
    pub kind: Kind,
    /// It, as it is.
    pub text: String,
}

/// What user-data can be («user-data formats» in cloud-init's manual), told by its first line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// `#cloud-config`
    Config,
    /// `#cloud-config-archive`
    Archive,
    /// `#cloud-config-jsonp`
    Patch,
    /// `#!`
    Script,
    /// `#include`
    Include,
    /// `#include-once`
    IncludeOnce,
    /// `#cloud-boothook`
    Boothook,
    /// `#part-handler`
    PartHandler,
    /// `## template: jinja`
    Template,
    /// A MIME message.
    Mime,
}

/// First lines, and what they mean.
const BEGINNINGS: [(&str, Kind); 8] = [
    ("#cloud-config", Kind::Config),
    ("#cloud-config-archive", Kind::Archive),
    ("#cloud-config-jsonp", Kind::Patch),
    ("#include", Kind::Include),
    ("#include-once", Kind::IncludeOnce),
    ("#cloud-boothook", Kind::Boothook),
    ("#part-handler", Kind::PartHandler),
    ("## template: jinja", Kind::Template),
];

impl Kind {
    /// Its content type.
    pub(super) fn content_type(self) -> &'static str {
        match self {
            Self::Config => "text/cloud-config",
            Self::Archive => "text/cloud-config-archive",
            Self::Patch => "text/cloud-config-jsonp",
            Self::Script => "text/x-shellscript",
            Self::Include => "text/x-include-url",
            Self::IncludeOnce => "text/x-include-once-url",
            Self::Boothook => "text/cloud-boothook",
            Self::PartHandler => "text/part-handler",
            Self::Template => "text/jinja2",
            Self::Mime => "multipart/mixed",
        }
    }
}

/// Why cloud-init would not take a file, or would ignore it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Unfit {
    /// It is compressed.
    #[error("is compressed")]
    Gzip,
    /// It is no text.
    #[error("line {line} is not UTF-8")]
    NotText {
        /// The line, from 1.
        line: usize,
    },
    /// It begins with a mark that hides the first line.
    #[error("begins with a byte order mark, behind which cloud-init does not see what it is")]
    Mark,
    /// Its first line is nothing that cloud-init knows.
    #[error("begins with {0}, by which cloud-init does not know what it is")]
    Unknown(String),
    /// It holds nothing but its first line.
    #[error("holds nothing but its first line")]
    Empty,
    /// It is no YAML.
    #[error("line {line} is no YAML: {reason}")]
    Yaml {
        /// The line, from 1.
        line: usize,
        /// What the parser says.
        reason: String,
    },
    /// It is YAML of another shape.
    #[error("holds {found}, and {wanted} is wanted")]
    Shape {
        /// What is there.
        found: &'static str,
        /// What cloud-init reads.
        wanted: &'static str,
    },
    /// A script of another system.
    #[error("has lines that end with CR LF, which no interpreter takes in its first line")]
    CarriageReturn,
    /// A message that cloud-init takes for none.
    #[error("is a message without a line «MIME-Version: 1.0» near its beginning")]
    Version,
}

impl Unfit {
    /// What to do about it.
    pub fn help(&self) -> &'static str {
        match self {
            Self::Gzip => "unpack it: the seed has room",
            Self::NotText { .. } | Self::Mark => "write it as UTF-8 without a byte order mark",
            Self::Unknown(_) => {
                "begin it with #cloud-config, #!/bin/sh, #include, #include-once, #cloud-boothook, #part-handler, \
                 #cloud-config-archive, #cloud-config-jsonp or ## template: jinja, or with the headers of a MIME message"
            }
            Self::Empty => "write what cloud-init is to do, or remove user_data",
            Self::Yaml { .. } | Self::Shape { .. } => {
                "correct it; on a machine with cloud-init, `cloud-init schema --config-file FILE` says more"
            }
            Self::CarriageReturn => "convert it: sed -i 's/\\r$//' FILE",
            Self::Version => "add MIME-Version: 1.0 to its headers",
        }
    }
}

impl RawUserData {
    /// A file's content, as far as can be told without running cloud-init.
    ///
    /// # Errors
    /// [`Unfit`] where cloud-init would refuse or ignore it.
    pub fn parse(bytes: Vec<u8>) -> Result<Self, Unfit> {
        if bytes.starts_with(&[0x1f, 0x8b]) {
            return Err(Unfit::Gzip);
        }
        let text = String::from_utf8(bytes).map_err(|error| {
            let good = &error.as_bytes()[..error.utf8_error().valid_up_to()];
            Unfit::NotText { line: good.iter().filter(|byte| **byte == b'\n').count() + 1 }
        })?;
        if text.starts_with('\u{feff}') {
            return Err(Unfit::Mark);
        }
        let kind = kind(&text)?;
        match kind {
            Kind::Config => yaml(&text, Shape::Mapping)?,
            Kind::Archive | Kind::Patch => yaml(&text, Shape::List)?,
            Kind::Script if first_line(&text).ends_with('\r') => return Err(Unfit::CarriageReturn),
            Kind::Mime if !head(&text).contains("mime-version:") => return Err(Unfit::Version),
            Kind::Template => template(&text)?,
            // A line of them may be all that there is: `#include https://…`.
            Kind::Script | Kind::Mime | Kind::Include | Kind::IncludeOnce | Kind::Boothook | Kind::PartHandler => {}
        }
        Ok(Self { kind, text })
    }
}

fn first_line(text: &str) -> &str {
    text.split('\n').next().unwrap_or_default()
}

/// As much of it as cloud-init looks at for a message's version.
fn head(text: &str) -> String {
    text.chars().take(4096).collect::<String>().to_ascii_lowercase()
}

fn kind(text: &str) -> Result<Kind, Unfit> {
    let line = first_line(text);
    if line.starts_with("#!") {
        return Ok(Kind::Script);
    }
    let lower = line.to_ascii_lowercase();
    if lower.starts_with("mime-version:") || lower.starts_with("content-type:") {
        return Ok(Kind::Mime);
    }
    let fits = |beginning: &str| {
        let rest = line.strip_prefix(beginning)?;
        (rest.is_empty() || rest.starts_with(char::is_whitespace)).then_some(())
    };
    let found = BEGINNINGS.iter().find(|(beginning, _)| fits(beginning).is_some());
    found.map(|(_, kind)| *kind).ok_or_else(|| Unfit::Unknown(quoted(line)))
}

/// What a template makes is seen in the guest alone, but for its kind.
fn template(text: &str) -> Result<(), Unfit> {
    let made = text.split_once('\n').map(|(_, rest)| rest).unwrap_or_default();
    match first_line(made) {
        "" => Err(Unfit::Empty),
        line if line.starts_with("#!") || line.trim_end() == "#cloud-config" => Ok(()),
        line => Err(Unfit::Unknown(quoted(line))),
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Shape {
    Mapping,
    List,
}

/// One document of that shape. No alias is followed, so no document is large by what it repeats.
fn yaml(text: &str, shape: Shape) -> Result<(), Unfit> {
    let wanted = if shape == Shape::Mapping { "a mapping" } else { "a list" };
    // The parser counts lines from 1, characters from 0.
    let bad = |error: &ScanError| Unfit::Yaml { line: error.marker().line(), reason: error.info().to_owned() };
    let mut root = None;
    for event in Parser::new_from_str(text) {
        let (event, _) = event.map_err(|error| bad(&error))?;
        match (&event, root) {
            (Event::DocumentStart(_), Some(_)) => {
                return Err(Unfit::Shape { found: "several documents", wanted });
            }
            (Event::MappingStart(..), None) => root = Some("a mapping"),
            (Event::SequenceStart(..), None) => root = Some("a list"),
            (Event::Scalar(text, ..), None) if text.is_empty() || text == "~" || text == "null" => {
                return Err(Unfit::Empty);
            }
            (Event::Scalar(..), None) => root = Some("a word"),
            _ => {}
        }
    }
    match root {
        None => Err(Unfit::Empty),
        Some(found) if found == wanted => Ok(()),
        Some(found) => Err(Unfit::Shape { found, wanted }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<Kind, Unfit> {
        RawUserData::parse(text.as_bytes().to_vec()).map(|found| found.kind)
    }

    #[test]
    fn what_cloud_init_takes() {
        let known = [
            ("#cloud-config\npackages: [nginx]\n", Kind::Config),
            ("#cloud-config\r\npackages:\r\n- nginx\r\n", Kind::Config),
            ("#cloud-config\n---\nbootcmd:\n- |\n  a: b\n", Kind::Config),
            ("#cloud-config-archive\n- type: text/x-shellscript\n  content: x\n", Kind::Archive),
            ("#cloud-config-jsonp\n[{\"op\": \"remove\", \"path\": \"/fqdn\"}]\n", Kind::Patch),
            ("#!/bin/sh\n", Kind::Script),
            ("#include https://example.org/x\n", Kind::Include),
            ("#include-once\nhttps://example.org/x\n", Kind::IncludeOnce),
            ("#cloud-boothook\n#!/bin/sh\n", Kind::Boothook),
            ("#part-handler\nimport os\n", Kind::PartHandler),
            ("## template: jinja\n#cloud-config\nhostname: {{ v1.cloud_name }}\n", Kind::Template),
            ("Content-Type: multipart/mixed; boundary=b\nMIME-Version: 1.0\n\n--b--\n", Kind::Mime),
        ];
        for (text, kind) in known {
            assert_eq!(parse(text), Ok(kind), "{text}");
        }
    }

    #[test]
    fn what_cloud_init_would_refuse_or_ignore() {
        for text in ["", "hello\n", "# cloud-config\na: b\n", "#cloud-configs\na: b\n", "\n#cloud-config\na: b\n"] {
            assert!(matches!(parse(text), Err(Unfit::Unknown(_))), "{text:?}");
        }
        for text in ["#cloud-config\n", "#cloud-config", "#cloud-config\n# nothing\n", "## template: jinja\n"] {
            assert_eq!(parse(text), Err(Unfit::Empty), "{text:?}");
        }
        for text in ["#cloud-config\n- a\n", "#cloud-config\nword\n", "#cloud-config\na: b\n---\nc: d\n"] {
            assert!(matches!(parse(text), Err(Unfit::Shape { .. })), "{text:?}: {:?}", parse(text));
        }
        let broken = parse("#cloud-config\npackages:\n  - nginx\n vim: x: y\n");
        assert!(matches!(&broken, Err(Unfit::Yaml { line: 4, .. })), "{broken:?}");
        assert_eq!(parse("#!/bin/sh\r\necho\r\n"), Err(Unfit::CarriageReturn));
        assert_eq!(parse("\u{feff}#cloud-config\na: b\n"), Err(Unfit::Mark));
        assert_eq!(parse("Content-Type: text/cloud-config\n\na: b\n"), Err(Unfit::Version));
        assert_eq!(RawUserData::parse(vec![0x1f, 0x8b, 8]), Err(Unfit::Gzip));
        assert_eq!(RawUserData::parse(b"#!/bin/sh\n\xff".to_vec()), Err(Unfit::NotText { line: 2 }));
        assert!(matches!(parse("## template: jinja\nhello\n"), Err(Unfit::Unknown(_))));
    }

    /// Deep or repeated as it likes, a file is read in time.
    #[test]
    fn hostile_yaml_ends() {
        let bomb: String =
            (0..40).map(|n| format!("a{n}: &a{n} [{}]\n", format!("*a{}, ", n.max(1) - 1).repeat(9))).collect();
        let deep = format!("a: {}", "[".repeat(60_000));
        for text in [bomb, deep, "a:\n".repeat(60_000), format!("a: {}", "!".repeat(60_000))] {
            let _ = parse(&format!("#cloud-config\n{text}"));
        }
    }
}

//! A MIME message of several parts (RFC 2046, section 5.1), the same bytes for the same parts. Pure.

use std::fmt::Write;

use crate::rule;

/// One part.
pub(super) enum Part<'a> {
    /// Any text, in base64.
    Text {
        /// Its content type.
        kind: &'a str,
        /// What it is called.
        name: &'a str,
        /// How cloud-init joins it with what is there.
        merge: Option<&'a str>,
        /// It.
        text: &'a str,
    },
    /// ASCII with lines below 998 characters, as it is.
    Plain {
        /// Its content type.
        kind: &'a str,
        /// What it is called.
        name: &'a str,
        /// It.
        text: &'a str,
    },
    /// A message of its own, with its headers.
    Whole(&'a str),
}

/// The message.
pub(super) fn message(parts: &[Part<'_>]) -> String {
    let bodies: Vec<String> = parts.iter().map(body).collect();
    let texts: Vec<&str> = bodies.iter().map(String::as_str).collect();
    // A hash of the parts, so none of them holds it unless somebody went to great lengths; then it is another.
    let boundaries = (0_u32..).map(|number| rule::boundary(number, &texts));
    let boundary = boundaries.into_iter().find(|boundary| !texts.iter().any(|text| text.contains(boundary.as_str())));
    let boundary = boundary.unwrap_or_default();
    let mut message = format!("Content-Type: multipart/mixed; boundary=\"{boundary}\"\nMIME-Version: 1.0\n\n");
    for body in &bodies {
        // The line break before a boundary is the boundary's.
        let _ = write!(message, "--{boundary}\n{body}\n");
    }
    message + &format!("--{boundary}--\n")
}

fn body(part: &Part<'_>) -> String {
    match part {
        Part::Text { kind, name, merge, text } => {
            let merge = merge.map(|merge| format!("Merge-Type: {merge}\n")).unwrap_or_default();
            format!(
                "{}Content-Transfer-Encoding: base64\n{merge}\n{}",
                head(kind, name, "utf-8"),
                base64(text.as_bytes())
            )
        }
        Part::Plain { kind, name, text } => {
            format!("{}Content-Transfer-Encoding: 7bit\n\n{text}", head(kind, name, "us-ascii"))
        }
        Part::Whole(text) => (*text).to_owned(),
    }
}

fn head(kind: &str, name: &str, charset: &str) -> String {
    format!(
        "Content-Type: {kind}; charset=\"{charset}\"\nMIME-Version: 1.0\n\
         Content-Disposition: attachment; filename=\"{name}\"\n"
    )
}

/// RFC 2045, section 6.8: lines of at most 76 characters.
fn base64(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::with_capacity(bytes.len() / 3 * 4 + bytes.len() / 50 + 8);
    for (number, chunk) in bytes.chunks(3).enumerate() {
        if number > 0 && number % 19 == 0 {
            text.push('\n');
        }
        let group = chunk.iter().chain([&0, &0]).take(3).fold(0_usize, |group, byte| group << 8 | usize::from(*byte));
        for place in 0..4 {
            let digit = DIGITS[group >> (18 - 6 * place) & 63];
            text.push(if place <= chunk.len() { char::from(digit) } else { '=' });
        }
    }
    text.push('\n');
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    /// RFC 4648, section 10.
    #[test]
    fn base64_of_the_known_texts() {
        let known =
            [("", ""), ("f", "Zg=="), ("fo", "Zm8="), ("foo", "Zm9v"), ("foob", "Zm9vYg=="), ("fooba", "Zm9vYmE=")];
        for (text, wanted) in known {
            assert_eq!(base64(text.as_bytes()).trim_end(), wanted, "{text}");
        }
        assert!(base64(&[0xff; 200]).lines().all(|line| line.len() <= 76));
    }

    #[test]
    fn a_boundary_is_in_no_part() {
        let first = message(&[Part::Whole("a")]);
        assert_eq!(first, message(&[Part::Whole("a")]));
        let boundary = first.split('"').nth(1).unwrap();
        assert!(message(&[Part::Whole(&format!("a\n--{boundary}--\n"))]).matches(boundary).count() == 1);
    }
}

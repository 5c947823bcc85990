//! The prose of a source file.

use std::{ops::Range, path::Path};

use pulldown_cmark::{CodeBlockKind, Event, Options, Parser, Tag, TagEnd};
use ra_ap_rustc_lexer::{FrontmatterAllowed, LiteralKind, TokenKind, strip_shebang, tokenize};

/// Replaces code, so that a phrase cannot extend across it.
const CODE: u8 = 0;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Comments and string literals are prose.
    Rust,
    /// Text is prose, and so are the comments of code blocks in shell, TOML or YAML.
    Markdown,
    /// Everything is prose: code in shell, TOML, YAML, SQL or JSON has no words of the list.
    Plain,
}

impl Kind {
    /// Returns how to read a file, or `None` if it has no prose.
    pub(crate) fn of(path: &Path) -> Option<Self> {
        match path.extension().and_then(|extension| extension.to_str()) {
            Some("rs") => Some(Self::Rust),
            Some("md") => Some(Self::Markdown),
            Some("sh" | "toml" | "yaml" | "yml" | "j2" | "sql" | "json" | "lua" | "mjs" | "py" | "wat") => {
                Some(Self::Plain)
            }
            _ if path.file_name()? == "Makefile" => Some(Self::Plain),
            _ => None,
        }
    }
}

/// The prose of a file, at the same offsets and on the same lines as in the file.
#[derive(Debug)]
pub(crate) struct Prose {
    pub(crate) text: String,
    /// The identifiers of Rust code.
    pub(crate) identifiers: Vec<Range<usize>>,
}

impl Prose {
    pub(crate) fn of(kind: Kind, source: &str) -> Self {
        let mut text: Vec<u8> =
            source.bytes().map(|byte| if byte.is_ascii_whitespace() { byte } else { CODE }).collect();
        let mut identifiers = Vec::new();
        match kind {
            Kind::Rust => identifiers = rust(source, &mut text),
            Kind::Markdown => markdown(source, &mut text),
            Kind::Plain => copy(source, 0..source.len(), &mut text),
        }
        if kind != Kind::Rust {
            blank_markers(&mut text);
        }
        Self { text: String::from_utf8_lossy(&text).into_owned(), identifiers }
    }
}

/// Copies comments and string literals, and returns the identifiers.
fn rust(source: &str, text: &mut [u8]) -> Vec<Range<usize>> {
    let mut identifiers = Vec::new();
    let mut start = strip_shebang(source).unwrap_or_default();
    for token in tokenize(&source[start..], FrontmatterAllowed::No) {
        let end = start + token.len as usize;
        let range = start..end;
        start = end;
        match token.kind {
            TokenKind::LineComment { .. } | TokenKind::BlockComment { .. } => {
                copy(source, range.clone(), text);
                let markers = source[range.clone()].bytes().take_while(|byte| b"/*!".contains(byte)).count();
                text[range.clone()][..markers].fill(b' ');
                mask_between(&mut text[range], b'`', b'`', |_| true);
            }
            TokenKind::Literal { kind, .. } => match kind {
                LiteralKind::Str { .. } | LiteralKind::ByteStr { .. } | LiteralKind::CStr { .. } => {
                    copy(source, range.clone(), text);
                    let literal = &mut text[range];
                    blank_escapes(literal);
                    mask_between(literal, b'{', b'}', is_placeholder);
                }
                LiteralKind::RawStr { .. } | LiteralKind::RawByteStr { .. } | LiteralKind::RawCStr { .. } => {
                    copy(source, range, text);
                }
                _ => {}
            },
            TokenKind::Ident | TokenKind::RawIdent => identifiers.push(range),
            _ => {}
        }
    }
    identifiers
}

fn markdown(source: &str, text: &mut [u8]) {
    let mut comments = None;
    for (event, range) in Parser::new_ext(source, Options::ENABLE_TABLES).into_offset_iter() {
        match event {
            Event::Start(Tag::CodeBlock(kind)) => comments = Some(has_comments(&kind)),
            Event::End(TagEnd::CodeBlock) => comments = None,
            Event::Text(_) => match comments {
                None => copy(source, range, text),
                Some(true) => {
                    for line in source[range.clone()].split_inclusive('\n') {
                        let line_start = line.as_ptr().addr() - source.as_ptr().addr();
                        if let Some(at) = line.find('#') {
                            copy(source, line_start + at..line_start + line.len(), text);
                        }
                    }
                }
                Some(false) => {}
            },
            // Comments in HTML can mark a rightful use; they are no prose.
            _ => {}
        }
    }
}

fn has_comments(kind: &CodeBlockKind<'_>) -> bool {
    matches!(kind, CodeBlockKind::Fenced(language) if ["sh", "toml", "yaml"].contains(&language.as_ref()))
}

fn copy(source: &str, range: Range<usize>, text: &mut [u8]) {
    text[range.clone()].copy_from_slice(&source.as_bytes()[range]);
}

/// Replaces the marker of a comment or of a list at the start of each line, so that a phrase can continue there.
fn blank_markers(text: &mut [u8]) {
    for line in text.split_mut(|byte| *byte == b'\n') {
        let markers =
            line.iter_mut().take_while(|byte| byte.is_ascii_whitespace() || b"#/-;>".contains(byte));
        markers.for_each(|byte| *byte = b' ');
    }
}

/// Replaces `\n` and other escapes by spaces; a line break after a backslash stays.
fn blank_escapes(literal: &mut [u8]) {
    let mut at = 0;
    while let [.., _] = literal[at..] {
        if literal[at] != b'\\' {
            at += 1;
            continue;
        }
        literal[at] = b' ';
        if let Some(escaped) = literal.get_mut(at + 1).filter(|byte| **byte != b'\n') {
            *escaped = b' ';
        }
        at += 2;
    }
}

/// Replaces `open`...`close` by code, where `is_code` accepts what is between.
fn mask_between(text: &mut [u8], open: u8, close: u8, is_code: impl Fn(&[u8]) -> bool) {
    let mut at = 0;
    while let Some(start) = text[at..].iter().position(|byte| *byte == open).map(|start| at + start) {
        let Some(len) = text[start + 1..].iter().position(|byte| *byte == close) else { return };
        let inside = start + 1..start + 1 + len;
        if is_code(&text[inside.clone()]) {
            text[start..=inside.end].iter_mut().filter(|byte| **byte != b'\n').for_each(|byte| *byte = CODE);
            at = inside.end + 1;
        } else {
            at = inside.start;
        }
    }
}

/// Whether `{...}` in a string literal is the place of an argument.
fn is_placeholder(inside: &[u8]) -> bool {
    inside.iter().all(|byte| byte.is_ascii_alphanumeric() || b"_:.?#<>^$*+".contains(byte))
}

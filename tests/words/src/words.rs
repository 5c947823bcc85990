//! The word list and its phrases.

use std::{collections::BTreeSet, ops::Range};

use anyhow::{Context as _, bail};

use crate::prose::Prose;

/// Marks a rightful use of a phrase.
const ALLOW: &str = "words: allow ";

/// See `words.txt` for its format.
#[derive(Debug)]
pub(crate) struct WordList {
    phrases: Vec<Entry>,
    identifiers: Vec<Entry>,
}

#[derive(Debug)]
struct Entry {
    phrase: Phrase,
    instead: String,
    /// Longer phrases in which this one is correct.
    except: Vec<Phrase>,
}

/// Words that follow each other.
#[derive(Debug)]
struct Phrase(Vec<Pattern>);

/// A word in lower case, or the start of one.
#[derive(Debug)]
enum Pattern {
    Word(String),
    Prefix(String),
}

#[derive(Debug)]
pub(crate) struct Finding {
    pub(crate) line: usize,
    pub(crate) message: String,
}

/// A word of a text, and whether only white space is between it and the word before.
#[derive(Debug)]
struct Word {
    range: Range<usize>,
    text: String,
    continues: bool,
}

impl WordList {
    pub(crate) fn parse(list: &str) -> anyhow::Result<Self> {
        let (mut phrases, mut identifiers) = (Vec::new(), Vec::new());
        let mut section = &mut phrases;
        for (line, number) in list.lines().map(str::trim).zip(1..) {
            match line {
                "" => {}
                "[phrases]" => section = &mut phrases,
                "[identifiers]" => section = &mut identifiers,
                _ if line.starts_with('#') => {}
                _ => section.push(Entry::parse(line).with_context(|| format!("words.txt:{number}"))?),
            }
        }
        Ok(Self { phrases, identifiers })
    }

    /// Returns the findings in one file, in the order of its lines.
    pub(crate) fn check(&self, prose: &Prose, source: &str) -> Vec<Finding> {
        let allowed = allowed(source);
        let mut used = BTreeSet::new();
        let mut findings = Vec::new();
        let starts: Vec<usize> =
            [0].into_iter().chain(source.match_indices('\n').map(|(at, _)| at + 1)).collect();
        let mut report = |entry: &Entry, at: usize, found: &str| {
            let line = starts.partition_point(|start| *start <= at);
            let mark = allowed.iter().position(|(marked, phrase)| {
                (*marked == line || *marked + 1 == line) && phrase.eq_ignore_ascii_case(found)
            });
            match mark {
                Some(mark) => _ = used.insert(mark),
                None => {
                    findings.push(Finding { line, message: format!("\"{found}\": write {}", entry.instead) })
                }
            }
        };
        let words = words(&without_marks(&prose.text));
        for entry in &self.phrases {
            for at in (0..words.len()).filter(|at| entry.phrase.matches(&words[*at..])) {
                let end = at + entry.phrase.0.len();
                if !entry.is_excepted(&words, at..end) {
                    let found: Vec<&str> = words[at..end].iter().map(|word| word.text.as_str()).collect();
                    report(entry, words[at].range.start, &found.join(" "));
                }
            }
        }
        for entry in &self.identifiers {
            for identifier in &prose.identifiers {
                if entry.phrase.0[0].matches(&source[identifier.clone()]) {
                    report(entry, identifier.start, &source[identifier.clone()]);
                }
            }
        }
        let unused = allowed.iter().enumerate().filter(|(mark, _)| !used.contains(mark));
        findings.extend(unused.map(|(_, (line, phrase))| Finding {
            line: *line,
            message: format!("`{ALLOW}{phrase}` marks nothing: remove it"),
        }));
        findings.sort_by_key(|finding| finding.line);
        findings
    }
}

impl Entry {
    /// Parses `phrase | what to write instead | longer phrase that is correct; another`.
    fn parse(line: &str) -> anyhow::Result<Self> {
        let columns: Vec<&str> = line.split('|').map(str::trim).collect();
        let ([phrase, instead], except) = match columns[..] {
            [phrase, instead] => ([phrase, instead], ""),
            [phrase, instead, except] => ([phrase, instead], except),
            _ => bail!("expected `phrase | instead` or `phrase | instead | exceptions`"),
        };
        let except = except.split(';').filter(|except| !except.trim().is_empty()).map(Phrase::parse);
        Ok(Self {
            phrase: Phrase::parse(phrase)?,
            instead: instead.to_owned(),
            except: except.collect::<Result<_, _>>()?,
        })
    }

    fn is_excepted(&self, words: &[Word], found: Range<usize>) -> bool {
        self.except.iter().any(|except| {
            let len = except.0.len();
            (found.end.saturating_sub(len)..=found.start)
                .any(|at| at + len >= found.end && except.matches(&words[at..]))
        })
    }
}

impl Phrase {
    fn parse(text: &str) -> anyhow::Result<Self> {
        let words = text.split_whitespace().map(|word| match word.strip_suffix('*') {
            Some(prefix) => Pattern::Prefix(prefix.to_owned()),
            None => Pattern::Word(word.to_owned()),
        });
        let words: Vec<_> = words.collect();
        if words.is_empty() {
            bail!("a phrase without words");
        }
        Ok(Self(words))
    }

    fn matches(&self, words: &[Word]) -> bool {
        words.len() >= self.0.len()
            && self.0.iter().zip(words).all(|(pattern, word)| pattern.matches(&word.text))
            && words[1..self.0.len()].iter().all(|word| word.continues)
    }
}

impl Pattern {
    fn matches(&self, word: &str) -> bool {
        match self {
            Self::Word(this) => word == this,
            Self::Prefix(prefix) => word.starts_with(prefix),
        }
    }
}

/// Returns the words of a text in lower case. Underscores and hyphens join, so that a name of code is a single word.
fn words(text: &str) -> Vec<Word> {
    let is_part = |c: char| c.is_alphanumeric() || "_-'".contains(c);
    let mut words: Vec<Word> = Vec::new();
    let mut at = 0;
    while let Some(start) = text[at..].find(is_part).map(|start| at + start) {
        let end = text[start..].find(|c| !is_part(c)).map_or(text.len(), |len| start + len);
        let continues = text[at..start].chars().all(char::is_whitespace);
        let text = text[start..end].trim_matches(['\'', '-']).to_lowercase();
        words.push(Word { range: start..end, text, continues });
        at = end;
    }
    words
}

/// Returns the marks of rightful uses, each with its line.
fn allowed(source: &str) -> Vec<(usize, String)> {
    let marks = source.lines().zip(1..).filter_map(|(line, number)| {
        let (before, phrase) = line.split_once(ALLOW)?;
        let is_comment = ["//", "#", "<!--", "--"].iter().any(|marker| before.trim_end().ends_with(marker));
        is_comment.then(|| (number, phrase.trim_end_matches("-->").trim().to_owned()))
    });
    marks.collect()
}

/// Blanks the marks, which contain the phrases that they allow.
fn without_marks(text: &str) -> String {
    let mut blanked = String::with_capacity(text.len());
    for line in text.split_inclusive('\n') {
        match line.find(ALLOW) {
            Some(at) => {
                blanked.push_str(&line[..at]);
                blanked.extend(line[at..].bytes().map(|byte| if byte == b'\n' { '\n' } else { ' ' }));
            }
            None => blanked.push_str(line),
        }
    }
    blanked
}

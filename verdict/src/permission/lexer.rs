//! Tokens of conditions.

use alloc::{format, string::String};

use super::bytecode::Comparison;

/// The comparison operators. A longer one comes before its prefix.
const COMPARISONS: [(&str, Comparison); 6] = [
    ("==", Comparison::Equal),
    ("!=", Comparison::NotEqual),
    ("<=", Comparison::AtMost),
    (">=", Comparison::AtLeast),
    ("<", Comparison::Less),
    (">", Comparison::More),
];

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Token<'a> {
    Word(&'a str),
    Text(&'a str),
    Number(u64),
    Comparison(Comparison),
    Open,
    Close,
    Comma,
    End,
}

/// A syntax or type error in a condition. Columns count characters from 1.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct ConditionError {
    pub(super) column: Option<usize>,
    pub(super) message: String,
}

impl ConditionError {
    pub(super) fn at_column(column: usize, message: impl Into<String>) -> Self {
        Self { column: Some(column), message: message.into() }
    }
}

pub(super) struct Lexer<'a> {
    source: &'a str,
    rest: &'a str,
}

impl<'a> Lexer<'a> {
    pub(super) const fn new(source: &'a str) -> Self {
        Self { source, rest: source }
    }

    /// Returns the next token and its column.
    pub(super) fn next(&mut self) -> Result<(Token<'a>, usize), ConditionError> {
        self.rest = self.rest.trim_start_matches([' ', '\t', '\n', '\r']);
        let column = self.column();
        let token = match self.rest.chars().next() {
            None => Token::End,
            Some('(') => self.lex_symbol(1, Token::Open),
            Some(')') => self.lex_symbol(1, Token::Close),
            Some(',') => self.lex_symbol(1, Token::Comma),
            Some('\'') => self.lex_text(column)?,
            Some('0'..='9') => self.lex_number(column)?,
            Some(letter) if letter.is_ascii_alphabetic() => Token::Word(self.lex_word()),
            Some(other) => self.lex_comparison(column, other)?,
        };
        Ok((token, column))
    }

    fn column(&self) -> usize {
        let before = self.source.len().saturating_sub(self.rest.len());
        self.source.get(..before).map_or(0, |before| before.chars().count()).saturating_add(1)
    }

    fn lex_symbol(&mut self, length: usize, token: Token<'a>) -> Token<'a> {
        self.rest = self.rest.get(length..).unwrap_or_default();
        token
    }

    fn lex_comparison(&mut self, column: usize, found: char) -> Result<Token<'a>, ConditionError> {
        for (operator, comparison) in COMPARISONS {
            if self.rest.starts_with(operator) {
                return Ok(self.lex_symbol(operator.len(), Token::Comparison(comparison)));
            }
        }
        Err(ConditionError::at_column(column, format!("unexpected `{}`", found.escape_debug())))
    }

    fn lex_text(&mut self, column: usize) -> Result<Token<'a>, ConditionError> {
        let inner = self.rest.get(1..).unwrap_or_default();
        let (text, rest) =
            inner.split_once('\'').ok_or_else(|| ConditionError::at_column(column, "unclosed text"))?;
        if text.contains(|letter: char| letter == '\\' || letter.is_control()) {
            return Err(ConditionError::at_column(
                column,
                "a text must not contain backslashes or control characters",
            ));
        }
        self.rest = rest;
        Ok(Token::Text(text))
    }

    fn lex_number(&mut self, column: usize) -> Result<Token<'a>, ConditionError> {
        let word = self.lex_word();
        match word.parse() {
            Ok(number) if word.bytes().all(|byte| byte.is_ascii_digit()) => Ok(Token::Number(number)),
            _ => Err(ConditionError::at_column(column, format!("`{word}` is not a number"))),
        }
    }

    fn lex_word(&mut self) -> &'a str {
        let end = self.rest.find(|letter: char| !letter.is_ascii_alphanumeric() && letter != '_');
        let (word, rest) = self.rest.split_at_checked(end.unwrap_or(self.rest.len())).unwrap_or_default();
        self.rest = rest;
        word
    }
}

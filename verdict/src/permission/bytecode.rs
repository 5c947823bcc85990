//! Compiled permission statements: bytecode that is evaluated in place.
//!
//! ```text
//!  1  format (1)
//!     each statement: 1  effect: 0 deny, 1 allow
//!                     v  number of patterns, at least 1
//!                        each: 1  0 the whole name, 1 how the name starts
//!                              v  length, text
//!                     v  length of the condition, 0 for none
//!                        instructions, in postfix order:
//!                        1 and, 2 or, 3 not
//!                        4 address in: 4  IPv4 network, 1  bits
//!                        5 address in: 16 IPv6 network, 1  bits
//!                        6 compare:    1  0 == 1 != 2 < 3 <= 4 > 5 >=, then two operands of one type:
//!                           0 text (v length, text)  1 path variable (v length, name)  2 user name
//!                           3 number (v)  4 day since 1970-01-01 (v)  5 today
//! ```
//! `v` is a LEB128 integer in its shortest form. Every statement has exactly one encoding.

use core::net::{Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;
use serde::Deserialize;

use super::network;

/// The first byte: the version of the format.
pub(super) const FORMAT: u8 = 1;

/// The maximum height of the evaluation stack. Conditions written by hand need only a few entries.
pub(super) const MAX_STACK_HEIGHT: usize = 32;

/// The opcode of [`Op::And`].
pub(super) const AND: u8 = 1;
/// The opcode of [`Op::Or`].
pub(super) const OR: u8 = 2;
/// The opcode of [`Op::Not`].
pub(super) const NOT: u8 = 3;
/// The opcode of [`Op::AddressIn`] for an IPv4 network.
pub(super) const IPV4: u8 = 4;
/// The opcode of [`Op::AddressIn`] for an IPv6 network.
pub(super) const IPV6: u8 = 5;
/// The opcode of [`Op::Compare`].
pub(super) const COMPARE: u8 = 6;

/// Malformed compiled statements, with the name of the malformed part.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the compiled permissions are malformed: {0}")]
pub struct InvalidBytecode(pub &'static str);

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Effect {
    Deny,
    Allow,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Comparison {
    Equal,
    NotEqual,
    Less,
    AtMost,
    More,
    AtLeast,
}

impl Comparison {
    pub(super) const ALL: [Self; 6] =
        [Self::Equal, Self::NotEqual, Self::Less, Self::AtMost, Self::More, Self::AtLeast];
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Operand<'a> {
    Text(&'a [u8]),
    PathVariable(&'a [u8]),
    UserName,
    Number(u64),
    Day(u64),
    Today,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Type {
    Text,
    Number,
    Date,
}

impl Operand<'_> {
    pub(super) const fn operand_type(&self) -> Type {
        match self {
            Self::Text(_) | Self::PathVariable(_) | Self::UserName => Type::Text,
            Self::Number(_) => Type::Number,
            Self::Day(_) | Self::Today => Type::Date,
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Op<'a> {
    And,
    Or,
    Not,
    AddressIn(IpNet),
    Compare(Comparison, Operand<'a>, Operand<'a>),
}

/// A compiled statement.
pub(super) struct Statement<'a> {
    pub(super) effect: Effect,
    pub(super) patterns: Patterns<'a>,
    pub(super) condition: Bytecode<'a>,
}

/// The bytecode that has not been read yet.
#[derive(Clone, Copy)]
pub(super) struct Bytecode<'a>(pub(super) &'a [u8]);

impl<'a> Bytecode<'a> {
    pub(super) fn parse(bytes: &'a [u8]) -> Result<Self, InvalidBytecode> {
        match bytes.split_first() {
            Some((&FORMAT, rest)) => Ok(Self(rest)),
            _ => Err(InvalidBytecode("format")),
        }
    }

    /// Returns the next statement, or `None` at the end.
    pub(super) fn next_statement(&mut self) -> Result<Option<Statement<'a>>, InvalidBytecode> {
        if self.0.is_empty() {
            return Ok(None);
        }
        let effect = match self.u8("effect")? {
            0 => Effect::Deny,
            1 => Effect::Allow,
            _ => return Err(InvalidBytecode("effect")),
        };
        let remaining = self.varint("number of patterns")?;
        if remaining == 0 {
            return Err(InvalidBytecode("number of patterns"));
        }
        let start = *self;
        for _ in 0..remaining {
            self.pattern()?;
        }
        let length = start.0.len().saturating_sub(self.0.len());
        let patterns = Patterns(Self(start.0.get(..length).unwrap_or_default()));
        let condition = Self(self.text("condition")?);
        Ok(Some(Statement { effect, patterns, condition }))
    }

    /// Returns the next operation, or `None` at the end.
    pub(super) fn next_op(&mut self) -> Result<Option<Op<'a>>, InvalidBytecode> {
        if self.0.is_empty() {
            return Ok(None);
        }
        Ok(Some(match self.u8("operation")? {
            AND => Op::And,
            OR => Op::Or,
            NOT => Op::Not,
            IPV4 => {
                let address = Ipv4Addr::from_octets(self.array("network")?);
                let network = network::canonical(address, self.u8("bits")?);
                Op::AddressIn(network.ok_or(InvalidBytecode("network"))?)
            }
            IPV6 => {
                let address = Ipv6Addr::from_octets(self.array("network")?);
                let network = network::canonical(address, self.u8("bits")?);
                Op::AddressIn(network.ok_or(InvalidBytecode("network"))?)
            }
            COMPARE => {
                let operator = usize::from(self.u8("comparison")?);
                let operator = *Comparison::ALL.get(operator).ok_or(InvalidBytecode("comparison"))?;
                let (left, right) = (self.operand()?, self.operand()?);
                if left.operand_type() != right.operand_type() {
                    return Err(InvalidBytecode("types of a comparison"));
                }
                Op::Compare(operator, left, right)
            }
            _ => return Err(InvalidBytecode("operation")),
        }))
    }

    fn operand(&mut self) -> Result<Operand<'a>, InvalidBytecode> {
        Ok(match self.u8("operand")? {
            0 => Operand::Text(self.text("text")?),
            1 => Operand::PathVariable(self.text("path variable")?),
            2 => Operand::UserName,
            3 => Operand::Number(self.varint("number")?),
            4 => Operand::Day(self.varint("day")?),
            5 => Operand::Today,
            _ => return Err(InvalidBytecode("operand")),
        })
    }

    fn pattern(&mut self) -> Result<(bool, &'a [u8]), InvalidBytecode> {
        let prefix = match self.u8("kind of a pattern")? {
            0 => false,
            1 => true,
            _ => return Err(InvalidBytecode("kind of a pattern")),
        };
        Ok((prefix, self.text("pattern")?))
    }

    fn text(&mut self, what: &'static str) -> Result<&'a [u8], InvalidBytecode> {
        let length = usize::try_from(self.varint(what)?).map_err(|_| InvalidBytecode(what))?;
        let (text, rest) = self.0.split_at_checked(length).ok_or(InvalidBytecode(what))?;
        self.0 = rest;
        Ok(text)
    }

    fn u8(&mut self, what: &'static str) -> Result<u8, InvalidBytecode> {
        self.array(what).map(|[byte]| byte)
    }

    fn array<const N: usize>(&mut self, what: &'static str) -> Result<[u8; N], InvalidBytecode> {
        let (array, rest) = self.0.split_first_chunk().ok_or(InvalidBytecode(what))?;
        self.0 = rest;
        Ok(*array)
    }

    fn varint(&mut self, what: &'static str) -> Result<u64, InvalidBytecode> {
        let mut value = 0u64;
        for shift in (0..64).step_by(7) {
            let byte = self.u8(what)?;
            let part = u64::from(byte & 0x7f);
            if part.leading_zeros() < shift {
                return Err(InvalidBytecode(what));
            }
            value |= part << shift;
            if byte < 0x80 {
                return if byte == 0 && shift > 0 { Err(InvalidBytecode(what)) } else { Ok(value) };
            }
        }
        Err(InvalidBytecode(what))
    }
}

/// The patterns of a statement, which have been checked once.
pub(super) struct Patterns<'a>(Bytecode<'a>);

impl Patterns<'_> {
    pub(super) fn matches(mut self, api: &str) -> bool {
        while let Ok((prefix, text)) = self.0.pattern() {
            let api = api.as_bytes();
            if if prefix { api.starts_with(text) } else { api == text } {
                return true;
            }
        }
        false
    }
}

/// Checks that the bytecode is well-formed up to the last byte.
pub(super) fn check(bytes: &[u8]) -> Result<(), InvalidBytecode> {
    if bytes.len() > super::MAX_COMPILED_BYTES {
        return Err(InvalidBytecode("length"));
    }
    let mut bytecode = Bytecode::parse(bytes)?;
    while let Some(statement) = bytecode.next_statement()? {
        check_condition(statement.condition)?;
    }
    Ok(())
}

/// Checks that every operation finds its operands on the stack, and that the stack stays within its maximum height.
pub(super) fn check_condition(mut bytecode: Bytecode<'_>) -> Result<(), InvalidBytecode> {
    if bytecode.0.is_empty() {
        return Ok(());
    }
    let mut stack_height = 0usize;
    while let Some(op) = bytecode.next_op()? {
        let (popped, pushed) = match op {
            Op::And | Op::Or => (2, 1),
            Op::Not => (1, 1),
            Op::AddressIn(_) | Op::Compare(..) => (0, 1),
        };
        stack_height =
            stack_height.checked_sub(popped).ok_or(InvalidBytecode("stack"))?.saturating_add(pushed);
        if stack_height > MAX_STACK_HEIGHT {
            return Err(InvalidBytecode("height of the stack"));
        }
    }
    if stack_height == 1 { Ok(()) } else { Err(InvalidBytecode("stack")) }
}

//! Compiled statements: bytes that are interpreted where they lie.
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
//! `v` is LEB128 in its shortest form. There is one encoding of each statement.

use core::net::{Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;
use serde::Deserialize;

use super::network;

/// Compiled statements that are none; names the part that is wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the compiled permissions are malformed: {0}")]
pub struct Malformed(pub &'static str);

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
    pub(super) const fn of(&self) -> Type {
        match self {
            Self::Text(_) | Self::PathVariable(_) | Self::UserName => Type::Text,
            Self::Number(_) => Type::Number,
            Self::Day(_) | Self::Today => Type::Date,
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Instruction<'a> {
    And,
    Or,
    Not,
    AddressIn(IpNet),
    Compare(Comparison, Operand<'a>, Operand<'a>),
}

/// A statement in its bytes.
pub(super) struct Statement<'a> {
    pub(super) effect: Effect,
    pub(super) patterns: Patterns<'a>,
    pub(super) condition: Code<'a>,
}

/// What is left to read.
#[derive(Clone, Copy)]
pub(super) struct Code<'a>(pub(super) &'a [u8]);

impl<'a> Code<'a> {
    pub(super) fn open(bytes: &'a [u8]) -> Result<Self, Malformed> {
        match bytes.split_first() {
            Some((&FORMAT, rest)) => Ok(Self(rest)),
            _ => Err(Malformed("format")),
        }
    }

    /// None at the end.
    pub(super) fn statement(&mut self) -> Result<Option<Statement<'a>>, Malformed> {
        if self.0.is_empty() {
            return Ok(None);
        }
        let effect = match self.u8("effect")? {
            0 => Effect::Deny,
            1 => Effect::Allow,
            _ => return Err(Malformed("effect")),
        };
        let left = self.varint("number of patterns")?;
        if left == 0 {
            return Err(Malformed("number of patterns"));
        }
        let start = *self;
        for _ in 0..left {
            self.pattern()?;
        }
        let length = start.0.len().saturating_sub(self.0.len());
        let patterns = Patterns(Self(start.0.get(..length).unwrap_or_default()));
        let condition = Self(self.text("condition")?);
        Ok(Some(Statement { effect, patterns, condition }))
    }

    /// None at the end.
    pub(super) fn instruction(&mut self) -> Result<Option<Instruction<'a>>, Malformed> {
        if self.0.is_empty() {
            return Ok(None);
        }
        Ok(Some(match self.u8("instruction")? {
            AND => Instruction::And,
            OR => Instruction::Or,
            NOT => Instruction::Not,
            IPV4 => {
                let address = Ipv4Addr::from_octets(self.array("network")?);
                let network = network::canonical(address, self.u8("bits")?);
                Instruction::AddressIn(network.ok_or(Malformed("network"))?)
            }
            IPV6 => {
                let address = Ipv6Addr::from_octets(self.array("network")?);
                let network = network::canonical(address, self.u8("bits")?);
                Instruction::AddressIn(network.ok_or(Malformed("network"))?)
            }
            COMPARE => {
                let operator = usize::from(self.u8("comparison")?);
                let operator = *Comparison::ALL.get(operator).ok_or(Malformed("comparison"))?;
                let (left, right) = (self.operand()?, self.operand()?);
                if left.of() != right.of() {
                    return Err(Malformed("types of a comparison"));
                }
                Instruction::Compare(operator, left, right)
            }
            _ => return Err(Malformed("instruction")),
        }))
    }

    fn operand(&mut self) -> Result<Operand<'a>, Malformed> {
        Ok(match self.u8("operand")? {
            0 => Operand::Text(self.text("text")?),
            1 => Operand::PathVariable(self.text("path variable")?),
            2 => Operand::UserName,
            3 => Operand::Number(self.varint("number")?),
            4 => Operand::Day(self.varint("day")?),
            5 => Operand::Today,
            _ => return Err(Malformed("operand")),
        })
    }

    fn pattern(&mut self) -> Result<(bool, &'a [u8]), Malformed> {
        let prefix = match self.u8("kind of a pattern")? {
            0 => false,
            1 => true,
            _ => return Err(Malformed("kind of a pattern")),
        };
        Ok((prefix, self.text("pattern")?))
    }

    fn text(&mut self, what: &'static str) -> Result<&'a [u8], Malformed> {
        let length = usize::try_from(self.varint(what)?).map_err(|_| Malformed(what))?;
        let (text, rest) = self.0.split_at_checked(length).ok_or(Malformed(what))?;
        self.0 = rest;
        Ok(text)
    }

    fn u8(&mut self, what: &'static str) -> Result<u8, Malformed> {
        self.array(what).map(|[byte]| byte)
    }

    fn array<const N: usize>(&mut self, what: &'static str) -> Result<[u8; N], Malformed> {
        let (array, rest) = self.0.split_first_chunk().ok_or(Malformed(what))?;
        self.0 = rest;
        Ok(*array)
    }

    fn varint(&mut self, what: &'static str) -> Result<u64, Malformed> {
        let mut value = 0u64;
        for shift in (0..64).step_by(7) {
            let byte = self.u8(what)?;
            let part = u64::from(byte & 0x7f);
            if part.leading_zeros() < shift {
                return Err(Malformed(what));
            }
            value |= part << shift;
            if byte < 0x80 {
                return if byte == 0 && shift > 0 { Err(Malformed(what)) } else { Ok(value) };
            }
        }
        Err(Malformed(what))
    }
}

/// The patterns of a statement, which were read once already.
pub(super) struct Patterns<'a>(Code<'a>);

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

/// Whether it is exactly what could have been written, to the last byte.
pub(super) fn check(bytes: &[u8]) -> Result<(), Malformed> {
    if bytes.len() > super::MAX_COMPILED_BYTES {
        return Err(Malformed("length"));
    }
    let mut code = Code::open(bytes)?;
    while let Some(statement) = code.statement()? {
        check_condition(statement.condition)?;
    }
    Ok(())
}

/// Every instruction finds what it takes on the stack, which is never higher than it can be.
pub(super) fn check_condition(mut code: Code<'_>) -> Result<(), Malformed> {
    if code.0.is_empty() {
        return Ok(());
    }
    let mut height = 0usize;
    while let Some(instruction) = code.instruction()? {
        let (takes, gives) = match instruction {
            Instruction::And | Instruction::Or => (2, 1),
            Instruction::Not => (1, 1),
            Instruction::AddressIn(_) | Instruction::Compare(..) => (0, 1),
        };
        height = height.checked_sub(takes).ok_or(Malformed("stack"))?.saturating_add(gives);
        if height > MAX_HEIGHT {
            return Err(Malformed("height of the stack"));
        }
    }
    if height == 1 { Ok(()) } else { Err(Malformed("stack")) }
}

pub(super) const FORMAT: u8 = 1;

/// Results that wait for an `and` or an `or`: what somebody writes by hand needs a handful.
pub(super) const MAX_HEIGHT: usize = 32;

pub(super) const AND: u8 = 1;
pub(super) const OR: u8 = 2;
pub(super) const NOT: u8 = 3;
pub(super) const IPV4: u8 = 4;
pub(super) const IPV6: u8 = 5;
pub(super) const COMPARE: u8 = 6;

//! Conditions: from text to instructions in postfix order, by the shunting-yard method. No recursion: whoever nests
//! deeply reaches a limit, not the end of a stack.

use alloc::{format, vec::Vec};

use super::{
    code::{Code, Instruction, Operand, Type, check_condition},
    date,
    encode::write_instruction,
    lexer::{ConditionError, Lexer, Token},
    network,
};

pub(super) fn compile(source: &str) -> Result<Vec<u8>, ConditionError> {
    if source.len() > MAX_CONDITION_BYTES {
        let message = format!("longer than {MAX_CONDITION_BYTES} bytes");
        return Err(ConditionError { column: None, message });
    }
    let mut compiler = Compiler { lexer: Lexer::new(source), pending: Vec::new(), out: Vec::new() };
    loop {
        compiler.operand()?;
        if compiler.operator()? {
            break;
        }
    }
    check_condition(Code(&compiler.out))
        .map_err(|_| ConditionError { column: None, message: "nested too deeply".into() })?;
    Ok(compiler.out)
}

struct Compiler<'a> {
    lexer: Lexer<'a>,
    pending: Vec<Pending>,
    out: Vec<u8>,
}

/// What waits for its operands, weakest last.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Pending {
    Not,
    And,
    Or,
    /// With its column.
    Open(usize),
}

impl<'a> Compiler<'a> {
    /// Everything up to what can stand in front of `and`: any `not` and `(`, then one predicate.
    fn operand(&mut self) -> Result<(), ConditionError> {
        loop {
            let (token, column) = self.lexer.next()?;
            match token {
                Token::Word("not") => self.push(Pending::Not, column)?,
                Token::Open => self.push(Pending::Open(column), column)?,
                _ => return self.predicate(token, column),
            }
        }
    }

    /// Any `)`, then `and`, `or` or the end. Whether it is the end.
    fn operator(&mut self) -> Result<bool, ConditionError> {
        loop {
            let (token, column) = self.lexer.next()?;
            match token {
                Token::Close => {
                    self.settle(Pending::Or);
                    if self.pending.pop().is_none() {
                        return Err(ConditionError::at(column, "no parenthesis is open"));
                    }
                }
                Token::Word("and") => {
                    self.settle(Pending::And);
                    return self.push(Pending::And, column).map(|()| false);
                }
                Token::Word("or") => {
                    self.settle(Pending::Or);
                    return self.push(Pending::Or, column).map(|()| false);
                }
                Token::End => {
                    self.settle(Pending::Or);
                    return match self.pending.pop() {
                        Some(Pending::Open(open)) => {
                            Err(ConditionError::at(open, "the parenthesis is not closed"))
                        }
                        _ => Ok(true),
                    };
                }
                _ => return Err(ConditionError::at(column, "expected `and`, `or`, `)` or the end")),
            }
        }
    }

    fn push(&mut self, pending: Pending, column: usize) -> Result<(), ConditionError> {
        if self.pending.len() >= MAX_PENDING {
            return Err(ConditionError::at(column, "nested too deeply"));
        }
        self.pending.push(pending);
        Ok(())
    }

    /// Writes what waits and binds at least as strongly.
    fn settle(&mut self, than: Pending) {
        while let Some(pending) = self.pending.pop_if(|pending| *pending <= than) {
            let instruction = match pending {
                Pending::Not => Instruction::Not,
                Pending::And => Instruction::And,
                Pending::Or | Pending::Open(_) => Instruction::Or,
            };
            write_instruction(&mut self.out, instruction);
        }
    }

    fn predicate(&mut self, token: Token<'a>, column: usize) -> Result<(), ConditionError> {
        if token == Token::Word("ipAddress") {
            let (text, column) = self.argument("ipAddress")?;
            let network = network::parse(text)
                .map_err(|why| ConditionError::at(column, format!("`{}` is {why}", text.escape_debug())))?;
            write_instruction(&mut self.out, Instruction::AddressIn(network));
            return Ok(());
        }
        let left = self.value(token, column)?;
        let (token, at) = self.lexer.next()?;
        let Token::Comparison(comparison) = token else {
            return Err(ConditionError::at(at, "expected a comparison"));
        };
        let (token, at) = self.lexer.next()?;
        let right = self.value(token, at)?;
        if left.of() != right.of() {
            let message = format!("{} is compared with {}", describe(left.of()), describe(right.of()));
            return Err(ConditionError::at(column, message));
        }
        write_instruction(&mut self.out, Instruction::Compare(comparison, left, right));
        Ok(())
    }

    fn value(&mut self, token: Token<'a>, column: usize) -> Result<Operand<'a>, ConditionError> {
        match token {
            Token::Text(text) => Ok(Operand::Text(text.as_bytes())),
            Token::Number(number) => Ok(Operand::Number(number)),
            Token::Word("samUserName") => Ok(Operand::UserName),
            Token::Word("currentDate") => Ok(Operand::Today),
            Token::Word("pathVariable") => {
                let (name, column) = self.argument("pathVariable")?;
                if is_variable(name) {
                    Ok(Operand::PathVariable(name.as_bytes()))
                } else {
                    let message = format!("`{}` is not the name of a path variable", name.escape_debug());
                    Err(ConditionError::at(column, message))
                }
            }
            Token::Word("date") => self.date(column),
            Token::Word("ipAddress") => {
                Err(ConditionError::at(column, "`ipAddress` is true or false and not compared"))
            }
            Token::Word("and" | "or") => {
                Err(ConditionError::at(column, "expected a value, `not`, `(` or `ipAddress`"))
            }
            Token::Word(word) => Err(ConditionError::at(column, format!("unknown name `{word}`"))),
            Token::End => Err(ConditionError::at(column, "the condition ends too early")),
            _ => Err(ConditionError::at(column, "expected a value, `not`, `(` or `ipAddress`")),
        }
    }

    /// `(text)` and its column.
    fn argument(&mut self, of: &str) -> Result<(&'a str, usize), ConditionError> {
        self.expect(Token::Open, of)?;
        let (token, column) = self.lexer.next()?;
        let Token::Text(text) = token else {
            return Err(ConditionError::at(column, format!("`{of}` takes one text")));
        };
        self.expect(Token::Close, of)?;
        Ok((text, column))
    }

    /// `(year, month, day)`
    fn date(&mut self, column: usize) -> Result<Operand<'a>, ConditionError> {
        let mut parts = [0; 3];
        let mut before = Token::Open;
        for part in &mut parts {
            self.expect(before, "date")?;
            let (token, at) = self.lexer.next()?;
            let Token::Number(number) = token else {
                return Err(ConditionError::at(at, "`date` takes year, month and day"));
            };
            *part = number;
            before = Token::Comma;
        }
        self.expect(Token::Close, "date")?;
        let [year, month, day] = parts;
        let day = date::day(year, month, day);
        day.map(Operand::Day).ok_or_else(|| ConditionError::at(column, "no such date from 1970 to 9999"))
    }

    fn expect(&mut self, expected: Token<'_>, of: &str) -> Result<(), ConditionError> {
        let (token, column) = self.lexer.next()?;
        let what = match (expected, of) {
            _ if token == expected => return Ok(()),
            (_, "date") => "`date` takes year, month and day, in parentheses",
            _ => "expected one text in parentheses",
        };
        Err(ConditionError::at(column, what))
    }
}

const fn describe(of: Type) -> &'static str {
    match of {
        Type::Text => "a text",
        Type::Number => "a number",
        Type::Date => "a date",
    }
}

/// As in a template of a path.
pub(crate) fn is_variable(name: &str) -> bool {
    let usual = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-');
    (1..=64).contains(&name.len()) && name.bytes().all(usual)
}

const MAX_CONDITION_BYTES: usize = 2048;

/// Every `not` and `(` that is open, and what waits for the right-hand side in between.
const MAX_PENDING: usize = 64;

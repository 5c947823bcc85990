//! Compiles conditions to operations in postfix order with the shunting-yard algorithm. It does not recurse, so deep
//! nesting reaches a limit and not the end of the call stack.

use alloc::{format, vec::Vec};

use super::{
    bytecode::{Bytecode, Op, Operand, Type, check_condition},
    date,
    encode::write_op,
    lexer::{ConditionError, Lexer, Token},
    network,
};

const MAX_CONDITION_BYTES: usize = 2048;

/// The maximum number of waiting operators and open parentheses.
const MAX_OPERATORS: usize = 64;

pub(super) fn compile(source: &str) -> Result<Vec<u8>, ConditionError> {
    if source.len() > MAX_CONDITION_BYTES {
        let message = format!("longer than {MAX_CONDITION_BYTES} bytes");
        return Err(ConditionError { column: None, message });
    }
    let mut compiler = Compiler { lexer: Lexer::new(source), operators: Vec::new(), out: Vec::new() };
    loop {
        compiler.parse_operand()?;
        if compiler.parse_operator()? {
            break;
        }
    }
    check_condition(Bytecode(&compiler.out))
        .map_err(|_| ConditionError { column: None, message: "nested too deeply".into() })?;
    Ok(compiler.out)
}

struct Compiler<'a> {
    lexer: Lexer<'a>,
    operators: Vec<StackOp>,
    out: Vec<u8>,
}

/// An operator that waits for its operand, in order of precedence.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum StackOp {
    Not,
    And,
    Or,
    /// An open parenthesis and its column.
    Open(usize),
}

impl<'a> Compiler<'a> {
    /// Parses everything before an operator: any `not` and `(`, then one predicate.
    fn parse_operand(&mut self) -> Result<(), ConditionError> {
        loop {
            let (token, column) = self.lexer.next()?;
            match token {
                Token::Word("not") => self.push(StackOp::Not, column)?,
                Token::Open => self.push(StackOp::Open(column), column)?,
                _ => return self.parse_predicate(token, column),
            }
        }
    }

    /// Parses any `)`, then `and`, `or` or the end. Returns whether the end was reached.
    fn parse_operator(&mut self) -> Result<bool, ConditionError> {
        loop {
            let (token, column) = self.lexer.next()?;
            match token {
                Token::Close => {
                    self.reduce_until(StackOp::Or);
                    if self.operators.pop().is_none() {
                        return Err(ConditionError::at_column(column, "unmatched closing parenthesis"));
                    }
                }
                Token::Word("and") => {
                    self.reduce_until(StackOp::And);
                    return self.push(StackOp::And, column).map(|()| false);
                }
                Token::Word("or") => {
                    self.reduce_until(StackOp::Or);
                    return self.push(StackOp::Or, column).map(|()| false);
                }
                Token::End => {
                    self.reduce_until(StackOp::Or);
                    return match self.operators.pop() {
                        Some(StackOp::Open(open)) => {
                            Err(ConditionError::at_column(open, "unclosed parenthesis"))
                        }
                        _ => Ok(true),
                    };
                }
                _ => return Err(ConditionError::at_column(column, "expected `and`, `or`, `)` or the end")),
            }
        }
    }

    fn push(&mut self, operator: StackOp, column: usize) -> Result<(), ConditionError> {
        if self.operators.len() >= MAX_OPERATORS {
            return Err(ConditionError::at_column(column, "nested too deeply"));
        }
        self.operators.push(operator);
        Ok(())
    }

    /// Writes the waiting operators that bind at least as strongly as `operator`.
    fn reduce_until(&mut self, operator: StackOp) {
        while let Some(top) = self.operators.pop_if(|top| *top <= operator) {
            let op = match top {
                StackOp::Not => Op::Not,
                StackOp::And => Op::And,
                StackOp::Or | StackOp::Open(_) => Op::Or,
            };
            write_op(&mut self.out, op);
        }
    }

    fn parse_predicate(&mut self, token: Token<'a>, column: usize) -> Result<(), ConditionError> {
        if token == Token::Word("ipAddress") {
            let (text, column) = self.parse_argument("ipAddress")?;
            let network = network::parse(text).map_err(|why| {
                ConditionError::at_column(column, format!("`{}` is {why}", text.escape_debug()))
            })?;
            write_op(&mut self.out, Op::AddressIn(network));
            return Ok(());
        }
        let left = self.parse_value(token, column)?;
        let (token, at) = self.lexer.next()?;
        let Token::Comparison(comparison) = token else {
            return Err(ConditionError::at_column(at, "expected a comparison"));
        };
        let (token, at) = self.lexer.next()?;
        let right = self.parse_value(token, at)?;
        if left.operand_type() != right.operand_type() {
            let message = format!(
                "cannot compare {} with {}",
                describe(left.operand_type()),
                describe(right.operand_type())
            );
            return Err(ConditionError::at_column(column, message));
        }
        write_op(&mut self.out, Op::Compare(comparison, left, right));
        Ok(())
    }

    fn parse_value(&mut self, token: Token<'a>, column: usize) -> Result<Operand<'a>, ConditionError> {
        match token {
            Token::Text(text) => Ok(Operand::Text(text.as_bytes())),
            Token::Number(number) => Ok(Operand::Number(number)),
            Token::Word("samUserName") => Ok(Operand::UserName),
            Token::Word("currentDate") => Ok(Operand::Today),
            Token::Word("pathVariable") => {
                let (name, column) = self.parse_argument("pathVariable")?;
                if is_variable(name) {
                    Ok(Operand::PathVariable(name.as_bytes()))
                } else {
                    let message = format!("`{}` is not the name of a path variable", name.escape_debug());
                    Err(ConditionError::at_column(column, message))
                }
            }
            Token::Word("date") => self.parse_date(column),
            Token::Word("ipAddress") => {
                Err(ConditionError::at_column(column, "`ipAddress` is a boolean and cannot be compared"))
            }
            Token::Word("and" | "or") => {
                Err(ConditionError::at_column(column, "expected a value, `not`, `(` or `ipAddress`"))
            }
            Token::Word(word) => Err(ConditionError::at_column(column, format!("unknown name `{word}`"))),
            Token::End => Err(ConditionError::at_column(column, "unexpected end of the condition")),
            _ => Err(ConditionError::at_column(column, "expected a value, `not`, `(` or `ipAddress`")),
        }
    }

    /// Parses `(text)` and returns the text and its column.
    fn parse_argument(&mut self, of: &str) -> Result<(&'a str, usize), ConditionError> {
        self.expect(Token::Open, of)?;
        let (token, column) = self.lexer.next()?;
        let Token::Text(text) = token else {
            return Err(ConditionError::at_column(column, format!("`{of}` takes one text")));
        };
        self.expect(Token::Close, of)?;
        Ok((text, column))
    }

    /// Parses `(year, month, day)`.
    fn parse_date(&mut self, column: usize) -> Result<Operand<'a>, ConditionError> {
        let mut parts = [0; 3];
        let mut before = Token::Open;
        for part in &mut parts {
            self.expect(before, "date")?;
            let (token, at) = self.lexer.next()?;
            let Token::Number(number) = token else {
                return Err(ConditionError::at_column(at, "`date` takes year, month and day"));
            };
            *part = number;
            before = Token::Comma;
        }
        self.expect(Token::Close, "date")?;
        let [year, month, day] = parts;
        let day = date::day_number(year, month, day);
        day.map(Operand::Day)
            .ok_or_else(|| ConditionError::at_column(column, "no such date from 1970 to 9999"))
    }

    fn expect(&mut self, expected: Token<'_>, of: &str) -> Result<(), ConditionError> {
        let (token, column) = self.lexer.next()?;
        let what = match (expected, of) {
            _ if token == expected => return Ok(()),
            (_, "date") => "`date` takes year, month and day, in parentheses",
            _ => "expected one text in parentheses",
        };
        Err(ConditionError::at_column(column, what))
    }
}

const fn describe(of: Type) -> &'static str {
    match of {
        Type::Text => "a text",
        Type::Number => "a number",
        Type::Date => "a date",
    }
}

/// Returns whether a text is the name of a path variable, as in a path template.
pub(crate) fn is_variable(name: &str) -> bool {
    let is_permitted = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-');
    (1..=64).contains(&name.len()) && name.bytes().all(is_permitted)
}

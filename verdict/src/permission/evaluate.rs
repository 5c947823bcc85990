//! Evaluates compiled permissions.

use core::cmp::Ordering;

use super::{
    AccessDecision, AccessRequest, InvalidBytecode,
    bytecode::{Bytecode, Comparison, Effect, MAX_STACK_HEIGHT, Op, Operand},
    date, network,
};

/// Evaluates compiled statements in place. Callers must refuse access on an error.
///
/// # Errors
///
/// Returns [`InvalidBytecode`] for bytes that [`Permissions::as_bytes`](super::Permissions::as_bytes) cannot return.
pub fn evaluate(compiled: &[u8], request: &AccessRequest<'_>) -> Result<AccessDecision, InvalidBytecode> {
    let mut bytecode = Bytecode::parse(compiled)?;
    let mut decision = AccessDecision::NotAllowed;
    while let Some(statement) = bytecode.next_statement()? {
        if !statement.patterns.matches(request.api) {
            continue;
        }
        match (statement.effect, eval_condition(statement.condition, request)?) {
            (Effect::Deny, Some(true) | None) => return Ok(AccessDecision::Denied),
            (Effect::Allow, Some(true)) => decision = AccessDecision::Allowed,
            (Effect::Deny, Some(false)) | (Effect::Allow, Some(false) | None) => {}
        }
    }
    Ok(decision)
}

/// A three-valued truth value (Kleene logic). `None` means unknown.
type Truth = Option<bool>;

/// Evaluates a condition. An empty condition is true.
fn eval_condition(
    mut condition: Bytecode<'_>,
    request: &AccessRequest<'_>,
) -> Result<Truth, InvalidBytecode> {
    if condition.0.is_empty() {
        return Ok(Some(true));
    }
    let mut stack = Stack { slots: [None; MAX_STACK_HEIGHT], height: 0 };
    while let Some(op) = condition.next_op()? {
        let result = match op {
            Op::And => and3(stack.pop()?, stack.pop()?),
            Op::Or => or3(stack.pop()?, stack.pop()?),
            Op::Not => stack.pop()?.map(|truth| !truth),
            Op::AddressIn(network) => request.client.map(|client| network::contains(network, client)),
            Op::Compare(operator, left, right) => {
                compare(left, right, request).map(|order| operator.matches(order))
            }
        };
        stack.push(result)?;
    }
    let result = stack.pop()?;
    if stack.height == 0 { Ok(result) } else { Err(InvalidBytecode("stack")) }
}

struct Stack {
    slots: [Truth; MAX_STACK_HEIGHT],
    height: usize,
}

impl Stack {
    fn push(&mut self, truth: Truth) -> Result<(), InvalidBytecode> {
        *self.slots.get_mut(self.height).ok_or(InvalidBytecode("height of the stack"))? = truth;
        self.height = self.height.saturating_add(1);
        Ok(())
    }

    fn pop(&mut self) -> Result<Truth, InvalidBytecode> {
        self.height = self.height.checked_sub(1).ok_or(InvalidBytecode("stack"))?;
        self.slots.get(self.height).copied().ok_or(InvalidBytecode("stack"))
    }
}

const fn and3(left: Truth, right: Truth) -> Truth {
    match (left, right) {
        (Some(false), _) | (_, Some(false)) => Some(false),
        (Some(true), Some(true)) => Some(true),
        _ => None,
    }
}

const fn or3(left: Truth, right: Truth) -> Truth {
    match (left, right) {
        (Some(true), _) | (_, Some(true)) => Some(true),
        (Some(false), Some(false)) => Some(false),
        _ => None,
    }
}

impl Comparison {
    const fn matches(self, order: Ordering) -> bool {
        match self {
            Self::Equal => order.is_eq(),
            Self::NotEqual => order.is_ne(),
            Self::Less => order.is_lt(),
            Self::AtMost => order.is_le(),
            Self::More => order.is_gt(),
            Self::AtLeast => order.is_ge(),
        }
    }
}

/// Compares two operands, or returns `None` if one of them is unknown or they are of different types. Texts are compared by their bytes.
fn compare(left: Operand<'_>, right: Operand<'_>, request: &AccessRequest<'_>) -> Option<Ordering> {
    match (number_value(left, request), number_value(right, request)) {
        (Some(left), Some(right)) => Some(left.cmp(&right)),
        _ => Some(text_value(left, request)?.cmp(text_value(right, request)?)),
    }
}

fn number_value(operand: Operand<'_>, request: &AccessRequest<'_>) -> Option<u64> {
    match operand {
        Operand::Number(number) => Some(number),
        Operand::Day(day) => Some(day),
        Operand::Today => Some(date::day_at(request.now)),
        Operand::Text(_) | Operand::PathVariable(_) | Operand::UserName => None,
    }
}

fn text_value<'a>(operand: Operand<'a>, request: &AccessRequest<'a>) -> Option<&'a [u8]> {
    match operand {
        Operand::Text(text) => Some(text),
        Operand::PathVariable(name) => {
            let (_, value) = request.variables.iter().find(|(known, _)| known.as_bytes() == name)?;
            Some(value.as_bytes())
        }
        Operand::UserName => request.user_name.map(str::as_bytes),
        Operand::Number(_) | Operand::Day(_) | Operand::Today => None,
    }
}
